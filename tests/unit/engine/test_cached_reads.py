"""What memory alone answers: never asking the disk, never wrongly; and room without waiting."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.errors import ClosedError, StorageError

COLD = object()
SMALL: dict[str, Any] = {
    "background": False,
    "wal": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "block_size": 1024,
    "bloom_filter_bits": 10,
}


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def test_memtables_answer(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.put(b"b", b"2")
        db.delete(b"b")
        assert db.get_cached(b"a", cold=COLD) == b"1"
        assert db.get_cached(b"b", cold=COLD) is None
        assert db.get_cached(b"c", b"default", cold=COLD) == b"default"
        assert db.contains_cached(b"a") is True
        assert db.contains_cached(b"b") is False
        assert db.contains_cached(b"c") is False


def test_what_lies_on_the_disk_is_cold_until_it_was_read(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.put(b"z", b"2")
        db.flush()
    with DB("/db", filesystem=disk, **SMALL) as db:
        disk.fail("open", errno.EIO, always=True)
        disk.fail("pread", errno.EIO, always=True)
        # Outside of all tables there is nothing to ask.
        assert db.get_cached(b"zz", cold=COLD) is None
        assert db.get_cached(b"a", cold=COLD) is COLD
        assert db.contains_cached(b"a") is None
        disk.heal()
        assert db.get(b"a") == b"1"
        disk.fail("pread", errno.EIO, always=True)
        assert db.get_cached(b"a", cold=COLD) == b"1"
        assert db.contains_cached(b"a") is True
        # The filter is in memory by now.
        assert db.get_cached(b"missing", cold=COLD) is None


def test_a_block_that_isnt_kept_stays_cold(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.flush()
        assert db.get(b"a", fill_cache=False) == b"1"
        assert db.get_cached(b"a", cold=COLD) is COLD
        assert db.get(b"a") == b"1"
        assert db.get_cached(b"a", cold=COLD) == b"1"


def test_without_a_cache_all_of_the_tables_is_cold(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL, lru_cache_size=0) as db:
        db.put(b"a", b"1")
        db.flush()
        assert db.get(b"a") == b"1"
        assert db.get_cached(b"a", cold=COLD) is COLD
        db.put(b"a", b"2")
        assert db.get_cached(b"a", cold=COLD) == b"2"


def test_it_never_answers_otherwise_than_get(disk: MemoryFileSystem) -> None:
    """Over levels, deletions, ranges, and tables that are closed for others."""
    rng = random.Random(7)
    keys = [b"%04d" % number for number in range(2000)]
    small_cache = SMALL | {"lru_cache_size": 64 << 10, "max_open_files": 16}
    found = {True: 0, False: 0, None: 0}
    with DB("/db", filesystem=disk, **small_cache) as db:
        for _ in range(20_000):
            key = rng.choice(keys)
            draw = rng.random()
            if draw < 0.4:
                db.put(key, key * rng.randint(1, 40))
            elif draw < 0.5:
                db.delete(key)
            elif draw < 0.502:
                with db.write_batch() as batch:
                    batch.delete_range(key, b"%04d" % (int(key) + 30))
            else:
                known = db.contains_cached(key)
                value = db.get_cached(key, cold=COLD)
                found[known] += 1
                expected = db.get(key)
                assert known in (None, expected is not None)
                assert value is COLD or value == expected
    assert min(found.values()) > 100


def test_a_closed_database_says_so(disk: MemoryFileSystem) -> None:
    db = DB("/db", filesystem=disk, **SMALL)
    db.put(b"a", b"1")
    db.close()
    for call in (db.get_cached, db.contains_cached):
        with pytest.raises(ClosedError):
            call(b"a")


# --- room ---------------------------------------------------------------------------------------


def test_room_without_waiting_is_refused_while_a_flush_is_under_way(
    disk: MemoryFileSystem,
) -> None:
    settings = SMALL | {"background": True, "max_write_buffers": 2}
    disk.fail("datasync", errno.ENOSPC, always=True, path=".sst")
    with DB("/db", filesystem=disk, **settings) as db:
        told: list[object] = []
        for _ in range(1000):
            try:
                if not db.make_room(wait=False):
                    told.append(False)
            except StorageError as error:
                assert error.retryable
                told.append(error)
                break
            if len(told) > 3:
                break
            batch = WriteBatch()
            batch.put(b"k", bytes(1000))
            if not told:
                db.write(batch)
        assert told
        disk.heal()
        # A flush that has failed already would be tried again by itself, but not at once.
        db.resume()
        assert db.make_room()
        assert db.make_room(wait=False)


def test_a_write_of_whoever_keeps_a_log_is_not_slowed_down(disk: MemoryFileSystem) -> None:
    settings = SMALL | {
        "background": True,
        "compaction_trigger": 4,
        "slowdown_files": 4,
        "stop_files": 100,
    }
    with DB("/db", filesystem=disk, **settings) as db:
        assert db.write_delay == 0.0
        disk.fail("pread", errno.EMFILE, always=True, path=".sst")
        for number in range(6):
            # One key: a table that overlaps none may be moved down without being read.
            db.put(b"k", b"%d" % number)
            db.flush()
        assert 0.0 < db.write_delay <= 0.001
        before = db.stats()["slowdowns"]
        batch = WriteBatch()
        batch.put(b"x", b"y")
        db.write(batch, applied_index=1)
        assert db.stats()["slowdowns"] == before
        while db.stats()["slowdowns"] == before:
            assert db.make_room(wait=False)
            db.put(b"x", bytes(1000))
        disk.heal()
