"""What a client can be told: addresses, TLS, time and retries."""

from __future__ import annotations

import numbers
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from kvstore.addresses import DEFAULT_ADDRESS as DEFAULT_ADDRESS
from kvstore.addresses import DEFAULT_PORT as DEFAULT_PORT
from kvstore.addresses import HostPort, is_unix
from kvstore.errors import ConfigurationError, InvalidArgumentError
from kvstore.pem import read_pem
from kvstore.wire.channel_options import ChannelOptions, ChannelTLS
from kvstore.wire.tls import client_context

DEFAULT_TIMEOUT_S = 10.0

# How long a lock outlives its holder, as etcdctl's do.
LOCK_TTL_S = 60.0

# How often a function is called whose transaction others always overtake.
TRANSACT_TRIES = 16

# What a client takes as one answer. A page of keys has 8 MiB as a rule; a transaction reads as much
# as it is told to, and an event of a watch that asks for what there was before has two values.
ANSWER_BYTES_MAX = 64 << 20

CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    # We retry ourselves, with the same request id.
    ("grpc.enable_retries", 0),
    # A restarted server is found again within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Each client has connections, and so reconnect timers, of its own.
    ("grpc.use_local_subchannel_pool", 1),
    # A peer that vanished without a word is noticed while calls wait on it.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.primary_user_agent", "kvstore-python"),
]

# The same of the native wire; what isn't said here is its default.
NATIVE_OPTIONS = ChannelOptions(message_bytes_max=ANSWER_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates for a secure connection, as paths of PEM files.

    ``ca`` verifies the server (``None``: the system's authorities). ``cert`` and ``key`` prove the
    client where the server asks for it; both or neither. ``server_name`` is the name expected in
    the server's certificate when it isn't the one in the address.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError(
                "a client certificate needs its key, and a key its certificate"
            )

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; raises ConfigurationError naming the one that can't be read."""
        ca, cert, key = self._contents()
        return grpc.ssl_channel_credentials(
            root_certificates=ca, private_key=key, certificate_chain=cert
        )

    def for_channel(self) -> ChannelTLS:
        """The same for the native wire; raises ConfigurationError as well for what isn't TLS's."""
        ca, cert, key = self._contents()
        try:
            return ChannelTLS(client_context(ca, cert, key), self.server_name)
        except ssl.SSLError as error:
            files = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path)
            raise ConfigurationError(
                f"TLS can't use {files}: {getattr(error, 'reason', None) or error}"
            ) from error

    def _contents(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        return (
            _read_optional("CA certificate", self.ca),
            _read_optional("certificate", self.cert),
            _read_optional("private key", self.key),
        )

    def stamps(self) -> tuple[object, ...]:
        """What changes when one of the files is exchanged."""
        return tuple(map(_stamp, (self.ca, self.cert, self.key)))

    def channel_options(self) -> list[tuple[str, int | str]]:
        if self.server_name is None:
            return []
        return [("grpc.ssl_target_name_override", self.server_name)]


def _stamp(path: str | Path | None) -> object:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_optional(what: str, path: str | Path | None) -> bytes | None:
    return None if path is None else read_pem(what, path)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a call that failed for a passing reason is tried again, until its timeout.

    Before try n the client waits a random time of up to
    ``min(delay_max_s, delay_first_s * 2**n)``. ``attempt_timeout_s`` bounds one try where there is
    another address to go to; with a single address a try may use half of the time that is left, if
    that is more.
    """

    delay_first_s: float = 0.02
    delay_max_s: float = 1.0
    attempt_timeout_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.delay_first_s <= self.delay_max_s:
            raise ConfigurationError("RetryPolicy needs 0 < delay_first_s <= delay_max_s")
        if self.attempt_timeout_s <= 0:
            raise ConfigurationError("RetryPolicy needs attempt_timeout_s > 0")


def parse_addresses(addresses: str | Sequence[str]) -> list[str]:
    """Return a list of ``host:port`` from a list or a comma-separated string."""
    given = addresses.split(",") if isinstance(addresses, str) else addresses
    listed = list(dict.fromkeys(address.strip() for address in given if address.strip()))
    if not listed:
        raise ConfigurationError("no server address given; expected host:port")
    for address in listed:
        if is_unix(address) or HostPort.parse(address) is not None:
            continue
        if "@" in address or "://" in address:  # which may have a password
            raise ConfigurationError(
                "malformed server address; expected host:port, or one connection string, kv://…"
            )
        raise ConfigurationError(f"malformed server address {address!r}; expected host:port")
    return listed


def checked_timeout(timeout: float | None, default: float) -> float:
    """Return ``timeout`` in seconds, or ``default`` where none was given."""
    return default if timeout is None else positive_seconds(timeout)


def positive_seconds(timeout: float) -> float:
    """Return ``timeout``. Raises InvalidArgumentError for what is no positive number."""
    if not isinstance(timeout, numbers.Real) or not timeout > 0:
        raise InvalidArgumentError(f"timeout must be a positive number of seconds, not {timeout!r}")
    return timeout
