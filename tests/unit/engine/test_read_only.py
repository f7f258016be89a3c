"""open(read_only=True): reads what is there, and writes nothing, whatever the disk is like."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import AlreadyOpenError, InvalidArgumentError, StorageError

SMALL: dict[str, Any] = {"background": False, "write_buffer_size": 64 << 10}
CHANGES = ["pwrite", "allocate", "truncate", "rename", "link", "unlink", "make_directory", "lock"]


def filled(*, clean: bool = True) -> tuple[MemoryFileSystem, dict[bytes, bytes]]:
    """A database with tables and a log, closed or left by a process that died."""
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **SMALL)
    wanted = {b"%06d" % number: b"%d" % number * 20 for number in range(2000)}
    for key, value in wanted.items():
        db.put(key, value)
    if clean:
        db.close()
        return disk, wanted
    db.sync()
    return disk.crash(keep="all"), wanted


def contents(disk: MemoryFileSystem) -> dict[str, bytes]:
    return {path: disk.read_file(path) for path in disk.files()}


@pytest.mark.parametrize("clean", [True, False])
def test_everything_is_read_and_nothing_is_written(clean: bool) -> None:
    disk, wanted = filled(clean=clean)
    before = contents(disk)
    for operation in CHANGES:
        disk.fail(operation, errno.EROFS, always=True)
    with DB("/db", filesystem=disk, read_only=True, **SMALL) as db:
        assert dict(db) == wanted
        assert db[b"000007"] == wanted[b"000007"]
        assert list(db.iterator(reverse=True, include_value=False)) == sorted(wanted, reverse=True)
        with db.snapshot() as snapshot:
            assert dict(snapshot) == wanted
        db.verify()
        assert db.stats()["failure"] is None
        assert db.last_sequence == 2000
    assert contents(disk) == before


WRITES: dict[str, Callable[[DB], object]] = {
    "put": lambda db: db.put(b"k", b"v"),
    "delete": lambda db: db.delete(b"k"),
    "write": lambda db: db.update({b"k": b"v"}),
    "put_many": lambda db: db.put_many((b"key", memoryview(bytes(16)).cast("q")), (b"", b"")),
    "flush": lambda db: db.flush(),
    "sync": lambda db: db.sync(),
    "compact_range": lambda db: db.compact_range(),
    "checkpoint": lambda db: db.checkpoint("/copy"),
    "resume": lambda db: db.resume(),
    "delete_range": lambda db: db.delete_range(None, None),
}


@pytest.mark.parametrize("name", [name for name in WRITES if name != "put_many"])
def test_every_write_is_refused(name: str) -> None:
    disk, wanted = filled()
    with DB("/db", filesystem=disk, read_only=True, **SMALL) as db:
        with pytest.raises(StorageError, match="opened with read_only=True") as caught:
            WRITES[name](db)
        assert caught.value.errno == errno.EROFS
        assert dict(db) == wanted


def test_many_may_read_at_once_and_none_while_somebody_writes() -> None:
    disk, wanted = filled()
    with (
        DB("/db", filesystem=disk, read_only=True, **SMALL) as one,
        DB("/db", filesystem=disk, read_only=True, **SMALL) as two,
    ):
        assert dict(one) == dict(two) == wanted
        with pytest.raises(AlreadyOpenError):
            DB("/db", filesystem=disk, **SMALL)
    with DB("/db", filesystem=disk, **SMALL), pytest.raises(AlreadyOpenError):
        DB("/db", filesystem=disk, read_only=True, **SMALL)


def test_a_copy_without_its_lock_is_read_and_gets_none() -> None:
    disk, wanted = filled()
    disk.remove_file("/db/LOCK")
    with DB("/db", filesystem=disk, read_only=True, **SMALL) as db:
        assert dict(db) == wanted
    assert not disk.exists("/db/LOCK")


@pytest.mark.parametrize("name", ["/none", "/empty"])
def test_where_there_is_no_database_none_is_made(name: str) -> None:
    disk = MemoryFileSystem()
    disk.make_directories("/empty")
    with pytest.raises(InvalidArgumentError, match="no database"):
        DB(name, filesystem=disk, read_only=True)
    assert disk.files() == []


def test_a_real_file_system_that_is_mounted_read_only(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "place"
    place.mkdir()
    with kvstore.open(place / "db", write_buffer_size=64 << 10) as db:
        for number in range(3000):
            db.put(b"%06d" % number, bytes(100))
    for command in (["mount", "--bind", place, place], ["mount", "-o", "remount,bind,ro", place]):
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"can't mount here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(StorageError) as caught:
            kvstore.open(place / "db")
        assert caught.value.errno == errno.EROFS
        with kvstore.open(place / "db", read_only=True) as db:
            assert len(list(db)) == 3000
            with pytest.raises(StorageError):
                db.put(b"k", b"v")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
