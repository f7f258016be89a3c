"""`history_prefixes`: what else is rewritten all the time leaves no versions behind."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.engine.options import Options
from kvstore.errors import InvalidArgumentError

SMALL: dict[str, Any] = {
    "background": False,
    "wal": False,
    "max_file_size": 64 << 10,
    "block_size": 1024,
}
ROUNDS = 10_000


def test_a_record_that_each_write_repeats_does_not_pile_up() -> None:
    """As the state machine of a replica writes: its own record beside each user's key."""
    with DB(
        "/db", filesystem=MemoryFileSystem(), **SMALL, history_prefixes=(b"\x01", b"\x02")
    ) as db:
        db.retain_from(0)
        for number in range(1, ROUNDS + 1):
            batch = WriteBatch()
            batch.put(b"\x01key", b"%d" % number)
            batch.put(b"\x00state", b"%d" % number)
            batch.put(b"\x03other", b"%d" % number)
            if number % 2:
                batch.put(b"\x00odd", b"")
            else:
                batch.delete(b"\x00odd")
            db.write(batch, sequence=number)
        db.flush()
        # Nor is a tombstone of what no table has.
        assert db.stats()["table_entries"] == ROUNDS + 2
        db.compact_range()
        assert db.stats()["table_entries"] == ROUNDS + 2
        assert db.get(b"\x00state") == db.get(b"\x03other") == b"%d" % ROUNDS
        for number in (1, 77, ROUNDS):
            assert db.get(b"\x01key", sequence=number) == b"%d" % number


def test_snapshots_keep_what_they_see_of_every_key() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL, history_prefixes=(b"h",)) as db:
        db.retain_from(0)
        for number in range(10):
            db.put(b"a", b"%d" % number)
            if number == 4:
                snapshot = db.snapshot()
        db.flush()
        assert db.stats()["table_entries"] == 2
        db.compact_range()
        assert snapshot.get(b"a") == b"4"
        snapshot.close()
        db.put(b"a", b"10")
        db.compact_range()
        assert db.stats()["table_entries"] == 1
        assert db.get(b"a") == b"10"


@pytest.mark.parametrize("prefixes", [(), (b"h",), (b"a", b"h", b"hh", b"h1", b"i"), (b"\xff",)])
def test_a_deleted_range_leaves_nothing_of_keys_without_a_history(
    prefixes: tuple[bytes, ...],
) -> None:
    """And all of those with one, where it lies over both."""
    keys = [b"a", b"b", b"g\xff", b"h", b"h1", b"hz", b"i", b"z", b"\xff", b"\xff\xff"]
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL, history_prefixes=prefixes) as db:
        db.retain_from(0)
        for key in keys:
            db.put(key, b"1")
        before = db.last_sequence
        db.flush()
        db.delete_range()
        for _ in range(2):
            assert list(db) == []
            kept = [key for key in keys if key.startswith(prefixes)]
            found = [key for key, _ in db.iterator(sequence=before)]
            assert [key for key in found if key in kept] == kept
            db.compact_range()
        assert found == kept
        assert db.stats()["table_entries"] == len(kept)
        assert (db.stats()["range_tombstones"] == 0) == (not kept)


def test_without_history_at_all_the_option_changes_nothing() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL, history_prefixes=(b"h",)) as db:
        for number in range(10):
            db.put(b"h", b"%d" % number)
            db.put(b"a", b"%d" % number)
        db.flush()
        assert db.stats()["table_entries"] == 2


def test_a_table_of_tombstones_that_no_reader_needs_is_due_whatever_history_is_kept() -> None:
    with DB(
        "/db",
        filesystem=MemoryFileSystem(),
        **SMALL,
        write_buffer_size=16 << 20,
        history_prefixes=(),
    ) as db:
        db.retain_from(0)
        for number in range(4000):
            db.put(b"%04d" % number, b"")
        db.flush()
        for number in range(4000):
            db.delete(b"%04d" % number)
        db.flush()
        assert db.stats()["table_entries"] == 0


def test_the_option_is_of_bytes() -> None:
    for wrong in ([b"a"], b"a", ("a",), (bytearray(b"a"),), 7):
        with pytest.raises(TypeError, match="history_prefixes"):
            Options(history_prefixes=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="1025"):
        Options(history_prefixes=tuple(b"%d" % number for number in range(1025)))
    many = tuple(b"%d" % number for number in range(1024))
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL, history_prefixes=many) as db:
        db.put(b"a", b"")
        db.delete_range()
        db.compact_range()
        assert db.stats()["table_entries"] == 0
