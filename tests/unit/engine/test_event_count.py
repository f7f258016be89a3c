"""What threads of the engine wait with: see event_count.pxd."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kvstore import DB
from kvstore._engine.database import native
from kvstore._engine.database.native import EventCount
from kvstore._engine.files.native import MemoryFileSystem

WAIT_S = 60


class Interrupted(Exception):
    pass


def test_who_read_an_older_count_does_not_wait() -> None:
    count = EventCount()
    seen = count.count
    count.advance()
    count.wait(seen, math.inf)
    assert count.count == seen + 1


@pytest.mark.parametrize("seconds", [0, -1, 1e-9])
def test_a_wait_that_is_over_ends(seconds: float) -> None:
    count = EventCount()
    count.wait(count.count, seconds)


def test_one_advance_wakes_all_who_wait() -> None:
    count = EventCount()
    rounds, threads = 200, 4
    reached = threading.Barrier(threads + 1, timeout=WAIT_S)

    def follow() -> None:
        seen = 0
        while seen < rounds:
            count.wait(seen, WAIT_S)
            assert count.count > seen
            seen = count.count
            reached.wait()

    followers = [threading.Thread(target=follow, daemon=True) for _ in range(threads)]
    for each in followers:
        each.start()
    for _ in range(rounds):
        count.advance()
        reached.wait()
    for each in followers:
        each.join(WAIT_S)
        assert not each.is_alive()


INTERRUPTED = """
import signal, sys, threading
from kvstore import DB


class Interrupted(Exception):
    pass


def interrupt(number, frame):
    raise Interrupted


signal.signal(signal.SIGALRM, interrupt)
db = DB(sys.argv[1], max_write_buffers=2, write_buffer_size=64 << 10)
times = written = 0
while times < 1000:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        for number in range(1000):
            db.put(b"%08d" % number, bytes(1000))
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupted:
        times += 1
signal.setitimer(signal.ITIMER_REAL, 0)
writer = threading.Thread(target=lambda: [db.put(b"%08d" % n, bytes(1000)) for n in range(1000)])
writer.start()
writer.join()
db.flush()
db.close()
print("closed")
"""


def test_handlers_that_raise_leave_nobody_waiting(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "db"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "closed\n", done.stderr


def test_what_a_handler_raises_in_a_flush_ends_that_call_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = native.Edit

    def interrupted(**_given: object) -> object:
        monkeypatch.setattr(native, "Edit", made)
        raise Interrupted

    with DB("/db", filesystem=MemoryFileSystem(), background=False) as db:
        db.put(b"a", b"1")
        monkeypatch.setattr(native, "Edit", interrupted)
        with pytest.raises(Interrupted):
            db.flush()
        db.put(b"b", b"2")
        db.flush()
        assert [db.get(b"a"), db.get(b"b")] == [b"1", b"2"]
