"""Certificates and keys that are read again when their files change.

A thread looks at them, for their disk may hang; gRPC asks at each handshake what it saw last.
Connections of clients that exist are left alone, those between members are made anew
(``peers.streams``). Files that can't be used (half written, a key of another certificate, not PEM
at all) change nothing: the last good ones stay, and the log says why.
"""

from __future__ import annotations

import datetime
import os
import threading
import time
import weakref
from dataclasses import dataclass

import grpc
import structlog

from kvstore.errors import ConfigurationError
from kvstore.pem import read_pem
from kvstore.server.config.private_files import refuse_readable_by_others
from kvstore.server.tls.handshakes import Handshakes
from kvstore.server.tls.pem_files import check_pair
from kvstore.server.tls.validity import not_after

# How often the files are looked at.
LOOK_INTERVAL_S = 1.0

EXPIRY_WARNING = datetime.timedelta(days=30)

# How often a process that reads no new certificate warns of the old one's end, at most.
WARNING_INTERVAL_S = 24 * 3600.0

log = structlog.get_logger("kvstore.tls")


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM bytes, checked; ``ca`` is None where nobody's certificate is asked for."""

    ca: bytes | None
    cert: bytes
    key: bytes


class CertificateFiles:
    """A certificate, its key and, for mutual TLS, the authority of the other side.

    Safe to use from any thread: gRPC's ask.
    """

    def __init__(self, *, cert: str, key: str, ca: str | None = None) -> None:
        """Read the files. Raises ConfigurationError naming the one that is no good."""
        self._paths = (ca, cert, key)
        self.look_interval_s = LOOK_INTERVAL_S
        self.handshakes = Handshakes()
        self._looking = threading.Lock()
        self._starting = threading.Lock()
        self._watched = False
        self._seen = self._stamps()
        self._current = self._read()
        self.warn_of_expiry()

    def current(self) -> Credentials:
        """The last good contents. Never waits: handshakes and dials ask on threads of others."""
        return self._current

    def look(self) -> None:
        """Read the files again if they changed. May take as long as their disk does.

        Nothing while another thread is at it.
        """
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._look()
            if time.monotonic() - self._warned >= WARNING_INTERVAL_S:
                self.warn_of_expiry()
        finally:
            self._looking.release()

    def _keep_looking(self) -> None:
        """From now on, on a thread of its own, for as long as this object is in use."""
        with self._starting:
            if self._watched:
                return
            self._watched = True
        threading.Thread(
            target=_look_again_and_again,
            args=(weakref.ref(self),),
            name="certificates",
            daemon=True,
        ).start()

    def expires(self) -> datetime.datetime:
        """When the certificate in use ends."""
        return not_after(self._current.cert)

    @property
    def has_ended(self) -> bool:
        """Whether the certificate in use is over."""
        return self.expires() <= datetime.datetime.now(datetime.UTC)

    def warn_of_expiry(self) -> None:
        """Log a warning if the certificate in use ends soon, an error if it has ended."""
        self._warned = time.monotonic()
        left = self.expires() - datetime.datetime.now(datetime.UTC)
        if left <= datetime.timedelta(0):
            log.error("certificate has expired", file=self._paths[1], expired=str(self.expires()))
        elif left <= EXPIRY_WARNING:
            log.warning("certificate expires soon", file=self._paths[1], days_left=left.days)

    def watched(self) -> Credentials:
        """The same; from now on the files are looked at again and again."""
        self._keep_looking()
        return self._current

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials of a listener; with ``ca``, whoever connects must show a certificate."""
        handed = self.watched()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Called by gRPC at each handshake, one at a time; None: as before."""
            nonlocal handed
            self.handshakes.begin()
            current = self.current()
            if current is handed:
                return None
            handed = current
            return _configuration(current)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(handed),
            fetch,  # type: ignore[arg-type]
            require_client_authentication=handed.ca is not None,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials to dial with, as the files were at the last look."""
        current = self.watched()
        return grpc.ssl_channel_credentials(current.ca, current.key, current.cert)

    def _look(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._current = self._read()
        except (ConfigurationError, OSError) as error:
            log.error("changed certificate files are no good; keeping the old", reason=str(error))
            return
        log.info("certificate read again", file=self._paths[1], expires=str(self.expires()))
        self.warn_of_expiry()

    def _read(self) -> Credentials:
        ca_path, cert_path, key_path = self._paths
        assert cert_path is not None
        assert key_path is not None
        cert = read_pem("certificate", cert_path)
        key = read_pem("private key", key_path)
        refuse_readable_by_others("TLS private key PEM", key_path)
        check_pair(cert_path, key_path)
        not_after(cert)
        ca = None if ca_path is None else read_pem("certificate authority", ca_path)
        return Credentials(ca, cert, key)

    def _stamps(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._paths if path is not None)


def _look_again_and_again(files: weakref.ref[CertificateFiles]) -> None:
    while (watched := files()) is not None:
        watched.look()
        pause_s = watched.look_interval_s
        del watched
        time.sleep(pause_s)


def _configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key, credentials.cert)], root_certificates=credentials.ca
    )


def _stamp(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns
