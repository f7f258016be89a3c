"""Taking an address, and why one can't be had, in the words of a kvd that doesn't start."""

from __future__ import annotations

import errno
import os
import socket
from typing import Protocol

from kvstore.addresses import HostPort
from kvstore.errors import ConfigurationError

__all__ = ["bind", "reason_of", "start_failure"]


class Bindable(Protocol):
    """A ``kvstore.wire.server.Server``, which isn't there in every build."""

    def bind(self, host: str, port: int) -> int: ...


def bind(server: Bindable, address: str) -> str:
    """Bind ``server`` to ``host:port`` and return the address with the port it really has.

    Raises ConfigurationError that says why the address can't be had.
    """
    parsed = HostPort.parse(address)
    if parsed is None:
        raise start_failure(address, "malformed address; expected host:port")
    try:
        port = server.bind(parsed.host, parsed.port)
    except socket.gaierror as error:
        raise start_failure(address, f"cannot resolve {parsed.host!r}: {error.strerror}") from error
    except OSError as error:
        raise start_failure(address, reason_of(error)) from error
    return str(HostPort(parsed.host, port))


def reason_of(error: OSError) -> str:
    """Why an address can't be had, in words."""
    match error.errno:
        case errno.EADDRINUSE:
            return "address already in use"
        case errno.EADDRNOTAVAIL:
            return "no such address on this machine"
        case errno.EACCES:
            return "no permission to use that port"
        case number:
            return os.strerror(number) if number else str(error)


def start_failure(address: str, why: str) -> ConfigurationError:
    """The one line of a kvd that can't have its address."""
    return ConfigurationError(f"failed to start gRPC server on {address}: {why}")
