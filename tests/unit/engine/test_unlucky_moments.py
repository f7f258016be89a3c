"""What happens at a bad moment of something else: races that a review found, one story each."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log

WAIT_S = 20


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    pause = threading.Event()
    for _ in range(WAIT_S * 1000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not come to that")


def test_a_segment_that_cannot_be_had_while_another_is_removed_costs_no_records() -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk, write_buffer_size=1 << 20, max_write_buffers=32)
    value = b"x" * 50000
    keys: list[bytes] = []
    flushes = threading.Semaphore(0)
    rolling, go_on = threading.Event(), threading.Event()
    held = [False]
    waiting, released = [0], [0]  # flushes that came to their table, and that were let go on

    def put() -> None:
        db.put(b"k%05d" % len(keys), value, sync=True)
        keys.append(b"k%05d" % len(keys))

    def slow_tables_and_one_full_moment(op: str, path: str) -> None:
        if op == "open" and path.endswith(".sst") and not disk.exists(path):
            waiting[0] += 1
            flushes.acquire()
        if op == "open" and path.endswith(".spare") and held[0]:
            held[0] = False
            rolling.set()
            go_on.wait(WAIT_S)
            raise OSError(errno.ENOSPC, "no space")

    def segments() -> list[str]:
        return disk.names("/db/wal")

    def gone(segment: str) -> bool:
        return segment not in segments()

    def one_flush() -> None:
        before = db.stats()["flushes"]
        released[0] += 1
        flushes.release()
        until(lambda: db.stats()["flushes"] > before)
        # Its part of the log is removed after it was counted, and before the next one begins. Of
        # the last one nothing tells when that was.
        until(lambda: waiting[0] > released[0] or db.stats()["frozen_memtables"] == 0)

    disk.on_operation = slow_tables_and_one_full_moment
    while "000002.wal" not in segments() or db.stats()["frozen_memtables"] < 1:
        put()
    held[0] = True

    def put_on_and_on() -> None:
        while True:
            put()

    def write_until_refused() -> None:
        with pytest.raises(kvstore.StorageError):
            put_on_and_on()

    writer = threading.Thread(target=write_until_refused)
    writer.start()
    assert rolling.wait(WAIT_S)
    # No flush is to be under way then: who finds the disk full waits for it.
    while not gone("000001.wal") or db.stats()["frozen_memtables"] > 0:
        one_flush()
        until(lambda: gone("000001.wal") or db.stats()["frozen_memtables"] > 0)
    go_on.set()
    writer.join(WAIT_S)
    assert not writer.is_alive()
    while "000004.wal" not in segments():
        put()
    put()
    one_flush()
    disk.on_operation = None
    for keep in ("none", "all"):
        with kvstore.open("/db", filesystem=disk.crash(keep=keep)) as again:
            assert [key for key in keys if again.get(key) != value] == []
    for _ in range(99):
        flushes.release()
    db.close()


def test_a_manifest_that_did_not_come_into_force_has_no_say_about_the_log() -> None:
    def key(number: int) -> bytes:
        return b"%04d" % number + b"k" * 100000

    disk = MemoryFileSystem()
    db = kvstore.open(
        "/db",
        filesystem=disk,
        background=False,
        compaction_trigger=64,
        slowdown_files=65,
        stop_files=100,
        write_buffer_size=1 << 20,
    )
    number = 0
    while db.stats()["manifest_bytes"] < (1 << 20) - 205000:
        db.put(key(number), b"v")
        db.put(key(number) + b"z", b"v")
        db.flush()
        number += 1
    db.put(key(number), b"v", sync=True)
    db.put(key(number) + b"z", b"v", sync=True)
    at_edit, go_on = threading.Event(), threading.Event()

    def hook(op: str, path: str) -> None:
        if op == "datasync" and "MANIFEST" in path and not at_edit.is_set():
            at_edit.set()
            go_on.wait(WAIT_S)
        if op == "open" and path.endswith("CURRENT.new"):
            raise OSError(errno.EMFILE, "too many open files")

    disk.on_operation = hook
    flush = threading.Thread(target=db.flush)
    flush.start()
    assert at_edit.wait(WAIT_S)
    db.put(b"big", b"x" * 900000, sync=True)  # begins the next segment
    go_on.set()
    flush.join(WAIT_S)
    disk.on_operation = None
    assert db.stats()["manifest_rolls"] == 0
    with kvstore.open("/db", filesystem=disk.crash()) as again:
        assert again.get(b"big") is not None
    db.close()


def test_a_failure_of_what_is_written_behind_is_told_at_the_latest_by_close() -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk)
    for _ in range(200):
        db.put(b"a", b"1")  # from some number on a thread writes behind
    db.sync()
    disk.fail("pwrite", errno.EIO, path="/wal/")
    db.put(b"b", b"2")  # nobody writes after it
    until(lambda: db.stats()["failure"] is not None)
    with pytest.raises(kvstore.StorageError):
        db.close()
    assert db.closed


def test_close_waits_for_a_compaction_of_another_thread() -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk)
    for _ in range(2):
        for number in range(100):
            db.put(b"k%06d" % number, b"v" * 1000)
        db.flush()
    inside, go_on = threading.Event(), threading.Event()

    def hold(op: str, path: str) -> None:
        if op == "pwrite" and path.endswith(".sst"):
            inside.set()
            go_on.wait(WAIT_S)

    def compact() -> None:
        # It may also have been done with its work when it learns that the database is closed.
        with contextlib.suppress(kvstore.ClosedError):
            db.compact_range()

    disk.on_operation = hold
    compaction = threading.Thread(target=compact)
    compaction.start()
    assert inside.wait(WAIT_S)
    closing = threading.Thread(target=db.close)
    closing.start()
    until(lambda: db.closed)
    closing.join(0.2)
    with pytest.raises(kvstore.AlreadyOpenError):
        kvstore.open("/db", filesystem=disk)
    go_on.set()
    compaction.join(WAIT_S)
    closing.join(WAIT_S)
    disk.on_operation = None
    with kvstore.open("/db", filesystem=disk) as again:
        assert again.get(b"k000042") == b"v" * 1000


def test_a_segment_put_aside_while_another_could_not_be_begun_is_used() -> None:
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=1 << 20)
    index = 0

    def add() -> None:
        nonlocal index
        index += 1
        log.append(1, index, 1, b"x" * 100000)

    while len(disk.names("/log")) < 2:
        add()
        log.sync()
    while log.stats()["segment"] == 2 and index % 10:
        add()
        log.sync()
    disk.capacity_bytes = disk.used_bytes + 1000
    while log.stats()["segment"] == 2:
        add()
    at_allocation, go_on = threading.Event(), threading.Event()

    def hook(op: str, path: str) -> None:
        if op == "allocate" and not at_allocation.is_set():
            at_allocation.set()
            go_on.wait(WAIT_S)

    def sync_without_room() -> None:
        with pytest.raises(kvstore.StorageError):
            log.sync()

    disk.on_operation = hook
    syncing = threading.Thread(target=sync_without_room)
    syncing.start()
    assert at_allocation.wait(WAIT_S)
    log.remove_before(11)
    go_on.set()
    syncing.join(WAIT_S)
    disk.on_operation = None
    log.sync()
    log.close()


def test_a_directory_that_cannot_be_synced_for_want_of_a_descriptor_is_no_failure() -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk, write_buffer_size=1 << 20, background=False)
    disk.fail("sync_directory", errno.EMFILE, path="/wal")

    def fill() -> None:
        for number in range(100):
            db.put(b"k%d" % number, b"x" * 100000)

    with pytest.raises(kvstore.StorageError) as refused:
        fill()
    assert refused.value.errno == errno.EMFILE
    disk.heal()
    assert db.stats()["failure"] is None
    db.put(b"b", b"2", sync=True)
    with kvstore.open("/db", filesystem=disk.crash()) as again:
        assert again.get(b"b") == b"2"
    db.close()


def test_no_write_goes_beyond_the_last_sequence() -> None:
    with kvstore.open("/db", filesystem=MemoryFileSystem(), wal=False) as db:
        with db.write_batch() as batch:
            batch.put(b"k", b"old")
        batch = kvstore.WriteBatch()
        batch.put(b"k", b"new")
        db.write(batch, sequence=2**56 - 1)
        for write in (
            lambda: db.put(b"k", b"more"),
            lambda: db.delete(b"k"),
            lambda: db.write(batch),
        ):
            with pytest.raises(kvstore.InvalidArgumentError, match="no sequence is left"):
                write()
        assert db.get(b"k") == b"new"
        assert list(db) == [(b"k", b"new")]


def test_everything_may_be_deleted_again_and_again_up_to_the_largest_key() -> None:
    with kvstore.open("/db", filesystem=MemoryFileSystem()) as db:
        for _ in range(3):
            db.put(b"\xff" * (1 << 20), b"v")
            db.delete_range()
            db.flush()
            assert list(db) == []


def test_a_write_without_sync_is_not_seen_before_one_that_waits_for_its_sync() -> None:
    disk = MemoryFileSystem()
    db = kvstore.open("/db", filesystem=disk)
    db.put(b"before", b"", sync=True)
    syncing, go_on = threading.Event(), threading.Event()
    finished: list[bytes] = []

    def slow_sync(op: str, path: str) -> None:
        if op == "datasync" and "/wal/" in path:
            disk.on_operation = None
            syncing.set()
            go_on.wait(WAIT_S)

    def put(key: bytes, sync: bool) -> None:
        db.put(key, b"", sync=sync)
        finished.append(key)

    disk.on_operation = slow_sync
    first = threading.Thread(target=put, args=(b"first", True))
    second = threading.Thread(target=put, args=(b"second", False))
    first.start()
    assert syncing.wait(WAIT_S)
    second.start()
    # It can't be seen to wait: where it doesn't, this is much more than it needs.
    second.join(0.3)
    assert (finished, db.get(b"first"), db.get(b"second")) == ([], None, None)
    go_on.set()
    for thread in (first, second):
        thread.join(WAIT_S)
    assert sorted(finished) == [b"first", b"second"]
    assert list(db.iterator(include_value=False)) == [b"before", b"first", b"second"]
    db.close()
