"""Gateways over a pool in memory, driven by hand, with a clock that tests move."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from kvstore.beyond.rados.service import RadosService
from kvstore.errors import Error
from kvstore.service import Limits, Operation, Result
from tests.unit.beyond.memory_pool import MemoryPool

SALT = b"salt of sixteen!"


class World:
    """A pool, its gateways, and the time."""

    def __init__(self, *, seed: int = 1, gateways: int = 1, limits: Limits | None = None) -> None:
        self.rng = random.Random(seed)
        self.pool = MemoryPool()
        self.now = 1000.0
        self.fenced: list[Error] = []
        self._later: list[tuple[float, Any]] = []
        self.clients = [self.pool.client() for _ in range(gateways)]
        self.behind = [0.0] * gateways
        self.gateways = [
            RadosService(
                client,
                SALT,
                now=self._clock(at),
                world=self._clock(at),
                later=lambda pause, call: self._later.append((self.now + pause, call)),
                draw=self.rng.randbytes,
                limits=limits,
                fenced=self.fenced.append,
            )
            for at, client in enumerate(self.clients)
        ]
        self.tick()

    def stand_still(self, at: int, seconds: float) -> None:
        """A gateway's machine does, and its clocks with it; the others run."""
        others = [each for number, each in enumerate(self.gateways) if number != at]
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            self.behind[at] += 0.5
            for gateway in others:
                gateway.tick()
            self.settle()

    def _clock(self, at: int) -> Callable[[], float]:
        return lambda: self.now - self.behind[at]

    @property
    def gateway(self) -> RadosService:
        return self.gateways[0]

    def tick(self) -> None:
        for gateway in self.gateways:
            gateway.tick()
        self.settle()

    def drain(self) -> bool:
        """Hand gateways what the pool has finished; whether there was anything."""
        some = False
        for client, gateway in zip(self.clients, self.gateways, strict=True):
            finished = client.drain()
            some = some or bool(finished)
            gateway.finished(finished)
        return some

    def settle(self, *, shuffled: bool = False) -> None:
        """Until nothing is left that can be done now."""
        choose = self.rng.randrange if shuffled else lambda count: 0
        for _ in range(100_000):
            ran = self.pool.run(choose)
            if shuffled and ran and self.rng.random() < 0.5:
                continue
            due = [item for item in self._later if item[0] <= self.now]
            self._later = [item for item in self._later if item[0] > self.now]
            for _, call in due:
                call()
            if not self.drain() and not ran and not due:
                if not self._later:
                    return
                self.now = min(at for at, _ in self._later)
        raise AssertionError("it never settles")

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """The time passes, and gateways tick."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + step)
            self.tick()

    def begin(
        self, *operations: Operation, at: int = 0, timeout: float = 10.0
    ) -> list[Sequence[Result]]:
        """Submit; the list gets the results when they are there."""
        got: list[Sequence[Result]] = []
        self.gateways[at].submit(operations, self.now - self.behind[at] + timeout, got.append)
        return got

    def call(self, operation: Operation, *, at: int = 0) -> Result:
        """Submit, settle, and the result."""
        got = self.begin(operation, at=at)
        self.settle()
        ((result,),) = got
        return result
