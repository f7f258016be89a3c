"""Locks that are given by the store, to one holder at a time, and taken back with its lease.

Whoever holds one may stand still past the end of its lease without knowing. What must not be done
by two at the same time is done on condition: in a transaction if it is of keys (``held``),
elsewhere by showing the ``fence``, which only grows, to who does it (Kleppmann, "How to do
distributed locking").
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from kvstore.client.background import Runner
from kvstore.client.keys import Compare
from kvstore.client.leases import lost_within
from kvstore.client.turns import Turn
from kvstore.errors import DeadlineExceededError, Error, InvalidArgumentError

__all__ = ["AsyncLock", "Lock"]


class AsyncLock:
    """One holder's lock; see :meth:`kvstore.Client.lock`."""

    def __init__(self, turn: Turn, wait: float | None) -> None:
        self._turn = turn
        self._wait = wait

    @property
    def fence(self) -> int:
        """A number greater than that of every holder before. Raises InvalidArgumentError while
        it isn't held."""
        if not self._turn.revision:
            raise InvalidArgumentError("it isn't held")
        return self._turn.revision

    @property
    def key(self) -> bytes:
        """What stands for it in the store. Raises InvalidArgumentError while nobody waits."""
        return self._turn.key

    @property
    def held(self) -> Compare:
        """The condition, for a transaction, that it is still held. Raises InvalidArgumentError."""
        return self._turn.held

    @property
    def lost(self) -> bool:
        """Whether it was held and its lease has expired, or may have."""
        return self._turn.revision > 0 and not self._turn.taken

    def check(self) -> None:
        """Raises LeaseLostError if it is lost, InvalidArgumentError if it isn't held."""
        self._turn.lease.check()

    async def acquire(self, wait: float | None = None) -> bool:
        """Wait for it, ``wait`` seconds at most; whether it is held now.

        Raises LeaseLostError if the lease was lost meanwhile, and as calls do.
        """
        return await self._turn.take(wait)

    async def release(self) -> None:
        """Let the next one have it. Raises LeaseLostError if it was lost before."""
        await self._turn.leave()

    async def wait_lost(self) -> None:
        """Wait until it is lost: for ever, if all goes well."""
        await self._turn.lease.wait_lost()

    async def __aenter__(self) -> Self:
        if not await self.acquire(self._wait):
            raise DeadlineExceededError(f"others held it for {self._wait:g} s")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._turn.leave()
        except Error:
            # It ends with its lease in any case; what the block raised matters more.
            if error is None:
                raise


class Lock:
    """One holder's lock; see :meth:`kvstore.Client.lock`."""

    def __init__(self, run: Runner, lock: AsyncLock) -> None:
        self._run = run
        self._lock = lock

    @property
    def fence(self) -> int:
        """A number greater than that of every holder before. Raises InvalidArgumentError while
        it isn't held."""
        return self._lock.fence

    @property
    def key(self) -> bytes:
        """What stands for it in the store. Raises InvalidArgumentError while nobody waits."""
        return self._lock.key

    @property
    def held(self) -> Compare:
        """The condition, for a transaction, that it is still held. Raises InvalidArgumentError."""
        return self._lock.held

    @property
    def lost(self) -> bool:
        """Whether it was held and its lease has expired, or may have."""
        return self._lock.lost

    def check(self) -> None:
        """Raises LeaseLostError if it is lost, InvalidArgumentError if it isn't held."""
        self._lock.check()

    def acquire(self, wait: float | None = None) -> bool:
        """Wait for it, ``wait`` seconds at most; whether it is held now.

        Raises LeaseLostError if the lease was lost meanwhile, and as calls do.
        """
        return self._run(self._lock.acquire(wait))

    def release(self) -> None:
        """Let the next one have it. Raises LeaseLostError if it was lost before."""
        self._run(self._lock.release())

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until it is lost, for ``timeout`` seconds at most; whether it is."""
        return self._run(lost_within(self._lock.wait_lost(), timeout))

    def __enter__(self) -> Self:
        self._run(self._lock.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._lock.__aexit__(kind, error, traceback))
