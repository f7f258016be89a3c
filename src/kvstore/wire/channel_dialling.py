"""From an address to a connection that speaks HTTP/2, or to the words why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - the resolver's, which else is imported at the first call
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from kvstore.addresses import HostPort, is_unix
from kvstore.wire.channel_connection import Connection
from kvstore.wire.channel_options import ChannelTLS
from kvstore.wire.errors import RpcError
from kvstore.wire.resolving import Found, resolved

__all__ = ["Target", "dial"]

# A name's addresses are tried one after the other; the next one this long after the one before.
STAGGER_S = 0.25

# Of one name.
ADDRESSES_MAX = 16

Answer: TypeAlias = "asyncio.Future[Connection]"
Make: TypeAlias = Callable[[str, Answer], Connection]


@dataclass(frozen=True, slots=True)
class Target:
    """What is dialled. Raises ValueError for an address that can't be."""

    address: str
    tls: ChannelTLS | None

    def __post_init__(self) -> None:
        if not is_unix(self.address) and HostPort.parse(self.address) is None:
            raise ValueError(f"malformed address {self.address!r}")

    @property
    def authority(self) -> str:
        """What goes as ``:authority``; a zone is this machine's business."""
        if is_unix(self.address):
            return "localhost"
        host, percent, rest = self.address.partition("%")
        return host + rest[rest.index("]") :] if percent else host

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"


@dataclass(frozen=True, slots=True)
class _Place:
    """One address of the system's kind."""

    family: int
    sockaddr: tuple[object, ...] | str
    words: str


async def dial(target: Target, make: Make, timeout_s: float) -> Connection:
    """A connection that the server has sent its settings on.

    ``make`` gives the protocol for a place, which sets the future handed to it. Raises RpcError.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _first(target, await _places(target.address), make)
    except TimeoutError:
        raise _cannot(target.address, f"no answer within {timeout_s:g} s") from None


async def _places(address: str) -> list[_Place]:
    if is_unix(address):
        path = address.removeprefix("unix:")
        return [_Place(socket.AF_UNIX, path, address)]
    parsed = HostPort.parse(address)
    assert parsed is not None
    kind = socket.SOCK_STREAM
    found: Found
    try:
        try:
            found = socket.getaddrinfo(
                parsed.host, parsed.port, type=kind, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            found = await resolved(parsed.host, parsed.port)
    except (OSError, UnicodeError) as error:
        raise _cannot(address, f"the name can't be resolved: {_words(error)}") from error
    return [
        _Place(family, sockaddr, str(HostPort(str(sockaddr[0]), parsed.port)))
        for family, _, _, _, sockaddr in found[:ADDRESSES_MAX]
    ]


async def _first(target: Target, places: list[_Place], make: Make) -> Connection:
    """The first connection there is. Raises the RpcError of the last place that gave none."""
    pending: set[asyncio.Task[Connection]] = set()
    won: Connection | None = None
    error: RpcError | None = None
    try:
        while won is None and (places or pending):
            if places:
                pending.add(asyncio.create_task(_connect(target, places.pop(0), make)))
            timeout_s = STAGGER_S if places else None
            done, pending = await asyncio.wait(
                pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                failure = task.exception()
                if failure is None and won is None:
                    won = task.result()
                elif failure is None:
                    task.result().abort("another address was faster")
                elif isinstance(failure, RpcError):
                    error = failure
                else:
                    raise failure
    finally:
        for task in pending:
            task.cancel()
    if won is None:
        raise error or _cannot(target.address, "the name has no address")
    return won


async def _connect(target: Target, place: _Place, make: Make) -> Connection:
    loop = asyncio.get_running_loop()
    connected: Answer = loop.create_future()
    protocol: Connection | None = None

    def protocol_made() -> Connection:
        nonlocal protocol
        protocol = make(place.words, connected)
        return protocol

    try:
        made = socket.socket(place.family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot(place.words, _words(error)) from error
    try:
        made.setblocking(False)
        if place.family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(made, place.sockaddr)
        tls = target.tls
        transport, _ = await loop.create_connection(
            protocol_made,
            sock=made,
            ssl=None if tls is None else tls.context,
            server_hostname=None if tls is None else _server_name(target.address, tls),
        )
        if tls is not None:
            spoken = transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if spoken != "h2":
                raise _cannot(place.words, "the server doesn't offer HTTP/2 over TLS (ALPN)")
        return await connected
    except ssl.SSLCertVerificationError as error:
        raise _cannot(
            place.words, f"the server's certificate can't be trusted: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        # Only OpenSSL's own have a reason.
        why = getattr(error, "reason", None) or str(error)
        raise _cannot(place.words, f"TLS failed: {why}") from error
    except (ConnectionResetError, BrokenPipeError) as error:
        raise _cannot(place.words, "Socket closed") from error
    except OSError as error:
        raise _cannot(place.words, _words(error)) from error
    except RpcError as error:
        raise error if error.unsent else _cannot(place.words, error.details() or "") from error
    finally:
        if not (connected.done() and not connected.cancelled() and connected.exception() is None):
            connected.cancel()
            if protocol is not None:
                protocol.abort("it wasn't used")
            else:
                with contextlib.suppress(OSError):
                    made.close()


def _server_name(address: str, tls: ChannelTLS) -> str:
    if tls.server_name is not None:
        return tls.server_name
    parsed = HostPort.parse(address)
    return "localhost" if parsed is None else parsed.host.partition("%")[0]


def _cannot(where: str, why: str) -> RpcError:
    return RpcError(grpc.StatusCode.UNAVAILABLE, f"cannot connect to {where}: {why}", unsent=True)


def _words(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return os.strerror(error.errno)  # asyncio puts words of its own there
