"""What an open database says of itself and copies of itself: what that opens and leaves behind."""

from __future__ import annotations

import errno

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import InvalidArgumentError, StorageError
from tests.unit.engine.test_open_tables import KEYS, MANY_TABLES, filled, tables_of


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def test_approximate_sizes_open_tables_at_the_edges_alone(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        tables = tables_of(db)
        whole = db.stats()["table_bytes"]
    with DB("/db", filesystem=disk, **MANY_TABLES) as db:
        opened = disk.counts["open"]
        half = db.approximate_size(KEYS[2500], KEYS[7500])
        assert abs(half - whole // 2) < whole // 50
        assert db.approximate_size(b"", b"~") == whole
        assert db.approximate_size(b"", b"0") == 0
        assert db.approximate_size(b"a", b"b") == 0
        assert tables > 40
        assert disk.counts["open"] - opened <= 2


def test_a_checkpoint_that_fails_leaves_nothing_in_the_way(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        names = disk.names("/")
        for operation in ("make_directory", "link", "open", "pwrite", "datasync", "rename"):
            disk.fail(operation, errno.EXDEV, path="" if operation == "link" else "/copy")
            with pytest.raises(StorageError):
                db.checkpoint("/copy")
            disk.heal()
            assert disk.names("/") == names, operation
        db.checkpoint("/copy")
    with DB("/copy", filesystem=disk) as copy:
        assert copy.get(KEYS[7]) == KEYS[7] * 50


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO])
def test_a_checkpoint_whose_name_isnt_durable_can_be_made_again(
    disk: MemoryFileSystem, code: int
) -> None:
    """Where descriptors were lacking it is, by itself, once some tables gave theirs back."""
    named: list[str] = []

    def fail_once(operation: str, path: str) -> None:
        if operation == "rename" and path == "/copy.new":
            named.append(path)
        elif operation == "sync_directory" and path == "/" and len(named) == 1:
            named.append("failed")
            raise OSError(code, "no sync")

    with filled(disk) as db:
        assert db.get(KEYS[7])  # a table is open
        names = disk.names("/")
        disk.on_operation = fail_once
        if code == errno.EIO:
            with pytest.raises(StorageError):
                db.checkpoint("/copy")
            assert disk.names("/") == names
        db.checkpoint("/copy")
        disk.on_operation = None
        assert "failed" in named
    with DB("/copy", filesystem=disk.crash()) as copy:
        assert copy.get(KEYS[7]) == KEYS[7] * 50


def test_a_checkpoint_within_the_database_is_refused(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        before = disk.names("/db")
        for path in ("/db", "/db/copy", "/db/wal/copy", "/db/../db/copy/"):
            with pytest.raises(InvalidArgumentError, match="within the database"):
                db.checkpoint(path)
        assert disk.names("/db") == before
        db.checkpoint("/db-copy")


def test_a_level_that_is_no_number_of_one_has_no_property(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        for number in ("7", "99", "9" * 10_000, "-1", "", "x"):
            assert db.get_property(f"leveldb.num-files-at-level{number}") is None
        assert db.get_property("leveldb.num-files-at-level0") is not None


def test_what_an_interrupted_checkpoint_left_is_replaced(disk: MemoryFileSystem) -> None:
    with filled(disk) as db:
        disk.write_file("/copy.new/000001.sst", b"half a link")
        db.checkpoint("/copy")
        assert disk.names("/") == ["copy", "db"]
        disk.write_file("/more.new/diary.txt", b"somebody's")
        with pytest.raises(InvalidArgumentError, match="in the way"):
            db.checkpoint("/more")
        assert disk.read_file("/more.new/diary.txt") == b"somebody's"
