"""Clients of a store in this process' memory: the same client code, and the same server code below.

>>> from kvstore.testing import MemoryClient
>>> with MemoryClient() as client:
...     client.put(b"colour", b"green")
False

What kvd does with a call is done here by its own handlers, replica and state machine, on a disk in
memory. Only what lies between is left out: processes, sockets, certificates, other members.
"""

from __future__ import annotations

import asyncio
import weakref
from functools import partial

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.client import AsyncClient, Client, RetryPolicy, forks
from kvstore.client.attempts import seconds_of_the_world
from kvstore.client.requests import BytesLike, as_bytes
from kvstore.client.telemetry import Telemetry, calls_of
from kvstore.client.urls import Target
from kvstore.errors import ClosedError, ConfigurationError, InvalidArgumentError
from kvstore.testing.channel import MemoryChannel, Services
from kvstore.testing.node import STEP_S, MemoryNode

# What the clock does in steps; all before that in one leap.
LEAP_S = 600.0

__all__ = ["AsyncMemoryClient", "MemoryClient", "MemoryStore"]

ADDRESS = "memory:1"


class MemoryStore:
    """What clients in memory share if it is given to several of them.

    It is there as long as this object: with the last of its clients the server in it ends, and with
    the next one another begins on what there is. Clients of one store live on one event loop at a
    time; all MemoryClients do, but an AsyncMemoryClient beside them does not.
    """

    def __init__(self) -> None:
        self._disk = MemoryFileSystem()
        self._leapt = 0.0
        self._process = forks.process
        self._node: MemoryNode | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[MemoryNode] | None = None
        self._channels: set[MemoryChannel] = set()
        self._clients: weakref.WeakSet[AsyncMemoryClient] = weakref.WeakSet()

    @property
    def now(self) -> float:
        """Seconds of its clock."""
        return seconds_of_the_world() + self._leapt

    async def advance(self, seconds: float) -> None:
        """Let the clock leap, as if nothing had been done for so long.

        Leases whose time is over are lost, also those that a client keeps alive, and their keys
        gone when this returns. To be called by a client's ``advance``, on its loop.
        """
        if not seconds >= 0:
            raise InvalidArgumentError(f"a clock goes on by 0 seconds or more, not {seconds!r}")
        self._enter()
        node = await self._opened()
        await node.settle()
        until = self._leapt + seconds
        if seconds > LEAP_S:
            # At once, after which the server makes sure that it still leads, for a second or two.
            self._leapt = until - LEAP_S
            node.tick()
            await node.confirm()
        while self._leapt < until:
            self._leapt = min(self._leapt + STEP_S, until)
            node.tick()
        for client in self._clients:
            client.look()
        await node.settle()

    def dial(self, address: str) -> MemoryChannel:
        """A channel to it. Raises ConfigurationError for another event loop than that of others,
        ClosedError in a child of ``fork``."""
        self._enter()
        channel = MemoryChannel(self._services, self._left)
        self._channels.add(channel)
        return channel

    def used_by(self, client: AsyncMemoryClient) -> None:
        """Its leases are to be looked at when the clock has leapt."""
        self._clients.add(client)

    async def _services(self) -> Services:
        return (await self._opened()).services

    async def _opened(self) -> MemoryNode:
        node = self._node
        if node is not None:
            if node.failed.done():
                raise node.failed.result()
            return node
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        # Shielded: who asked for it first may go away, and others wait for the same.
        return await asyncio.shield(self._opening)

    def _enter(self) -> None:
        """See whether it can be used here, and now. Raises ConfigurationError, ClosedError."""
        if self._process != forks.process:
            raise ClosedError("the store is in the memory of the process this one was forked from")
        loop, before = asyncio.get_running_loop(), self._loop
        if before is loop:
            return
        if before is not None and not before.is_closed() and self._channels:
            raise ConfigurationError(
                "the store is in use on another event loop: MemoryClients share one, an "
                "AsyncMemoryClient has that of its caller"
            )
        self._end()
        self._channels.clear()
        self._opening = None
        self._loop = loop

    async def _open(self) -> MemoryNode:
        try:
            node = MemoryNode(self._disk, lambda: self.now)
            try:
                await node.ready()
            except BaseException:
                node.end()
                raise
            self._node = node
            return node
        finally:
            self._opening = None

    async def _left(self, channel: MemoryChannel) -> None:
        """One of its channels is closed."""
        self._channels.discard(channel)
        if not self._channels:
            self._end()

    def _end(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            node.end()


class AsyncMemoryClient(AsyncClient):
    """An :class:`kvstore.AsyncClient` of a store in memory: see :class:`MemoryClient`."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        user: str | None = None,
        password: str | None = None,
        namespace: BytesLike | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """See :class:`MemoryClient`."""
        self.store = MemoryStore() if store is None else store
        """What it is of: for other clients of the same."""
        target = Target(
            (ADDRESS,),
            timeout=timeout,
            namespace=None if namespace is None else as_bytes(namespace, "namespace"),
            user=user,
            password=password,
        )
        calls = calls_of(target, retry, telemetry, self.store.dial)
        calls.clock = lambda: self.store.now
        self._set_up(calls, target, quick=False)
        self.store.used_by(self)

    async def advance(self, seconds: float) -> None:
        """Let the store's clock leap; see :meth:`MemoryClient.advance`."""
        await self.store.advance(seconds)

    def look(self) -> None:
        """The clock has leapt."""
        self._renewals.look()


class MemoryClient(Client):
    """A :class:`kvstore.Client` of a store in this process' memory, which needs no server.

    Everything is as with a kvd of its own: revisions, transactions, watches, leases, locks,
    elections, namespaces, users, errors. What it hasn't: other members, backups to be restored
    elsewhere, and history that is forgotten by itself.
    """

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        user: str | None = None,
        password: str | None = None,
        namespace: BytesLike | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """``store``: that of other clients; without one it is empty, and this client's alone. The
        rest is as for :class:`kvstore.Client`."""
        self.store = MemoryStore() if store is None else store
        """What it is of: for other clients of the same."""
        self._set_up(
            partial(
                AsyncMemoryClient,
                self.store,
                timeout=timeout,
                retry=retry,
                user=user,
                password=password,
                namespace=namespace,
                telemetry=telemetry,
            )
        )

    def advance(self, seconds: float) -> None:
        """Let the store's clock leap by so many seconds, as if everybody had stood still.

        Leases whose time is over are lost, also those that clients keep alive, and their keys gone
        when this returns. Raises InvalidArgumentError for less than 0.
        """
        work = self._begun()
        work.run(self.store.advance(seconds))
