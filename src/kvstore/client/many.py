"""Many operations of one client at once: bounded in number and bytes, of one key in order.

Once a pass of the loop as many are taken from one iterator as have ended, so nothing is taken long
before it is sent, and what is begun together leaves together. An operation on a key that another
one is busy with waits for that one: what was asked for later is done later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from kvstore.client.calls import Told
from kvstore.client.operations import Operation, Result
from kvstore.errors import BatchError, Error

__all__ = ["BYTES_MAX", "IN_FLIGHT", "Doer", "Flight", "do_all", "put_all"]

# As many as a session keeps results of: each write is remembered for as long as its session.
IN_FLIGHT = 256

# Keys and values of operations under way, in bytes.
BYTES_MAX = 16 << 20


class Doer(Protocol):
    """A client."""

    def begin(self, operation: Operation, flight: Flight, now: float) -> bool:
        """Begin it without a task; it tells ``landed``, or spawns what goes on with it.

        False: it can't be begun so.
        """

    def opens_session(self, operation: Operation) -> bool:
        """Whether it will open the session that those after it can use."""

    def seconds(self, timeout: float | None) -> float:
        """What each operation may take. Raises InvalidArgumentError."""

    def told(self, operation: str) -> AbstractContextManager[Told | None]:
        """Entered while many operations are done."""

    async def do(self, operation: Operation, timeout: float) -> Result:
        """Do it. Raises Error."""

    def abandon(self, operations: Sequence[Operation]) -> None:
        """Nobody waits any more for these, which ``begin`` has begun."""


class Flight:
    """Operations on their way. ``results``: where each one's goes, if anybody wants them.

    ``timeout``: seconds of each operation. Raises InvalidArgumentError for one that is none.
    """

    def __init__(
        self,
        doer: Doer,
        operations: Iterator[Operation],
        results: list[Result | Error] | None,
        timeout: float | None,
    ) -> None:
        self.timeout = doer.seconds(timeout)
        self._doer = doer
        self._operations: Iterator[Operation] | None = operations
        self._results = results
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._in_flight_max = IN_FLIGHT
        self._pumping = False
        self._bytes = 0
        self._under_way: dict[Operation, None] = {}
        self._last_of: dict[bytes, Operation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken = 0
        self.failures: dict[int, Error] = {}
        self.broken: Exception | None = None

    async def fly(self) -> None:
        """Returns when all are done that were taken."""
        self._pump()
        try:
            await self._over
        finally:
            self._operations = None
            left = list(self._under_way)
            if left:
                self._under_way.clear()
                self._doer.abandon(left)
            # After their first step: what never ran can't give back what it was handed.
            for task in self._tasks:
                self._loop.call_soon(task.cancel)
            if self._tasks:
                await asyncio.wait(self._tasks)

    def landed(self, operation: Operation, result: Result | Error) -> None:
        """An operation is done."""
        if operation not in self._under_way:
            return  # all were given up
        del self._under_way[operation]
        if isinstance(result, Error):
            self.failures[operation.place] = result
        if self._results is not None:
            self._results[operation.place] = result
        self._in_flight_max = IN_FLIGHT
        self._bytes -= len(operation.key) + len(operation.value)
        if operation.after is not None:
            self._begin(operation.after, self._loop.time())
        elif self._last_of[operation.key] is operation:
            del self._last_of[operation.key]
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what needs a task. What it raises ends the flight."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def go_on(self, operation: Operation, work: Coroutine[Any, Any, Result]) -> None:
        """Finish an operation in a task."""
        self.spawn(self._carry(operation, work))

    def _pump(self) -> None:
        """Begin as many as there is room for."""
        self._pumping = False
        now = self._loop.time()
        while len(self._under_way) < self._in_flight_max and self._bytes < BYTES_MAX:
            operation = self._take()
            if operation is None:
                break
            self._under_way[operation] = None
            self._bytes += len(operation.key) + len(operation.value)
            before = self._last_of.get(operation.key)
            self._last_of[operation.key] = operation
            if before is None:
                self._begin(operation, now)
            else:
                before.after = operation
        if not self._under_way and not self._over.done():
            self._over.set_result(None)

    def _take(self) -> Operation | None:
        if self._operations is None or (self.failures and self._results is None):
            return None
        try:
            operation = next(self._operations, None)
        except Exception as error:  # noqa: BLE001 - of the caller's iterator; told in BatchError
            self.broken = error
            self._operations = None
            return None
        if operation is not None:
            operation.place = self.taken
            self.taken += 1
        return operation

    def _begin(self, operation: Operation, now: float) -> None:
        try:
            if not self._doer.begin(operation, self, now):
                if self._doer.opens_session(operation):
                    self._in_flight_max = 1  # until it has
                self.go_on(operation, self._doer.do(operation, self.timeout))
        except Exception as error:  # noqa: BLE001 - a defect, raised where the flight is awaited
            self._crash(error)

    async def _carry(self, operation: Operation, work: Coroutine[Any, Any, Result]) -> None:
        result: Result | Error
        try:
            result = await work
        except Error as error:
            result = error
        self.landed(operation, result)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        if not self._over.done():
            self._over.set_exception(error)


async def do_all(
    doer: Doer, operations: Sequence[Operation], *, timeout: float | None, name: str = "pipeline"
) -> list[Result | Error]:
    """Do all of them, whatever becomes of some; the results, and errors, in their places.

    ``name``: what whoever is told of it calls it.
    """
    results: list[Result | Error] = [None] * len(operations)
    with doer.told(name) as told:
        await Flight(doer, iter(operations), results, timeout).fly()
        if told is not None:
            told.many(len(operations))
    return results


async def put_all(doer: Doer, operations: Iterator[Operation], *, timeout: float | None) -> int:
    """Do them until one fails; how many there were. Raises BatchError."""
    with doer.told("put_many") as told:
        flight = Flight(doer, operations, None, timeout)
        await flight.fly()
        if told is not None:
            told.many(flight.taken)
        if flight.failures or flight.broken is not None:
            raise BatchError(flight.failures, flight.taken, cause=flight.broken) from flight.broken
    return flight.taken
