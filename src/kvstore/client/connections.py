"""The connections of a client, one to an address, and when another takes the place of one.

A channel of gRPC's keeps the certificates that it was made with, and waits on a connection whose
other end vanished without a word. So it is replaced when a try over it failed and the files have
changed, or when a try got no answer at all. Calls that are still under way on the former one end
there; the last of them closes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from kvstore.client.failure import Failure
from kvstore.client.options import TLS
from kvstore.errors import ClosedError, ConfigurationError

__all__ = ["Connection", "Connections"]

# What a client has to one address: a channel and its stubs.
Server = TypeVar("Server")


class Connection(Generic[Server]):
    """One to a server; ``files`` are those that it was made with."""

    __slots__ = ("address", "calls", "files", "heard", "server")

    def __init__(self, address: str, server: Server, files: object) -> None:
        self.address = address
        self.server = server
        self.files = files
        self.calls = 0
        # When a server last answered, time.monotonic().
        self.heard = float("-inf")

    def answered(self) -> None:
        """The server is there."""
        self.heard = time.monotonic()


class Connections(Generic[Server]):
    """``dial`` makes what is kept for an address."""

    def __init__(self, dial: Callable[[str], Server], tls: TLS | None) -> None:
        self._dial = dial
        self._tls = tls
        self._current: dict[str, Connection[Server]] = {}
        self._retired: set[Connection[Server]] = set()
        self._closed = False

    @property
    def in_use(self) -> bool:
        """Whether there is any."""
        return bool(self._current or self._retired)

    def take(self, address: str) -> Connection[Server]:
        """The connection to ``address`` for one call; to be given back.

        Raises ClosedError, and ConfigurationError for certificates that can't be read.
        """
        if self._closed:
            raise ClosedError("the client is closed")
        connection = self._current.get(address)
        if connection is None:
            connection = self._current[address] = self._made(address)
        connection.calls += 1
        return connection

    def give_back(self, connection: Connection[Server]) -> Server | None:
        """A call is over; what is returned is to be closed."""
        connection.calls -= 1
        if connection.calls or connection not in self._retired:
            return None
        self._retired.discard(connection)
        return connection.server

    def failed(self, connection: Connection[Server], failure: Failure, took_s: float = 0.0) -> None:
        """A try over ``connection``, of ``took_s``, failed: replace it where another one may do
        better."""
        if not failure.silent:
            connection.answered()
        silent = failure.silent and time.monotonic() - connection.heard > took_s
        if not silent and not (failure.retry and self._files() != connection.files):
            return
        if self._closed or self._current.get(connection.address) is not connection:
            return
        try:
            self._current[connection.address] = self._made(connection.address)
        except ConfigurationError:
            return  # files in the middle of an exchange; the next failure looks again
        self._retired.add(connection)

    def close(self) -> list[Server]:
        """Take no more calls; what is returned is to be closed."""
        self._closed = True
        left = [*self._current.values(), *self._retired]
        self._current, self._retired = {}, set()
        return [connection.server for connection in left]

    def _made(self, address: str) -> Connection[Server]:
        # First the files' stamps: what changes while they are read is seen the next time.
        files = self._files()
        return Connection(address, self._dial(address), files)

    def _files(self) -> object:
        return None if self._tls is None else self._tls.stamps()
