"""Tombstones make a compaction due: who seeks must not pass over what is gone for ever."""

from __future__ import annotations

import threading
from typing import Any

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB

ENTRIES = 20_000
OPTIONS: dict[str, Any] = {"background": False, "write_buffer_size": 8 << 20}


def queue(db: DB) -> None:
    """A queue after its work: everything put, nearly all of it taken."""
    for number in range(ENTRIES):
        db.put(b"%08d" % number, b"job")
    db.flush()
    take_all_but_ten(db)


def take_all_but_ten(db: DB) -> None:
    batch = db.write_batch()
    for number in range(ENTRIES - 10):
        batch.delete(b"%08d" % number)
    batch.write()
    db.flush()


def test_a_queue_that_was_emptied_is_compacted_without_another_write() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **OPTIONS) as db:
        queue(db)
        state = db.stats()
        assert state["table_tombstones"] == 0
        assert state["table_entries"] == 10
        assert state["compaction_score"] < 1
        assert len(list(db)) == 10


def test_a_thread_does_it_where_there_is_one() -> None:
    disk = MemoryFileSystem()
    compacted = threading.Event()

    def seen(operation: str, path: str) -> None:
        # Only what a compaction has replaced is removed.
        if operation == "unlink" and path.endswith(".sst"):
            compacted.set()

    disk.on_operation = seen
    with DB("/db", filesystem=disk, **OPTIONS | {"background": True}) as db:
        queue(db)
        assert compacted.wait(60)
        assert db.stats()["table_tombstones"] == 0
        assert len(list(db)) == 10


def test_tombstones_in_a_lower_level_are_written_anew_not_moved() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **OPTIONS) as db:
        queue(db)
        # Nothing lies below them any more, and so nothing has to be merged.
        for number in range(5000):
            db.put(b"x%08d" % number, b"")
            db.delete(b"x%08d" % number)
        db.flush()
        state = db.stats()
        assert state["table_tombstones"] == 0
        assert state["table_entries"] == 10


def test_tombstones_that_somebody_needs_wait_and_are_not_written_again_and_again() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **OPTIONS) as db:
        for number in range(ENTRIES):
            db.put(b"%08d" % number, b"job")
        db.flush()
        with db.snapshot() as before:
            take_all_but_ten(db)
            assert db.stats()["table_tombstones"] == ENTRIES - 10
            assert db.stats()["compactions"] == 0
            assert len(list(before)) == ENTRIES
        db.put(b"later", b"")
        db.flush()
        assert db.stats()["table_tombstones"] == 0
        assert len(list(db)) == 11


def test_a_range_that_was_deleted_gives_its_space_back_without_another_write() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **OPTIONS) as db:
        for number in range(ENTRIES):
            db.put(b"%08d" % number, b"job")
        db.flush()
        before = db.stats()["table_bytes"]
        db.delete_range(b"%08d" % 10, b"%08d" % ENTRIES)
        db.flush()
        state = db.stats()
        assert (state["table_entries"], state["range_tombstones"]) == (10, 0)
        assert state["table_bytes"] < before // 10
        assert state["compaction_score"] < 1
        assert len(list(db)) == 10


def test_a_few_tombstones_or_a_minority_make_nothing_due() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **OPTIONS) as db:
        # A table that may have what is deleted: else they would not be written at all.
        db.put(b"", b"")
        db.put(b"~", b"")
        db.flush()
        for number in range(100):
            db.delete(b"%08d" % number)
        db.flush()
        assert db.stats()["table_tombstones"] == 100
        for number in range(5000):
            db.put(b"%08d" % number, b"v")
        for number in range(5000, 7000):
            db.delete(b"%08d" % number)
        db.flush()
        assert db.stats()["compactions"] == 0
        assert db.stats()["compaction_score"] < 1
