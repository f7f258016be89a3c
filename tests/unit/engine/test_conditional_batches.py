"""Batches that are written only if keys are as they are expected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import ClosedError, ConflictError, InvalidArgumentError


@pytest.fixture
def db(tmp_path: Path) -> Iterator[kvstore.DB]:
    with kvstore.open(tmp_path / "db") as opened:
        yield opened


def flushed(db: kvstore.DB) -> None:
    """Nothing is in memory, nor in the cache."""
    db.flush()
    db.compact_range()


def nowhere(db: kvstore.DB) -> None:
    """As it was written."""


@pytest.mark.parametrize("settle", [nowhere, flushed])
@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_a_batch_is_written_where_all_is_as_expected(
    tmp_path: Path, settle: Callable[[kvstore.DB], None], cache: int
) -> None:
    with kvstore.open(tmp_path / "db", lru_cache_size=cache) as db:
        db.put(b"a", b"1")
        db.put(b"empty", b"")
        db.put(b"gone", b"x")
        db.delete(b"gone")
        settle(db)
        versioned = db.get_versioned(b"a")
        assert versioned is not None
        batch = db.write_batch()
        batch.expect(b"a", b"1")
        batch.expect(b"a", sequence=versioned[1])
        batch.expect(b"empty", b"")
        batch.expect(b"gone", None)
        batch.expect(bytearray(b"never"), None)
        batch.put(b"a", b"2")
        assert len(batch) == 1
        batch.write()
        assert db.get(b"a") == b"2"
        settle(db)
        # The same once more: it isn't as it was.
        with pytest.raises(ConflictError) as refused:
            batch.write()
        assert refused.value.key == b"a"
        assert str(refused.value) == "key b'a' isn't as the batch expects it"


@pytest.mark.parametrize("settle", [nowhere, flushed])
@pytest.mark.parametrize(
    ("key", "value", "sequence"),
    [
        (b"a", b"2", None),
        (b"a", b"", None),
        (b"a", b"11", None),
        (b"a", None, None),
        (b"gone", b"x", None),
        (b"never", b"", None),
        (b"a", ..., 2),
        (b"a", ..., 0),
        (b"gone", ..., 2),
        (b"gone", ..., 3),
        (b"never", ..., 0),
    ],
)
def test_else_nothing_of_it_is_written(
    db: kvstore.DB,
    settle: Callable[[kvstore.DB], None],
    key: bytes,
    value: bytes | None,
    sequence: int | None,
) -> None:
    db.put(b"a", b"1")
    db.put(b"gone", b"x")
    db.delete(b"gone")
    settle(db)
    before, last = dict(db.items()), db.last_sequence
    batch = db.write_batch()
    batch.put(b"b", b"3")
    batch.expect(b"a", b"1")
    if sequence is None:
        batch.expect(key, value)
    else:
        batch.expect(key, sequence=sequence)
    batch.delete_range(b"a", b"z")
    with pytest.raises(ConflictError) as refused:
        db.write(batch, sync=True)
    assert refused.value.key == key
    assert dict(db.items()) == before
    assert db.last_sequence == last


def test_conditions_are_of_the_moment_before_the_batch_and_not_within_it(db: kvstore.DB) -> None:
    with db.write_batch() as batch:
        batch.put(b"a", b"1")
        batch.expect(b"a", None)
    with db.write_batch(transaction=True) as batch:
        batch.expect(b"a", b"1")
        batch.delete(b"a")
        batch.expect(b"a", b"1")
    assert b"a" not in db
    batch = db.write_batch()
    batch.expect(b"a", b"1")
    with pytest.raises(ConflictError), batch:
        batch.put(b"b", b"1")
    assert b"b" not in db


def test_deleted_ranges_and_overwritten_tables_count(db: kvstore.DB) -> None:
    for value in (b"1", b"2"):
        db.put(b"a", value)
        db.put(b"b", value)
        db.flush()
    db.delete_range(b"b", b"c")
    batch = kvstore.WriteBatch()
    batch.expect(b"a", b"2")
    batch.expect(b"b", None)
    assert db.write(batch) == db.last_sequence
    db.flush()
    db.write(batch)
    db.put(b"b", b"3")
    with pytest.raises(ConflictError):
        db.write(batch)


def test_a_batch_of_conditions_alone_checks_them(db: kvstore.DB) -> None:
    batch = db.write_batch()
    batch.expect(b"a", None)
    assert len(batch) == 0
    last = db.last_sequence
    batch.write()
    assert db.last_sequence == last
    db.put(b"a", b"1")
    with pytest.raises(ConflictError):
        batch.write()
    batch.clear()
    batch.put(b"b", b"2")
    batch.write()
    assert db.get(b"b") == b"2"


def test_in_a_view_keys_get_the_prefix(db: kvstore.DB) -> None:
    db.put(b"a", b"outside")
    view = db.prefixed_db(b"p/")
    view.put(b"a", b"inside")
    batch = view.write_batch()
    batch.expect(b"a", b"inside")
    batch.put(b"a", b"changed")
    batch.write()
    assert db.get(b"p/a") == b"changed"
    with pytest.raises(ConflictError) as refused:
        batch.write()
    assert refused.value.key == b"p/a"


def test_appended_batches_bring_their_conditions(tmp_path: Path, db: kvstore.DB) -> None:
    source = kvstore.WriteBatch()
    source.expect(b"a", b"1")
    source.put(b"b", b"2")
    batch = db.write_batch()
    batch.append(source)
    batch.append(batch)
    with pytest.raises(ConflictError):
        batch.write()
    db.put(b"a", b"1")
    flushed(db)
    batch.write()
    assert len(batch) == 2
    # What was read of one database is nothing to another.
    with kvstore.open(tmp_path / "other") as other:
        other.put(b"a", b"2")
        flushed(other)
        with pytest.raises(ConflictError):
            other.write(batch)


def test_what_makes_no_sense_is_refused(db: kvstore.DB) -> None:
    batch = db.write_batch()
    for wrong in (
        lambda: batch.expect(b"a"),  # type: ignore[call-overload]
        lambda: batch.expect(b"a", b"1", sequence=1),  # type: ignore[call-overload]
        lambda: batch.expect(b"a", b"1", b"2"),  # type: ignore[call-overload]
        lambda: batch.expect("a", b"1"),  # type: ignore[call-overload]
        lambda: batch.expect(b"a", 1),  # type: ignore[call-overload]
    ):
        with pytest.raises(TypeError):
            wrong()
    for other in (True, False, 1.0, 1.5, "1", b"1", [1]):
        for asks in (partial(batch.expect, b"a"), partial(db.get, b"a"), db.iterator, db.snapshot):
            with pytest.raises(TypeError, match="a sequence is an int, not "):
                asks(sequence=other)  # type: ignore[arg-type, call-overload]
        with pytest.raises(TypeError, match="a sequence is an int, not "):
            db.retain_from(other)  # type: ignore[arg-type]
    for sequence in (-1, 1 << 56):
        with pytest.raises(InvalidArgumentError):
            batch.expect(b"a", sequence=sequence)
    with pytest.raises(InvalidArgumentError, match="a key of 1048577 bytes is over"):
        batch.expect(bytes((1 << 20) + 1), None)
    batch.write()
    db.close()
    with pytest.raises(ClosedError):
        batch.expect(b"a", None)


def test_long_keys_are_told_shortened(db: kvstore.DB) -> None:
    batch = db.write_batch()
    batch.expect(b"k" * 1000, b"")
    with pytest.raises(ConflictError) as refused:
        batch.write()
    assert refused.value.key == b"k" * 1000
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize("settings", [{}, {"lru_cache_size": 0}, {"wal": False}])
def test_of_many_who_count_none_is_lost(tmp_path: Path, settings: dict[str, object]) -> None:
    """Writers that read, add one, and try again where another came first; flushes in between."""
    threads, each = 6, 150
    name = tmp_path / "db"
    with kvstore.open(name, write_buffer_size=1 << 16, **settings) as db:  # type: ignore[arg-type]
        db.put(b"count", b"0")
        conflicts = [0] * threads

        def add(number: int) -> None:
            for step in range(each):
                while True:
                    value, sequence = db.get_versioned(b"count") or (b"", 0)
                    batch = db.write_batch()
                    if step % 2:
                        batch.expect(b"count", value)
                    else:
                        batch.expect(b"count", sequence=sequence)
                    batch.expect(b"%d/%d" % (number, step), None)
                    batch.put(b"count", b"%d" % (int(value) + 1))
                    batch.put(b"%d/%d" % (number, step), bytes(2000))
                    try:
                        batch.write()
                        break
                    except ConflictError as error:
                        assert error.key == b"count"
                        conflicts[number] += 1
                if step % 20 == number:
                    db.flush()

        running = [threading.Thread(target=add, args=(number,)) for number in range(threads)]
        for one in running:
            one.start()
        for one in running:
            one.join()
        assert db.get(b"count") == b"%d" % (threads * each)
        assert db.count(stop=b"c") == threads * each


def test_a_write_that_repeats_a_sequence_counts_when_it_is_flushed_meanwhile() -> None:
    """The tables are then of the sequence that they were of when the condition was read."""
    disk = MemoryFileSystem()
    with kvstore.open("/db", filesystem=disk, wal=False, background=False, lru_cache_size=0) as db:

        def put(value: bytes) -> None:
            batch = db.write_batch()
            batch.put(b"a", value)
            db.write(batch, sequence=5)
            db.flush()

        def write_another(operation: str, path: str) -> None:
            if operation == "pread" and path.endswith(".sst"):
                disk.on_operation = None
                put(b"other")

        put(b"before")
        assert db.get(b"a") == b"before"
        batch = db.write_batch()
        batch.expect(b"a", b"before")
        batch.put(b"a", b"mine")
        disk.on_operation = write_another
        with pytest.raises(ConflictError):
            db.write(batch, sequence=5)
        assert disk.on_operation is None
        assert db.get(b"a") == b"other"


@pytest.mark.parametrize("moment", range(1, 80, 6))
def test_who_writes_while_a_table_is_opened_is_not_written_over(moment: int) -> None:
    """Opening lets others in: that is done before conditions are looked at, and not again then."""
    disk = MemoryFileSystem()
    keys = [b"%02d" % number for number in range(40)]
    with kvstore.open(
        "/db",
        filesystem=disk,
        wal=False,
        max_open_files=16,
        compaction_trigger=64,
        slowdown_files=64,
        stop_files=128,
    ) as db:
        for key in keys:
            db.put(key, b"before")
            db.flush()
        opened = 0

        def write(operation: str, path: str) -> None:
            nonlocal opened
            if operation == "open" and path.endswith(".sst"):
                opened += 1
                if opened == moment:
                    db.put(keys[0], b"other")

        batch = db.write_batch()
        for key in keys:
            batch.expect(key, b"before")
        batch.put(keys[0], b"mine")
        disk.on_operation = write
        try:
            batch.write()
        except ConflictError as error:
            assert error.key == keys[0]
        disk.on_operation = None
        assert opened > 16
        assert db.get(keys[0]) == (b"other" if opened >= moment else b"mine")
