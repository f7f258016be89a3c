"""``host:port``, ``[v6]:port`` and ``unix:PATH``: how addresses are written, in one place.

Servers, clients and the commands read them here. A host is a DNS name or an IP address; a v6
address stands in brackets, for its colons, and may name a zone (``[fe80::1%eth0]:50051``).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_PORT",
    "SOCKET_NAME",
    "HostPort",
    "dialled",
    "is_loopback",
    "is_unix",
]

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
"""Where kvd listens that wasn't told, and where clients look for it."""

SOCKET_NAME = "admin.sock"
"""In the data directory: whoever can open it is kvd's own user, or root."""

_HOST_PORT = re.compile(
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):(?P<port>[0-9]{1,5})"
)
_WILDCARDS = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host, without brackets, and a port from 0 to 65535; 0 asks the system to choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort | None:
        """What ``text`` says; None when it is no such address."""
        match = _HOST_PORT.fullmatch(text)
        if match is None or int(match["port"]) > 65535 or not _can_be_asked_for(match["host"]):
            return None
        return cls(match["host"].strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of this machine: to listen on, not to dial."""
        return self.host in _WILDCARDS

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it.

        A name that isn't ``localhost`` may lead anywhere.
        """
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def collides(self, other: HostPort) -> bool:
        """Whether both can't be listened on at once: equal ports, equal or wildcard hosts."""
        return self.port == other.port and (
            self.host.lower() == other.host.lower() or self.is_wildcard or other.is_wildcard
        )


def _can_be_asked_for(host: str) -> bool:
    """Whether a resolver takes it: labels of a name have 1 to 63 characters."""
    try:
        host.encode("idna")
    except UnicodeError:
        return host.startswith("[")
    return True


def dialled(address: str) -> str:
    """How this machine reaches ``address``, on which a server of its own listens."""
    parsed = HostPort.parse(address)
    if parsed is None or not parsed.is_wildcard:
        return address
    return str(HostPort("::1" if ":" in parsed.host else "127.0.0.1", parsed.port))


def is_loopback(address: str) -> bool:
    """Whether ``address`` is a ``host:port`` that only this machine reaches."""
    parsed = HostPort.parse(address)
    return parsed is not None and parsed.is_loopback


def is_unix(address: str) -> bool:
    """Whether ``address`` is the path of a socket, ``unix:PATH``."""
    return re.fullmatch(r"unix:\S+", address) is not None
