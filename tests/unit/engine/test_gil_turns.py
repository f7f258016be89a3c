"""Flushes come by the GIL although a thread writes all the time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore import DB, WriteBatch
from kvstore._engine.primitives.native import gil_turns

SMALL: dict[str, Any] = {
    "write_buffer_size": 64 << 10,
    "compaction_trigger": 2,
    "max_write_buffers": 64,
}
PATIENCE_S = 10.0
GREEDY_S = PATIENCE_S / 5
"""A thread that is called may miss the turn that is left to it, once or twice; a flush that never
got one would take six times as long."""

# A writer waits for who was called, but not for long.
pytestmark = pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ, reason="with a sanitizer threads may come too late for their turn"
)


@pytest.fixture
def greedy() -> Iterator[None]:
    """Whoever waits for the GIL gets it when another thread gives it up, and hardly before."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(GREEDY_S)
    yield
    sys.setswitchinterval(before)


def fill(db: DB) -> None:
    """Two memtables and a bit, without waiting for anything."""
    for number in range(15):
        db.put(b"%d" % number, bytes(10_000))


@pytest.mark.usefixtures("greedy")
@pytest.mark.parametrize("write", ["delete", "write"])
def test_who_writes_in_a_loop_lets_them_in(tmp_path: Path, write: str) -> None:
    with DB(tmp_path / "db", **SMALL) as db:
        fill(db)
        deadline = time.monotonic() + PATIENCE_S
        # Nothing here gives up the GIL, but for the writes.
        while db.stats()["flushes"] < 2:
            assert time.monotonic() < deadline
            if write == "write":
                db.write(WriteBatch())
            else:
                db.delete(b"k")


@pytest.mark.usefixtures("greedy")
def test_a_writer_does_not_wait_long_for_who_does_not_come(tmp_path: Path) -> None:
    """A thread that asks, and is kept from the GIL by one that neither writes nor pauses."""
    with DB(tmp_path / "db", **SMALL) as db:
        fill(db)
        began = time.monotonic()
        for _ in range(10):
            db.put(b"k", b"v")
        assert time.monotonic() - began < PATIENCE_S
        assert db.get(b"k") == b"v"


def test_a_flush_and_a_compaction_take_the_gil_three_times_each(tmp_path: Path) -> None:
    """After what they write, after the manifest, and after what is left to go: 5 ms each beside a
    thread that computes. What doesn't ask for the GIL would wait in the tests above."""
    with DB(tmp_path / "db", background=False) as db:
        for _ in range(2):
            fill(db)
            before = gil_turns()
            db.flush()
            assert gil_turns() - before == 3
        before = gil_turns()
        db.compact_range()
        assert gil_turns() - before == 3


def test_a_child_waits_for_none_of_its_parents_threads(tmp_path: Path) -> None:
    with DB(tmp_path / "db", **SMALL) as db:
        ended = threading.Event()

        def write() -> None:
            while not ended.is_set():
                db.put(b"k", bytes(1000))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(5):
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        with DB(tmp_path / f"child{number}") as own:
                            began = time.monotonic()
                            for _ in range(5000):
                                own.put(b"k", b"v")
                            code = 2 if time.monotonic() - began > 5 else 0
                    finally:
                        os._exit(code)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            ended.set()
            writer.join()
