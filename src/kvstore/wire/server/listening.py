"""Sockets that listen, and taking connections from them.

Own accepting, for what asyncio's servers leave out: bounds before anything is made of a connection,
and living on when the process or the system has no descriptor left.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog

__all__ = ["Listening", "listen"]

BACKLOG = 1024

# Connections taken in one turn of the loop; the others wait for the next.
ACCEPTS_A_TURN = 64

# Without descriptors nothing is taken for so long.
PAUSE_S = 0.2

# Between two lines in the log of the same trouble.
LOG_INTERVAL_S = 60.0

_NOTHING_LEFT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

log = structlog.get_logger("kvstore.wire")


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of ``host``, all on one port.

    Port 0 is one that the system chooses. Raises OSError, socket.gaierror among them, when one of
    them can't be had.
    """
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, endpoint in found:
            one = socket.socket(family, kind, protocol)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(len(found) > 1))
            chosen = made[0].getsockname()[1] if port == 0 and len(made) > 1 else port
            one.bind((endpoint[0], chosen, *endpoint[2:]))
            # Now, so that nobody else has the address: who connects waits until it is served.
            one.listen(BACKLOG)
            one.setblocking(False)
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


class Listening:
    """Takes connections from sockets and hands them to ``take``, which owns them from then on."""

    def __init__(self, take: Callable[[socket.socket, Any], None]) -> None:
        self._take = take
        self._sockets: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resuming: asyncio.TimerHandle | None = None
        # Given up for a moment when no other is left: who comes then is let go, not kept waiting.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._logged_at = float("-inf")
        self._troubles = 0

    def add(self, sockets: list[socket.socket]) -> None:
        """Own ``sockets``, and take from them once started."""
        self._sockets += sockets

    def start(self) -> None:
        """Take what comes. On the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._resume()

    def close(self) -> None:
        """Take nothing any more, and give the addresses back."""
        self._pause()
        for one in self._sockets:
            one.close()
        self._sockets = []
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _resume(self) -> None:
        assert self._loop is not None
        self._resuming = None
        for one in self._sockets:
            self._loop.add_reader(one.fileno(), self._accept, one)

    def _pause(self) -> None:
        if self._loop is None:
            return
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        for one in self._sockets:
            self._loop.remove_reader(one.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NOTHING_LEFT:
                    self._no_descriptor(listener, error)
                    return
                continue  # gone before it was taken, or refused by a filter: the next one
            accepted.setblocking(False)
            self._take(accepted, address)

    def _no_descriptor(self, listener: socket.socket, error: OSError) -> None:
        """Let those who wait go, then take nobody for a moment."""
        assert self._loop is not None
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        try:
            for _ in range(ACCEPTS_A_TURN):
                listener.accept()[0].close()
        except OSError:
            pass  # nobody waits any more, or the spare one is taken: either way it is over
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = -1  # without it they wait in the system's own queue
        self._pause()
        self._resuming = self._loop.call_later(PAUSE_S, self._resume)
        self._troubles += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            log.error(
                "no connection can be taken for want of descriptors or memory",
                reason=os.strerror(error.errno or 0),
                times=self._troubles,
            )
