"""A path is found once, at opening: what is kept doesn't follow chdir, links or the spelling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem, PosixFileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import InvalidArgumentError, StorageError
from kvstore.replica.directory import MemberDirectory

SMALL: dict[str, Any] = {"background": False, "write_buffer_size": 64 << 10}


def fill(db: kvstore.DB, count: int, value: bytes = bytes(100)) -> None:
    for number in range(count):
        db.put(b"%06d" % number, value)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories; the process stands in the first one."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.chdir(first)
    return first, second


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


@pytest.mark.parametrize("idle_database_there", [False, True])
def test_a_database_stays_where_it_was_opened_when_the_process_moves(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, idle_database_there: bool
) -> None:
    first, second = places
    if idle_database_there:
        with kvstore.open(second / "db", **SMALL) as other:
            fill(other, 10)
    before = contents(second)
    db = kvstore.open("db", **SMALL)
    monkeypatch.chdir(second)
    # Several log segments and tables, a manifest begun, a checkpoint beside.
    fill(db, 9000)
    db.sync()
    db.compact_range()
    assert db.name == "db"
    assert db.path == str(first / "db")
    db.close()
    assert contents(second) == before
    with kvstore.open(first / "db") as again:
        assert len(list(again)) == 9000
        again.verify()


def test_a_checkpoint_repair_and_destroy_take_the_directory_of_the_call(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places
    with kvstore.open("db") as db:
        fill(db, 10)
        monkeypatch.chdir(second)
        db.checkpoint("copy/")
    with kvstore.open(second / "copy") as copy:
        assert len(list(copy)) == 10
    assert not (first / "copy").exists()
    assert not kvstore.repair_db("copy/")
    kvstore.destroy_db("copy/")
    assert not (second / "copy").exists()
    assert (first / "db").exists()


def test_a_log_stays_where_it_was_opened_when_the_process_moves(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places
    log = Log("log", segment_bytes=4096)
    monkeypatch.chdir(second)
    for index in range(1, 101):
        log.append(1, index, 1, bytes(200))
    log.sync()
    log.remove_before(60)
    log.close()
    assert list(second.iterdir()) == []
    with Log(first / "log") as again:
        assert [index for _, index, _, _ in again.replay()][-1] == 100


def test_a_member_stays_where_it_was_opened_when_the_process_moves(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places
    directory = MemberDirectory("node1", PosixFileSystem())
    monkeypatch.chdir(second)
    assert directory.current_state(0) == f"{first}/node1/state-{0:020d}"
    assert directory.make_incoming() == f"{first}/node1/incoming"
    assert list(second.iterdir()) == []


def test_a_link_that_is_changed_does_not_move_an_open_database(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "old")
    db = kvstore.open(link / "db", **SMALL)
    link.unlink()
    link.symlink_to(tmp_path / "new")
    fill(db, 3000)
    db.flush()
    db.close()
    assert list((tmp_path / "new").iterdir()) == []
    with kvstore.open(tmp_path / "old" / "db") as again:
        assert len(list(again)) == 3000


def test_two_dots_after_a_link_are_what_the_system_takes_them_for(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    kvstore.open(f"{tmp_path}/link/../db").close()
    assert (tmp_path / "far" / "db" / "IDENTITY").exists()
    assert not (tmp_path / "db").exists()


SPELLINGS = ["/data/db", "/data/db/", "/data/db//", "/data/./db/.", "/data/x/../db/", "data/db/"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_name_of_a_new_database_is_durable_however_it_is_spelt(spelling: str) -> None:
    disk = MemoryFileSystem()
    disk.make_directories("/data")
    db = kvstore.DB(spelling, filesystem=disk, **SMALL)
    db.put(b"k", b"v", sync=True)
    with kvstore.DB("/data/db", filesystem=disk.crash(), **SMALL) as found:
        assert found[b"k"] == b"v"
    db.close()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_name_of_a_checkpoint_and_its_removal_are_durable_however_spelt(spelling: str) -> None:
    disk = MemoryFileSystem()
    disk.make_directories("/data")
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"k", b"v")
        db.checkpoint(spelling)
    disk = disk.crash()
    with kvstore.DB("/data/db", filesystem=disk, **SMALL) as copy:
        assert copy[b"k"] == b"v"
    kvstore.destroy_db(spelling, filesystem=disk)
    assert not disk.crash().exists("/data/db")


def test_the_name_of_a_log_and_of_a_member_are_durable_with_a_slash_at_the_end() -> None:
    disk = MemoryFileSystem()
    with Log("/log/", filesystem=disk) as log:
        log.append(1, 1, 1, b"entry")
        log.sync()
    MemberDirectory("/node1/", disk)
    after = disk.crash()
    assert after.exists("/log/000001.wal")
    assert after.exists("/node1/log")


USES: list[Callable[[str], object]] = [kvstore.open, kvstore.destroy_db, kvstore.repair_db, Log]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_is_no_path_is_refused(use: Callable[[str], object], name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no usable path"):
        use(name)


def test_a_relative_path_where_the_working_directory_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StorageError, match="finding the directory"):
        kvstore.open("db")


def test_a_path_may_have_3500_bytes() -> None:
    disk = MemoryFileSystem()
    longest = "/" + "d" * 3499
    with kvstore.DB(longest, filesystem=disk, **SMALL) as db:
        fill(db, 10)
        db.flush()
    with kvstore.DB(longest, filesystem=disk, **SMALL) as db:
        assert len(list(db)) == 10
    with pytest.raises(InvalidArgumentError, match="no usable path"):
        kvstore.DB(longest + "d", filesystem=disk, **SMALL)
    assert disk.names("/") == [longest[1:]]
