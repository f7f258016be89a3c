"""Certificates of a native listener: each handshake gets those of its moment."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import structlog

from kvstore.errors import ConfigurationError
from kvstore.server.tls.certificate_files import CertificateFiles, Credentials
from kvstore.wire.tls import HTTP2, server_context

__all__ = ["ServerTls"]

log = structlog.get_logger("kvstore.tls")


class ServerTls:
    """A :class:`kvstore.wire.server.Tls` of files that are read again when they change.

    Where ``files`` have an authority, whoever connects must show a certificate.
    """

    def __init__(self, files: CertificateFiles, protocols: Sequence[str] = (HTTP2,)) -> None:
        """``protocols``: what is spoken, the first choice first.

        Raises ConfigurationError for an authority that OpenSSL can't use.
        """
        self._files = files
        self._protocols = protocols
        self._of = files.watched()
        files.handshakes.exact = True
        try:
            self._context = self._context_of(self._of)
        except ssl.SSLError as error:
            why = getattr(error, "reason", None) or error
            raise ConfigurationError(
                f"failed to read TLS certificate authority PEM: {why}"
            ) from error

    def context(self) -> ssl.SSLContext:
        current = self._files.current()
        if current is not self._of:
            self._of = current
            try:
                self._context = self._context_of(current)
            except ssl.SSLError as error:
                log.error(
                    "changed certificate files are no good; keeping the old",
                    reason=getattr(error, "reason", None) or str(error),
                )
        return self._context

    def begin(self) -> None:
        self._files.handshakes.begin()

    def refuse(self, peer: str, reason: str) -> None:
        self._files.handshakes.refuse(peer, reason)

    def _context_of(self, credentials: Credentials) -> ssl.SSLContext:
        return server_context(credentials.cert, credentials.key, credentials.ca, self._protocols)
