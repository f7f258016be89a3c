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


def full(**options: int | bool) -> tuple[MemoryFileSystem, kvstore.DB, int]:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk, **{**SMALL, **options})
    disk.capacity_bytes = disk.used_bytes + (6 << 20)
    return disk, db, fill(db)


def test_deleting_everything_and_compacting_gives_the_space_back() -> None:
    disk, db, count = full()
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
