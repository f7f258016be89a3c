"""The story of a database on real files, told while a system call fails: a program of its own.

``python -m tests.crash.failing_calls DIRECTORY KIND ERROR`` runs with the library of
``failing_calls.c`` preloaded. ERROR is a name of ``errno``, or HALF: the call does half of what it
was asked for. It prints how many calls it let fail, and how many steps of the story raised.
"""

from __future__ import annotations

import ctypes
import errno
import shutil
import sys
from pathlib import Path

from kvstore._engine.files.native import PosixFileSystem
from tests.crash.disk_story import ROUND, Story
from tests.crash.disk_sweep import CALLS_MAX, places

__all__ = ["HALF", "UNSEEN"]

HALF = "HALF"
UNSEEN = {HALF, "EINTR"}
"""What a call is done again for, or gone on from; but a sync that was broken off has failed."""
TAKEN = 12
SYNCS = ("fdatasync", "fsync")


def tell(directory: str, kind: str, code: int, at: int) -> tuple[int, int]:
    """With the ``at``-th call failing: how many there were, and how many steps raised."""
    Path(directory).mkdir()
    library = ctypes.CDLL(None)
    library.fail_call(directory.encode(), kind.encode(), ctypes.c_long(at), code)
    story = Story(PosixFileSystem(), code, path=f"{directory}/db", forgets=kind in SYNCS)
    story.tell(0, ROUND)
    calls = library.calls_seen()
    library.fail_call(directory.encode(), kind.encode(), ctypes.c_long(0), 0)
    story.end()
    shutil.rmtree(directory)
    return calls, story.failed_steps


def main(directory: str, kind: str, error: str) -> None:
    code = 0 if error == HALF else getattr(errno, error)
    calls, _ = tell(f"{directory}/counted", kind, 0, 0)
    failures = raised = 0
    for at in places(min(calls, CALLS_MAX), TAKEN):
        try:
            seen, steps = tell(f"{directory}/{at}", kind, code, at)
        except BaseException as mistake:
            mistake.add_note(f"{kind} {error}, call {at} of {calls}")
            raise
        failures += seen >= at
        raised += steps
    print(calls, failures, raised)


if __name__ == "__main__":
    main(*sys.argv[1:])
