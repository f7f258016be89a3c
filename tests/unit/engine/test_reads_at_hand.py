"""Reads that keep the GIL, because others want it and the system has the bytes in memory."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from kvstore._engine.files.file_face import OpenFile, open_file
from kvstore._engine.files.native import MemoryFileSystem, PosixFileSystem
from kvstore._engine.primitives.native import keep_gil, keeps_gil
from kvstore.engine import DB
from kvstore.errors import StorageError

COUNT = 5000
MANY = 1 << 40
SMALL: dict[str, Any] = {"background": False, "wal": False, "block_size": 1024}
COLD = object()


def key_of(number: int) -> bytes:
    return b"%06d" % number


def value_of(number: int) -> bytes:
    return b"value %d" % number * 5


@pytest.fixture(autouse=True)
def wanted_gil() -> Iterator[None]:
    """As if other threads computed."""
    keep_gil(MANY)
    yield
    keep_gil(0)


@pytest.fixture
def disk() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(COUNT):
            db.put(key_of(number), value_of(number))
        db.compact_range()
    return disk


@pytest.fixture
def db(disk: MemoryFileSystem) -> Iterator[DB]:
    """One table, open, its partitions in memory and no block."""
    with DB("/db", filesystem=disk, **SMALL, lru_cache_size=0) as opened:
        disk.at_hand = True
        assert sum(1 for _ in opened.iterator()) == COUNT
        assert opened.stats()["open_tables"] == 1
        disk.counts["pread_at_hand"] = 0
        yield opened


def get(db: DB) -> None:
    for number in range(0, COUNT, 50):
        assert db.get(key_of(number)) == value_of(number)


def get_several(db: DB) -> None:
    numbers = range(0, COUNT, 50)
    assert db.multi_get([key_of(n) for n in numbers]) == [value_of(n) for n in numbers]


def get_versioned(db: DB) -> None:
    for number in range(0, COUNT, 50):
        assert db.get_versioned(key_of(number)) == (value_of(number), number + 1)


def seek(db: DB) -> None:
    for number in range(0, COUNT, 50):
        with db.iterator(start=key_of(number)) as entries:
            assert [key for key, _ in islice(entries, 2)] == [key_of(number), key_of(number + 1)]


def walk(db: DB) -> None:
    expected = [(key_of(n), value_of(n)) for n in range(COUNT)]
    assert list(db.iterator()) == expected
    assert list(db.iterator(reverse=True)) == expected[::-1]


WAYS = pytest.mark.parametrize("way", [get, get_several, get_versioned, seek, walk])


@WAYS
def test_what_is_at_hand_is_read_by_nothing_else(
    disk: MemoryFileSystem, db: DB, way: Callable[[DB], None]
) -> None:
    before = disk.counts["pread"]
    way(db)
    assert disk.counts["pread_at_hand"] > 5
    assert disk.counts["pread"] == before


@WAYS
@pytest.mark.parametrize("error", [errno.EAGAIN, 0], ids=["not there", "short"])
def test_what_is_not_at_hand_is_read_without_the_gil(
    disk: MemoryFileSystem, db: DB, way: Callable[[DB], None], error: int
) -> None:
    held = disk.preads_with_gil
    before = disk.counts["pread"]
    if error:
        disk.fail("pread_at_hand", error, always=True)
    else:
        disk.shorten_read(always=True, operation="pread_at_hand")
    way(db)
    assert disk.counts["pread"] - before >= disk.counts["pread_at_hand"] > 5
    assert disk.preads_with_gil == held


@WAYS
def test_a_disk_that_cannot_tell_is_asked_once_for_a_table(
    disk: MemoryFileSystem, db: DB, way: Callable[[DB], None]
) -> None:
    held = disk.preads_with_gil
    disk.fail("pread_at_hand", errno.EOPNOTSUPP, always=True)
    way(db)
    way(db)
    assert disk.counts["pread_at_hand"] == 1
    assert disk.preads_with_gil == held


@pytest.mark.parametrize(
    "way",
    [
        lambda db: db.get(key_of(7)),
        lambda db: db.multi_get([key_of(7)]),
        lambda db: next(db.iterator()),
        lambda db: next(db.iterator(reverse=True)),
    ],
)
def test_an_error_of_the_disk_is_an_error(
    disk: MemoryFileSystem, db: DB, way: Callable[[DB], object]
) -> None:
    disk.fail("pread_at_hand", errno.EIO)
    before = disk.counts["pread"]
    with pytest.raises(StorageError) as caught:
        way(db)
    assert caught.value.errno == errno.EIO
    assert disk.counts["pread"] == before
    way(db)


def test_damage_at_hand_is_damage(disk: MemoryFileSystem, db: DB) -> None:
    (table,) = [path for path in disk.files("/db") if path.endswith(".sst")]
    disk.flip_bit(table, 500)
    with pytest.raises(StorageError, match="CHECKSUM_MISMATCH"):
        db.get(key_of(0))


def test_each_read_of_the_disk_counts(disk: MemoryFileSystem, db: DB) -> None:
    keep_gil(100)
    for number in range(10):
        db.get(key_of(number * 100))
    assert keeps_gil() == 90


def test_what_memory_alone_is_to_answer_asks_for_nothing(disk: MemoryFileSystem, db: DB) -> None:
    assert db.get_cached(key_of(7), cold=COLD) is COLD
    assert db.contains_cached(key_of(7)) is None
    assert disk.counts["pread_at_hand"] == 0


def test_large_blocks_are_read_without_the_gil(disk: MemoryFileSystem) -> None:
    with DB("/large", filesystem=disk, **SMALL) as db:
        for number in range(5):
            db.put(key_of(number), bytes(200_000))
        db.flush()
    with DB("/large", filesystem=disk, **SMALL, lru_cache_size=0) as db:
        disk.at_hand = True
        held = disk.preads_with_gil
        assert db.get(key_of(3)) == bytes(200_000)
        assert len(list(db.iterator())) == len(list(db.iterator(reverse=True))) == 5
        assert disk.counts["pread_at_hand"] == 0
        assert disk.preads_with_gil == held


def test_beside_a_thread_that_computes_reads_keep_the_gil(tmp_path: Path) -> None:
    """Who gives it up then has somebody to wake up, and sees that."""
    keep_gil(0)
    with DB(tmp_path / "db", **SMALL) as db:
        for number in range(COUNT):
            db.put(key_of(number), value_of(number))
        db.compact_range()
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    with DB(tmp_path / "db", **SMALL, lru_cache_size=0) as db:
        thread.start()
        try:
            for number in range(COUNT):
                assert db.get(key_of(number)) == value_of(number)
                if keeps_gil():
                    break
        finally:
            ended.set()
            thread.join()
    assert 0 < keeps_gil() < MANY


# --- the system's files -------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OpenFile]:
    """64 KiB, synced, all in the page cache."""
    opened = open_file(PosixFileSystem(), str(tmp_path / "file"))
    opened.pwrite(bytes(range(256)) * 256, 0)
    opened.datasync()
    try:
        opened.pread_at_hand(1, 0)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("neither this system nor this file system can tell")
        raise
    yield opened
    opened.close()


def test_the_page_cache_answers(file: OpenFile) -> None:
    assert file.pread_at_hand(4096, 0) == bytes(range(256)) * 16
    assert file.pread_at_hand(3, 4095) == bytes([255, 0, 1])


def test_a_page_that_is_not_there_is_not_asked_for(file: OpenFile) -> None:
    """Not even read ahead: to begin a read may have to wait for the device."""
    file.forget()
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            file.pread_at_hand(4096, 32 << 10)
    assert file.pread(4096, 32 << 10) == bytes(range(256)) * 16
    assert file.pread_at_hand(4096, 32 << 10) == bytes(range(256)) * 16
