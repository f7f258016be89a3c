"""A service over a real pool, driven by the test's own thread."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush
from itertools import count

from kvstore.beyond.rados import RadosService
from kvstore.beyond.rados.opening import PoolAddress, open_pool
from kvstore.service import Limits, Operation, Result

PATIENCE_S = 60.0
TICK_S = 0.1


class Gateway:
    """A :class:`tests.contract.service_contract.Stage`, with the time that there is."""

    def __init__(self, address: PoolAddress, limits: Limits | None = None) -> None:
        self.opened = open_pool(address)
        self.pool = self.opened.objects
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self.service = RadosService(
            self.pool,
            self.opened.marker.salt,
            now=time.monotonic,
            world=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
            later=self._later,
            limits=limits,
        )
        self._ready = select.poll()
        self._ready.register(self.pool.fileno(), select.POLLIN)
        self._tick_at = 0.0
        self.until(lambda: self.service.clock.is_set)

    def _later(self, pause_s: float, call: Callable[[], None]) -> None:
        heappush(self._timers, (time.monotonic() + pause_s, next(self._number), call))

    def now(self) -> float:
        return time.monotonic()

    def until(self, done: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < until, "it never comes"
            self.turn(TICK_S)

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.turn(min(left, TICK_S))

    def turn(self, wait_s: float = 0.0) -> None:
        """One pass of the loop."""
        if self._timers:
            wait_s = min(wait_s, max(0.0, self._timers[0][0] - time.monotonic()))
        if self._ready.poll(wait_s * 1000):
            self.service.finished(self.pool.drain())
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heappop(self._timers)[2]()
        if now >= self._tick_at:
            self._tick_at = now + TICK_S
            self.service.tick()

    def begin(self, *operations: Operation, timeout: float = 10.0) -> list[Sequence[Result]]:
        """Submit; the list gets the results when they are there."""
        got: list[Sequence[Result]] = []
        self.service.submit(operations, time.monotonic() + timeout, got.append)
        return got

    def call(self, operation: Operation, timeout: float = 10.0) -> Result:
        got = self.begin(operation, timeout=timeout)
        self.until(lambda: got)
        return got[0][0]

    def close(self) -> bool:
        self.service.close()
        until = time.monotonic() + 10
        while self.pool.under_way and time.monotonic() < until:
            self.turn(TICK_S)
        return self.pool.close()


@contextmanager
def gateway(address: PoolAddress, limits: Limits | None = None) -> Iterator[Gateway]:
    opened = Gateway(address, limits)
    try:
        yield opened
    finally:
        assert opened.close()
