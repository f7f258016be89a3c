"""Load on a server: callers that put and get, as fast as they are answered or at a given rate."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kvstore.cli.measuring.histogram import Histogram
from kvstore.client import AsyncClient
from kvstore.errors import Error

__all__ = ["Load", "Measured", "measure"]

# Callers share so many connections at most.
CONNECTIONS_MAX: Final = 16


class Load(NamedTuple):
    """What is done. ``rate``: calls a second of all callers together; None: as fast as they go.
    ``reads``: the share of gets, 0 to 1."""

    callers: int
    rate: float | None
    reads: float
    size: int
    keys: int
    seconds: float
    prefix: bytes


@dataclass(slots=True)
class Measured:
    """What came of it; times in microseconds."""

    puts: Histogram = field(default_factory=Histogram)
    gets: Histogram = field(default_factory=Histogram)
    failed: Counter[str] = field(default_factory=Counter)
    """By the name of the error."""
    late: int = 0
    """Calls that were to be begun, and weren't: no caller was free until the end."""
    seconds: float = 0.0


async def measure(
    connect: Callable[[], AsyncClient], load: Load, tick: Callable[[], object] = lambda: None
) -> Measured:
    """Connect, put all keys, do it, and remove all keys. ``tick`` is called after each call.

    With a rate each call has its moment, and its time counts from that on, also while no caller was
    free to begin it: what a slow answer keeps waiting is slow as well (Tene's "coordinated
    omission").
    """
    clients = [connect() for _ in range(min(load.callers, CONNECTIONS_MAX))]
    try:
        value = random.randbytes(load.size)
        await clients[0].put_many((_key(load, n), value) for n in range(load.keys))
        for client in clients:
            await client.get(_key(load, 0))
        return await _measure(clients, load, value, tick)
    finally:
        await clients[0].delete_range(prefix=load.prefix)
        for client in clients:
            await client.close()


def _key(load: Load, number: int) -> bytes:
    return load.prefix + b"%08d" % number


async def _measure(
    clients: list[AsyncClient], load: Load, value: bytes, tick: Callable[[], object]
) -> Measured:
    measured = Measured()
    moments = _Moments(load)
    began = time.perf_counter()
    callers = [
        _call(clients[n % len(clients)], load, value, moments, measured, tick)
        for n in range(load.callers)
    ]
    await asyncio.gather(*callers)
    measured.seconds = time.perf_counter() - began
    measured.late = moments.left
    return measured


class _Moments:
    """When calls begin: each at its own time, or whenever a caller is free."""

    def __init__(self, load: Load) -> None:
        self._began = time.perf_counter()
        self._end = self._began + load.seconds
        self._interval = None if load.rate is None else 1 / load.rate
        self._total = 0 if load.rate is None else max(1, int(load.rate * load.seconds))
        self._given = 0

    async def next(self) -> float | None:
        """When the next call began, or was to begin; None: it is over."""
        now = time.perf_counter()
        if self._interval is None:
            return now if now < self._end else None
        if self._given >= self._total or now >= self._end + self._interval:
            return None
        moment = self._began + self._given * self._interval
        self._given += 1
        if moment > now:
            await asyncio.sleep(moment - now)
        return moment

    @property
    def left(self) -> int:
        """Moments that nobody has had."""
        return max(0, self._total - self._given)


async def _call(
    client: AsyncClient,
    load: Load,
    value: bytes,
    moments: _Moments,
    measured: Measured,
    tick: Callable[[], object],
) -> None:
    while (moment := await moments.next()) is not None:
        key = _key(load, random.randrange(load.keys))
        is_read = random.random() < load.reads
        try:
            if is_read:
                await client.get(key)
            else:
                await client.put(key, value)
        except Error as error:
            measured.failed[type(error).__name__] += 1
        else:
            took_us = round((time.perf_counter() - moment) * 1e6)
            (measured.gets if is_read else measured.puts).add(took_us)
        tick()
