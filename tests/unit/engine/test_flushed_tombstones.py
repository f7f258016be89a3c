"""A flush writes no tombstone of a key that no table can have."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore import DB
from kvstore._engine.files.native import MemoryFileSystem

SMALL: dict[str, Any] = {"background": False, "compaction_trigger": 8}


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def table(db: DB) -> tuple[int, int]:
    stats = db.stats()
    return stats["table_entries"], stats["table_tombstones"]


def test_what_is_put_and_deleted_between_two_flushes_leaves_nothing(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(1000):
            db.put(b"queue/%04d" % number, b"v")
            db.delete(b"queue/%04d" % number)
        db.flush()
        assert table(db) == (0, 0)
        assert sum(level["tables"] for level in db.stats()["levels"]) == 0
        last = db.last_sequence
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert db.last_sequence == last
        assert list(db) == []
        db.put(b"queue/0000", b"again")
        assert dict(db) == {b"queue/0000": b"again"}


def test_a_tombstone_stays_over_what_a_table_may_have(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"b", b"1")
        db.put(b"d", b"1")
        db.flush()
        db.delete(b"b")
        db.delete(b"c")  # between two keys of a table
        db.delete(b"e")  # beyond all
        db.flush()
        assert table(db) == (4, 2)
        assert dict(db) == {b"d": b"1"}
        db.compact_range()
        db.delete(b"d")
        db.delete(b"e")
        db.flush()
        assert table(db) == (2, 1)
        assert dict(db) == {}


def test_it_stays_while_a_snapshot_sees_what_it_hides(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"k", b"1")
        snapshot = db.snapshot()
        db.delete(b"k")
        db.flush()
        assert table(db) == (2, 1)
        assert snapshot.get(b"k") == b"1"
        assert db.get(b"k") is None
        snapshot.close()
        db.compact_range()
        assert table(db) == (0, 0)


def test_it_stays_where_history_is_kept(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.retain_from(0)
        db.put(b"k", b"1")
        db.delete(b"k")
        db.flush()
        assert table(db) == (2, 1)
        assert db.get(b"k", sequence=1) == b"1"


def test_it_stays_under_older_memtables_that_are_flushed_with_it(disk: MemoryFileSystem) -> None:
    """A range tombstone is no tombstone of a key: it stays, and what it hides stays hidden."""
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"k", b"1")
        db.flush()
        db.delete_range(b"a", b"z")
        db.flush()
        assert db.get(b"k") is None
        db.compact_range()
        assert dict(db) == {}
