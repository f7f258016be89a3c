"""One turn of one engine: what it works on, and the figures it leaves."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine.data import Data
from benchmarks.engine.observing import drain, percentile
from benchmarks.engine.peers.by_name import open_store
from benchmarks.engine.peers.contract import LARGEST_BUFFER_BYTES, Budget, Engine

__all__ = ["Figure", "Turn"]

SMALLEST_BUFFER_BYTES = 256 << 10
LARGEST_STEADY_BUFFER_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    value: float
    unit: str
    """µs, ms, s, MiB, KiB and counts: less is better. times: in no ratio."""
    cpu: float | None = None
    """Of all threads, in the same unit."""


@dataclasses.dataclass(slots=True)
class Turn:
    """A process of its own runs it. ``folder`` is empty and goes with it."""

    engine: str
    number: int
    """Turns draw their keys by it, so that no warm-up reads the keys that are then measured."""
    data: Data
    folder: Path
    settled: Path
    """Where a store stands that was filled in random order and compacted; not to be changed."""
    defaults: bool = False
    """Every engine with its own options rather than with the same budgets."""
    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)

    # --- stores ------------------------------------------------------------------------------

    @property
    def steady_buffer_bytes(self) -> int:
        """A tenth of the data: a fill pays for flushes and compactions."""
        return min(max(self.data.size // 10, SMALLEST_BUFFER_BYTES), LARGEST_STEADY_BUFFER_BYTES)

    def budget(self, cache_bytes: int | None = None, *, buffer_bytes: int = 0) -> Budget | None:
        """A cache of a quarter of the data and a buffer of a tenth unless told."""
        if self.defaults:
            return None
        if cache_bytes is None:
            cache_bytes = self.data.size // 4
        return Budget(cache_bytes, buffer_bytes or self.steady_buffer_bytes)

    def in_memory(self) -> Budget | None:
        """Buffers that hold all the data three times over, with what keeping it takes."""
        return self.budget(
            buffer_bytes=min(max(4 * self.data.size, 64 << 20), LARGEST_BUFFER_BYTES)
        )

    @contextmanager
    def store(self, path: Path, budget: Budget | None) -> Iterator[Engine]:
        opened = open_store(self.engine, path, budget)
        try:
            yield opened
        finally:
            opened.close()

    def fresh(self, name: str) -> Path:
        return self.folder / name

    def copied(self, name: str) -> Path:
        """A settled store of one's own, to change."""
        path = self.folder / name
        # LMDB's file is as long as its map may grow, and holds little: holes stay holes.
        subprocess.run(["cp", "-a", "--sparse=always", self.settled, path], check=True)
        # Else it would be written to the disk, and clog it, while the copy is measured.
        self.sync_disk()
        return path

    def sync_disk(self) -> None:
        subprocess.run(["sync", "-f", self.folder], check=True)

    def seed(self, name: str) -> str:
        return f"{name} {self.number}"

    # --- figures -----------------------------------------------------------------------------

    def record(self, name: str, value: float, unit: str, cpu: float | None = None) -> None:
        assert name not in self.figures, name
        self.figures[name] = Figure(value, unit, cpu)

    def timed(self, name: str, work: Callable[[], int]) -> None:
        """Microseconds an operation; ``work`` returns how many there were."""
        self._timed(name, work, drained=False)

    def timed_drained(self, name: str, work: Callable[[], int]) -> None:
        """The same until nothing flushes or compacts any more, and how much of it came after."""
        self._timed(name, work, drained=True)

    def _timed(self, name: str, work: Callable[[], int], *, drained: bool) -> None:
        # What was made for the workload is not for the collector to walk in the workload's time.
        gc.collect()
        gc.freeze()
        cpu, began = time.process_time(), time.perf_counter()
        count = work()
        taken = time.perf_counter() - began
        waiting = time.thread_time()
        after = drain() if drained else 0.0
        cpu = time.process_time() - cpu - (time.thread_time() - waiting)
        self.record(name, (taken + after) / count * 1e6, "µs", cpu / count * 1e6)
        if drained:
            self.record(f"{name}: after its last call", after * 1e3, "ms, part of it")

    def latencies(self, name: str, taken: Sequence[int]) -> None:
        """p99, p99.9 and the worst of nanoseconds."""
        self.record(f"{name}: p99", percentile(taken, 0.99), "µs")
        self.record(f"{name}: p99.9", percentile(taken, 0.999), "µs")
        self.record(f"{name}: worst", max(taken) / 1e6, "ms")
