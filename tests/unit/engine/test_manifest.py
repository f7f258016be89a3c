"""The manifest over a long life: begun anew when it has grown, at no risk; and what it must say."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import InvalidArgumentError, StorageError

# Two bounds of each table stand in the manifest, so that a few flushes make it long.
LONG = b"k" * 60_000
SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "compaction_trigger": 2,
}
FLUSHES = 30


def key(number: int) -> bytes:
    return LONG + b"%04d" % number


def write_and_flush(db: DB, numbers: range) -> None:
    for number in numbers:
        db.put(key(number % 3), b"%d" % number)
        db.flush()
        db.compact_range()


def manifests(disk: MemoryFileSystem) -> list[str]:
    return [name for name in disk.names("/db") if name.startswith("MANIFEST-")]


def test_a_long_run_keeps_the_manifest_short() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        largest = 0
        for number in range(FLUSHES):
            write_and_flush(db, range(number, number + 1))
            largest = max(largest, db.stats()["manifest_bytes"])
            assert len(manifests(disk)) == 1
        assert db.stats()["manifest_rolls"] >= 2
        assert largest < 3 << 20
        then = list(db)
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.verify()
        assert list(db) == then
        assert db.last_sequence == FLUSHES


def operations_of_a_roll() -> tuple[int, int]:
    """The numbers of the disk's operations between which the manifest is begun anew."""
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(FLUSHES):
            before = disk.operations
            write_and_flush(db, range(number, number + 1))
            if db.stats()["manifest_rolls"]:
                return before, disk.operations
    raise AssertionError("the manifest was never rolled")


def write_until_it_fails(db: DB, acknowledged: dict[bytes, int]) -> None:
    for number in range(FLUSHES):
        db.put(key(number % 3), b"%d" % number, sync=True)
        acknowledged[key(number % 3)] = number
        db.flush()
        db.compact_range()


def test_a_power_loss_at_any_moment_of_beginning_it_anew_loses_nothing() -> None:
    first, last = operations_of_a_roll()
    for stop in range(first + 1, last + 1):
        disk = MemoryFileSystem()
        db = DB("/db", filesystem=disk, **SMALL)
        disk.stop_at(stop)
        acknowledged: dict[bytes, int] = {}
        with pytest.raises(StorageError):
            write_until_it_fails(db, acknowledged)
        for keep in ("none", "all"):
            after = disk.crash(keep=keep)
            with DB("/db", filesystem=after, **SMALL) as found:
                found.verify()
                for name, number in acknowledged.items():
                    assert int(found[name]) >= number
            assert len(manifests(after)) == 1


@pytest.mark.parametrize("operation", ["open", "pwrite", "datasync", "sync_directory", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
def test_a_manifest_that_lacks_room_to_be_begun_anew_goes_on(operation: str, code: int) -> None:
    disk = MemoryFileSystem()
    path = {"sync_directory": "", "rename": "CURRENT"}.get(operation, "MANIFEST")
    with DB("/db", filesystem=disk, **SMALL) as db:
        written = 0
        while not db.stats()["manifest_rolls"]:
            # Only where it is begun anew: its edits are another matter.
            roll_soon = db.stats()["manifest_bytes"] > 1 << 20
            if roll_soon:
                disk.fail(operation, code, at=1 if operation == "rename" else 2, path=path)
            try:
                write_and_flush(db, range(written, written + 1))
            except StorageError as error:
                assert error.errno == code
            assert db.stats()["failure"] is None or operation == "datasync"
            if db.stats()["failure"] is not None:
                break
            disk.heal()
            written += 1
            assert written < 200
        then = list(db)
    disk.heal()
    with DB("/db", filesystem=disk, **SMALL) as again:
        again.verify()
        assert list(again) == then


@pytest.mark.parametrize("operation", ["open", "pwrite", "datasync", "sync_directory", "rename"])
@pytest.mark.parametrize("code", [errno.EIO])
def test_a_manifest_that_cannot_be_begun_anew_makes_the_store_read_only(
    operation: str, code: int
) -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **SMALL)
    path = {"sync_directory": "", "rename": "CURRENT"}.get(operation, "MANIFEST")
    written = 0
    while db.stats()["manifest_bytes"] < 1 << 20:
        write_and_flush(db, range(written, written + 1))
        written += 1
    disk.fail(operation, code, always=True, path=path)
    with pytest.raises(StorageError) as caught:
        write_and_flush(db, range(written, FLUSHES))
    assert caught.value.errno == code
    with pytest.raises(StorageError, match="read-only"):
        db.put(b"k", b"v")
    then = list(db)
    db.close()
    disk.heal()
    with DB("/db", filesystem=disk, **SMALL) as again:
        again.verify()
        assert list(again) == then


def test_an_unlinked_manifest_that_stays_behind_is_removed_by_the_next_opening() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        disk.fail("unlink", errno.EIO, always=True, path="MANIFEST")
        write_and_flush(db, range(FLUSHES))
        assert len(manifests(disk)) > 1
        assert db.stats()["failure"] is None
        disk.heal()
    with DB("/db", filesystem=disk, **SMALL):
        assert len(manifests(disk)) == 1


def history_database(disk: MemoryFileSystem) -> DB:
    return DB("/db", filesystem=disk, **SMALL | {"compaction_trigger": 8})


def test_history_that_compaction_has_dropped_is_refused_after_reopening_too() -> None:
    disk = MemoryFileSystem()
    with history_database(disk) as db:
        db.retain_from(0)
        for number in range(1, 21):
            db.put(b"k", b"%d" % number)
            if number % 7 == 0:
                db.flush()
        db.flush()
        assert [db.get(b"k", sequence=at) for at in (1, 16, 20)] == [b"1", b"16", b"20"]
        # Only a compaction follows it, no flush.
        db.retain_from(19)
        db.compact_range()
        assert db.stats()["dropped_entries"] == 18
    with history_database(disk) as db:
        assert db.retained_sequence == 19
        assert db.get(b"k", sequence=19) == b"19"
        with pytest.raises(InvalidArgumentError, match="history"):
            db.get(b"k", sequence=16)


def test_history_that_was_asked_for_is_kept_after_a_power_loss_too() -> None:
    disk = MemoryFileSystem()
    db = history_database(disk)
    for number in range(1, 6):
        db.put(b"k", b"%d" % number, sync=True)
    db.retain_from(2)
    after = disk.crash()
    db.close()
    with history_database(after) as again:
        assert again.retained_sequence == 2
        again.put(b"k", b"6")
        again.flush()
        again.put(b"k", b"7")
        again.compact_range()
        assert again.get(b"k", sequence=3) == b"3"


def test_history_begins_with_the_next_write_at_the_latest() -> None:
    disk = MemoryFileSystem()
    with history_database(disk) as db:
        for wrong in (2, 10**15):
            with pytest.raises(InvalidArgumentError, match="beyond the next write's, 1"):
                db.retain_from(wrong)
        assert db.retained_sequence is None
        db.put(b"k", b"1")
        db.retain_from(1)
        with pytest.raises(InvalidArgumentError, match="beyond the next write's, 2"):
            db.retain_from(3)
        db.retain_from(2)
        assert db.retained_sequence == 2
        db.put(b"k", b"2")
        db.put(b"k", b"3")
        assert db.get(b"k", sequence=2) == b"2"


def test_history_is_not_promised_where_that_cannot_be_written() -> None:
    disk = MemoryFileSystem()
    with history_database(disk) as db:
        db.put(b"k", b"1")
        disk.fail("pwrite", errno.ENOSPC, always=True, path="MANIFEST")
        with pytest.raises(StorageError):
            db.retain_from(1)
        assert db.retained_sequence is None
        assert db.stats()["failure"] is None
        disk.heal()
        db.retain_from(1)
        assert db.retained_sequence == 1


def test_history_that_nobody_had_asked_for_cannot_be_had_back() -> None:
    disk = MemoryFileSystem()
    with history_database(disk) as db:
        for number in range(1, 21):
            db.put(b"k", b"%d" % number)
        db.flush()
        db.retain_from(5)
        assert db.retained_sequence == 20
        with pytest.raises(InvalidArgumentError, match="history"):
            db.get(b"k", sequence=7)
        assert db.get(b"k", sequence=20) == b"20"
    with history_database(disk) as db:
        db.put(b"k", b"21")
        db.retain_from(1)
        assert db.retained_sequence == 20
        assert db.get(b"k", sequence=20) == b"20"
