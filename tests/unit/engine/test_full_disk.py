"""A full disk is emptied from within: deletions are taken, and make room where no flush has any."""

from __future__ import annotations

import errno
import random

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import StorageError

SMALL = {"write_buffer_size": 64 << 10, "background": False, "max_file_size": 64 << 10}


def fill(db: kvstore.DB) -> int:
    """Puts until the disk is full; how many went well."""
    count = 0
    value = random.Random(1).randbytes(1000)
    while True:
        try:
            db.put(b"k%06d" % count, value)
        except kvstore.StorageError as error:
            assert error.retryable
            return count
        count += 1


def fill_with_all_sizes(db: kvstore.DB, seed: int) -> None:
    """Some of the values stay in the log, and there are older ones of some keys."""
    chance = random.Random(seed)
    while True:
        key = b"k%06d" % chance.randrange(1000)
        try:
            db.put(key, chance.randbytes(chance.choice([100, 4000])))
        except StorageError as error:
            assert error.retryable
            return


def full(**options: int | bool) -> tuple[MemoryFileSystem, kvstore.DB, int]:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk, **{**SMALL, **options})
    disk.capacity_bytes = disk.used_bytes + (6 << 20)
    return disk, db, fill(db)


# Values in tables, and where the log has them.
@pytest.mark.parametrize("value_log_bytes", [0, 500])
def test_deleting_everything_and_compacting_gives_the_space_back(value_log_bytes: int) -> None:
    disk, db, count = full(value_log_bytes=value_log_bytes)
    assert count > 100
    used = disk.used_bytes
    db.delete_range()
    db.compact_range()
    assert disk.used_bytes < used / 2
    assert list(db) == []
    db.put(b"k", b"v" * 100000, sync=True)
    with kvstore.open("/db", filesystem=disk.crash()) as again:
        assert list(again) == [(b"k", b"v" * 100000)]
    db.close()


@pytest.mark.parametrize("seed", range(8))
def test_where_values_stay_in_the_log_there_is_always_room_to_log_deletes(seed: int) -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk, value_log_bytes=500, **SMALL)
    disk.capacity_bytes = disk.used_bytes + (4 << 20) + seed * 237_001
    fill_with_all_sizes(db, seed)
    assert db.stats()["value_files"]
    for key in list(db.iterator(include_value=False))[:200]:
        db.delete(key)
    db.delete_range()
    db.compact_range()
    assert list(db) == []
    assert db.stats()["value_files"] == 0
    assert disk.used_bytes < 3 << 20
    db.put(b"k", b"v" * 1000, sync=True)
    with kvstore.open("/db", filesystem=disk.crash(), value_log_bytes=500) as again:
        assert list(again) == [(b"k", b"v" * 1000)]
    db.close()


def test_values_that_have_no_room_to_move_stay_where_they_are() -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk, value_log_bytes=500, compaction_trigger=2, **SMALL)
    content = {b"k%06d" % number: random.Random(number).randbytes(4000) for number in range(1000)}
    for key, value in content.items():
        db.put(key, value)
    db.flush()
    disk.capacity_bytes = disk.used_bytes + (64 << 10)
    # Two of three values of each value file.
    for key in [key for number, key in enumerate(content) if number % 3]:
        db.delete(key)
        del content[key]
    db.compact_range()
    assert dict(db) == content
    assert db.stats()["failure"] is None
    kept = db.stats()["value_file_bytes"]
    disk.capacity_bytes = None
    db.put(b"k000000", content[b"k000000"])
    db.flush()
    db.compact_range()
    assert db.stats()["value_file_bytes"] < kept / 2
    assert dict(db) == content
    db.verify()
    db.close()


def test_memtables_that_are_written_as_one_run_keep_the_newest_and_what_a_snapshot_sees() -> None:
    disk, db, count = full(max_write_buffers=8)
    kept = b"k%06d" % (count - 1)
    before = db.get(kept)
    with db.snapshot() as snapshot:
        db.delete_range(b"k000000", kept)
        with pytest.raises(kvstore.StorageError):
            db.flush()  # the snapshot needs all of it
        assert snapshot.get(b"k000000") is not None
    db.flush()
    db.compact_range()
    assert list(db) == [(kept, before)]
    assert db.stats()["failure"] is None
    db.sync()
    with kvstore.open("/db", filesystem=disk.crash()) as again:
        assert list(again) == [(kept, before)]
    db.close()


def test_a_manifest_goes_on_where_it_was_after_an_edit_that_found_no_space() -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk, background=False)
    db.put(b"a", b"1")
    disk.fail("pwrite", errno.ENOSPC, path="MANIFEST", at=1)
    disk.fail("unlink", errno.EIO, path="RESERVE", always=True)  # no second try out of the reserve
    with pytest.raises(StorageError, match="space"):
        db.flush()
    disk.heal()
    db.flush()
    db.put(b"b", b"2")
    db.flush()
    with kvstore.open("/db", filesystem=disk.crash()) as again:
        assert list(again) == [(b"a", b"1"), (b"b", b"2")]
