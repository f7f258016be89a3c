"""Many operations of one client at once: bounded in number and bytes, of one key in order.

Workers take operations from one iterator, each the next one when its last is done; so nothing is
taken long before it is sent. An operation on a key that another one is busy with waits for that
one: what was asked for later is done later.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from kvstore.errors import BatchError, Error

__all__ = ["BYTES_MAX", "IN_FLIGHT", "Kind", "Operation", "Result", "do_all", "put_all"]

# As many as a session keeps results of: each write is remembered for as long as its session.
IN_FLIGHT = 256

# Keys and values of operations under way, in bytes.
BYTES_MAX = 16 << 20

Result: TypeAlias = bool | bytes | None


class Kind(Enum):
    PUT = "put"
    GET = "get"
    DELETE = "delete"


@dataclass(slots=True, eq=False)
class Operation:
    """One of many. ``turn`` is what the next one of its key waits for, if there is one."""

    kind: Kind
    key: bytes
    value: bytes = b""
    turn: asyncio.Future[None] | None = None


class Operations(Protocol):
    """What a client can do."""

    async def put(self, key: bytes, value: bytes, *, timeout: float | None) -> bool: ...
    async def get(self, key: bytes, *, timeout: float | None) -> bytes | None: ...
    async def delete(self, key: bytes, *, timeout: float | None) -> bool: ...


class _Flight:
    """Operations on their way. ``results``: where each one's goes, if anybody wants them."""

    def __init__(
        self,
        client: Operations,
        operations: Iterator[Operation],
        results: list[Result | Error] | None,
        timeout: float | None,
    ) -> None:
        self._client = client
        self._operations = operations
        self._results = results
        self._timeout = timeout
        self._bytes = 0
        self._last_of: dict[bytes, Operation] = {}
        self._landing: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()
        self.taken = 0
        self.failures: dict[int, Error] = {}
        self.broken: Exception | None = None

    async def fly(self, workers: int) -> None:
        """Returns when all are done that were taken."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while self._bytes >= BYTES_MAX:
                landing = self._loop.create_future()
                self._landing.append(landing)
                await landing
            taken = self._take()
            if taken is None:
                return
            place, operation = taken
            size = len(operation.key) + len(operation.value)
            self._bytes += size
            before = self._last_of.get(operation.key)
            self._last_of[operation.key] = operation
            if before is not None:
                before.turn = self._loop.create_future()
                await before.turn
            try:
                await self._do(place, operation)
            finally:
                self._bytes -= size
                if self._last_of[operation.key] is operation:
                    del self._last_of[operation.key]
                if operation.turn is not None and not operation.turn.done():
                    operation.turn.set_result(None)
                if self._landing:
                    self._wake()

    def _take(self) -> tuple[int, Operation] | None:
        if self.broken is not None or (self.failures and self._results is None):
            return None
        try:
            operation = next(self._operations, None)
        except Exception as error:  # noqa: BLE001 - of the caller's iterator; told in BatchError
            self.broken = error
            return None
        if operation is None:
            return None
        place = self.taken
        self.taken += 1
        return place, operation

    async def _do(self, place: int, operation: Operation) -> None:
        kind = operation.kind
        result: Result | Error
        try:
            if kind is Kind.PUT:
                result = await self._client.put(
                    operation.key, operation.value, timeout=self._timeout
                )
            elif kind is Kind.GET:
                result = await self._client.get(operation.key, timeout=self._timeout)
            else:
                result = await self._client.delete(operation.key, timeout=self._timeout)
        except Error as error:
            self.failures[place] = result = error
        if self._results is not None:
            self._results[place] = result

    def _wake(self) -> None:
        landing, self._landing = self._landing, []
        for each in landing:
            if not each.done():
                each.set_result(None)


async def do_all(
    client: Operations, operations: Sequence[Operation], *, timeout: float | None
) -> list[Result | Error]:
    """Do all of them, whatever becomes of some; the results, and errors, in their places."""
    results: list[Result | Error] = [None] * len(operations)
    flight = _Flight(client, iter(operations), results, timeout)
    await flight.fly(min(IN_FLIGHT, len(operations)))
    return results


async def put_all(
    client: Operations, operations: Iterator[Operation], *, timeout: float | None
) -> int:
    """Do them until one fails; how many there were. Raises BatchError."""
    flight = _Flight(client, operations, None, timeout)
    await flight.fly(min(IN_FLIGHT, operator.length_hint(operations, IN_FLIGHT)))
    if flight.failures or flight.broken is not None:
        raise BatchError(flight.failures, flight.taken) from flight.broken
    return flight.taken
