"""Reads of a settled store through caches of several sizes."""

from __future__ import annotations

from benchmarks.engine.observing import timing_each
from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import loops

__all__ = ["no_cache", "quarter", "tenth", "whole"]

MULTI = 100
READS = 100_000
SEEKS = 10_000


def whole(turn: Turn) -> None:
    """All data fits the cache twice: the best case, and not the usual one."""
    _reads(turn, 2 * turn.data.size)


def quarter(turn: Turn) -> None:
    _reads(turn, turn.data.size // 4)


def tenth(turn: Turn) -> None:
    _reads(turn, turn.data.size // 10)


def no_cache(turn: Turn) -> None:
    _reads(turn, 0)


def _reads(turn: Turn, cache_bytes: int) -> None:
    """The page cache holds the files; maps (LevelDB, LMDB) reach them without a call."""
    data = turn.data
    reads = min(READS, data.count)
    with turn.store(turn.settled, turn.budget(cache_bytes)) as store:
        turn.timed("first scan after opening", lambda: loops.scan(store))
        # Other keys than those that are then measured, drawn alike.
        loops.read(store, data.uniform(turn.seed("warm"), reads))
        asked = data.uniform(turn.seed("read"), reads)
        turn.timed("read random", lambda: loops.read(store, asked))
        turn.latencies("read random", timing_each(store.get, data.uniform(turn.seed("p"), reads)))
        popular = data.popular(turn.seed("popular"), "reads", reads)
        turn.timed("read popular (Zipf)", lambda: loops.read(store, popular))
        missing = data.missing(turn.seed("missing"), reads)
        turn.timed("read missing", lambda: loops.read_missing(store, missing))
        many = data.uniform(turn.seed("multi"), reads)
        turn.timed(f"multi_get of {MULTI}", lambda: loops.multi_get(store, many, MULTI))
        sought = data.uniform(turn.seed("seek"), min(SEEKS, data.count))
        turn.timed("seek + 10 next", lambda: loops.seek(store, sought))
        turn.timed("scan forward", lambda: loops.scan(store))
        turn.timed("scan forward, pairs kept", lambda: loops.pairs_kept(store))
        turn.timed("scan reverse", lambda: loops.scan_reverse(store))
