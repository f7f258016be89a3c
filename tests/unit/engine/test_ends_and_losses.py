"""Openings after a power loss beside what lets go of the log."""

from __future__ import annotations

import contextlib
import errno
import random
import sys
import threading
from typing import Any

import pytest

from kvstore import DB
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import Error, StorageError

SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
}
WAIT_S = 60
FLUSHES = 500
KEPT = ("none", "all", "random", "prefix")


def reopened(disk: MemoryFileSystem) -> dict[bytes, bytes]:
    with DB("/db", filesystem=disk, **SMALL) as db:
        return dict(db)


def test_end_says_nothing_of_an_edit_whose_sync_failed() -> None:
    """A put begins a segment meanwhile, and notes it in END."""
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **SMALL)
    db.put(b"a", b"1", sync=True)
    db.flush()
    db.put(b"a", b"2", sync=True)
    told: list[Exception] = []
    begun = threading.Event()

    def put() -> None:
        try:
            db.put(b"b", b"1", sync=True)
        except Exception as error:  # noqa: BLE001
            told.append(error)

    writer = threading.Thread(target=put, daemon=True)

    def failing(operation: str, path: str) -> None:
        if operation == "datasync" and "MANIFEST" in path:
            disk.on_operation = segment_begun
            writer.start()
            assert begun.wait(WAIT_S)
            raise OSError(errno.EIO, "the edit's sync")

    def segment_begun(operation: str, path: str) -> None:
        if operation == "sync_directory" and path.endswith("/wal"):
            begun.set()

    disk.on_operation = failing
    with pytest.raises(StorageError):
        db.flush()
    writer.join(WAIT_S)
    assert not writer.is_alive()
    disk.on_operation = None
    lost = disk.crash()
    with contextlib.suppress(StorageError):
        db.close()
    for copy in (lost, disk.crash()):
        found = reopened(copy)
        assert found.pop(b"a") == b"2"
        assert found == ({} if told else {b"b": b"1"})


@pytest.mark.parametrize("at", [1, 2, 3])
def test_end_says_nothing_of_an_edit_with_which_an_opening_failed(at: int) -> None:
    """One without a log: it says that none is needed, and that isn't durable."""
    kept = {**SMALL, "changes_kept_size": 1 << 20}
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **kept) as db:
        db.put(b"a", b"1", sync=True)
        db.flush()
    disk.fail("datasync", errno.EIO, path="MANIFEST", at=at)
    with contextlib.suppress(Error):
        DB("/db", filesystem=disk, wal=False, **kept).close()
    disk.heal()
    assert reopened(disk.crash()) == {b"a": b"1"}


def test_a_feed_from_now_on_begins_beside_writers_and_flushes() -> None:
    """What is durable and not seen yet is still in the log."""
    interval = sys.getswitchinterval()
    ended = threading.Event()
    told: list[Exception] = []

    def go_on(step: Any) -> None:
        try:
            while not ended.is_set():
                step()
        except Exception as error:  # noqa: BLE001
            told.append(error)

    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        steps = [lambda: db.put(b"a", b"1", sync=True), lambda: db.put(b"b", b"1", sync=True)]
        threads = [
            threading.Thread(target=go_on, args=(step,), daemon=True) for step in (*steps, db.flush)
        ]
        sys.setswitchinterval(1e-5)
        try:
            for each in threads:
                each.start()
            while not told and db.stats()["flushes"] < FLUSHES:
                with db.changes(timeout=0) as changes:
                    for _change in changes:
                        pass
        finally:
            ended.set()
            sys.setswitchinterval(interval)
            for each in threads:
                each.join(WAIT_S)
        assert told == []


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("allocate", "000003.spare"),
        ("rename", "000003"),
        ("datasync", "000003"),
        ("sync_directory", "/db/wal"),
    ],
)
def test_end_asks_for_no_segment_that_an_opening_let_go_of(operation: str, path: str) -> None:
    """Also where the removal of its name couldn't be synced, while the next one is begun."""
    disk = MemoryFileSystem()
    left: list[MemoryFileSystem] = []
    db = DB("/db", filesystem=disk, **SMALL)
    db.put(b"a", b"1")
    db.flush()
    db.put(b"a", b"2", sync=True)

    def ended(name: str, at: str) -> None:
        if name == "unlink" and "/wal/" in at:
            left.append(disk.crash(keep="all"))

    disk.on_operation = ended
    db.flush()
    disk.on_operation = None
    db.close()
    disk = left[0]
    disk.fail("sync_directory", errno.EMFILE, path="/db/wal", at=2)
    db = DB("/db", filesystem=disk, **SMALL)
    copies: list[MemoryFileSystem] = []

    def compacted(name: str, at: str) -> None:
        if name == operation and path in at:
            disk.on_operation = None
            db.compact_range()
            copies.extend(disk.crash(random.Random(1), each) for each in KEPT)

    disk.on_operation = compacted
    db.put(b"b", b"1", sync=True)
    disk.on_operation = None
    db.close()
    assert copies
    for copy in copies:
        assert reopened(copy)[b"a"] == b"2"


def compact(db: DB) -> None:
    with contextlib.suppress(Error):
        db.compact_range()


@pytest.mark.parametrize("seed", range(40))
def test_an_opening_removes_nothing_that_power_may_bring_back(seed: int) -> None:
    """Killed before an edit's sync; then power goes while the next opening is at work."""
    expected = {b"a%d" % number: bytes(1000) for number in range(4)}
    dice = random.Random(seed)
    disk = MemoryFileSystem()
    killed, over = threading.Event(), threading.Event()
    left = dice.randrange(1, 40)
    lost: list[MemoryFileSystem] = []

    def stops(operation: str, path: str) -> None:
        if operation == "datasync" and "MANIFEST" in path:
            disk.on_operation = None
            killed.set()
            assert over.wait(WAIT_S)
            raise OSError(errno.EIO, "it is dead")

    def power_goes(_operation: str, _path: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            lost.append(disk.crash(dice, "random"))

    db = DB("/db", filesystem=disk, **SMALL)
    for key, value in expected.items():
        db.put(key, value, sync=True)
        db.flush()
    disk.on_operation = stops
    dying = threading.Thread(target=compact, args=(db,), daemon=True)
    dying.start()
    assert killed.wait(WAIT_S)
    db._after_fork()
    disk.on_operation = power_goes
    try:
        DB("/db", filesystem=disk, **SMALL).close()
    finally:
        disk.on_operation = None
        over.set()
        dying.join(WAIT_S)
    assert reopened(lost[0] if lost else disk) == expected


@pytest.mark.parametrize(("operation", "path"), [("rename", "trusted"), ("sync_directory", "/wal")])
def test_a_log_that_is_read_twice_for_want_of_space_is_not_lost(operation: str, path: str) -> None:
    """The first try had counted all of it, and the first flush of the second one let go of it."""
    disk = MemoryFileSystem()
    expected = {}
    with DB("/db", filesystem=disk, background=False) as db:
        for number in range(6000):
            # Neither in the order of their keys nor all in the first memtables.
            key = b"%06d" % (number * 7919 % 6000)
            expected[key] = b"%d" % number * 10
            db.put(key, expected[key])
        db.sync()
        killed = disk.crash(keep="all")
    killed.fail(operation, errno.ENOSPC, path=path)
    with DB("/db", filesystem=killed, **SMALL) as db:
        assert dict(db) == expected
        assert db.last_sequence == 6000
        left = killed.crash(keep="all")
    assert reopened(left) == expected


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EMFILE])
def test_an_opening_lets_go_of_no_log_by_a_manifest_that_power_may_take_back(error: int) -> None:
    """Its last edit wasn't synced, and a new one can't be written."""
    expected = {}
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **SMALL)
    with db.changes():  # keeps the log from being let go of altogether
        while db.stats()["log"]["segment"] < 2:
            key = b"%06d" % len(expected)
            db.put(key, bytes(20000), sync=True)
            expected[key] = bytes(20000)
        disk.fail("datasync", errno.EIO, path="MANIFEST")
        with pytest.raises(StorageError):
            db.flush()
    with contextlib.suppress(StorageError):
        db.close()
    disk.remove_file("/db/RESERVE")

    def lacking(operation: str, path: str) -> None:
        if operation == "pwrite" and "MANIFEST" in path:
            raise OSError(error, "for a manifest")

    disk.on_operation = lacking
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert dict(db) == expected
        disk.on_operation = None
        for kept in KEPT:
            assert reopened(disk.crash(random.Random(1), kept)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_power_may_go_while_what_is_left_of_a_creation_makes_way(seed: int) -> None:
    """CURRENT came back without what told that it was of a creation, and was taken for damage."""
    dice = random.Random(seed)
    disk = MemoryFileSystem()
    DB("/db", filesystem=disk, **SMALL).close()
    disk.copy("/db/MANIFEST-000001", "/db/MANIFEST-000001.new")
    for name in ("MANIFEST-000001", "END"):
        disk.remove_file(f"/db/{name}")
    left: list[MemoryFileSystem] = []
    disk.on_operation = lambda _operation, _path: left.append(disk.crash(dice, "random"))
    DB("/db", filesystem=disk, **SMALL).close()
    disk.on_operation = None
    for copy in left:
        assert reopened(copy) == {}


@pytest.mark.parametrize("job", ["flush", "compact_range"])
@pytest.mark.parametrize(
    ("operation", "path", "error", "goes_on"),
    [
        ("open", "/END", errno.EMFILE, True),
        ("pwrite", "/END", errno.ENOSPC, True),
        ("datasync", "MANIFEST", errno.EIO, False),
    ],
)
def test_a_handler_that_raises_behind_an_edit_leaves_none_that_contradicts_it(
    operation: str,
    path: str,
    error: int,
    goes_on: bool,
    job: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of a signal that came meanwhile runs in the first Python after the disk's work: where
    the error is made."""
    expected = {b"a%d" % number: b"1" for number in range(3)}
    disk = MemoryFileSystem()
    made = StorageError.__init__

    def interrupted(*_given: object, **_named: object) -> None:
        monkeypatch.setattr(StorageError, "__init__", made)
        raise KeyboardInterrupt

    db = DB("/db", filesystem=disk, **SMALL)
    for key, value in expected.items():
        db.flush()
        db.put(key, value, sync=True)
    if job == "compact_range":
        db.flush()
    tables = db.stats()["levels"]
    disk.fail(operation, error, path=path)
    monkeypatch.setattr(StorageError, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(db, job)()
    # The edit holds, or nobody knows.
    assert (db.stats()["levels"] != tables) is goes_on
    if goes_on:
        db.put(b"b", b"2", sync=True)
        expected[b"b"] = b"2"
        db.flush()
        getattr(db, job)()
    else:
        with pytest.raises(StorageError, match=r"a failure \(KeyboardInterrupt\)"):
            getattr(db, job)()
    assert dict(db) == expected
    db.close()
    for kept in KEPT:
        assert reopened(disk.crash(random.Random(1), kept)) == expected
