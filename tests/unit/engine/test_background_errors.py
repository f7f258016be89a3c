"""Errors that go away by themselves, errors that don't, and damage met by a compaction."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import CorruptionError, StorageError

SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "compaction_trigger": 2,
    "max_write_buffers": 2,
}
PASSING = [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM]


def put_some(db: DB, first: int, count: int) -> dict[bytes, bytes]:
    wanted = {b"%06d" % number: b"%d" % number * 20 for number in range(first, first + count)}
    for key, value in wanted.items():
        db.put(key, value)
    return wanted


def put_into(db: DB, wanted: dict[bytes, bytes], numbers: range, value: bytes = bytes(20)) -> None:
    """Notes in ``wanted`` what went well."""
    for number in numbers:
        db.put(b"%06d" % number, value)
        wanted[b"%06d" % number] = value


def tables(disk: MemoryFileSystem) -> list[str]:
    return [name for name in disk.names("/db") if name.endswith(".sst")]


# --- flushes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", PASSING)
@pytest.mark.parametrize("operation", ["open", "pwrite", "sync_directory"])
def test_a_flush_that_lacks_something_leaves_nothing_and_goes_well_later(
    operation: str, code: int
) -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        wanted = put_some(db, 0, 100)
        disk.fail(operation, code, always=True, path="/db" if "sync" in operation else ".sst")
        with pytest.raises(StorageError) as caught:
            db.flush()
        assert caught.value.errno == code
        assert caught.value.retryable
        assert tables(disk) == []
        state = db.stats()
        assert state["failure"] is None
        assert os.strerror(code) in state["background_error"]
        # Writes that have room go on.
        wanted |= put_some(db, 100, 100)
        disk.heal()
        db.flush()
        assert db.stats()["background_error"] is None
        wanted |= put_some(db, 200, 100)
        assert dict(db) == wanted
    with DB("/db", filesystem=disk, **SMALL) as again:
        assert dict(again) == wanted
        again.verify()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_table_that_could_not_be_written_back_is_never_asked_for(code: int) -> None:
    """The kernel may report its pages as clean: no later sync of it says anything."""
    disk = MemoryFileSystem()
    options = SMALL | {"write_buffer_size": 4 << 20, "max_file_size": 4 << 20}
    db = DB("/db", filesystem=disk, **options)
    wanted = {b"%06d" % number: os.urandom(1000) for number in range(1000)}
    for key, value in wanted.items():
        db.put(key, value)
    disk.fail("write_back", code, at=2, path=".sst", always=code == errno.ENOSPC)
    with pytest.raises(StorageError) as caught:
        db.flush()
    assert caught.value.errno == code
    assert tables(disk) == []
    disk.heal()
    if code == errno.ENOSPC:
        db.flush()
    else:
        with pytest.raises(StorageError, match=r"read-only since a failure.*reopen it"):
            db.flush()
    assert dict(db) == wanted
    db.close()
    with DB("/db", filesystem=disk.crash(), **options) as again:
        assert dict(again) == wanted
        again.verify()


def test_a_manifest_that_lacks_space_for_an_edit_is_written_on_where_it_was() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        wanted = put_some(db, 0, 100)
        size = db.stats()["manifest_bytes"]
        disk.fail("pwrite", errno.ENOSPC, path="MANIFEST", always=True)
        with pytest.raises(StorageError):
            db.flush()
        assert (tables(disk), db.stats()["manifest_bytes"]) == ([], size)
        disk.heal()
        db.flush()
        wanted |= put_some(db, 100, 100)
        db.flush()
    with DB("/db", filesystem=disk, **SMALL) as again:
        assert dict(again) == wanted


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_sync_of_the_manifest_that_fails_is_for_good(code: int) -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **SMALL)
    wanted = put_some(db, 0, 100)
    disk.fail("datasync", code, path="MANIFEST")
    with pytest.raises(StorageError):
        db.flush()
    for call in (db.flush, db.resume, lambda: db.put(b"k", b"")):
        with pytest.raises(StorageError, match=r"read-only since a failure.*reopen it"):
            call()
    assert dict(db) == wanted
    db.close()
    with DB("/db", filesystem=disk, **SMALL) as again:
        assert dict(again) == wanted


def test_writers_get_the_error_for_their_write_alone_once_memory_is_full() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        disk.fail("pwrite", errno.ENOSPC, always=True, path=".sst")
        wanted: dict[bytes, bytes] = {}
        refused = 0
        for number in range(3000):
            try:
                wanted |= put_some(db, number, 1)
            except StorageError as error:
                assert error.errno == errno.ENOSPC
                refused += 1
        assert refused > 1000
        assert db.stats()["frozen_memtables"] == 1
        assert dict(db) == wanted
        disk.heal()
        db.resume()
        wanted |= put_some(db, 3000, 3000)
        assert dict(db) == wanted


def test_flushes_that_wait_are_not_tried_again_for_each_write() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        disk.fail("pwrite", errno.ENOSPC, always=True, path=".sst")
        before = disk.counts["open"]
        refused = 0
        for number in range(3000):
            try:
                put_some(db, number, 1)
            except StorageError:
                refused += 1
        assert refused > 1500
        # A try opens a table, and once more with the reserve given back, which it then takes again.
        assert disk.counts["open"] - before < refused // 10
        disk.heal()


def test_a_full_disk_that_gets_room_goes_on_by_itself() -> None:
    disk = MemoryFileSystem()
    flushed = threading.Event()
    with DB("/db", filesystem=disk, **SMALL | {"background": True}) as db:
        disk.fail("pwrite", errno.ENOSPC, always=True, path=".sst")
        wanted: dict[bytes, bytes] = {}
        with pytest.raises(StorageError, match="no room for the write"):
            put_into(db, wanted, range(100_000))

        def seen(operation: str, path: str) -> None:
            # The manifest tells of the table: its flush is over.
            if operation == "datasync" and "MANIFEST" in path:
                flushed.set()

        disk.on_operation = seen
        disk.heal()
        assert flushed.wait(60)
        disk.on_operation = None
        db.flush()
        wanted |= put_some(db, 200_000, 2000)
        assert dict(db) == wanted
        assert db.stats()["background_error"] is None


def test_resume_tries_at_once_and_raises_what_still_stands_in_the_way() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        put_some(db, 0, 100)
        disk.fail("open", errno.EMFILE, always=True, path=".sst")
        with pytest.raises(StorageError):
            db.flush()
        with pytest.raises(StorageError) as caught:
            db.resume()
        assert caught.value.errno == errno.EMFILE
        disk.heal()
        db.resume()
        assert db.stats()["background_error"] is None
        assert db.stats()["frozen_memtables"] == 0
        db.resume()  # nothing stands in the way of nothing


# --- compactions -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", PASSING)
def test_a_compaction_that_lacks_something_never_stops_writes(code: int) -> None:
    disk = MemoryFileSystem()
    options = SMALL | {"slowdown_files": 4, "stop_files": 6, "compaction_trigger": 4}
    with DB("/db", filesystem=disk, **options) as db:
        wanted: dict[bytes, bytes] = {}
        # A compaction opens its inputs to read; a flush only writes.
        disk.on_operation = fail_reading_tables(code)
        for _ in range(12):
            wanted |= put_some(db, 0, 50)
            db.put(b"zz", b"")
            try:
                db.flush()
            except StorageError as error:
                assert error.errno == code
        wanted[b"zz"] = b""
        assert db.stats()["levels"][0]["tables"] > 6
        assert os.strerror(code) in db.stats()["background_error"]
        assert db.stats()["failure"] is None
        disk.on_operation = None
        db.resume()
        assert db.stats()["background_error"] is None
        assert db.stats()["levels"][0]["tables"] == 0
        assert dict(db) == wanted
        db.verify()


def fail_reading_tables(code: int) -> Callable[[str, str], None]:
    def hook(operation: str, path: str) -> None:
        if operation == "pread" and path.endswith(".sst"):
            raise OSError(code, os.strerror(code), path)

    return hook


@pytest.fixture
def rotten() -> Iterator[tuple[MemoryFileSystem, DB, str]]:
    """Tables in level 0 of "a" and "b" keys, one of the "a" ones with a rotten block."""
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL | {"compaction_trigger": 8}) as db:
        for prefix in (b"a", b"a", b"b", b"b"):
            for number in range(200):
                db.put(b"%s%06d" % (prefix, number), bytes(100))
            db.flush()
    bad = f"/db/{tables(disk)[1]}"
    disk.flip_bit(bad, 1000)
    with DB("/db", filesystem=disk, **SMALL) as db:
        yield disk, db, bad


def test_a_rotten_block_stops_neither_writes_nor_other_compactions(
    rotten: tuple[MemoryFileSystem, DB, str],
) -> None:
    disk, db, bad = rotten
    for number in range(3000):
        db.put(b"c%06d" % number, bytes(100))
    db.flush()
    state = db.stats()
    assert state["failure"] is None
    assert state["damaged_tables"] == [int(bad[4:10])]
    assert bad in state["background_error"]
    # What doesn't overlap the bad table went down; what does stayed in order above.
    # (Twice the trigger may gather beside those two.)
    assert 2 <= state["levels"][0]["tables"] < 2 + 2 * 2
    assert state["levels"][1]["tables"] > 0
    assert len(list(db.iterator(prefix=b"b"))) == 200
    assert len(list(db.iterator(prefix=b"c"))) == 3000
    with pytest.raises(CorruptionError, match="CHECKSUM_MISMATCH"):
        list(db.iterator(prefix=b"a"))
    with pytest.raises(CorruptionError) as caught:
        db.compact_range()
    assert caught.value.path == bad
    db.compact_range(start=b"b")
    # So many more beside it that a compaction is due, were it not for that table.
    for _ in range(4):
        for number in (0, 199):
            db.put(b"a%06d" % number, bytes(100))
        db.flush()
    with pytest.raises(CorruptionError):
        db.resume()
    disk.flip_bit(bad, 1000)  # a disk that reads it right again
    db.resume()
    assert db.stats()["damaged_tables"] == []
    assert db.stats()["background_error"] is None
    db.compact_range()
    assert len(list(db)) == 3400


def test_a_rotten_block_in_a_lower_level_is_left_alone_too() -> None:
    disk = MemoryFileSystem()
    options = SMALL | {"level_size_base": 256 << 10, "level_size_multiplier": 2}
    with DB("/db", filesystem=disk, **options) as db:
        for number in range(8000):
            db.put(b"%06d" % number, bytes(100))
        db.flush()
        assert sum(level["tables"] > 0 for level in db.stats()["levels"]) > 1
        oldest = int(tables(disk)[0][:6])
    disk.flip_bit(f"/db/{oldest:06d}.sst", 2000)
    with DB("/db", filesystem=disk, **options) as db:
        for number in range(0, 8000, 2):
            db.put(b"%06d" % number, bytes(101))
        db.flush()
        with pytest.raises(CorruptionError):
            db.compact_range()
        assert db.stats()["failure"] is None
        assert db.stats()["damaged_tables"] == [oldest]
        for number in range(3):
            db.put(b"x%d" % number, b"")
        db.flush()
        assert db.get(b"x1") == b""


# --- what has passed by itself ---------------------------------------------------------------


def until_nothing_is_wrong(db: DB) -> None:
    pause = threading.Event()
    for _ in range(60_000):
        if db.stats()["background_error"] is None:
            return
        pause.wait(0.001)
    raise AssertionError(db.stats()["background_error"])


def test_a_flush_that_a_user_called_is_tried_again_by_itself() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk) as db:
        wanted = put_some(db, 0, 100)
        disk.fail("open", errno.ENOSPC, always=True, path=".sst")
        with pytest.raises(StorageError):
            db.flush()
        assert "No space left" in db.stats()["background_error"]
        disk.heal()
        until_nothing_is_wrong(db)
        assert db.stats()["frozen_memtables"] == 0
        assert dict(db) == wanted


def test_a_manifest_that_had_no_room_at_opening_is_written_when_there_is_some() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk) as db:
        wanted = put_some(db, 0, 100)
    disk.remove_file("/db/END")
    disk.capacity_bytes = disk.used_bytes
    with DB("/db", filesystem=disk) as db:
        assert "No space left" in db.stats()["background_error"]
        disk.capacity_bytes = None
        until_nothing_is_wrong(db)
        assert disk.exists("/db/END")
        assert dict(db) == wanted


@pytest.mark.parametrize("background", [True, False])
def test_a_compaction_that_is_not_due_stands_in_no_ones_way(background: bool) -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, background=background) as db:
        put_some(db, 0, 100)
        db.flush()
        put_some(db, 0, 100)
        disk.on_operation = fail_reading_tables(errno.ENOSPC)
        with pytest.raises(StorageError):
            db.compact_range()
        assert "No space left" in db.stats()["background_error"]
        disk.on_operation = None
        if not background:
            # On the second occasion.
            db.flush()
            db.flush()
        until_nothing_is_wrong(db)
        assert db.stats()["levels"][0]["tables"] == 2


# --- the reserve and a full disk ---------------------------------------------------------------


def test_a_flush_on_a_full_disk_uses_the_reserve_and_it_comes_back_with_room() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert not disk.exists("/db/RESERVE")
        wanted = put_some(db, 0, 100)
        assert disk.exists("/db/RESERVE")
        disk.capacity_bytes = disk.used_bytes
        db.flush()
        assert not disk.exists("/db/RESERVE")
        assert db.stats()["background_error"] is None
        disk.capacity_bytes = None
        wanted |= put_some(db, 100, 100)
        db.flush()
        assert disk.exists("/db/RESERVE")
        assert dict(db) == wanted


def test_a_reserve_that_does_not_help_is_kept_for_later() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        put_some(db, 0, 100)
        disk.fail("pwrite", errno.ENOSPC, always=True, path=".sst")
        with pytest.raises(StorageError):
            db.flush()
        assert disk.exists("/db/RESERVE")
        disk.heal()


@pytest.mark.parametrize("noted", [True, False])
def test_a_full_disk_is_opened_and_read(noted: bool) -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        wanted = put_some(db, 0, 2000)
    if not noted:
        # Nothing says that the manifest is durable: a new one is to be written.
        disk.remove_file("/db/END")
    disk.capacity_bytes = disk.used_bytes
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert dict(db) == wanted
        if noted:
            assert db.stats()["background_error"] is None
        else:
            assert "No space left" in db.stats()["background_error"]
            with pytest.raises(StorageError) as caught:
                db.resume()
            assert caught.value.errno == errno.ENOSPC
        disk.capacity_bytes = None
        db.resume()
        wanted |= put_some(db, 2000, 2000)
        db.flush()
        assert db.stats()["background_error"] is None
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert dict(db) == wanted
        db.verify()


def test_a_new_database_is_not_begun_on_a_full_disk() -> None:
    disk = MemoryFileSystem(capacity_bytes=0)
    with pytest.raises(StorageError) as caught:
        DB("/db", filesystem=disk, **SMALL)
    assert caught.value.errno == errno.ENOSPC
    disk.capacity_bytes = None
    with DB("/db", filesystem=disk, **SMALL) as db:
        put_some(db, 0, 10)


def test_current_switched_without_a_descriptor_to_sync_it_is_synced_before_the_next_edit() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        wanted = put_some(db, 0, 100)
    with DB("/db", filesystem=disk, **SMALL) as db:
        wanted |= put_some(db, 100, 100)
        # The third sync of the directory is the one after CURRENT was switched, for the first edit.
        disk.fail("sync_directory", errno.EMFILE, at=3, path="/db")
        with pytest.raises(StorageError):
            db.flush()
        disk.heal()
        assert db.stats()["failure"] is None
        assert len([name for name in disk.names("/db") if name.startswith("MANIFEST")]) == 2
        db.flush()
        assert len([name for name in disk.names("/db") if name.startswith("MANIFEST")]) == 1
        after = disk.crash()
    with DB("/db", filesystem=after, **SMALL) as found:
        assert dict(found) == wanted


EXHAUSTED = """
import os, resource, sys
import kvstore
db = kvstore.DB(sys.argv[1], background=False, write_buffer_size=1 << 16)
db.put(b"before", b"1")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    db.flush()
except kvstore.StorageError as error:
    print(error.errno, error.retryable)
db.put(b"during", b"2")
print(db.stats()["failure"], "Too many open files" in db.stats()["background_error"])
for descriptor in taken:
    os.close(descriptor)
db.flush()
db.put(b"after", b"3")
print(db.stats()["background_error"], dict(db))
db.close()
"""


def test_a_process_that_runs_out_of_descriptors_writes_on_once_it_has_some(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED, str(tmp_path / "db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{errno.EMFILE} True",
        "None True",
        "None {b'after': b'3', b'before': b'1', b'during': b'2'}",
    ]


def fill_disk(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_real_disk_that_is_full_is_read_and_goes_on_when_it_gets_room(small_disk: Path) -> None:
    options: dict[str, Any] = {"write_buffer_size": 1 << 20, "max_write_buffers": 2}
    filler = small_disk / "filler"
    with DB(small_disk / "db", **options) as db:
        wanted = {b"%06d" % number: os.urandom(1000) for number in range(4000)}
        for key, value in wanted.items():
            db.put(key, value)
        db.compact_range()
        fill_disk(filler)
        with pytest.raises(StorageError) as caught:
            put_into(db, wanted, range(4000, 40_000), b"x" * 1000)
        assert caught.value.errno == errno.ENOSPC
        assert dict(db) == wanted
    with DB(small_disk / "db", read_only=True, **options) as db:
        assert dict(db) == wanted
    filler.unlink()
    with DB(small_disk / "db", **options) as db:
        assert dict(db) == wanted
        db.put(b"later", b"")
        db.flush()
        assert db.stats()["background_error"] is None
