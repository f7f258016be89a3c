"""Opening: a settled store, one after kill -9, and a hundred small ones."""

from __future__ import annotations

import os
import signal
import time
from itertools import cycle
from pathlib import Path
from statistics import median

from benchmarks.engine.observing import (
    anonymous_bytes,
    disk_bytes,
    forget_cached,
    own_heap_trimmed,
)
from benchmarks.engine.peers.by_name import find, open_store
from benchmarks.engine.peers.contract import Budget
from benchmarks.engine.turn import Turn

__all__ = ["after_kill", "fill_and_die", "settled", "small"]

OPENINGS = 5
KILLED_PUTS = 400_000
KILLED_BUFFER_BYTES = 256 << 20
SMALL_STORES = 100
SMALL_KEYS = 100


def settled(turn: Turn) -> None:
    """Open and get one key, then many: with the files in the page cache, and not."""
    data, path = turn.data, turn.copied("settled")
    find(turn.engine)
    asked = data.uniform(turn.seed("open"), OPENINGS + 1)
    # The first one cleans up what a copy may need.
    _open_and_get(turn, path, asked[-1])
    turn.record(
        "open + get", median(_open_and_get(turn, path, key) for key in asked[:OPENINGS]), "ms"
    )
    forget_cached(path)
    turn.record("open + get, page cache dropped", _open_and_get(turn, path, asked[0]), "ms")
    forget_cached(path)
    cold = data.uniform(turn.seed("cold"), min(1000, data.count))
    with turn.store(path, turn.budget()) as store:
        store.get(asked[0])

        def read() -> int:
            for key in cold:
                store.get(key)
            return len(cold)

        turn.timed("get, page cache dropped", read)


def _open_and_get(turn: Turn, path: Path, key: bytes) -> float:
    budget = turn.budget()
    began = time.perf_counter()
    with turn.store(path, budget) as store:
        found = store.get(key)
        taken = (time.perf_counter() - began) * 1e3
    assert found is not None
    return taken


def _killed_budget() -> Budget:
    """All puts stay in the log."""
    return Budget(64 << 20, KILLED_BUFFER_BYTES)


def fill_and_die(turn: Turn) -> None:
    """Put and be killed with everything in the log; the runner has us end here."""
    store = open_store(turn.engine, turn.fresh("killed"), _killed_budget())
    put = store.put
    # Named, so that it outlives the loop: letting go of 400,000 keys takes long enough for an
    # engine to write what it still had in its own memory.
    keys = turn.data.shuffled[:KILLED_PUTS]
    for key, value in zip(keys, cycle(turn.data.values), strict=False):
        put(key, value)
    os.kill(os.getpid(), signal.SIGKILL)


def after_kill(turn: Turn) -> None:
    """Open what `fill_and_die` left, and say how many of its puts are there."""
    keys = turn.data.shuffled[:KILLED_PUTS]
    find(turn.engine)
    path, budget = turn.fresh("killed"), _killed_budget()
    began = time.perf_counter()
    with turn.store(path, budget) as store:
        store.get(keys[0])
        turn.record("open + get after kill -9", (time.perf_counter() - began) * 1e3, "ms")
        lost = sum(store.get(key) is None for key in reversed(keys[-100_000:]))
        turn.record("puts lost by the kill", lost, "puts")


def small(turn: Turn) -> None:
    """A hundred stores of a hundred keys, as a program has one a user."""
    data = turn.data
    budget = turn.budget(1 << 20, buffer_bytes=4 << 20)
    paths = [turn.fresh(f"small{number}") for number in range(SMALL_STORES)]
    keys = data.shuffled[:SMALL_KEYS]
    find(turn.engine)

    def create() -> int:
        for path in paths:
            with turn.store(path, budget) as store:
                for key in keys:
                    store.put(key, data.values[0])
        return len(paths)

    def reopen() -> int:
        for path in paths:
            with turn.store(path, budget) as store:
                store.get(keys[0])
        return len(paths)

    turn.timed(f"create + {SMALL_KEYS} puts + close", create)
    turn.record("on disk, closed, of one", sum(map(disk_bytes, paths)) / len(paths) / 1024, "KiB")
    turn.timed("open + get + close", reopen)
    own_heap_trimmed()
    before, tasks, files = anonymous_bytes(), _tasks(), len(os.listdir("/proc/self/fd"))
    opened = [open_store(turn.engine, path, budget) for path in paths]
    try:
        for store in opened:
            store.put(keys[0], data.values[0])
        count = len(paths)
        turn.record(
            "anonymous memory of an open one", (anonymous_bytes() - before) / count / 1024, "KiB"
        )
        turn.record("threads of an open one", (_tasks() - tasks) / count, "threads")
        open_files = len(os.listdir("/proc/self/fd")) - files
        turn.record("files of an open one", open_files / count, "files")
        turn.record("on disk, open, of one", sum(map(disk_bytes, paths)) / count / 1024, "KiB")
    finally:
        for store in opened:
            store.close()


def _tasks() -> int:
    """Threads of this process, those of C included."""
    return len(os.listdir("/proc/self/task"))
