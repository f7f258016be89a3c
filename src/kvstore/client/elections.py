"""Elections: one leads, the others wait for their turn, and all can see who it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator

from kvstore.client.background import Runner, drawn
from kvstore.client.calls import Calls
from kvstore.client.entries import KeyValue
from kvstore.client.keys import KeyRange, single, with_prefix
from kvstore.client.locks import AsyncLock, Lock
from kvstore.client.requests import BytesLike, as_bytes
from kvstore.client.turns import Turn, oldest_of, queue_prefix
from kvstore.client.watch_stream import WatchStream
from kvstore.client.watching import AsyncWatch, watch_request
from kvstore.errors import CompactedError

__all__ = ["AsyncElection", "AsyncLeadership", "Election", "Leadership"]


class AsyncLeadership(AsyncLock):
    """A candidate, and then the leader: a lock whose holder says something to all who look.

    See :meth:`kvstore.Client.election`.
    """

    async def proclaim(self, value: BytesLike) -> None:
        """Say something else. Raises LeaseLostError if it leads no more."""
        await self._turn.proclaim(as_bytes(value, "value"))

    async def resign(self) -> None:
        """Let the next one lead. Raises LeaseLostError if it was lost before."""
        await self.release()


class AsyncElection:
    """An election by its name; see :meth:`kvstore.Client.election`."""

    def __init__(
        self,
        calls: Calls,
        stream: WatchStream,
        name: BytesLike,
        turn: Callable[[bytes], Turn],
    ) -> None:
        self._calls = calls
        self._stream = stream
        self._prefix = queue_prefix(name)
        self._turn = turn

    def campaign(self, value: BytesLike, *, wait: float | None = None) -> AsyncLeadership:
        """A candidate that leads within ``async with``; others see its ``value``.

        Entering it waits for the turn, ``wait`` seconds at most, and raises DeadlineExceededError
        if others led for so long; leaving it resigns.
        """
        return AsyncLeadership(self._turn(as_bytes(value, "value")), wait)

    async def leader(self, *, timeout: float | None = None) -> KeyValue | None:
        """Who leads: its key and what it says; None: nobody."""
        return (await oldest_of(self._calls, self._prefix, timeout))[0]

    async def observe(self) -> AsyncGenerator[KeyValue, None]:
        """Yield who leads, and again whenever that or what the leader says has changed.

        As changes follow each other some may be left out, never the last.
        """
        told: tuple[bytes, int] | None = None
        while True:
            leader, revision = await oldest_of(self._calls, self._prefix, None)
            if leader is None:
                await self._change(with_prefix(self._prefix), revision)
                continue
            if told != (leader.key, leader.mod_revision):
                told = leader.key, leader.mod_revision
                yield leader
            await self._change(single(leader.key), revision)

    async def _change(self, keys: KeyRange, revision: int) -> None:
        """Wait until something of the keys has changed since."""
        request = watch_request(keys, revision + 1, previous=False, puts=True, deletes=True)
        try:
            async with AsyncWatch(self._stream, request, self._calls.timeout) as watch:
                await watch.next()
        except CompactedError:
            pass  # something may have


class Leadership(Lock):
    """A candidate, and then the leader: a lock whose holder says something to all who look.

    See :meth:`kvstore.Client.election`.
    """

    def __init__(self, run: Runner, leadership: AsyncLeadership) -> None:
        super().__init__(run, leadership)
        self._leadership = leadership

    def proclaim(self, value: BytesLike) -> None:
        """Say something else. Raises LeaseLostError if it leads no more."""
        self._run(self._leadership.proclaim(value))

    def resign(self) -> None:
        """Let the next one lead. Raises LeaseLostError if it was lost before."""
        self.release()


class Election:
    """An election by its name; see :meth:`kvstore.Client.election`."""

    def __init__(self, run: Runner, election: AsyncElection) -> None:
        self._run = run
        self._election = election

    def campaign(self, value: BytesLike, *, wait: float | None = None) -> Leadership:
        """A candidate that leads within ``with``; others see its ``value``.

        Entering it waits for the turn, ``wait`` seconds at most, and raises DeadlineExceededError
        if others led for so long; leaving it resigns.
        """
        return Leadership(self._run, self._election.campaign(value, wait=wait))

    def leader(self, *, timeout: float | None = None) -> KeyValue | None:
        """Who leads: its key and what it says; None: nobody."""
        return self._run(self._election.leader(timeout=timeout))

    def observe(self) -> Iterator[KeyValue]:
        """Yield who leads, and again whenever that or what the leader says has changed.

        As changes follow each other some may be left out, never the last.
        """
        return drawn(self._run, self._election.observe())
