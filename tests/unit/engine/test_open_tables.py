"""Tables that come and go under max_open_files: what is cached, closed, opened, and who waits."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives.native import crc32c
from kvstore._engine.table.native import CacheFace, cache_find, cache_forget, cache_put
from kvstore.engine import DB
from kvstore.errors import CorruptionError, IntegrityCode

MANY_TABLES: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 8 << 20,
    "block_size": 1024,
    "max_open_files": 16,
    "lru_cache_size": 64 << 20,
}
KEYS = [b"%06d" % k for k in range(10_000)]


def filled(disk: MemoryFileSystem, **settings: Any) -> DB:
    db = DB("/db", filesystem=disk, **(MANY_TABLES | settings))
    for key in KEYS:
        db.put(key, key * 50)
    db.flush()
    db.compact_range()
    return db


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def tables_of(db: DB) -> int:
    return sum(level["tables"] for level in db.stats()["levels"])


def test_blocks_stay_cached_when_their_table_is_closed(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        assert tables_of(db) > 40
        for key in KEYS:
            assert db.get(key) == key * 50
        assert db.stats()["open_tables"] <= 16
        opened, read = disk.counts["open"], disk.counts["pread"]
        misses = db.stats()["cache"]["misses"]
        for key in KEYS:
            assert db.get(key) == key * 50
        assert db.stats()["cache"]["misses"] == misses
        # Tables are opened again, with two reads each; no block is read.
        assert disk.counts["pread"] - read == 2 * (disk.counts["open"] - opened)


def test_blocks_go_with_the_file(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        for key in KEYS:
            db.get(key)
        assert db.stats()["cache"]["blocks"] > 1000
        for key in KEYS:
            db.put(key, b"")
        db.flush()
        db.compact_range()
        assert db.stats()["cache"]["blocks"] == 0


def test_a_table_in_use_is_not_the_one_that_is_closed(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        others = KEYS[1000::100]
        for key in others:
            db.get(key)
        opened = disk.counts["open"]
        for key in others:
            db.get(KEYS[0])
            db.get(key)
        # KEYS[0]'s table once, each other one once.
        assert disk.counts["open"] - opened <= 1 + tables_of(db)
        assert db.stats()["open_tables"] == 16


def test_iterators_read_without_the_gil(disk: MemoryFileSystem) -> None:
    filled(disk).close()
    with DB("/db", filesystem=disk, **(MANY_TABLES | {"lru_cache_size": 0})) as db:
        reads, held = disk.counts["pread"], disk.preads_with_gil
        chance = random.Random(1)
        with db.iterator() as forwards, db.iterator(reverse=True) as backwards:
            for _ in range(2000):
                next(forwards)
                next(backwards)
            for _ in range(200):
                forwards.seek(chance.choice(KEYS))
                next(forwards)
        assert disk.counts["pread"] - reads > 500
        assert disk.preads_with_gil == held


def test_a_table_that_may_only_be_read_is_refused_where_it_would_be_compacted(
    tmp_path: Path,
) -> None:
    with DB(tmp_path / "db") as db:
        db.put(b"k", b"v")
        db.flush()
    (path,) = (tmp_path / "db").glob("*.sst")
    header = bytearray(path.read_bytes())
    header[16] = 1
    struct.pack_into("<I", header, 92, crc32c(bytes(header[:92])))
    path.write_bytes(header)
    with DB(tmp_path / "db") as db, pytest.raises(CorruptionError, match="not compact") as caught:
        db.get(b"k")
    assert caught.value.code is IntegrityCode.UNSUPPORTED_VERSION
    with DB(tmp_path / "db", read_only=True) as db:
        assert db.get(b"k") == b"v"


def test_a_table_of_another_database_is_not_accepted(tmp_path: Path) -> None:
    """The same number, size and contents: two members of one cluster have such tables."""
    for name in ("one", "two"):
        with DB(tmp_path / name) as db:
            db.put(b"k", b"v")
            db.flush()
    (one,) = (tmp_path / "one").glob("*.sst")
    (two,) = (tmp_path / "two").glob("*.sst")
    assert (one.name, one.stat().st_size) == (two.name, two.stat().st_size)
    one.write_bytes(two.read_bytes())
    with (
        DB(tmp_path / "one") as db,
        pytest.raises(CorruptionError, match="another table under this name") as caught,
    ):
        db.get(b"k")
    assert caught.value.code is IntegrityCode.INVALID_RECORD


def test_forgetting_a_table_leaves_the_blocks_of_others() -> None:
    cache = CacheFace(64 << 20)
    for offset in range(30_000):
        cache_put(cache, offset % 3 + 1, offset, b"x" * 10).release()
    cache_forget(cache, 2)
    assert cache.stats()["blocks"] == 20_000
    assert cache_find(cache, 2, 1) is None
    for offset in (0, 2, 3, 29_999):
        assert cache_find(cache, offset % 3 + 1, offset) is not None
