"""When a memtable is full, and how writers are held back while compactions are behind."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from kvstore import DB
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import ClosedError, StorageError

BUFFER_BYTES = 256 << 10
SMALL: dict[str, Any] = {"write_buffer_size": BUFFER_BYTES, "bloom_filter_bits": 0}
WAIT_S = 60


class Held:
    """A disk on which one operation on tables doesn't come back before it is told to."""

    def __init__(self, operation: str) -> None:
        self.disk = MemoryFileSystem()
        self.operation = operation
        self.reached, self.goes_on = threading.Event(), threading.Event()
        self.disk.on_operation = self._hold

    def _hold(self, operation: str, path: str) -> None:
        if operation == self.operation and path.endswith(".sst"):
            self.reached.set()
            assert self.goes_on.wait(WAIT_S)


def put_some(db: DB, first: int, count: int) -> None:
    for number in range(first, first + count):
        db.put(b"%08d" % number, bytes(100))


@pytest.mark.parametrize("write_buffer_size", [64 << 10, 256 << 10, 3_480_000, 5 << 20])
def test_a_memtable_is_full_before_it_is_frozen(write_buffer_size: int) -> None:
    """With what its order takes, entries of 108 bytes need 150 or so."""
    options: dict[str, Any] = {"background": False, "write_buffer_size": write_buffer_size}
    with DB("/db", filesystem=MemoryFileSystem(), **options) as db:
        number = 0
        while db.stats()["flushes"] == 0:
            put_some(db, number, 50)
            number += 50
        assert 0.6 * write_buffer_size < db.stats()["flushed_bytes"] < write_buffer_size


def test_who_fills_a_memtable_while_the_last_one_is_flushed_is_held_back_first() -> None:
    held = Held("datasync")
    with DB("/db", filesystem=held.disk, max_write_buffers=2, **SMALL) as db:
        number = 0
        while not held.reached.is_set():
            put_some(db, number, 10)
            number += 10
        before = db.stats()["slowdowns"]
        try:
            while db.stats()["slowdowns"] == before:
                # Else there would be no end: it would wait for the flush.
                assert db.make_room(wait=False)
                put_some(db, number, 1)
                number += 1
        finally:
            held.goes_on.set()
        stats = db.stats()
        assert stats["stalls"] == 0
        assert stats["slowdown_seconds"] > 0
        assert db.get(b"%08d" % (number - 1)) == bytes(100)


def test_nobody_is_held_back_while_there_is_room_for_another_memtable() -> None:
    held = Held("datasync")
    with DB("/db", filesystem=held.disk, max_write_buffers=4, **SMALL) as db:
        try:
            while db.stats()["frozen_memtables"] < 2:
                put_some(db, 0, 10)
            put_some(db, 0, 10)
            assert db.stats()["slowdowns"] == 0
        finally:
            held.goes_on.set()


def test_who_writes_is_held_back_while_level_0_has_many_tables_and_waits_at_the_end() -> None:
    held = Held("pread")
    options = SMALL | {"compaction_trigger": 2, "slowdown_files": 4, "stop_files": 8}
    with DB("/db", filesystem=held.disk, **options) as db:
        try:
            for number in range(4):
                # They overlap, so that none is only moved.
                put_some(db, number, 10)
                assert db.stats()["slowdowns"] == 0
                db.flush()
            assert held.reached.wait(WAIT_S)
            assert db.stats()["levels"][0]["tables"] == 4
            while db.stats()["slowdowns"] == 0:
                assert db.make_room(wait=False)
                put_some(db, 0, 1)
            assert db.stats()["stalls"] == 0
        finally:
            held.goes_on.set()


def test_a_database_that_is_closed_while_a_writer_is_held_back_says_so() -> None:
    held = Held("datasync")
    db = DB("/db", filesystem=held.disk, max_write_buffers=2, **SMALL)
    failures: list[ClosedError] = []

    def write() -> None:
        try:
            while True:
                put_some(db, 0, 1)
        except ClosedError as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert held.reached.wait(WAIT_S)
        closer = threading.Thread(target=db.close)
        closer.start()
        writer.join(WAIT_S)
        assert not writer.is_alive()
    finally:
        held.goes_on.set()
    closer.join(WAIT_S)
    assert len(failures) == 1


def until_held(db: DB, held: Held) -> None:
    """A memtable is frozen, and its flush stands still."""
    number = 0
    while db.stats()["frozen_memtables"] == 0:
        put_some(db, number, 10)
        number += 10
    assert held.reached.wait(WAIT_S)


def test_who_fills_a_memtable_is_held_back_so_many_times_at_most_however_long_a_flush_takes() -> (
    None
):
    """A device that hangs costs writers no more than that before they wait, or are told to."""
    held = Held("datasync")
    with DB("/db", filesystem=held.disk, max_write_buffers=2, **SMALL) as db:
        try:
            until_held(db, held)
            while db.make_room(wait=False):
                put_some(db, 0, 1)
            stats = db.stats()
            assert 0 < stats["slowdowns"] <= 64 + 1
            assert stats["stalls"] == 0
        finally:
            held.goes_on.set()


def wait_for_room(db: DB) -> tuple[threading.Thread, list[StorageError | ClosedError]]:
    """A thread that writes until it is refused, once it stands still."""
    told: list[StorageError | ClosedError] = []

    def write() -> None:
        try:
            while True:
                put_some(db, 0, 1)
        except (StorageError, ClosedError) as error:
            told.append(error)

    before = db.stats()["stalls"]
    writer = threading.Thread(target=write)
    writer.start()
    pause = threading.Event()
    while db.stats()["stalls"] == before:
        pause.wait(0.001)
    return writer, told


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_writer_that_waits_is_told_when_the_flush_fails_after_all(code: int) -> None:
    held = Held("datasync")
    with DB("/db", filesystem=held.disk, max_write_buffers=2, **SMALL) as db:
        try:
            until_held(db, held)
            writer, told = wait_for_room(db)
            held.disk.fail("datasync", code, path=".sst", always=True)
        finally:
            held.goes_on.set()
        writer.join(WAIT_S)
        assert not writer.is_alive()
        (error,) = told
        assert isinstance(error, StorageError)
        assert error.errno == code
        assert error.retryable == (code == errno.ENOSPC)
        held.disk.heal()
        if code == errno.ENOSPC:
            db.resume()
            put_some(db, 0, 3000)


def test_a_writer_that_waits_for_level_0_goes_on_when_compactions_cannot() -> None:
    held = Held("pread")
    options = SMALL | {"compaction_trigger": 2, "slowdown_files": 4, "stop_files": 6}
    with DB("/db", filesystem=held.disk, **options) as db:
        try:
            for _ in range(6):
                put_some(db, 0, 10)
                db.flush()
            assert held.reached.wait(WAIT_S)
            before = db.stats()["flushes"]
            writer, told = wait_for_room(db)
            held.disk.fail("pread", errno.EMFILE, path=".sst", always=True)
        finally:
            held.goes_on.set()
        pause = threading.Event()
        while db.stats()["flushes"] <= before:
            pause.wait(0.001)
        db.close()
        writer.join(WAIT_S)
        assert not writer.is_alive()
        assert all(isinstance(error, ClosedError) for error in told)


def test_a_writer_goes_on_where_the_start_of_the_flush_thread_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C between freezing memory and calling the thread: whoever comes next has to."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        raise KeyboardInterrupt

    # A log would call the thread as well.
    with DB("/db", filesystem=MemoryFileSystem(), max_write_buffers=2, wal=False, **SMALL) as db:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            put_some(db, 0, 10_000)
        writer = threading.Thread(target=put_some, args=(db, 0, 10_000), daemon=True)
        writer.start()
        writer.join(WAIT_S)
        goes_on = not writer.is_alive()
        db.close()
        assert goes_on
