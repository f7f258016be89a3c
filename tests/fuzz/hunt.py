"""One target fuzzed in a process of its own, which may crash, hang or ask for too much memory.

The input that is at work lies in a file that both processes have mapped, so that it is known
whatever ends the one that works. What it came to is judged by novelty: an input with an outcome
that no other had joins those that are changed further.
"""

from __future__ import annotations

import mmap
import os
import random
import resource
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.corpus_files import kept
from tests.fuzz.mutation import INPUT_BYTES_MAX, mutated
from tests.fuzz.targets.target import Run, Target

__all__ = ["Found", "hunt", "replayed", "work"]

HANG_SECONDS = 30.0
START_SECONDS = 180.0
"""Until the first input: a kvd, or all modules under a sanitizer, take their time."""
MINIMISE_SECONDS = 60.0
POOL_MAX = 400
MEMORY_BYTES_MAX = 1 << 30
"""Beyond what a worker has when it begins; not under a sanitizer, whose shadow is terabytes."""
_HEAD = struct.Struct("<QI")
_MAP_BYTES = _HEAD.size + INPUT_BYTES_MAX
FAILED = 3
"""Exit status of a worker that raised something."""


@dataclass(frozen=True)
class Found:
    """What came of a hunt.

    ``failed``: something did; ``data`` is the input, None where it wasn't one that failed.
    """

    runs: int
    outcomes: int
    failed: bool = False
    data: bytes | None = None
    said: str = ""


# --- the worker ----------------------------------------------------------------------------------


def work(target: Target, scratch: Path, seconds: float, seed: int) -> int:
    """Fuzz until the time is over or something fails; the exit status. In a process of its own."""
    _bound_memory()
    with open(scratch, "r+b") as file, mmap.mmap(file.fileno(), _MAP_BYTES) as shared:
        try:
            with target.opened() as run:
                runs, outcomes = _loop(target, run, shared, seconds, seed)
        except Exception:  # noqa: BLE001  # that is what is looked for
            print(traceback.format_exc(limit=-8))
            return FAILED
    print(runs, outcomes)
    return 0


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "ASAN_OPTIONS" not in os.environ:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES_MAX,) * 2)


def _loop(
    target: Target, run: Run, shared: mmap.mmap, seconds: float, seed: int
) -> tuple[int, int]:
    chance = random.Random(seed)
    pool = [*target.seeds(), *(path.read_bytes() for path in kept(target.name))]
    seen: set[object] = set()
    runs = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = pool[runs] if runs < len(pool) else mutated(chance.choice(pool), pool, chance)
        runs += 1
        shared[: _HEAD.size] = _HEAD.pack(runs, len(data))
        shared[_HEAD.size : _HEAD.size + len(data)] = data
        outcome = run(data)
        if outcome not in seen and len(pool) < POOL_MAX:
            seen.add(outcome)
            pool.append(data)
    return runs, len(seen)


def replayed(target: Target, data: bytes) -> None:
    """Run one input, in this process. Raises what the target does."""
    with target.opened() as run:
        run(data)


# --- who starts it -------------------------------------------------------------------------------


def hunt(target: Target, scratch: Path, seconds: float, seed: int) -> Found:
    """Fuzz a target for so long; what failed is made as small as it gets within a minute."""
    scratch.write_bytes(bytes(_MAP_BYTES))
    words = [target.name, str(scratch), str(seconds), str(seed)]
    status, said = _watched(words, scratch)
    runs, size = _HEAD.unpack_from(scratch.read_bytes())
    if status == 0:
        return Found(runs, int(said.split()[-1]))
    if not runs:
        return Found(0, 0, True, None, f"couldn't begin\n{said[-3000:]}")
    data = scratch.read_bytes()[_HEAD.size : _HEAD.size + size]
    smallest = _minimised(data, lambda smaller: _fails_alike(target, scratch, smaller, status))
    return Found(runs, 0, True, smallest, f"{_name_of(status)}\n{said[-3000:]}")


def _name_of(status: int | None) -> str:
    if status is None:
        return f"hangs for more than {HANG_SECONDS:g} s"
    return "raises" if status == FAILED else f"ends with status {status}"


def _watched(words: Sequence[str], scratch: Path) -> tuple[int | None, str]:
    """The worker's exit status, None where it was killed for its silence, and what it said."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.worker", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        before, since, silent = 0, time.monotonic(), False
        while True:
            try:
                said, _ = process.communicate(timeout=1)
                return None if silent else process.returncode, said
            except subprocess.TimeoutExpired:
                (runs, _) = _HEAD.unpack_from(scratch.read_bytes())
                if runs != before:
                    before, since = runs, time.monotonic()
                elif time.monotonic() - since > (HANG_SECONDS if runs else START_SECONDS):
                    silent = True
                    process.kill()


def _fails_alike(target: Target, scratch: Path, data: bytes, status: int | None) -> bool:
    path = scratch.with_suffix(".smaller")
    path.write_bytes(data)
    found, _ = _watched([target.name, str(path)], scratch)
    return found == status


def _minimised(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Leave out what isn't needed, large parts first, as long as there is time."""
    end = time.monotonic() + MINIMISE_SECONDS
    size = max(len(data) // 2, 1)
    if not fails(data):
        return data  # it takes what came before it as well
    while time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            smaller = data[:at] + data[at + size :]
            if fails(smaller):
                data = smaller
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return data
