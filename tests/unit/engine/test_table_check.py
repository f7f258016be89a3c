"""Checks of the files of an open database, a piece at a time."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from kvstore._engine.database.native import TableChecking
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import ClosedError, CorruptionError, StorageError


def made(disk: MemoryFileSystem, rows: int = 20_000) -> DB:
    disk.make_directories("/db")
    db = DB("/db", filesystem=disk, wal=False, background=False, write_buffer_size=64 << 20)
    for number in range(rows):
        db.put(b"key%08d" % number, b"value %d" % number + bytes(90))
    db.flush()
    return db


def check_all(check: TableChecking | None) -> None:
    assert check is not None
    while check.step():
        pass


def table_of(db: DB) -> int:
    ((number, size),) = db.live_tables()
    assert size > 0
    return number


def test_a_table_is_checked_in_pieces_that_together_are_all_of_it() -> None:
    with made(MemoryFileSystem()) as db:
        ((number, size),) = db.live_tables()
        check = db.check_table(number)
        assert check is not None
        pieces = []
        while piece := check.step():
            pieces.append(piece)
        assert len(pieces) > 1
        assert max(pieces) < 4 << 20
        assert size - 8192 < sum(pieces) <= size, "what isn't data comes with the first piece"
        assert check.step() == 0
        assert db.check_table(number + 1) is None


def test_it_reads_past_the_block_cache() -> None:
    with made(MemoryFileSystem()) as db:
        before = db.stats()["cache"]
        check = db.check_table(table_of(db))
        check_all(check)
        after = db.stats()["cache"]
        assert (after["used_bytes"], after["misses"]) == (before["used_bytes"], before["misses"])


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.6, 0.99, 0.9999])
def test_a_flipped_bit_is_found_wherever_it_is(part: float) -> None:
    disk = MemoryFileSystem()
    with made(disk) as db:
        ((number, size),) = db.live_tables()
        path = f"/db/{number:06d}.sst"
        disk.flip_bit(path, int(part * size))
        check = db.check_table(number)
        with pytest.raises(CorruptionError) as told:
            check_all(check)
        assert told.value.path == path


def test_a_device_that_says_no_is_no_corruption() -> None:
    disk = MemoryFileSystem()
    with made(disk) as db:
        check = db.check_table(table_of(db))
        disk.fail("pread", 5, at=20)
        with pytest.raises(StorageError) as told:
            check_all(check)
        assert not isinstance(told.value, CorruptionError)
        disk.heal()


def test_a_table_stays_while_it_is_checked_and_goes_afterwards() -> None:
    disk = MemoryFileSystem()
    with made(disk) as db:
        number = table_of(db)
        path = f"/db/{number:06d}.sst"
        check = db.check_table(number)
        assert check.step()
        db.delete_range(b"key00001000", None)
        db.compact_range()
        assert number not in dict(db.live_tables())
        assert disk.exists(path)
        check_all(check)
        del check
        gc.collect()
        db.put(b"k", b"v")
        db.flush()
        db.compact_range()
        assert not disk.exists(path)


def test_a_closed_database_is_checked_no_further() -> None:
    db = made(MemoryFileSystem())
    check = db.check_table(table_of(db))
    assert check.step()
    db.close()
    with pytest.raises(ClosedError):
        check.step()
    with pytest.raises(ClosedError):
        db.live_tables()


@pytest.mark.parametrize("name", ["IDENTITY", "CURRENT", "MANIFEST"])
def test_damage_of_small_files_is_found_while_it_is_open(name: str) -> None:
    disk = MemoryFileSystem()
    with made(disk, 100) as db:
        assert db.check_small_files() > 100
        db.put(b"more", b"")
        db.flush()
        (path,) = (path for path in disk.files("/db") if path.startswith(f"/db/{name}"))
        content = disk.read_file(path)
        for at in range(0, len(content), 7):
            disk.flip_bit(path, at)
            with pytest.raises(CorruptionError):
                db.check_small_files()
            disk.flip_bit(path, at)
        for at in range(1, min(60, len(content))):
            # The last edit as well, which a crash could leave: this database is open.
            disk.flip_bit(path, len(content) - at)
            with pytest.raises(CorruptionError):
                db.check_small_files()
            disk.flip_bit(path, len(content) - at)
        assert db.check_small_files() > 100


def test_on_a_real_disk(tmp_path: Path) -> None:
    with DB(str(tmp_path / "db"), write_buffer_size=8 << 20) as db:
        for number in range(5000):
            db.put(b"%d" % number, bytes(200))
        db.flush()
        for number, _ in db.live_tables():
            check = db.check_table(number)
            check_all(check)
        assert db.check_small_files() > 100
