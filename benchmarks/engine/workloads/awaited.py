"""Synced puts from the coroutines of one event loop."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.engine.observing import percentile
from benchmarks.engine.peers.contract import Engine, Pair
from benchmarks.engine.turn import Turn

__all__ = ["awaited"]

IN_FLIGHT = {1: 1000, 1000: 20_000}
"""Coroutines, each of which puts, waits and puts again; and how many puts in all."""
POOL_THREADS = 32

Put = Callable[[bytes, bytes], Awaitable[object]]


class Gathered:
    """What a program builds around batches: what comes while one is synced is the next."""

    def __init__(self, store: Engine, pool: ThreadPoolExecutor) -> None:
        self.store, self.pool = store, pool
        self.loop = asyncio.get_running_loop()
        self.pairs: list[Pair] = []
        self.futures: list[asyncio.Future[None]] = []
        self.writing = False

    def put(self, key: bytes, value: bytes) -> Awaitable[None]:
        future: asyncio.Future[None] = self.loop.create_future()
        self.pairs.append((key, value))
        self.futures.append(future)
        if not self.writing:
            self.writing = True
            # Once the other coroutines that can run have put theirs.
            self.loop.call_soon(self.write)
        return future

    def write(self) -> None:
        pairs, futures = self.pairs, self.futures
        self.pairs, self.futures = [], []
        writing = self.loop.run_in_executor(self.pool, self.store.write_synced, pairs)
        writing.add_done_callback(lambda done: self.written(done, futures))

    def written(self, done: asyncio.Future[None], futures: list[asyncio.Future[None]]) -> None:
        done.result()
        for future in futures:
            future.set_result(None)
        if self.pairs:
            self.write()
        else:
            self.writing = False


def _call(store: Engine, pool: ThreadPoolExecutor) -> Put:
    """The engine's own, or its blocking one in a pool of threads."""
    if store.put_awaited is not None:
        return store.put_awaited
    loop = asyncio.get_running_loop()
    return lambda key, value: loop.run_in_executor(pool, store.put_synced, key, value)


def _batches(store: Engine, pool: ThreadPoolExecutor) -> Put:
    return Gathered(store, pool).put


def awaited(turn: Turn) -> None:
    """By a call for each put, and by batches that the program gathers itself."""
    data = turn.data
    for number, (most, puts) in enumerate(IN_FLIGHT.items()):
        keys = [data.shuffled[n % data.count] for n in range(min(puts, 4 * data.count))]
        for way, through in (("a call each", _call), ("gathered in batches", _batches)):
            with (
                turn.store(turn.fresh(f"awaited{number}{way[0]}"), turn.budget()) as store,
                ThreadPoolExecutor(POOL_THREADS) as pool,
            ):
                name = f"put + sync, in flight: {most}, {way}"
                asyncio.run(_measured(turn, through, store, pool, keys, most, name))


async def _measured(
    turn: Turn,
    through: Callable[[Engine, ThreadPoolExecutor], Put],
    store: Engine,
    pool: ThreadPoolExecutor,
    keys: Sequence[bytes],
    most: int,
    name: str,
) -> None:
    put, value = through(store, pool), turn.data.values[0]
    taken = array("q")
    clock = time.perf_counter_ns

    async def putting(share: Sequence[bytes]) -> None:
        for key in share:
            began = clock()
            await put(key, value)
            taken.append(clock() - began)

    await asyncio.gather(*(put(key, value) for key in keys[:POOL_THREADS]))
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(putting(keys[start::most]) for start in range(most)))
    each = (time.perf_counter() - began) / len(keys) * 1e6
    turn.record(name, each, "µs", (time.process_time() - cpu) / len(keys) * 1e6)
    turn.record(f"{name}: p99", percentile(taken, 0.99), "µs")
    turn.record(f"{name}: worst", max(taken) / 1e6, "ms")
