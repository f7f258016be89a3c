"""A flush writes no tombstone of a key that no table can have."""

from __future__ import annotations

import contextlib
import errno
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvstore import DB
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import StorageError

SMALL: dict[str, Any] = {"background": False, "compaction_trigger": 8}
WAIT_S = 60


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def table(db: DB) -> tuple[int, int]:
    stats = db.stats()
    return stats["table_entries"], stats["table_tombstones"]


def test_what_is_put_and_deleted_between_two_flushes_leaves_nothing(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(1000):
            db.put(b"queue/%04d" % number, b"v")
            db.delete(b"queue/%04d" % number)
        db.flush()
        assert table(db) == (0, 0)
        assert sum(level["tables"] for level in db.stats()["levels"]) == 0
        last = db.last_sequence
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert db.last_sequence == last
        assert list(db) == []
        db.put(b"queue/0000", b"again")
        assert dict(db) == {b"queue/0000": b"again"}


def test_a_tombstone_stays_over_what_a_table_may_have(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"b", b"1")
        db.put(b"d", b"1")
        db.flush()
        db.delete(b"b")
        db.delete(b"c")  # between two keys of a table
        db.delete(b"e")  # beyond all
        db.flush()
        assert table(db) == (4, 2)
        assert dict(db) == {b"d": b"1"}
        db.compact_range()
        db.delete(b"d")
        db.delete(b"e")
        db.flush()
        assert table(db) == (2, 1)
        assert dict(db) == {}


def test_it_stays_while_a_snapshot_sees_what_it_hides(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"k", b"1")
        snapshot = db.snapshot()
        db.delete(b"k")
        db.flush()
        assert table(db) == (2, 1)
        assert snapshot.get(b"k") == b"1"
        assert db.get(b"k") is None
        snapshot.close()
        db.compact_range()
        assert table(db) == (0, 0)


def test_it_stays_where_history_is_kept(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.retain_from(0)
        db.put(b"k", b"1")
        db.delete(b"k")
        db.flush()
        assert table(db) == (2, 1)
        assert db.get(b"k", sequence=1) == b"1"


def test_a_range_tombstone_stays_whatever_tables_have(disk: MemoryFileSystem) -> None:
    """It is no tombstone of a key: it stays, and what it hides stays hidden."""
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"k", b"1")
        db.flush()
        db.delete_range(b"a", b"z")
        db.flush()
        assert db.get(b"k") is None
        db.compact_range()
        assert dict(db) == {}


# --- what comes or goes while a flush is under way -------------------------------------------


class Gate:
    """A disk on which one thread's next operation on a table comes back when it is told to."""

    def __init__(self, operation: str, thread: str, path: str = ".sst") -> None:
        self.disk = MemoryFileSystem()
        self.operation, self.thread, self.path = operation, thread, path
        self.armed = False
        self.reached, self.goes_on = threading.Event(), threading.Event()
        self.disk.on_operation = self._hold

    def _hold(self, operation: str, path: str) -> None:
        if (
            self.armed
            and operation == self.operation
            and path.endswith(self.path)
            and threading.current_thread().name.startswith(self.thread)
        ):
            self.armed = False
            self.reached.set()
            assert self.goes_on.wait(WAIT_S)

    @contextlib.contextmanager
    def held(self, act: Callable[[], object]) -> Iterator[None]:
        """While ``act`` stands there, in a thread of that name."""
        self.armed = True
        actor = threading.Thread(target=act, name=self.thread)
        actor.start()
        try:
            assert self.reached.wait(WAIT_S)
            yield
        finally:
            self.goes_on.set()
            actor.join(WAIT_S)
        assert not actor.is_alive()


def check_gone(db: DB, disk: MemoryFileSystem, left: dict[bytes, bytes]) -> None:
    """Now, after a merge of all, and after power was lost before and after that."""
    assert dict(db) == left
    db.sync()
    with DB("/db", filesystem=disk.crash(), **SMALL) as again:
        assert dict(again) == left
    db.compact_range()
    assert dict(db) == left
    with DB("/db", filesystem=disk.crash(), **SMALL) as again:
        assert dict(again) == left


def test_it_stays_while_what_it_hides_is_merged() -> None:
    gate = Gate("datasync", "merge")
    with DB("/db", filesystem=gate.disk, **SMALL) as db:
        for value in (b"1", b"2"):
            db.put(b"a", value)
            db.put(b"k", value)
            db.put(b"z", value)
            db.flush()
        with gate.held(db.compact_range):
            db.delete(b"k")
            db.flush()
            assert db.get(b"k") is None
            assert db.stats()["table_tombstones"] == 1
        check_gone(db, gate.disk, {b"a": b"2", b"z": b"2"})


def test_it_stays_over_tables_that_are_merged_while_it_is_flushed() -> None:
    flush, merge = Gate("datasync", "kvstore-flush"), Gate("pread", "kvstore-compact")
    options = SMALL | {"background": True, "write_buffer_size": 64 << 10, "compaction_trigger": 2}
    merged = threading.Event()

    def hold(operation: str, path: str) -> None:
        if operation == "datasync" and "MANIFEST" in path and merge.reached.is_set():
            merged.set()  # the merge is over; the flush comes after it
        flush._hold(operation, path)
        merge._hold(operation, path)

    disk = flush.disk
    disk.on_operation = hold
    with DB("/db", filesystem=disk, **options) as db:
        merge.armed = True
        for value in (b"1", b"2"):
            db.put(b"a", value)
            db.put(b"k", value)
            db.put(b"z", value)
            db.flush()
        assert merge.reached.wait(WAIT_S)
        db.delete(b"k")
        flush.armed = True
        while db.stats()["frozen_memtables"] == 0:
            db.put(b"z", bytes(1000))
        assert flush.reached.wait(WAIT_S)
        merge.goes_on.set()
        assert merged.wait(WAIT_S)
        flush.goes_on.set()
        db.flush()
        check_gone(db, disk, {b"a": b"2", b"z": bytes(1000)})


def test_it_stays_over_an_older_memtable_that_waits_for_its_flush() -> None:
    gate = Gate("datasync", "kvstore-flush")
    options = SMALL | {"background": True, "write_buffer_size": 64 << 10, "max_write_buffers": 8}
    with DB("/db", filesystem=gate.disk, **options) as db:
        gate.armed = True
        db.put(b"k", b"1")
        while db.stats()["frozen_memtables"] == 0:
            db.put(b"filler", bytes(1000))
        assert gate.reached.wait(WAIT_S)
        db.delete(b"k")
        while db.stats()["frozen_memtables"] == 1:
            db.put(b"filler", bytes(1000))
        gate.goes_on.set()
        db.flush()
        assert db.get(b"k") is None
        check_gone(db, gate.disk, {b"filler": bytes(1000)})


def test_memtables_that_are_flushed_as_one_for_want_of_space_leave_nothing_of_it() -> None:
    disk = MemoryFileSystem()
    options = SMALL | {"write_buffer_size": 64 << 10, "max_write_buffers": 8}
    with DB("/db", filesystem=disk, **options) as db:
        db.put(b"a", b"1")
        db.put(b"old", b"1")
        db.flush()
        disk.capacity_bytes = disk.used_bytes + (1 << 20)
        db.put(b"k", b"1")
        number = 0
        with contextlib.suppress(StorageError):
            while True:
                db.put(b"x%05d" % number, random.Random(number).randbytes(1000))
                number += 1
        db.delete(b"k")
        db.delete(b"old")
        db.delete_range(b"x", b"y")
        db.flush()
        disk.capacity_bytes = None
        check_gone(db, disk, {b"a": b"1"})


@pytest.mark.parametrize("operation", ["open", "pwrite", "write_back", "datasync"])
def test_a_full_disk_amid_such_a_flush_brings_nothing_back(operation: str) -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"hidden", bytes(300_000))
        db.put(b"left", b"1")
        db.flush()
        db.put(b"queue", b"1")
        db.delete(b"queue")
        db.delete(b"hidden")
        db.put(b"more", bytes(300_000))
        disk.fail(operation, errno.ENOSPC, path=".sst", always=True)
        with pytest.raises(StorageError):
            db.flush()
        db.sync()
        with DB("/db", filesystem=disk.crash(), **SMALL) as again:
            assert [*dict(again)] == [b"left", b"more"]
        disk.heal()
        db.flush()
        assert table(db) == (4, 1)
        check_gone(db, disk, {b"left": b"1", b"more": bytes(300_000)})


# --- who reads or copies meanwhile --------------------------------------------------------------


def test_a_checkpoint_has_what_was_there_when_it_was_made(
    disk: MemoryFileSystem,
) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"k", b"1")
        db.checkpoint("/before")
        db.delete(b"k")
        db.put(b"queue", b"1")
        db.delete(b"queue")
        db.checkpoint("/after")
        db.flush()
        assert dict(db) == {}
    for path, left in (("/before", {b"k": b"1"}), ("/after", {})):
        with DB(path, filesystem=disk, **SMALL) as copy:
            assert dict(copy) == left
            copy.compact_range()
            assert dict(copy) == left


def test_a_snapshot_made_while_it_is_flushed_sees_nothing_of_the_key() -> None:
    gate = Gate("datasync", "flush")
    with DB("/db", filesystem=gate.disk, **SMALL) as db:
        db.put(b"k", b"1")
        db.delete(b"k")
        db.put(b"z", b"1")
        with gate.held(db.flush):
            snapshot = db.snapshot()
            db.put(b"k", b"2")
        assert snapshot.get(b"k") is None
        assert db.get(b"k") == b"2"
        db.flush()
        db.compact_range()
        assert snapshot.get(b"k") is None
        snapshot.close()


def test_it_stays_while_tables_of_elsewhere_come_into_its_range() -> None:
    """They hold what this database has not: no look at its tables tells of it."""
    gate = Gate("sync_directory", "install", "/db")
    options = SMALL | {"wal": False}
    with DB("/db", filesystem=gate.disk, **options) as hurt:
        with DB("/db", filesystem=MemoryFileSystem(), **options) as whole:
            for number in range(200):
                whole.put(b"k%03d" % number, b"1")
            whole.flush()
            # As after a table was lost: the same sequence, and fewer rows.
            hurt.put(b"k000", b"1")
            hurt.flush()
            while hurt.last_sequence < whole.last_sequence:
                hurt.put(b"k199", b"1")
            hurt.flush()
            export = whole.export_range(sequence=whole.last_sequence, keep_from=whole.last_sequence)
            assert export is not None
            replacement = hurt.replace_range(b"k050", b"k150", keep_from=whole.last_sequence)
            at: bytes | None = b"k050"
            while at is not None:
                part, after = export.part(at, b"k150", 1 << 20)
                replacement.add(at, after, part)
                at = after
            export.close()
        installed: list[bool] = []
        with gate.held(lambda: installed.append(replacement.install())):
            hurt.delete(b"k100")
            hurt.flush()
        assert installed == [True]
        replacement.close()
        left = {b"k000", b"k199"} | {b"k%03d" % n for n in range(50, 150)} - {b"k100"}
        check_gone(hurt, gate.disk, dict.fromkeys(sorted(left), b"1"))
