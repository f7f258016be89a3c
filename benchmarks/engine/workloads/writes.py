"""Fills, batches, overwrites and deletes, with the debt they leave; and all of it in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle

from benchmarks.engine.observing import (
    anonymous_bytes,
    disk_bytes,
    drain,
    own_heap_trimmed,
    remove,
    timing_pairs,
    written_bytes,
)
from benchmarks.engine.peers.contract import Engine
from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import loops

__all__ = ["fills", "in_memory", "steady"]

BATCHES = (10, 1000, 10_000)
MULTI = 100
MOST_OVERWRITES = 4_000_000
MOST_TIMED = 1_000_000


def fills(turn: Turn) -> None:
    """Into new stores. The clock stops when compaction has caught up."""
    data = turn.data
    with _new(turn, "sequential") as store:
        turn.timed_drained("fill sequential", lambda: loops.put_all(store, data.ordered, data))
    with _new(turn, "random") as store:
        turn.timed_drained("fill random", lambda: loops.put_all(store, data.shuffled, data))
        turn.timed_drained("delete all", lambda: loops.delete_all(store, data.ordered))
    for size in BATCHES:
        batches = loops.batches_of(data.shuffled, data, size)
        with _new(turn, f"batches{size}") as store:
            turn.timed_drained(f"batches of {size}", partial(loops.write_batches, store, batches))


@contextmanager
def _new(turn: Turn, name: str) -> Iterator[Engine]:
    """A new store, gone before the next is begun: its pages would be written in that one's time."""
    path = turn.fresh(name)
    with turn.store(path, turn.budget()) as store:
        yield store
    remove(path)
    turn.sync_disk()


def steady(turn: Turn) -> None:
    """Overwrites of a store that is full, compaction drained in the clock."""
    data = turn.data
    path = turn.fresh("steady")
    with turn.store(path, turn.budget()) as store:
        loops.put_all(store, data.shuffled, data)
        drain()
        keys = data.uniform(turn.seed("over"), min(2 * data.count, MOST_OVERWRITES))
        user = sum(map(len, keys)) + len(keys) * data.value_bytes
        # A page that is dirty already counts for nobody when it is changed once more.
        turn.sync_disk()
        written = written_bytes()
        turn.timed_drained("overwrite", lambda: loops.put_all(store, keys, data))
        turn.record("written to disk for a byte", (written_bytes() - written) / user, "times")

        asked = data.uniform(turn.seed("timed"), min(data.count, MOST_TIMED))
        pairs = zip(asked, cycle(data.values), strict=False)
        turn.latencies("overwrite", timing_pairs(store.put, pairs))
        drain()
        turn.record("on disk", disk_bytes(path) / 2**20, "MiB")


def in_memory(turn: Turn) -> None:
    """What never leaves the write buffer: no flush falls due, so no debt is left either."""
    data = turn.data
    own_heap_trimmed()
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
