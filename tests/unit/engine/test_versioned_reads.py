"""Values with the sequence of the write that made them: lookups and walks, wherever they lie."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.errors import ClosedError, InvalidArgumentError

COLD = object()
SMALL: dict[str, Any] = {
    "background": False,
    "wal": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "compaction_trigger": 2,
    "block_size": 1024,
}


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def test_the_sequence_of_a_value_is_that_of_its_write(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.put(b"b", b"2")
        db.put(b"a", b"3")
        db.delete(b"b")
        for _ in range(2):  # from the memtable, then from a table
            assert db.get_versioned(b"a") == (b"3", 3)
            assert db.get_versioned(b"b") is None
            assert db.get_versioned(b"c") is None
            assert db.get_versioned_cached(b"a", cold=COLD) == (b"3", 3)
            assert db.get_versioned_cached(b"b", cold=COLD) is None
            db.flush()
        db.put(b"d", b"4")
        assert db.get_versioned(bytearray(b"a")) == (b"3", 3)


def test_a_read_at_a_sequence_gives_the_version_of_then(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.retain_from(0)
        for number in range(1, 6):
            db.put(b"k", b"%d" % number)
        db.delete(b"k")
        for _ in range(2):
            for number in range(1, 6):
                assert db.get_versioned(b"k", number) == (b"%d" % number, number)
                assert db.get_versioned_cached(b"k", number) == (b"%d" % number, number)
            assert db.get_versioned(b"k", sequence=6) is None
            assert db.get_versioned(b"k", 0) is None
            db.compact_range()
        for bad in (-1, 7):
            with pytest.raises(InvalidArgumentError):
                db.get_versioned(b"k", bad)
            with pytest.raises(InvalidArgumentError):
                db.get_versioned_cached(b"k", bad)


def test_numbers_that_the_caller_gave_come_back(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        batch = WriteBatch()
        batch.put(b"a", b"1", sequence=10)
        batch.put(b"b", b"1", sequence=10)
        batch.put(b"c", b"1", sequence=1 << 40)
        db.write(batch, sequence=10)
        assert list(db.iterator(include_sequence=True)) == [
            (b"a", b"1", 10),
            (b"b", b"1", 10),
            (b"c", b"1", 1 << 40),
        ]


def test_what_lies_on_the_disk_is_cold_until_it_was_read(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.put(b"z", b"2")
        db.flush()
    with DB("/db", filesystem=disk, **SMALL) as db:
        disk.fail("open", errno.EIO, always=True)
        disk.fail("pread", errno.EIO, always=True)
        assert db.get_versioned_cached(b"a", cold=COLD) is COLD
        assert db.get_versioned_cached(b"a") is None
        disk.heal()
        assert db.get_versioned(b"a", fill_cache=False) == (b"1", 1)
        assert db.get_versioned_cached(b"a", cold=COLD) is COLD
        assert db.get_versioned(b"a") == (b"1", 1)
        disk.fail("pread", errno.EIO, always=True)
        assert db.get_versioned_cached(b"a", cold=COLD) == (b"1", 1)


def test_views_and_snapshots_have_it_too(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        view = db.prefixed_db(b"p:")
        view.put(b"a", b"1")
        with db.snapshot() as snapshot, view.snapshot() as part:
            view.put(b"a", b"2")
            view.put(b"b", b"3")
            assert snapshot.get_versioned(b"p:a") == (b"1", 1)
            assert part.get_versioned(b"a") == (b"1", 1)
            assert part.get_versioned(b"b") is None
            assert list(part.iterator(include_sequence=True)) == [(b"a", b"1", 1)]
        assert view.get_versioned(b"a") == (b"2", 2)
        assert list(view.iterator(include_sequence=True)) == [(b"a", b"2", 2), (b"b", b"3", 3)]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_walk_yields_what_was_asked_for_and_the_sequence_last(
    disk: MemoryFileSystem, reverse: bool
) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.put(b"b", b"2")
        both = [(b"a", b"1", 1), (b"b", b"2", 2)]
        if reverse:
            both.reverse()

        def walk(**included: bool) -> list[Any]:
            return list(db.iterator(reverse=reverse, include_sequence=True, **included))

        assert walk() == both
        assert walk(include_value=False) == [(key, number) for key, _, number in both]
        assert walk(include_key=False) == [(value, number) for _, value, number in both]
        assert walk(include_key=False, include_value=False) == [number for _, _, number in both]


def test_a_walk_that_turns_round_shows_the_same_sequences(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        keep = db.snapshot()  # so that all versions stay
        for number in range(1, 41):
            db.put(b"%d" % (number % 4), b"%d" % number)
        with db.iterator(include_sequence=True) as walk:
            seen = [next(walk), next(walk), walk.prev(), walk.prev(), next(walk)]
        first, second = (b"0", b"40", 40), (b"1", b"37", 37)
        assert seen == [first, second, second, first, first]
        keep.close()


def test_no_flush_compaction_reopening_or_checkpoint_changes_a_sequence(
    disk: MemoryFileSystem,
) -> None:
    """Over levels that form, with history, range tombstones and repeated numbers."""
    rng = random.Random(17)
    model: dict[bytes, tuple[bytes, int]] = {}
    number = 0
    db = DB("/db", filesystem=disk, **SMALL)
    for round_number in range(60):
        batch = WriteBatch()
        for _ in range(rng.randint(1, 80)):
            number += rng.choice([0, 1, 1, 5])
            key = b"%03d" % rng.randrange(300)
            if rng.random() < 0.2:
                batch.delete(key, sequence=number)
                model.pop(key, None)
            else:
                value = rng.randbytes(rng.choice([3, 300]))
                batch.put(key, value, sequence=number)
                model[key] = (value, number)
        if rng.random() < 0.3:
            number += 1
            low, high = sorted(rng.sample(range(300), 2))
            batch.delete_range(b"%03d" % low, b"%03d" % high, sequence=number)
            for key in [key for key in model if b"%03d" % low <= key < b"%03d" % high]:
                del model[key]
        db.write(batch, sequence=min(number, max(db.last_sequence, 0)), applied_index=round_number)
        what = rng.randrange(6)
        if what == 0:
            db.flush()
        elif what == 1:
            db.compact_range()
        elif what == 2:
            db.flush()
            db.close()
            db = DB("/db", filesystem=disk, **SMALL)
        elif what == 3:
            db.checkpoint(f"/copy{round_number}")
            with DB(f"/copy{round_number}", filesystem=disk, **SMALL) as copy:
                check(copy, model)
        check(db, model)
    db.close()


def check(db: DB, model: dict[bytes, tuple[bytes, int]]) -> None:
    expected = [(key, *model[key]) for key in sorted(model)]
    assert list(db.iterator(include_sequence=True)) == expected
    assert list(db.iterator(include_sequence=True, reverse=True)) == expected[::-1]
    for key in (b"%03d" % number for number in range(0, 300, 7)):
        assert db.get_versioned(key) == model.get(key)
        cached = db.get_versioned_cached(key, cold=COLD)
        assert cached is COLD or cached == model.get(key)


def test_a_closed_database_says_so(disk: MemoryFileSystem) -> None:
    db = DB("/db", filesystem=disk, **SMALL)
    db.put(b"a", b"1")
    db.close()
    for call in (db.get_versioned, db.get_versioned_cached):
        with pytest.raises(ClosedError):
            call(b"a")
