"""Large values that stay in the log: how they are read, kept, let go of, checked and repaired."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from array import array
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.errors import (
    ConflictError,
    CorruptionError,
    IntegrityCode,
    InvalidArgumentError,
    StorageError,
)

SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "compaction_trigger": 2,
    "value_log_bytes": 1000,
}


def large(seed: int, size: int = 4000) -> bytes:
    return random.Random(seed).randbytes(size)


def opened(disk: MemoryFileSystem, **options: Any) -> DB:
    return DB("/db", filesystem=disk, **SMALL | options)


def value_files(disk: MemoryFileSystem, path: str = "/db") -> list[str]:
    return [name for name in disk.names(path) if name.endswith(".val")]


def filled(db: DB, keys: int = 60, seed: int = 0) -> dict[bytes, bytes]:
    content = {}
    for number in range(keys):
        key = b"%04d" % (number * 7 % keys)
        content[key] = large(seed * 1000 + number)
        db.put(key, content[key])
    return content


def settled(path: Path, keys: int = 60) -> dict[bytes, bytes]:
    """A database whose log has let go of the segments of the first keys."""
    with kvstore.open(path, **SMALL) as db:
        content = filled(db, keys)
        for number in range(20):
            content[b"~%d" % number] = large(number, 100_000)
            db.put(b"~%d" % number, content[b"~%d" % number])
        db.flush()
    return content


def check(db: DB, content: dict[bytes, bytes]) -> None:
    """By every way of reading."""
    assert dict(db) == content
    assert list(db.iterator(reverse=True)) == sorted(content.items(), reverse=True)
    keys = sorted(content)
    assert [db.get(key) for key in keys] == [content[key] for key in keys]
    assert db.multi_get(keys) == [content[key] for key in keys]
    assert db.count() == len(content)
    assert list(db.iterator(include_value=False)) == keys
    assert all(key in db for key in keys)
    assert [db.get_versioned(key)[0] for key in keys] == [content[key] for key in keys]
    raw = db.raw_iterator()
    raw.seek_to_first()
    for key in keys:
        assert raw.item() == (key, content[key])
        raw.next()


def test_flushed_large_values_are_read_from_value_files() -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        content = filled(db)
        db.put(b"small", b"s" * 999)
        content[b"small"] = b"s" * 999
        db.flush()
        assert value_files(disk)
        stats = db.stats()
        assert stats["table_bytes"] < 20_000
        assert stats["value_bytes"] == 60 * 4000
        check(db, content)
        db.verify()
    with opened(disk) as db:
        check(db, content)
        db.verify()
    with opened(disk, read_only=True) as db:
        check(db, content)


def test_values_below_the_bound_stay_in_tables() -> None:
    disk = MemoryFileSystem()
    with opened(disk, value_log_bytes=1000) as db:
        for number in range(200):
            db.put(b"%d" % number, large(number, 999))
        db.flush()
        assert not value_files(disk)


@pytest.mark.parametrize(
    "options", [{"value_log_bytes": 0}, {"wal": False}, {"compression": "lz4"}]
)
def test_without_the_option_without_a_log_and_with_compression_all_stays_in_tables(
    options: dict[str, Any],
) -> None:
    disk = MemoryFileSystem()
    if options.get("compression"):
        pytest.importorskip("lz4")
    with opened(disk, **options) as db:
        content = filled(db)
        db.flush()
        assert not value_files(disk)
        check(db, content)


@pytest.mark.parametrize("value", [-1, (1 << 30) + 1])
def test_a_bound_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InvalidArgumentError, match="value_log_bytes"):
        opened(MemoryFileSystem(), value_log_bytes=value)


def test_batches_and_bulk_puts_note_where_their_values_are() -> None:
    disk = MemoryFileSystem()
    content = {}
    with opened(disk, write_buffer_size=1 << 20) as db:
        batch = WriteBatch()
        for number in range(50):
            key, value = b"batch-%d" % number, large(number, 900 + 10 * number)
            batch.put(key, value)
            content[key] = value
            batch.delete(b"none-%d" % number)
        db.write(batch)
        rows = {b"bulk-%03d" % number: large(100 + number, 3000) for number in range(100)}
        db.put_many(
            (b"".join(rows), array("q", range(0, 801, 8))),
            (b"".join(rows.values()), array("q", range(0, 300_001, 3000))),
        )
        content |= rows
        db.write(batch, sync=True)
        db.flush()
        assert value_files(disk)
        check(db, content)
        db.verify()
    with opened(disk) as db:
        check(db, content)


def test_what_a_batch_expects_may_lie_in_a_value_file() -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        content = filled(db)
        db.flush()
        value, _ = db.get_versioned(b"0007")
        batch = WriteBatch()
        batch.expect(b"0007", value)
        batch.expect(b"0008", sequence=db.get_versioned(b"0008")[1])
        batch.put(b"0007", b"new")
        db.write(batch)
        assert db.get(b"0007") == b"new"
        for unmet in (content[b"0010"][:-1] + b"!", None):
            batch = WriteBatch()
            batch.expect(b"0010", unmet)
            batch.put(b"0010", b"new")
            with pytest.raises(ConflictError):
                db.write(batch)
        assert db.get(b"0010") == content[b"0010"]


def test_awaited_writes_and_mapped_tables_have_values_apart(tmp_path: Path) -> None:
    content = {b"%03d" % number: large(number) for number in range(100)}

    async def write(db: DB) -> None:
        await asyncio.gather(*(db.put_async(*pair) for pair in content.items()))

    for mapped in (False, True):
        with kvstore.open(tmp_path / "db", **SMALL | {"mmap_reads": mapped}) as db:
            if not mapped:
                asyncio.run(write(db))
                db.flush()
                assert db.stats()["value_files"]
            check(db, content)
            check(db, content)


def test_a_segment_that_is_a_value_file_is_never_written_over() -> None:
    disk = MemoryFileSystem()
    content: dict[bytes, bytes] = {}
    with opened(disk) as db:
        for turn in range(12):
            for number in range(40):
                key = b"%d-%d" % (turn, number)
                content[key] = large(turn * 100 + number, 30_000)
                db.put(key, content[key])
        db.flush()
        check(db, content)
        db.verify()
    for _ in range(3):
        with opened(disk) as db:
            for number in range(60):
                key = b"more-%d" % number
                content[key] = large(number, 40_000)
                db.put(key, content[key])
            db.flush()
            db.verify()
            check(db, content)


def test_a_value_file_has_no_room_that_the_log_reserved() -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        for number in range(6):
            # Two have no room in a segment.
            db.put(b"%d" % number, large(number, 600_000))
        db.flush()
        sizes = [len(disk.read_file(f"/db/{name}")) for name in value_files(disk)]
        assert len(sizes) == 6
        assert max(sorted(sizes)[:5]) < 601_000
        db.verify()


def test_what_memory_alone_holds_after_a_crash_goes_into_tables() -> None:
    disk = MemoryFileSystem()
    db = opened(disk)
    content = filled(db, 10)
    db.sync()
    disk = disk.crash()
    with opened(disk) as after:
        check(after, content)
        after.flush()
        check(after, content)


def test_overwritten_values_are_let_go_of_and_their_files_go() -> None:
    disk = MemoryFileSystem()
    content: dict[bytes, bytes] = {}
    with opened(disk, write_buffer_size=256 << 10) as db:
        for turn in range(30):
            content |= filled(db, 60, turn)
        db.compact_range()
        db.flush()
        check(db, content)
        db.verify()
        stats = db.stats()
        assert stats["value_bytes"] <= 60 * 4000
        # Each of those that no log has any more is at least half alive.
        kept = sum(len(disk.read_file(f"/db/{name}")) for name in value_files(disk))
        assert kept < 6 << 20
    with opened(disk) as db:
        check(db, content)
        db.delete_range()
        db.flush()
        db.compact_range()
        assert list(db) == []
        assert db.stats()["value_files"] == 0
    with opened(disk) as db:
        assert value_files(disk) == []


def test_a_value_file_of_tiny_values_is_emptied_once() -> None:
    disk = MemoryFileSystem()
    with opened(disk, value_log_bytes=1) as db:
        content = {b"%d" % number: b"%d" % (number % 10) for number in range(3)}
        for key, value in content.items():
            db.put(key, value)
        for number in range(40):
            db.put(b"~%d" % number, large(number, 60_000))
        db.flush()
        db.delete_range(b"~")
        db.flush()
        db.compact_range()
        for _ in range(3):
            db.put(b"more", b"0")
            db.flush()
        assert {key: db[key] for key in content} == content
        db.verify()


def test_snapshots_and_history_keep_values() -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        first = filled(db, 40, 1)
        snapshot = db.snapshot()
        second = filled(db, 40, 2)
        db.flush()
        db.compact_range()
        assert dict(snapshot) == first
        iterator = iter(db)
        assert next(iterator) == min(second.items())
        filled(db, 40, 3)
        db.compact_range()
        assert dict(snapshot) == first
        assert list(iterator) == sorted(second.items())[1:]


def test_deleted_ranges_hide_values_and_reverse_walks_pass_them() -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        content = filled(db)
        db.flush()
        db.delete_range(b"0010", b"0050")
        content = {key: value for key, value in content.items() if not b"0010" <= key < b"0050"}
        check(db, content)
        db.flush()
        check(db, content)
        db.compact_range()
        check(db, content)


def test_checkpoint_has_value_files_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with kvstore.open(path, **SMALL) as db:
        content = filled(db)
        db.checkpoint(tmp_path / "copy")
        # Whatever becomes of the original, and of its log.
        for turn in range(20):
            filled(db, 60, 1 + turn)
        db.compact_range()
    for _ in range(2):
        with kvstore.open(path, **SMALL) as db:
            filled(db, 60, 50)
            db.flush()
    with kvstore.open(tmp_path / "copy", **SMALL) as copy:
        check(copy, content)
        copy.verify()
    kvstore.destroy_db(path)
    assert not path.exists()
    with kvstore.open(tmp_path / "copy", **SMALL) as copy:
        check(copy, content)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def damaged_value(path: Path, content: dict[bytes, bytes]) -> tuple[Path, bytes]:
    """Flips a bit of a value that no table has: where it lies, and its key."""
    tables = b"".join(name.read_bytes() for name in path.glob("*.sst"))
    for name in sorted(path.glob("*.val")):
        there = name.read_bytes()
        for key, value in sorted(content.items()):
            if value in there and value not in tables:
                flip(name, there.find(value) + len(value) // 2)
                return name, key
    raise AssertionError("all values are in tables")


def test_a_damaged_value_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "db"
    content = settled(path)
    bad, key = damaged_value(path, content)
    with kvstore.open(path, **SMALL) as db:
        for attempt in (
            lambda: db.get(key),
            lambda: db.multi_get([key]),
            lambda: list(db),
            lambda: list(db.iterator(reverse=True)),
            db.verify,
        ):
            with pytest.raises(CorruptionError) as caught:
                attempt()
            assert caught.value.code is IntegrityCode.CHECKSUM_MISMATCH
            assert str(bad) in str(caught.value)
        assert key in db
        assert db.multi_get([other for other in content if other != key])
        # A compaction meets it, and leaves it where it is.
        db.compact_range()
        db.put(b"new", b"value")
        with pytest.raises(CorruptionError):
            db.get(key)


def test_each_changed_byte_of_a_value_file_is_found_or_has_no_effect() -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        content = filled(db, 20)
        for number in range(20):
            content[b"~%d" % number] = large(number, 100_000)
            db.put(b"~%d" % number, content[b"~%d" % number])
        db.flush()
    name = f"/db/{value_files(disk)[0]}"
    there = disk.read_file(name)
    tables = b"".join(disk.read_file(f) for f in disk.files("/db") if f.endswith(".sst"))
    places = [
        (there.find(value), len(value))
        for value in content.values()
        if value in there and value not in tables
    ]
    assert places
    found = set()
    chance = random.Random(1)
    for offset in [*range(128), *(chance.randrange(len(there)) for _ in range(60))]:
        disk.flip_bit(name, offset, chance.randrange(8))
        with opened(disk) as db:
            matters = offset < 128 or any(at <= offset < at + size for at, size in places)
            try:
                assert dict(db) == content
                db.verify()
                assert not matters
            except CorruptionError as error:
                assert matters
                found.add(error.code)
        disk.write_file(name, there)
    assert found == {
        IntegrityCode.CHECKSUM_MISMATCH,
        IntegrityCode.INVALID_MAGIC,
        IntegrityCode.UNSUPPORTED_VERSION,
    }


def test_a_value_file_of_another_database_is_found_out(tmp_path: Path) -> None:
    settled(tmp_path / "one")
    settled(tmp_path / "two")
    mine = sorted((tmp_path / "one").glob("*.val"))
    others = sorted((tmp_path / "two").glob("*.val"))
    mine[0].write_bytes(others[0].read_bytes())
    with kvstore.open(tmp_path / "one", **SMALL) as db, pytest.raises(CorruptionError):
        db.verify()


@pytest.mark.parametrize("cut", [None, 1000])
def test_a_value_file_that_is_gone_or_short_refuses_the_opening(
    tmp_path: Path, cut: int | None
) -> None:
    path = tmp_path / "db"
    settled(path)
    name = min(path.glob("*.val"))
    if cut is None:
        name.unlink()
    else:
        os.truncate(name, cut)
    with pytest.raises(CorruptionError) as caught:
        kvstore.open(path, **SMALL)
    assert str(name) in str(caught.value)


def test_leftover_value_files_go_at_opening() -> None:
    disk = MemoryFileSystem()
    with opened(disk) as db:
        content = filled(db)
        db.flush()
        disk.copy("/db/" + value_files(disk)[0], "/db/009999.val")
    with opened(disk) as db:
        assert "009999.val" not in value_files(disk)
        check(db, content)


def test_where_files_have_one_name_only_values_stay_in_tables() -> None:
    disk = MemoryFileSystem()
    disk.fail("link", errno.EPERM)
    with opened(disk) as db:
        content = filled(db)
        db.flush()
        assert value_files(disk) == []
        check(db, content)
        assert db.stats()["failure"] is None


def test_a_full_disk_at_the_name_of_a_value_file_is_tried_again() -> None:
    disk = MemoryFileSystem()
    with opened(disk, write_buffer_size=1 << 20) as db:
        content = filled(db)
        disk.fail("link", errno.ENOSPC, always=True)
        with pytest.raises(StorageError):
            db.flush()
        disk.heal()
        db.flush()
        assert value_files(disk)
        check(db, content)
    with opened(disk) as db:
        check(db, content)
        db.verify()


def test_repair_keeps_every_value_that_checks(tmp_path: Path) -> None:
    path = tmp_path / "db"
    content = settled(path)
    _, key = damaged_value(path, content)
    assert kvstore.repair_db(path)
    del content[key]
    with kvstore.open(path, **SMALL) as db:
        check(db, content)
        db.verify()


def test_repair_without_a_value_file_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "db"
    content = settled(path)
    gone = min(path.glob("*.val"))
    lost = gone.read_bytes()
    gone.unlink()
    report = kvstore.repair_db(path)
    assert any(gone.name in action for action in report.actions)
    with kvstore.open(path, **SMALL) as db:
        check(db, {key: value for key, value in content.items() if value not in lost})
        db.verify()


def test_repair_without_a_manifest_finds_the_value_files(tmp_path: Path) -> None:
    path = tmp_path / "db"
    content = settled(path)
    for name in path.glob("MANIFEST-*"):
        name.unlink()
    assert kvstore.repair_db(path)
    with kvstore.open(path, **SMALL) as db:
        check(db, content)
        db.verify()


def test_few_value_files_are_open_at_a_time(tmp_path: Path) -> None:
    with kvstore.open(tmp_path / "db", **SMALL | {"max_open_files": 16}) as db:
        content: dict[bytes, bytes] = {}
        for number in range(400):
            key = b"%03d" % number
            content[key] = large(number, 50_000)
            db.put(key, content[key])
        db.flush()
        assert db.stats()["value_files"] > 8
        check(db, content)
        held = [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")
        ]
        assert sum(name.endswith(".val") for name in held) <= 5


def test_sizes_count_values() -> None:
    disk = MemoryFileSystem()
    with opened(disk, block_size=256) as db:
        filled(db)
        db.flush()
        db.compact_range()
        assert db.approximate_size(b"", b"~") >= 60 * 4000
        half = db.approximate_size(b"", b"0030")
        assert 60 * 1000 < half < 60 * 3000
