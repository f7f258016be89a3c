"""A pool for a program that does one thing after the other, as ``kvctl copy`` does.

It stands on the gateways' service, so that what it writes is written as they write it. The calling
thread drives that service, and only while it waits for it here: nothing is left under way in it
between two calls.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from kvstore.beyond.rados.failing import read_failure
from kvstore.beyond.rados.objects import Done, Objects
from kvstore.beyond.rados.objects import Operation as Begun
from kvstore.beyond.rados.service import RadosService
from kvstore.beyond.rados.writing import TURN_S_MAX
from kvstore.errors import Error, Outcome, StorageError, UnavailableError
from kvstore.service.operations import Delete, Get, Operation, Put, Result

__all__ = ["DrivenPool", "Names", "PoolClient"]

FLIGHT_MAX = 128
"""Operations that are under way at one time: each has its time from when it begins."""
FLIGHT_BYTES_MAX = 16 << 20
"""Of the values of puts among them."""
NAMES = 512
"""Objects that are listed at one time."""
TICK_S = 0.1
RETRY_S = 0.1
"""Before a write that came to nothing is begun again."""
CLOSE_S = 3.0
"""For what is under way in the end."""


class PoolClient(Objects, Protocol):
    """A client that can be waited for: :class:`kvstore._rados.native.Pool`, or a test's."""

    @property
    def under_way(self) -> int: ...
    def fileno(self) -> int: ...
    def drain(self) -> Sequence[Begun]: ...
    def close(self) -> bool: ...


class Names(Protocol):
    """Names of objects: :class:`kvstore._rados.native.Listing`, or a test's."""

    def names(self, most: int) -> list[bytes]:
        """Some more; none at the end. Waits for the pool. Raises OSError."""


class DrivenPool:
    """A store in a pool. One thread; to be used as a context manager.

    Each operation has ``timeout_s``, within which a pool that is away may come back. Raises
    UnavailableError for one that doesn't.
    """

    def __init__(
        self,
        client: PoolClient,
        salt: bytes,
        listing: Callable[[], Names],
        *,
        timeout_s: float,
    ) -> None:
        """``salt``: the marker's. ``listing`` begins to list the namespace's objects."""
        self.objects: Objects = client
        self.salt = salt
        self._client = client
        self._listing = listing
        self._timeout_s = timeout_s
        self._fenced: list[Error] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._tick_at = 0.0
        # Whether no thread lists. Thread.is_alive says so of one that runs whose join was
        # interrupted.
        self._is_listed = threading.Event()
        self._is_listed.set()
        self._ready = select.poll()
        self._ready.register(client.fileno(), select.POLLIN)
        self._service = RadosService(
            client,
            salt,
            now=time.monotonic,
            world=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
            later=self._later,
            fenced=self._fenced.append,
        )

    def hear(self) -> None:
        """Wait until the pool's clock is known: before that nothing is written."""
        until = time.monotonic() + self._timeout_s
        while not self._service.clock.is_set:
            self._turn(until)

    def put(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[Result]:
        """Store them, each a write of its own: whether there was a value, or why it failed.

        Once one has failed, but for damage, no more are begun: they have the same error.
        """
        return self._do([Put(key, value, _request_id()) for key, value in pairs])

    def delete(self, keys: Sequence[bytes]) -> list[Result]:
        """Remove them, likewise."""
        return self._do([Delete(key, _request_id()) for key in keys])

    def get(self, keys: Sequence[bytes]) -> list[Result]:
        """Their values, None where there is none, or why it failed; likewise."""
        return self._do([Get(key) for key in keys])

    def _do(self, operations: Sequence[Operation]) -> list[Result]:
        results: list[Result] = []
        failed: list[Error] = []
        flying: dict[int, int] = {}

        def submit(place: int, operation: Operation, began_at: float) -> None:
            landing = partial(landed, place, operation, began_at)
            self._service.submit((operation,), began_at + self._timeout_s, landing)

        def landed(
            place: int, operation: Operation, began_at: float, got: Sequence[Result]
        ) -> None:
            (result,) = got
            if self._is_cut_short(result, began_at):
                self._later(RETRY_S, partial(submit, place, operation, began_at))
                return
            del flying[place]
            results[place] = result
            if isinstance(result, Error) and not isinstance(result, StorageError):
                failed.append(result)

        for place, operation in enumerate(operations):
            size = len(operation.value) if isinstance(operation, Put) else 0
            while len(flying) >= FLIGHT_MAX or sum(flying.values()) + size > FLIGHT_BYTES_MAX:
                self._turn()
            if failed:
                break
            flying[place] = size
            results.append(None)
            submit(place, operation, time.monotonic())
        while flying:
            self._turn()
        return results + failed[:1] * (len(operations) - len(results))

    def _is_cut_short(self, result: Result, began_at: float) -> bool:
        """Whether a write wasn't done as its turn took too long, and has time left for another."""
        took_s = time.monotonic() - began_at
        return (
            isinstance(result, UnavailableError)
            and result.outcome is Outcome.NOT_APPLIED
            and TURN_S_MAX <= took_s < self._timeout_s
        )

    def ask(self, asked: Sequence[Callable[[Done], Begun]]) -> list[Begun]:
        """Begin some reads of objects at once; the same when all have finished."""
        begun = []
        left = len(asked)

        def done(operation: Begun) -> None:
            nonlocal left
            left -= 1

        until = time.monotonic() + self._timeout_s
        begun = [ask(done) for ask in asked]
        try:
            while left:
                self._turn(until)
        finally:
            for operation in begun:
                operation.cancel()
        return begun

    def names(self) -> Iterator[list[bytes]]:
        """All objects of the namespace, in no order, some at a time."""
        listing = self._listing()
        while names := self._listed(listing):
            yield names

    def _listed(self, listing: Names) -> list[bytes]:
        """On a thread: librados waits for as long as the pool is away, and nothing ends that."""
        found: list[list[bytes]] = []
        failed: list[OSError] = []

        def look() -> None:
            try:
                found.append(listing.names(NAMES))
            except OSError as error:
                failed.append(error)
            finally:
                self._is_listed.set()

        self._is_listed.clear()
        threading.Thread(target=look, daemon=True).start()
        self._is_listed.wait(self._timeout_s)
        if failed:
            raise read_failure(-(failed[0].errno or errno.EIO))
        if not found:
            raise read_failure(-errno.ETIMEDOUT)
        return found[0]

    def _turn(self, until: float | None = None) -> None:
        """Wait a little for what the pool has finished. Raises UnavailableError after ``until``."""
        now = time.monotonic()
        if until is not None and now >= until:
            raise read_failure(-errno.ETIMEDOUT)
        due = self._timers[0][0] if self._timers else self._tick_at
        wait_s = max(0.0, min(due, self._tick_at) - now)
        if self._ready.poll(wait_s * 1000):
            self._service.finished(self._client.drain())
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heappop(self._timers)[2]()
        if now >= self._tick_at:
            self._tick_at = now + TICK_S
            self._service.tick()
        if self._fenced:
            raise self._fenced[0]

    def _later(self, pause_s: float, call: Callable[[], None]) -> None:
        heappush(self._timers, (time.monotonic() + pause_s, next(self._number), call))

    def close(self) -> None:
        """Let go of the pool. One that doesn't answer keeps its client until the process ends."""
        until = time.monotonic() + CLOSE_S
        self._fenced.clear()
        self._service.close()
        try:
            while self._client.under_way:
                self._turn(until)
        except UnavailableError:
            return
        if self._is_listed.wait(max(0.0, until - time.monotonic())):
            self._client.close()

    def __enter__(self) -> DrivenPool:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()


def _request_id() -> bytes:
    return os.urandom(16).hex().encode()
