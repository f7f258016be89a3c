"""A flush lets go of the whole log: what power, disks and threads may do in between.

Its steps stand in docs/storage-format.md, "Without a log".
"""

from __future__ import annotations

import contextlib
import errno
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import CompactedError, CorruptionError, StorageError

PATIENCE_S = 60
SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
}
WAYS = ("none", "all", "random", "prefix")
STEPS = (
    "open",
    "pwrite",
    "write_back",
    "datasync",
    "allocate",
    "truncate",
    "rename",
    "unlink",
    "sync_directory",
)


def contents(disk: MemoryFileSystem, **options: Any) -> dict[bytes, bytes]:
    with kvstore.DB("/db", filesystem=disk, **SMALL | options) as db:
        return dict(db)


def at_operation(disk: MemoryFileSystem, name: str, path: str, do: Callable[[], None]) -> None:
    """Once, before the first such operation."""

    def look(operation: str, where: str) -> None:
        if operation == name and path in where:
            disk.on_operation = None
            do()

    disk.on_operation = look


def settled() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(100):
            db.put(b"%03d" % number, b"1")
        db.flush()
    assert disk.names("/db/wal") == []
    return disk


# --- what comes in between -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"), [("allocate", "000003.spare"), ("rename", "000003"), ("datasync", "000003")]
)
@pytest.mark.parametrize("options", [{}, {"wal": False}, {"read_only": True}])
def test_tables_that_change_while_a_segment_is_begun_ask_for_none_that_is_gone(
    name: str, path: str, options: dict[str, Any]
) -> None:
    disk = MemoryFileSystem()
    copies = []
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        for _ in range(2):
            db.put(b"a", b"1")
            db.flush()
        assert disk.names("/db/wal") == []

        def compact() -> None:
            db.compact_range()
            copies.extend(disk.crash(random.Random(seed), WAYS[seed]) for seed in range(4))

        at_operation(disk, name, path, compact)
        # The segment is the next one of the log that was let go of.
        db.put(b"b", b"1", sync=True)
        copies.extend(disk.crash(random.Random(seed), WAYS[seed]) for seed in range(4))
    assert len(copies) == 8
    for number, left in enumerate(copies):
        found = contents(left, **options)
        assert found.keys() - {b"b"} == {b"a"}
        assert number < 4 or b"b" in found


def test_a_first_edit_of_another_opening_while_a_segment_is_begun_asks_for_none() -> None:
    disk = settled()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.flush()
        copies = []

        def compact() -> None:
            db.compact_range()
            copies.append(disk.crash())

        at_operation(disk, "sync_directory", "/db/wal", compact)
        db.put(b"b", b"1", sync=True)
    assert len(contents(copies[0])) == 101
    assert len(contents(disk)) == 102


def test_writes_while_a_flush_lets_go_are_in_the_next_segment() -> None:
    """At each step of the flush another one writes; power goes right then, and at the end."""
    whole = MemoryFileSystem()
    names: list[str] = []

    def note(operation: str, _: str) -> None:
        if operation in STEPS:
            names.append(operation)

    with kvstore.DB("/db", filesystem=whole, **SMALL) as db:
        db.put(b"a", b"1", sync=True)
        whole.on_operation = note
        db.flush()
        whole.on_operation = None
    assert {"pwrite", "datasync", "unlink", "sync_directory"} <= set(names)
    for step in range(len(names)):
        left = flush_beside_a_writer(step)
        assert len(left) in (3, 4)
        for number, found in enumerate(reversed(left)):
            wanted = {b"a": b"1", b"b": b"2"} | ({b"c": b"3"} if number < 2 else {})
            assert contents(found) == wanted, (step, number)


def flush_beside_a_writer(step: int) -> list[MemoryFileSystem]:
    """Disks that power losses leave, newest last; the writer writes at that step."""
    disk = MemoryFileSystem()
    left = []
    passed = 0
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1", sync=True)
        writer = threading.Thread(target=db.put, args=(b"b", b"2"), kwargs={"sync": True})

        def look(operation: str, path: str) -> None:
            nonlocal passed
            if operation not in STEPS:
                return
            passed += 1
            if passed != step + 1:
                return
            disk.on_operation = None
            writer.start()
            if "MANIFEST" in path or "END" in path:
                return  # it may have to wait for this: then it comes right behind it
            writer.join(PATIENCE_S)
            assert not writer.is_alive()
            left.append(disk.crash())

        disk.on_operation = look
        db.flush()
        writer.join(PATIENCE_S)
        assert not writer.is_alive()
        left.append(disk.crash())
        db.put(b"c", b"3", sync=True)
        db.flush()
        left.append(disk.crash())
    left.append(disk)
    return left


def test_a_feed_that_is_opened_while_a_flush_comes_to_nothing_misses_nothing() -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        feeds = []

        def open_feed() -> None:
            feeds.append(db.changes(timeout=0))
            raise OSError(errno.EMFILE, "too many")

        at_operation(disk, "pwrite", "MANIFEST", open_feed)
        with pytest.raises(StorageError):
            db.flush()
        db.put(b"b", b"1")
        assert [change.key for change in feeds[0]] == [b"b"]
        db.flush()
        db.put(b"c", b"1", sync=True)
        assert [change.key for change in feeds[0]] == [b"c"]
        feeds[0].close()
        db.flush()
        assert contents(disk.crash()).keys() == {b"a", b"b", b"c"}
    assert contents(disk).keys() == {b"a", b"b", b"c"}


def test_changes_that_a_flush_let_go_of_are_missed_and_said_to_be() -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        db.flush()
        with pytest.raises(CompactedError) as caught:
            db.changes(since=0)
        assert caught.value.oldest == db.last_sequence + 1
        db.put(b"b", b"1")
        with pytest.raises(CompactedError):
            db.changes(since=0)
        with db.changes(since=1, timeout=0) as feed:
            assert [change.key for change in feed] == [b"b"]
        last = db.last_sequence
        db.flush()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        with pytest.raises(CompactedError):
            db.changes(since=1)
        with db.changes(since=last, timeout=0) as feed:
            db.put(b"c", b"1")
            assert [change.key for change in feed] == [b"c"]


@pytest.mark.parametrize(
    ("name", "path"), [("pwrite", "MANIFEST"), ("pwrite", "END"), ("unlink", "000001.wal")]
)
def test_a_close_amid_a_flush_that_lets_go_leaves_all_of_it(name: str, path: str) -> None:
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, **SMALL)
    for number in range(100):
        db.put(b"%03d" % number, b"1")
    reached, opened = threading.Event(), threading.Event()

    def hang() -> None:
        reached.set()
        assert opened.wait(PATIENCE_S)

    at_operation(disk, name, path, hang)
    with contextlib.suppress(StorageError):
        flusher = threading.Thread(target=db.flush)
        flusher.start()
        assert reached.wait(PATIENCE_S)
        closer = threading.Thread(target=db.close)
        closer.start()
        opened.set()
        closer.join(PATIENCE_S)
        flusher.join(PATIENCE_S)
        assert not closer.is_alive()
        assert not flusher.is_alive()
    assert len(contents(disk.crash())) == 100
    assert len(contents(disk)) == 100


# --- what the disk refuses -----------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_disk_that_refuses_a_step_takes_nothing_that_was_acknowledged(
    error: int, lasting: bool
) -> None:
    def run(disk: MemoryFileSystem, done: dict[bytes, int]) -> None:
        for round_ in range(2):
            with contextlib.suppress(StorageError):
                db = kvstore.DB("/db", filesystem=disk, **SMALL)
                with contextlib.closing(db):
                    for number in range(3):
                        with contextlib.suppress(StorageError):
                            db.put(b"key", b"%d" % (3 * round_ + number), sync=True)
                            done[b"key"] = 3 * round_ + number
                        with contextlib.suppress(StorageError):
                            db.flush()
                    db.put(b"more", b"%d" % round_, sync=True)
                    done[b"more"] = round_

    def refuse(disk: MemoryFileSystem, at: int) -> list[int]:
        passed = [0]

        def look(operation: str, _: str) -> None:
            if operation in STEPS:
                passed[0] += 1
                if passed[0] == at or (lasting and at < passed[0] < at + 12):
                    raise OSError(error, "refused")

        disk.on_operation = look
        return passed

    whole = MemoryFileSystem()
    steps = refuse(whole, -100)
    run(whole, {})
    # A share of the steps, another one for each error.
    for at in range(1 + error % 7, steps[0] + 1, 7):
        disk = MemoryFileSystem()
        refuse(disk, at)
        done: dict[bytes, int] = {}
        run(disk, done)
        disk.on_operation = None
        for way in range(4):
            left = disk.crash(random.Random(at * 10 + way), WAYS[way])
            found = contents(left)
            for key, value in done.items():
                assert int(found[key]) >= value, (at, way)
        found = contents(disk)
        for key, value in done.items():
            assert int(found[key]) >= value, at


def test_a_note_of_the_end_that_may_be_there_after_all_keeps_its_segment() -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        disk.fail("datasync", errno.ENOMEM, path="/db/END")
        db.put(b"a", b"1", sync=True)  # begins the segment that END then may know of
        disk.fail("open", errno.EMFILE, path="/db/END", always=True)
        db.flush()
        assert contents(disk.crash(keep="all")) == {b"a": b"1"}
        disk.heal()
        db.put(b"b", b"1")
        db.flush()
        assert disk.names("/db/wal") == []
        assert contents(disk.crash()).keys() == {b"a", b"b"}


def test_power_that_goes_twice_while_a_database_is_made_leaves_one_or_none() -> None:
    def make(disk: MemoryFileSystem, stop: int) -> None:
        disk.stop_at(stop)
        with contextlib.suppress(StorageError):
            kvstore.DB("/db", filesystem=disk, **SMALL).close()

    whole = MemoryFileSystem()
    kvstore.DB("/db", filesystem=whole, **SMALL).close()
    for first in range(1, whole.operations + 1):
        for second in range(1, whole.operations + 5, 2):
            disk = MemoryFileSystem()
            make(disk, first)
            chance = random.Random(first * 100 + second)
            disk = disk.crash(chance, WAYS[chance.randrange(4)])
            make(disk, second)
            left = disk.crash(chance, WAYS[chance.randrange(4)])
            assert contents(left) == {}, (first, second)
            with kvstore.DB("/db", filesystem=left, **SMALL) as db:
                db.put(b"k", b"v", sync=True)
            assert contents(left.crash()) == {b"k": b"v"}


# --- copies, and what else reads it --------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"wal": False}, {"read_only": True}])
@pytest.mark.parametrize("end", [True, False])
def test_a_copy_without_its_empty_log_is_whole(options: dict[str, Any], end: bool) -> None:
    disk = settled()
    disk.remove_tree("/db/wal")
    if not end:
        disk.remove_file("/db/END")
    assert len(contents(disk.crash(keep="all"), **options)) == 100
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"more", b"1", sync=True)
    assert len(contents(disk.crash(), **options)) == 101


@pytest.mark.parametrize("number", [1, 2])
def test_a_copy_whose_manifest_is_older_than_its_log_is_refused(number: int) -> None:
    """What came between them is in neither."""
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1", sync=True)
        older = disk.crash()
        db.flush()
        db.put(b"b", b"1", sync=True)
        newer = disk.crash()
    for name in newer.names("/db/wal"):
        newer.remove_file(f"/db/wal/{name}")
    if number == 2:
        # A log of which END doesn't know, from before.
        newer.write_file("/db/wal/000001.wal", older.read_file("/db/wal/000001.wal"))
    with pytest.raises(CorruptionError):
        contents(newer)


def test_a_checkpoint_and_a_repair_of_what_has_no_log() -> None:
    disk = settled()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.checkpoint("/copy")
    with kvstore.DB("/copy", filesystem=disk, **SMALL) as db:
        assert len(list(db)) == 100
    kvstore.repair_db("/db", filesystem=disk)
    assert len(contents(disk)) == 100


def test_a_log_that_went_on_after_a_rest_is_read_by_repair() -> None:
    disk = settled()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"more", b"1", sync=True)
        left = disk.crash()
    left.remove_file("/db/CURRENT")
    kvstore.repair_db("/db", filesystem=left)
    assert len(contents(left)) == 101


# --- what it spares ------------------------------------------------------------------------------


def test_a_small_database_has_a_reserve_only_while_it_is_written_to() -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, background=False) as db:
        assert not disk.exists("/db/RESERVE")
        db.put(b"a", b"1")
        assert disk.exists("/db/RESERVE")
    assert not disk.exists("/db/RESERVE")
    with kvstore.DB("/db", filesystem=disk, background=False) as db:
        db.put(b"large", random.Random(1).randbytes(5 << 20))
    assert disk.exists("/db/RESERVE")


def test_the_first_segment_of_an_opening_is_begun_where_all_names_are_durable() -> None:
    disk = MemoryFileSystem()
    names: list[tuple[str, str]] = []
    with Log("/wal", filesystem=disk) as log:
        assert not disk.crash().exists("/wal")
        disk.on_operation = lambda operation, path: names.append((operation, path))
        log.append(1, 1, 1, b"one")
        log.sync()
        disk.on_operation = None
        begun = names.index(("rename", "/wal/000001.spare"))
        assert names.index(("sync_directory", "/")) < begun
        assert names.index(("sync_directory", "/wal")) < begun
        assert disk.crash().names("/wal") == ["000001.wal"]


def test_a_log_that_lacks_descriptors_to_make_its_names_durable_tries_again() -> None:
    disk = settled()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        disk.fail("sync_directory", errno.EMFILE, path="/db")
        with pytest.raises(StorageError) as caught:
            db.put(b"a", b"1")
        assert caught.value.retryable
        db.put(b"b", b"1", sync=True)
        assert contents(disk.crash()).keys() >= {b"b"}
    assert len(contents(disk)) == 101
