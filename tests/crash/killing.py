"""Processes that are killed at one of their system calls, by strace or by a preloaded library.

strace counts the calls of each kind and thread as the kernel gets them; the library
(``failing_calls.c``) counts all that change something below a directory together, whatever their
kind and thread, so that with one number after the other every moment is met.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.disk_trouble import COMPILER
from tests.integration.process import environment

__all__ = ["ALL", "KINDS", "Call", "Wrapped", "build", "by_library", "by_strace", "calls_in"]
__all__ += ["needs_strace", "quick_directory", "some_of", "without_sanitizers"]

ALL = os.environ.get("KVSTORE_KILL_SWEEP") == "all"
KINDS = (
    *("write", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "fallocate"),
    *("openat", "link", "mkdir"),
)
"""Those that change something, as strace names them."""

without_sanitizers = pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ, reason="hundreds of processes, which start slowly with one"
)

Wrapped = Sequence[str]
"""What is put before the words of a command."""


class Call(NamedTuple):
    """The ``at``-th call of a kind, of any one thread."""

    kind: str
    at: int


def some_of(calls: Sequence[Call], taken: int) -> Sequence[Call]:
    """About ``taken`` of them, from the first to the last; all in a whole sweep."""
    if ALL or len(calls) <= taken:
        return calls
    places = {round(at * (len(calls) - 1) / (taken - 1)) for at in range(taken)}
    return [calls[place] for place in sorted(places)]


@contextmanager
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """Where syncs take no time: a process that is killed leaves the same behind on any disk.

    A whole sweep is on the disk all the same.
    """
    memory = Path("/dev/shm")
    if ALL or not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="kvstore-killed-", dir=memory) as name:
        yield Path(name)


# --- strace --------------------------------------------------------------------------------------


def _strace_works() -> bool:
    """It is there, and may look into other processes."""
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", "trace=write", "true"], check=False, capture_output=True
    )
    return tried.returncode == 0


needs_strace = pytest.mark.skipif(
    not _strace_works(), reason="no strace, or it may look into no process"
)


def by_strace(call: Call) -> Wrapped:
    """SIGKILL at that call. The process that was started is the command's own (``-D``).

    Not with ``--seccomp-bpf``, with which strace 6.1 injects no signal.
    """
    what = f"{call.kind}:signal=KILL:when={call.at}"
    traced = ("-e", f"trace={call.kind}", "-e", f"inject={what}")
    return ("strace", "-D", "-f", "-o", "/dev/null", *traced)


_LINE = re.compile(r"(?P<thread>\d+) +(?P<kind>\w+)\((?P<rest>.*)")


def calls_in(trace: str, below: Path) -> list[Call]:
    """The calls on files below a directory, in their order: ``strace -f -y`` wrote the trace.

    An ``openat`` that makes no file is none of them.
    """
    counts: dict[tuple[str, str], int] = {}
    found = []
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        which = match["thread"], match["kind"]
        counts[which] = at = counts.get(which, 0) + 1
        if f"{below}/" in match["rest"] and (which[1] != "openat" or "O_CREAT" in match["rest"]):
            found.append(Call(which[1], at))
    return found


# --- the library ---------------------------------------------------------------------------------


def build(directory: Path) -> Path:
    """Compile the library, in ``directory``."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    library = directory / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def preloaded(library: Path) -> str:
    """The value of LD_PRELOAD."""
    # A sanitizer's runtime, if there is one, wants to be the first.
    return " ".join([*os.environ.get("LD_PRELOAD", "").split(), str(library)])


def told_by(library: Path, module: str, *words: str) -> str:
    """What a module's program prints, run with the library; it must end well and silently."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        env=environment(LD_PRELOAD=preloaded(library)),
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def by_library(library: Path, below: Path, at: int, counted: Path | None = None) -> Wrapped:
    """SIGKILL at the ``at``-th call below a directory; ``counted`` gets how many there were."""
    words = [f"LD_PRELOAD={preloaded(library)}", f"KILL_BELOW={below}/", f"KILL_AT={at}"]
    return ("env", *words, *([f"KILL_COUNTED={counted}"] if counted else []))
