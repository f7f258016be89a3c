"""What a console is told: its cluster, where it listens, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvstore.addresses import HostPort, is_unix
from kvstore.client import TLS
from kvstore.client.options import parse_addresses
from kvstore.errors import ConfigurationError

__all__ = ["DEFAULT_LISTEN", "Options"]

DEFAULT_LISTEN = "127.0.0.1:8520"

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Options:
    """Checked when it is made: raises ConfigurationError.

    ``addresses``, ``tls``, ``timeout_s``: of the cluster, as a client's. ``metrics``: where its
    members serve metrics. ``names``: by which browsers may call the console, beside the address
    that it listens on. ``unencrypted``: beyond this machine without TLS, told to.
    """

    addresses: str
    tls: TLS | None = None
    timeout_s: float = 5.0
    listen: str = DEFAULT_LISTEN
    write: bool = False
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    unencrypted: bool = False

    def __post_init__(self) -> None:
        parse_addresses(self.addresses)
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("--serve-cert needs --serve-key, and the key its certificate")
        if not (self.endpoint.is_loopback or self.encrypted or self.unencrypted):
            raise ConfigurationError(
                f"{self.listen} can be reached from other machines, and passwords, keys and values "
                "would go there unencrypted: give --serve-cert and --serve-key, or listen on "
                "127.0.0.1 (or say --unencrypted, behind a proxy that encrypts)"
            )
        for address in self.metrics:
            if HostPort.parse(address) is None:
                raise ConfigurationError(f"--metrics wants HOST:PORT, not {address!r}")

    @property
    def endpoint(self) -> HostPort:
        endpoint = HostPort.parse(self.listen)
        if endpoint is None:
            raise ConfigurationError(f"--listen wants HOST:PORT, not {self.listen!r}")
        return endpoint

    @property
    def encrypted(self) -> bool:
        return self.certificate is not None

    @property
    def lends_rights(self) -> bool:
        """Whether the console may do more than anybody who reaches the cluster's port: it comes
        over a socket that only kvd's own user can open, or with a certificate."""
        by_certificate = self.tls is not None and self.tls.cert is not None
        return by_certificate or any(map(is_unix, parse_addresses(self.addresses)))

    @property
    def hosts(self) -> frozenset[str]:
        """The names that a request's Host may have, without ports, in lower case."""
        own = [self.endpoint.host] if not self.endpoint.is_wildcard else []
        loopback = LOOPBACK_NAMES if self.endpoint.is_loopback or self.endpoint.is_wildcard else ()
        return frozenset(name.lower() for name in (*own, *loopback, *self.names))
