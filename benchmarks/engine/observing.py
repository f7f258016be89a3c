"""What a process takes: time, latency, memory, the disk; from /proc, alike for all engines."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

__all__ = [
    "anonymous_bytes",
    "disk_bytes",
    "drain",
    "forget_cached",
    "mapped_bytes",
    "own_heap_trimmed",
    "percentile",
    "remove",
    "timing_each",
    "timing_pairs",
    "written_bytes",
]

_T = TypeVar("_T")

LOOK_S = 0.001
"""What came after the last call is told to this."""
QUIET_LOOKS = 100
DRAIN_LIMIT_S = 900.0


def drain() -> float:
    """Wait until no thread but this one does anything; how long until the last did, in seconds.

    Quiet is a hundred looks, a tenth of a second or more, at each of which no other thread ran or
    waited for the disk and nothing had been written: engines tell of their compactions differently,
    the kernel tells the same of all.
    """
    began = last = time.perf_counter()
    quiet, before = 0, _written()
    while quiet < QUIET_LOOKS:
        time.sleep(LOOK_S)
        now = time.perf_counter()
        written = _written()
        if written != before or _others_run():
            quiet, before, last = 0, written, now
        else:
            quiet += 1
        if now - began > DRAIN_LIMIT_S:
            raise TimeoutError(f"still busy after {DRAIN_LIMIT_S:.0f} s")
    return last - began


def _others_run() -> bool:
    own = os.getpid()
    for thread in os.listdir("/proc/self/task"):
        if int(thread) == own:
            continue
        try:
            stat = Path(f"/proc/self/task/{thread}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.rpartition(")")[2].split()[0] in "RD":
            return True
    return False


def _io(name: str) -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(name)


def _written() -> tuple[int, int]:
    return _io("wchar:"), _io("write_bytes:")


def written_bytes() -> int:
    """What this process has had written to disks; of a map, the pages that it made dirty."""
    return _io("write_bytes:")


def _smaps(field: str) -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise ValueError(field)


def anonymous_bytes() -> int:
    """Memory that the kernel can't take back without swap."""
    return _smaps("Anonymous:")


def own_heap_trimmed() -> None:
    """Give back what the heap keeps for later: an engine that filled it would seem to take nothing.

    The process was forked from one that had made and dropped data of all sizes.
    """
    ctypes.CDLL(None).malloc_trim(0)


def mapped_bytes() -> int:
    """Pages of mapped files: clean ones are the page cache's, and go when others need them."""
    return _smaps("Rss:") - _smaps("Anonymous:")


def disk_bytes(path: Path) -> int:
    """What a store takes on disk, holes not counted."""
    return sum(found.stat().st_blocks * 512 for found in path.rglob("*") if found.is_file())


def forget_cached(path: Path) -> None:
    """Have the page cache drop a store's files; nobody may have them open."""
    for found in path.rglob("*"):
        if not found.is_file():
            continue
        file = os.open(found, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def timing_each(call: Callable[[_T], object], arguments: Sequence[_T]) -> array[int]:
    """Call with each argument; nanoseconds that each took, the clock's own 50 or so included."""
    taken = array("Q", bytes(8 * len(arguments)))
    clock = time.perf_counter_ns
    for number, argument in enumerate(arguments):
        began = clock()
        call(argument)
        taken[number] = clock() - began
    return taken


def timing_pairs(call: Callable[[_T, _T], object], pairs: Iterable[tuple[_T, _T]]) -> array[int]:
    """The same of calls with two arguments each."""
    taken = array("Q")
    clock, note = time.perf_counter_ns, taken.append
    for key, value in pairs:
        began = clock()
        call(key, value)
        note(clock() - began)
    return taken


def percentile(taken: Sequence[int], share: float) -> float:
    """Of nanoseconds, in microseconds: so many of 1 took no longer."""
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e3
