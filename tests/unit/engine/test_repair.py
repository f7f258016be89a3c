"""Repair keeps whatever checks, and says what is gone."""

from __future__ import annotations

import random

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import LostKeys
from kvstore.errors import ConfigurationError, CorruptionError

OPTIONS = {"background": False, "block_size": 1024, "write_buffer_size": 1 << 20}
ROWS = 600


def key(i: int) -> bytes:
    return b"key%06d" % i


def value(i: int) -> bytes:
    return b"value %d " % i * 10


def database(tables: int = 1, logged: int = ROWS) -> tuple[MemoryFileSystem, dict[bytes, bytes]]:
    """Rows in tables of level 0, and more that are only in the log; closed."""
    disk = MemoryFileSystem()
    rows = {}
    with kvstore.open("/db", filesystem=disk, **OPTIONS) as db:
        for table in range(tables):
            for i in range(ROWS):
                rows[key(table * ROWS + i)] = value(i)
                db.put(key(table * ROWS + i), value(i))
            db.flush()
        for i in range(logged):
            rows[key(100_000 + i)] = value(i)
            db.put(key(100_000 + i), value(i), sync=i % 50 == 0)
    return disk, rows


def found(disk: MemoryFileSystem) -> dict[bytes, bytes]:
    with kvstore.open("/db", filesystem=disk, **OPTIONS) as db:
        rows = dict(db)
        db.verify()
        db.put(b"and on", b"")
        assert db.get(b"and on") == b""
    return rows


def segments(disk: MemoryFileSystem) -> list[str]:
    return [name for name in disk.files("/db/wal") if name.endswith(".wal")]


def tables(disk: MemoryFileSystem) -> list[str]:
    return [name for name in disk.files("/db") if name.endswith(".sst")]


def flipped(disk: MemoryFileSystem, path: str, at: float) -> MemoryFileSystem:
    damaged = disk.crash(keep="all")
    damaged.flip_bit(path, int(at * len(damaged.read_file(path))), 3)
    return damaged


@pytest.mark.parametrize("at", [0.0, 0.0005, 0.2, 0.5, 0.99])
def test_one_bit_in_the_log_costs_one_record(at: float) -> None:
    disk, rows = database(tables=0, logged=1000)
    damaged = flipped(disk, segments(disk)[-1], at)
    with pytest.raises(CorruptionError):
        found(damaged.crash(keep="all"))
    report = kvstore.repair_db("/db", filesystem=damaged)
    kept = found(damaged)
    assert len(rows) - len(kept) <= 1
    assert all(rows[name] == kept[name] for name in kept)
    gone = sum(last - first + 1 for first, last in report.missing_sequences)
    assert gone == len(rows) - len(kept)
    assert report.log_records == report.log_operations == len(kept)
    assert report.old_may_be_back
    assert any(name.startswith("wal.damaged") for name in damaged.names("/db"))


def test_a_segment_that_is_missing_is_a_gap_and_the_later_ones_are_kept() -> None:
    disk = MemoryFileSystem()
    rows = {}
    for opening in range(4):  # each begins a segment
        with kvstore.open("/db", filesystem=disk, **OPTIONS) as db:
            for i in range(10 * opening, 10 * opening + 10):
                rows[key(i)] = value(i)
                db.put(key(i), value(i))
    assert len(segments(disk)) >= 3
    disk.remove_file(segments(disk)[1])
    report = kvstore.repair_db("/db", filesystem=disk)
    kept = found(disk)
    [(first, last)] = report.missing_sequences
    assert sorted(rows.keys() - kept.keys()) == [key(i - 1) for i in range(first, last + 1)]
    assert all(rows[name] == kept[name] for name in kept)


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_one_bit_in_a_table_costs_one_block_at_most(at: float) -> None:
    disk, rows = database(tables=3)
    oldest = min(tables(disk))
    damaged = flipped(disk, oldest, at)
    report = kvstore.repair_db("/db", filesystem=damaged)
    kept = found(damaged)
    lost = rows.keys() - kept.keys()
    assert len(lost) <= 1024 // 80 + 2
    assert all(rows[name] == kept[name] for name in kept)
    assert (report.tables_whole, report.tables_salvaged) == (2, 1)
    assert report.entries_salvaged == ROWS - len(lost)
    for name in lost:
        assert any(
            (gone.after or b"") <= name and (gone.before is None or name <= gone.before)
            for gone in report.lost
        )
    assert oldest[4:] + ".damaged" in damaged.names("/db")


def test_of_a_table_without_a_whole_byte_the_manifest_says_what_is_gone() -> None:
    disk, rows = database(tables=2)
    oldest = min(tables(disk))
    disk.write_file(oldest, bytes(len(disk.read_file(oldest))))
    report = kvstore.repair_db("/db", filesystem=disk)
    assert report.lost == [LostKeys(oldest[4:], key(0), key(ROWS - 1), ROWS)]
    assert found(disk).keys() == rows.keys() - {key(i) for i in range(ROWS)}


def test_a_newer_table_that_was_salvaged_still_hides_an_older_one() -> None:
    disk = MemoryFileSystem()
    with kvstore.open("/db", filesystem=disk, **OPTIONS) as db:
        for generation in range(3):
            for i in range(ROWS):
                db.put(key(i), value(1000 * generation + i))
            db.flush()
    middle = sorted(tables(disk))[1]
    damaged = flipped(disk, middle, 0.5)
    report = kvstore.repair_db("/db", filesystem=damaged)
    assert report.tables_salvaged == 1
    assert found(damaged) == {key(i): value(2000 + i) for i in range(ROWS)}


@pytest.mark.parametrize("seed", range(40))
def test_what_checks_is_never_lost(seed: int) -> None:
    """One flipped bit anywhere: at most a block or a record goes, and what is there is right."""
    chance = random.Random(seed)
    disk, rows = database(tables=2, logged=200)
    path = chance.choice([name for name in disk.files("/db") if disk.read_file(name)])
    damaged = flipped(disk, path, chance.random())
    kvstore.repair_db("/db", filesystem=damaged)
    kept = found(damaged)
    assert len(rows) - len(kept) <= 14, path
    assert all(rows[name] == kept[name] for name in kept)
    assert not kvstore.repair_db("/db", filesystem=damaged)


def test_a_repair_that_is_cut_off_anywhere_can_be_run_again() -> None:
    disk, rows = database(tables=2, logged=100)
    for path in (min(tables(disk)), segments(disk)[-1]):
        disk = flipped(disk, path, 0.5)
    whole = disk.crash(keep="all")
    kvstore.repair_db("/db", filesystem=whole)
    expected = found(whole)
    assert 0 < len(rows) - len(expected) <= 15
    before = disk.operations
    counted = disk.crash(keep="all")
    kvstore.repair_db("/db", filesystem=counted)
    for stop in range(1, counted.operations - before + 1, 2):
        again = disk.crash(keep="all")
        again.stop_at(again.operations + stop)
        with pytest.raises(kvstore.StorageError):
            kvstore.repair_db("/db", filesystem=again)
        left = again.crash(random.Random(stop), "random")
        kvstore.repair_db("/db", filesystem=left)
        assert found(left) == expected


def test_progress_is_told() -> None:
    disk, _ = database(tables=3)
    told: list[tuple[str, int, int]] = []
    damaged = flipped(disk, segments(disk)[-1], 0.5)
    kvstore.repair_db("/db", filesystem=damaged, progress=lambda *step: told.append(step))
    assert ("tables", 3, 3) in told
    assert ("log", len(segments(disk)), len(segments(disk))) in told
    assert all(0 <= done <= total for _, done, total in told)


def test_ranges_deleted_in_a_damaged_log_stay_deleted() -> None:
    disk, rows = database(tables=1, logged=0)
    with kvstore.open("/db", filesystem=disk, **OPTIONS) as db:
        db.delete_range(key(100), key(200))
        db.put(key(150), b"again")
        db.put(b"damaged", b"x" * 1000)
        db.put(b"last", b"")
    rows = {name: row for name, row in rows.items() if not key(100) <= name < key(200)}
    segment = segments(disk)[-1]
    disk.flip_bit(segment, disk.read_file(segment).index(b"x" * 1000) + 500)
    report = kvstore.repair_db("/db", filesystem=disk)
    assert found(disk) == rows | {key(150): b"again", b"last": b""}
    assert len(report.missing_sequences) == 1
    disk_again = disk.crash(keep="all")
    for name in disk_again.names("/db"):
        if name.startswith(("MANIFEST-", "CURRENT")):
            disk_again.remove_file(f"/db/{name}")
    kvstore.repair_db("/db", filesystem=disk_again)
    merged = found(disk_again)
    assert {name: merged[name] for name in rows} == rows
    assert not [name for name in merged if key(100) <= name < key(200) and name != key(150)]


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("/data/KVSTORE", "/data"),
        ("/data/node1/LOGEND", "/data/node1"),
        ("/data/node1/state-00000000000000000000/CURRENT", "/data/node1"),
        (
            "/data/node1/state-00000000000000000000/CURRENT",
            "/data/node1/state-00000000000000000000",
        ),
    ],
)
def test_what_is_a_members_of_kvd_is_left_to_it(there: str, named: str) -> None:
    """Without all that it held it would be taken for whole, and its vote counted."""
    disk = MemoryFileSystem()
    disk.make_directories("/data/node1/log")
    disk.write_file(there, b"something")
    with pytest.raises(ConfigurationError, match="start"):
        kvstore.repair_db(named, filesystem=disk)
    assert disk.read_file(there) == b"something"
    assert disk.files() == [there]
