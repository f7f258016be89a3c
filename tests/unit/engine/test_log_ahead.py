"""A segment of the log is made ahead, and a writer whose record goes there waits for no disk."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable
from random import Random

import pytest

import kvstore
from kvstore import DB
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import StorageError

WAIT_S = 20
VALUE_BYTES = 40_000
SEGMENT_BYTES = 1 << 20
HALF = SEGMENT_BYTES // VALUE_BYTES // 2 + 1  # so many values are more than half of a segment


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    pause = threading.Event()
    for _ in range(WAIT_S * 1000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not come to that")


def opened(disk: MemoryFileSystem, **named: object) -> DB:
    return kvstore.open(
        "/db", filesystem=disk, write_buffer_size=SEGMENT_BYTES, max_write_buffers=32, **named
    )


def files(disk: MemoryFileSystem, suffix: str) -> list[str]:
    return [name for name in disk.names("/db/wal") if name.endswith(suffix)]


def put(db: DB, number: int, **named: bool) -> None:
    db.put(b"k%05d" % number, number.to_bytes(4, "little") * (VALUE_BYTES // 4), **named)


def fill_to_where_the_next_is_there(db: DB, disk: MemoryFileSystem, number: int) -> int:
    """More than half of a fresh segment, and the file after it is made."""
    for _ in range(HALF):
        put(db, number)
        number += 1
    until(lambda: bool(files(disk, ".spare")))
    # Not the one that the flush puts aside: that is only taken for it when the thread comes by.
    until(lambda: not db.stats()["frozen_memtables"])
    db.sync()
    return number


def put_until_refused(db: DB, number: int) -> tuple[int, StorageError]:
    """The number that wasn't taken, and why."""
    while True:
        try:
            put(db, number)
        except StorageError as error:
            return number, error
        number += 1


def holds(db: DB, numbers: range) -> bool:
    return all(db.get(b"k%05d" % number) is not None for number in numbers)


def test_a_writer_asks_the_disk_for_nothing_where_a_segment_ends() -> None:
    disk = MemoryFileSystem()
    asked: list[str] = []
    writer = threading.get_ident()
    with opened(disk) as db:
        number = fill_to_where_the_next_is_there(db, disk, 0)
        disk.on_operation = lambda operation, path: (
            asked.append(f"{operation} {path}")
            if threading.get_ident() == writer and "/wal/" in path
            else None
        )
        for _ in range(HALF):
            put(db, number)
            number += 1
        until(lambda: len(disk.names("/db/wal")) > 1 and "000002.wal" in files(disk, ".wal"))
        disk.on_operation = None
        assert asked == []
        db.sync()
        left = disk.crash()
    with opened(left) as again:
        assert holds(again, range(number))


@pytest.mark.parametrize("sync", [False, True])
def test_a_segment_that_cannot_be_named_holds_writes_up_and_loses_none(sync: bool) -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        number = fill_to_where_the_next_is_there(db, disk, 0)
        disk.fail("sync_directory", errno.EMFILE, always=True, path="/db/wal")
        number, error = put_until_refused(db, number)
        assert error.errno == errno.EMFILE
        for _ in range(3):
            with pytest.raises(StorageError):
                put(db, number, sync=sync)
        assert db.stats()["failure"] is None
        assert holds(db, range(number))
        assert db.get(b"k%05d" % number) is None
        disk.heal()
        put(db, number, sync=sync)
        db.sync()
        left = disk.crash()
        number += 1
    for found in (disk, left):
        with opened(found) as again:
            assert holds(again, range(number))


def test_a_sync_that_fails_while_a_segment_begins_behind_is_final() -> None:
    disk = MemoryFileSystem()
    db = opened(disk)
    number = fill_to_where_the_next_is_there(db, disk, 0)
    disk.fail("datasync", errno.EIO, always=True, path="/db/wal")
    number, error = put_until_refused(db, number)
    assert error.errno == errno.EIO
    disk.heal()
    with pytest.raises(StorageError):
        put(db, number)
    assert db.stats()["failure"] is not None
    assert holds(db, range(number))
    with contextlib.suppress(StorageError):
        db.close()


def test_with_little_room_none_is_made_ahead() -> None:
    disk = MemoryFileSystem(capacity_bytes=5 * SEGMENT_BYTES)
    made: list[str] = []
    disk.on_operation = lambda operation, path: (
        made.append(path) if operation == "open" and path.endswith(".spare") else None
    )
    with opened(disk) as db:
        for number in range(HALF):
            put(db, number)
        db.sync()
        before = len(made)
        for number in range(HALF, 2 * HALF):
            put(db, number)
        assert len(made) == before + 1  # by the writer, who needs it
        assert holds(db, range(2 * HALF))


@pytest.mark.parametrize("seed", range(4))
def test_power_lost_at_any_moment_loses_nothing_that_was_synced(seed: int) -> None:
    random = Random(seed)
    disk = MemoryFileSystem()
    synced = [0]
    found: list[tuple[int, MemoryFileSystem]] = []

    def look(operation: str, path: str) -> None:
        if "/wal" in path and operation in ("rename", "sync_directory", "datasync", "pwrite"):
            known = synced[0]
            keep = random.choice(("none", "prefix", "random", "all"))
            found.append((known, disk.crash(Random(random.random()), keep)))

    with opened(disk) as db:
        disk.on_operation = look
        for number in range(5 * HALF):
            put(db, number, sync=number % HALF == seed)
            if number % HALF == seed:
                synced[0] = number + 1
        disk.on_operation = None
    assert any(len(files(left, ".wal")) > 1 for _, left in found)
    for known, left in found:
        with opened(left, background=False) as again:
            assert holds(again, range(known))
