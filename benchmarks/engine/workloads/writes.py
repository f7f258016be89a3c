"""Fills, batches, overwrites and deletes, with the debt they leave; and all of it in memory."""

from __future__ import annotations

from itertools import cycle

from benchmarks.engine.observing import (
    anonymous_bytes,
    disk_bytes,
    drain,
    timing_each,
    written_bytes,
)
from benchmarks.engine.peers.contract import Pair
from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import loops

__all__ = ["fills", "in_memory", "steady"]

BATCHES = (10, 1000, 10_000)
MULTI = 100


def fills(turn: Turn) -> None:
    """Into new stores. The clock stops when compaction has caught up."""
    data = turn.data
    with turn.store(turn.fresh("sequential"), turn.budget()) as store:
        turn.timed_drained("fill sequential", lambda: loops.put_all(store, data.ordered, data))
    with turn.store(turn.fresh("random"), turn.budget()) as store:
        turn.timed_drained("fill random", lambda: loops.put_all(store, data.shuffled, data))
        turn.timed_drained("delete all", lambda: loops.delete_all(store, data.ordered))
    for size in BATCHES:
        with turn.store(turn.fresh(f"batches{size}"), turn.budget()) as store:
            turn.timed_drained(
                f"batches of {size}",
                lambda size=size, store=store: loops.write_batches(  # type: ignore[misc]
                    store, data.shuffled, data, size
                ),
            )


def steady(turn: Turn) -> None:
    """Overwrites of a store that is full, compaction drained in the clock."""
    data = turn.data
    path = turn.fresh("steady")
    with turn.store(path, turn.budget()) as store:
        loops.put_all(store, data.shuffled, data)
        drain()
        keys = [key for n in range(2) for key in data.uniform(turn.seed(f"over {n}"), data.count)]
        written = written_bytes()
        turn.timed_drained("overwrite", lambda: loops.put_all(store, keys, data))
        user = sum(map(len, keys)) + len(keys) * data.value_bytes
        turn.record("written to disk for a byte", (written_bytes() - written) / user, "times")

        pairs = list(
            zip(data.uniform(turn.seed("timed"), data.count), cycle(data.values), strict=False)
        )
        put = store.put

        def put_pair(pair: Pair) -> None:
            put(*pair)

        turn.latencies("overwrite", timing_each(put_pair, pairs))
        drain()
        turn.record("on disk", disk_bytes(path) / 2**20, "MiB")


def in_memory(turn: Turn) -> None:
    """What never leaves the write buffer: no flush falls due, so no debt is left either."""
    data = turn.data
    before = anonymous_bytes()
    with turn.store(turn.fresh("memory"), turn.in_memory()) as store:
        turn.timed("fill random", lambda: loops.put_all(store, data.shuffled, data))
        turn.record("anonymous memory", max(0, anonymous_bytes() - before) / 2**20, "MiB")
        again = data.uniform(turn.seed("again"), data.count)
        turn.timed("overwrite", lambda: loops.put_all(store, again, data))
        reads = min(data.count, 100_000)
        loops.read(store, data.uniform(turn.seed("warm"), reads))
        asked = data.uniform(turn.seed("read"), reads)
        turn.timed("read random", lambda: loops.read(store, asked))
        missing = data.missing(turn.seed("missing"), reads)
        turn.timed("read missing", lambda: loops.read_missing(store, missing))
        turn.timed(f"multi_get of {MULTI}", lambda: loops.multi_get(store, asked, MULTI))
        turn.timed("scan", lambda: loops.scan(store))
        turn.timed("delete", lambda: loops.delete_all(store, data.shuffled))
