"""Flush and compaction beside a thread that only computes in Python, and alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import loops

__all__ = ["busy_python"]


def busy_python(turn: Turn) -> None:
    """An engine that takes the GIL in its background work waits 5 ms for it each time."""
    alone = _flush_and_compact(turn, "alone", contextlib.nullcontext)
    busy = _flush_and_compact(turn, "busy", _computing)
    # Compared as a whole: LevelDB begins to merge while it is still asked to flush.
    _record(turn, "flush and compaction", sum(alone), sum(busy), "ms")
    for name, quiet, beside in zip(("flush", "compaction"), alone, busy, strict=True):
        _record(turn, name, quiet, beside, "ms, part of it")


def _record(turn: Turn, name: str, alone: float, busy: float, unit: str) -> None:
    turn.record(f"{name} alone", alone, unit)
    turn.record(f"{name} beside busy Python", busy, unit)
    turn.record(f"{name}, beside busy Python and alone", busy / alone, "times")


@contextlib.contextmanager
def _computing() -> Iterator[None]:
    """A thread that keeps the GIL meanwhile."""
    ended = threading.Event()

    def compute() -> None:
        number = 0
        while not ended.is_set():
            for _ in range(1000):
                number = (number * 31 + 7) & 0xFFFF

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _flush_and_compact(
    turn: Turn, name: str, beside: Callable[[], AbstractContextManager[None]]
) -> tuple[float, float]:
    """Milliseconds to write a full memtable out, and to merge it with a table of the same keys.

    The puts have nothing beside them: whoever lets go of the GIL in each waits 5 ms to get it back.
    """
    data = turn.data
    with turn.store(turn.fresh(name), turn.in_memory()) as store:
        loops.put_all(store, data.shuffled, data)
        store.settle()
        loops.put_all(store, data.shuffled, data)
        with beside():
            return _taken(store.flush), _taken(store.settle)


def _taken(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3
