"""Reads through a block cache that is smaller than the data: what is kept, what a read costs."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import StorageError

COUNT = 20_000
SMALL: dict[str, Any] = {"background": False, "wal": False, "block_size": 1024}


@pytest.fixture
def disk() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(COUNT):
            db.put(b"%06d" % number, b"value" * 10)
        db.compact_range()
    return disk


def reads(disk: MemoryFileSystem) -> int:
    return disk.counts["pread"]


def test_without_a_cache_a_lookup_is_one_read(disk: MemoryFileSystem) -> None:
    """The partitions are kept all the same."""
    with DB("/db", filesystem=disk, **SMALL, lru_cache_size=0) as db:
        for number in range(0, COUNT, 100):
            assert db.get(b"%06d" % number) == b"value" * 10
        before = reads(disk)
        for number in range(0, COUNT, 100):
            assert db.get(b"%06d" % number) == b"value" * 10
        assert reads(disk) - before == COUNT // 100
        before = reads(disk)
        assert [db.get(b"%06dx" % number) for number in range(0, COUNT, 100)].count(None) == 200
        assert reads(disk) - before < 20
        cache = db.stats()["cache"]
        assert cache["used_bytes"] == cache["blocks"] == 0
        assert 0 < cache["index_used_bytes"] < cache["index_capacity_bytes"]
        assert cache["index_misses"] < 20


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_leaves_what_is_read_often_in_the_cache(
    disk: MemoryFileSystem, reverse: bool
) -> None:
    with DB("/db", filesystem=disk, **SMALL, lru_cache_size=128 << 10) as db:
        hot = [b"%06d" % number for number in range(0, 1000, 20)]
        for _ in range(3):
            assert None not in [db.get(key) for key in hot]
        before = reads(disk)
        for _ in range(3):
            assert sum(1 for _ in db.iterator(reverse=reverse)) == COUNT
        scanned = reads(disk) - before
        assert scanned > 3
        assert db.stats()["cache"]["evictions"] < 200
        before = reads(disk)
        assert None not in [db.get(key) for key in hot]
        assert reads(disk) - before < len(hot) // 4


def test_what_becomes_popular_gets_in(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL, lru_cache_size=128 << 10) as db:
        assert sum(1 for _ in db) == COUNT
        popular = [b"%06d" % number for number in range(15_000, 15_400)]
        for _ in range(4):
            assert None not in [db.get(key) for key in popular]
        before = reads(disk)
        assert None not in [db.get(key) for key in popular]
        assert reads(disk) == before


def test_others_run_while_a_lookup_reads_and_only_then(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        ran: list[bytes | None] = []

        def look(operation: str, path: str) -> None:
            if operation == "pread" and path.endswith(".sst"):
                disk.on_operation = None
                thread = threading.Thread(target=lambda: ran.append(db.get(b"010000")))
                thread.start()
                thread.join()

        disk.on_operation = look
        assert db.get(b"000000") == b"value" * 10
        assert ran == [b"value" * 10]


def test_a_read_that_fails_fails_alone(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL, lru_cache_size=0) as db:
        assert db.get(b"000100") == b"value" * 10
        disk.fail("pread", errno.EIO)
        with pytest.raises(StorageError) as caught:
            db.get(b"000100")
        assert caught.value.errno == errno.EIO
        assert db.get(b"000100") == b"value" * 10


@pytest.mark.parametrize("size", [100, 4000, 20_000, 200_000])
def test_values_of_any_size_come_whole(size: int) -> None:
    disk = MemoryFileSystem()
    rows = {b"%04d" % number: bytes([number]) * (size + number) for number in range(40)}
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.update(rows)
        db.compact_range()
    for cache in (0, 64 << 10, 64 << 20):
        with DB("/db", filesystem=disk, **SMALL, lru_cache_size=cache) as db:
            for _ in range(2):
                assert {key: db.get(key) for key in rows} == rows
                assert db.multi_get(list(rows)) == list(rows.values())
                assert dict(db) == rows
                assert list(db.iterator(reverse=True)) == sorted(rows.items(), reverse=True)
