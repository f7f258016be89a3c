"""The directory of an open database is moved or removed, or its LOCK is: nothing goes elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import AlreadyOpenError, StorageError
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log

SMALL: dict[str, Any] = {"write_buffer_size": 64 << 10, "background": False}


def in_another_process(program: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import kvstore\nPATH = {str(path)!r}\n{program}"],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def write_until_refused(db: kvstore.DB, prefix: bytes) -> tuple[int, StorageError]:
    for number in range(20_000):
        try:
            db.put(prefix + b"%06d" % number, b"v" * 100)
        except StorageError as error:
            return number, error
    raise AssertionError("never refused")


@pytest.mark.parametrize("background", [False, True])
def test_nothing_goes_into_the_database_that_took_the_place(
    tmp_path: Path, background: bool
) -> None:
    path, moved = tmp_path / "db", tmp_path / "db.old"
    first = kvstore.open(str(path), write_buffer_size=64 << 10, background=background)
    first.put(b"first", b"1", sync=True)
    path.rename(moved)
    in_another_process("with kvstore.open(PATH) as db: db.put(b'other', b'1', sync=True)", path)
    before = contents(path)

    written, error = write_until_refused(first, b"a")
    assert "the directory was moved, or its LOCK removed, while it was open" in str(error)
    assert error.errno == errno.ESTALE
    assert first.stats()["failure"]
    for call in (first.flush, first.compact_range, lambda: first.checkpoint(tmp_path / "copy")):
        with pytest.raises(StorageError):
            call()
    assert first[b"first"] == b"1"
    first.close()

    assert contents(path) == before
    with kvstore.open(str(path)) as other:
        assert list(other.keys()) == [b"other"]
    with kvstore.open(str(moved)) as old:
        keys = set(old.keys())
        old.verify()
    assert b"first" in keys
    assert keys <= {b"first", *(b"a%06d" % number for number in range(written))}


def test_what_was_synced_before_it_showed_is_found_where_it_was_moved(tmp_path: Path) -> None:
    path, moved = tmp_path / "db", tmp_path / "db.old"
    first = kvstore.open(str(path), **SMALL)
    first.put(b"000", b"v")
    path.rename(moved)
    kvstore.open(str(path), **SMALL).close()
    for number in range(100):
        first.put(b"%03d" % number, b"v", sync=True)
    with pytest.raises(StorageError):
        first.flush()
    first.close()
    with kvstore.open(str(moved)) as old:
        assert list(old.keys()) == [b"%03d" % number for number in range(100)]


def test_without_lock_a_second_opening_is_refused_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with kvstore.open(str(path), **SMALL) as db:
        db.put(b"first", b"1", sync=True)
        (path / "LOCK").unlink()
        for call in (kvstore.open, kvstore.destroy_db, kvstore.repair_db):
            with pytest.raises(AlreadyOpenError, match=r"in this process; .* never remove LOCK"):
                call(str(path))
        with pytest.raises(AlreadyOpenError):
            kvstore.open(str(path), read_only=True)
        program = "try: kvstore.open(PATH)\nexcept kvstore.AlreadyOpenError as error: print(error)"
        assert f"in process {os.getpid()}; " in in_another_process(program, path)
        assert not (path / "LOCK").exists()
        with pytest.raises(StorageError, match="LOCK removed"):
            db.flush()
    with kvstore.open(str(path)) as db:
        assert list(db.keys()) == [b"first"]


def test_a_moved_database_is_still_open_at_its_new_path(tmp_path: Path) -> None:
    with kvstore.open(str(tmp_path / "db"), **SMALL):
        (tmp_path / "db").rename(tmp_path / "moved")
        with pytest.raises(AlreadyOpenError, match="in this process"):
            kvstore.open(str(tmp_path / "moved"))


@pytest.mark.parametrize("again", [False, True])
def test_a_removed_directory_is_not_written_to_any_more(tmp_path: Path, again: bool) -> None:
    path = tmp_path / "db"
    db = kvstore.open(str(path), **SMALL)
    db.put(b"first", b"1", sync=True)
    shutil.rmtree(path)
    if again:
        kvstore.open(str(path), **SMALL).close()
    before = contents(tmp_path)
    _, error = write_until_refused(db, b"a")
    assert error.errno == errno.ESTALE
    with pytest.raises(StorageError):
        db.flush()
    db.close()
    assert contents(tmp_path) == before


def test_a_disk_that_locks_files_alone_fails_the_first_database() -> None:
    """There LOCK is all there is: once it is another file, whoever holds the old one stops."""
    disk = MemoryFileSystem()
    first = kvstore.DB("/db", filesystem=disk, **SMALL)
    first.put(b"before", b"1", sync=True)
    disk.remove_tree("/db/LOCK")
    with kvstore.DB("/db", filesystem=disk, **SMALL) as second:
        second.put(b"second", b"1", sync=True)
        before = {path: disk.read_file(path) for path in disk.files()}
        first.put(b"first", b"1")
        with pytest.raises(StorageError, match="LOCK removed"):
            first.flush()
        first.close()
        after = {path: disk.read_file(path) for path in disk.files()}
        assert {path for path in after if not path.endswith(".wal")} == {
            path for path in before if not path.endswith(".wal")
        }


def fill(log: Log) -> None:
    for index in range(2, 20):
        log.append(1, index, 1, b"x" * 1000)
        log.sync()


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.mkdir()


@pytest.mark.parametrize("change", [moved, shutil.rmtree])
def test_a_log_of_its_own_begins_no_segment_in_another_folder(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    folder = tmp_path / "log"
    log = Log(os.fspath(folder), segment_bytes=4096)
    log.append(1, 1, 1, b"x" * 1000)
    log.sync()
    change(folder)
    with pytest.raises(StorageError, match="moved"):
        fill(log)
    log.close()
    assert not folder.exists() or not list(folder.iterdir())
