"""The way of one write: log, memtable, table, reopening; and a copy of it all."""

import gc
import random
import weakref

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch, destroy_db, repair_db
from kvstore.errors import (
    AlreadyOpenError,
    ClosedError,
    CorruptionError,
    InvalidArgumentError,
    StorageError,
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


def filled(db, count=20_000, seed=1):
    chance = random.Random(seed)
    expected = {}
    for _ in range(count):
        key = b"%06d" % chance.randrange(count // 2)
        if chance.random() < 0.2:
            db.delete(key)
            expected.pop(key, None)
        else:
            expected[key] = chance.randbytes(60)
            db.put(key, expected[key])
    return expected


def test_what_was_written_is_read_through_flushes_compactions_and_reopenings(path):
    with DB(path, write_buffer_size=1 << 18) as db:
        expected = filled(db)
        assert dict(db) == expected
        assert db.stats()["flushes"] > 0
    with DB(path) as db:
        assert dict(db) == expected
        db.compact_range()
        db.verify()
        assert dict(db) == expected
        assert [key for key, _ in db.iterator(reverse=True)] == sorted(expected, reverse=True)


def test_an_empty_batch_with_sync_makes_durable_what_was_written_before():
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk) as db:
        assert db.write(WriteBatch(), sync=True) == 0
        db.put(b"k", b"v")
        assert db.write(WriteBatch(), sync=True) == 1
        left = disk.crash()
    with DB("/db", filesystem=left) as db:
        assert dict(db) == {b"k": b"v"}


def test_a_batch_larger_than_a_log_segment_survives_the_process(path):
    with DB(path, write_buffer_size=1 << 16) as db, db.write_batch() as batch:
        for number in range(80):
            batch.put(b"%02d" % number, bytes([number]) * (1 << 20))
    with DB(path) as db:
        assert [value == bytes([key]) * (1 << 20) for key, value in enumerate(db.values())] == (
            [True] * 80
        )
        db.delete_range(None, None)
        assert not list(db.keys())


def test_reads_that_are_not_to_fill_the_cache_leave_it_alone(path):
    with DB(path) as db:
        for number in range(1000):
            db.put(b"%04d" % number, bytes(100))
        db.compact_range()
        db.get(b"0000")  # its block, and the index
        cached = db.stats()["cache"]["blocks"]
        with db.snapshot() as moment:
            for number in range(1000):
                assert db.get(b"%04d" % number, fill_cache=False) == bytes(100)
                assert moment.get(b"%04d" % number, fill_cache=False) == bytes(100)
        assert db.stats()["cache"]["blocks"] == cached
        db.get(b"0999")
        assert db.stats()["cache"]["blocks"] == cached + 1


def test_a_checkpoint_is_a_database_of_its_own(path):
    with DB(path) as db:
        expected = filled(db, 1000)
        db.checkpoint(path + "-copy")
        db.put(b"later", b"")
        with DB(path + "-copy") as copy:
            assert dict(copy) == expected
            copy.put(b"own", b"")
        assert b"own" not in db


def test_a_second_opening_is_refused_until_the_first_is_closed(path):
    with DB(path) as db:
        with pytest.raises(AlreadyOpenError):
            DB(path)
        db.put(b"k", b"v")
    with DB(path) as db:
        assert db[b"k"] == b"v"
    with pytest.raises(ClosedError):
        db.get(b"k")


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(StorageError, match="nothing was touched"):
        DB(str(tmp_path))
    with pytest.raises(StorageError, match="nothing was touched"):
        destroy_db(str(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious"]


def test_destroy_removes_the_database_and_its_directory(path, tmp_path):
    with DB(path) as db:
        filled(db, 1000)
        db.flush()
        with pytest.raises(AlreadyOpenError):
            destroy_db(path)
    destroy_db(path)
    assert list(tmp_path.iterdir()) == []


def test_destroy_leaves_what_others_put_beside_the_log(path, tmp_path):
    with DB(path) as db:
        filled(db, 1000)
    mine = [tmp_path / "db" / "wal" / name for name in ("notes.txt", "000001.wal.bak")]
    for file in mine:
        file.write_text("mine")
    destroy_db(path)
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == sorted(mine)


def test_destroy_leaves_what_others_put_beside_the_tables(path, tmp_path):
    with DB(path) as db:
        filled(db, 1000)
        db.flush()
    mine = [tmp_path / "db" / name for name in ("000001.sst.bak", "MANIFEST", "notes", "sub/a.sst")]
    mine[-1].parent.mkdir()
    for file in mine:
        file.write_text("mine")
    destroy_db(path)
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == sorted(mine)


@pytest.mark.parametrize("there", ["file", "directory", "database"])
def test_a_checkpoint_replaces_nothing_that_exists(path, tmp_path, there):
    target = tmp_path / "there"
    if there == "file":
        target.write_text("mine")
    elif there == "directory":
        target.mkdir()
        (target / "file").write_text("mine")
    else:
        DB(str(target)).close()
    with DB(path) as db:
        db.put(b"k", b"v")
        before = {file: file.lstat() for file in (target, *target.rglob("*"))}
        with pytest.raises(InvalidArgumentError, match="exists already"):
            db.checkpoint(target)
        assert {file: file.lstat() for file in (target, *target.rglob("*"))} == before
        assert sorted(file.name for file in tmp_path.iterdir()) == ["db", "there"]
        db.checkpoint(tmp_path / "free")


def test_repair_of_a_sound_database_changes_nothing(path):
    with DB(path) as db:
        expected = filled(db, 1000)
        db.flush()
    report = repair_db(path)
    assert not report
    assert report.tables_whole == 1
    with DB(path) as db:
        assert dict(db) == expected


def test_repair_merges_tables_anew_when_the_manifest_is_lost(path, tmp_path):
    with DB(path, write_buffer_size=1 << 18) as db:
        expected = filled(db)
        db.flush()
        db.put(b"only in the log", b"")
        expected[b"only in the log"] = b""
    (tmp_path / "db" / "CURRENT").unlink()
    with pytest.raises(CorruptionError):
        DB(path)
    assert any("merged anew" in line for line in repair_db(path).actions)
    with DB(path) as db:
        assert dict(db) == expected
        db.verify()
        db.put(b"and on", b"")


def test_repair_sets_a_damaged_table_aside(path, tmp_path):
    with DB(path) as db:
        db.put(b"lost", b"")
        db.flush()
        db.put(b"kept", b"")
        db.flush()
    oldest = min((tmp_path / "db").glob("*.sst"))
    oldest.write_bytes(bytes(oldest.stat().st_size))
    report = repair_db(path)
    assert any(oldest.name in line for line in report.actions)
    assert oldest.with_name(oldest.name + ".damaged").exists()
    with DB(path) as db:
        assert list(db) == [(b"kept", b"")]


def test_the_collector_may_free_a_database_with_all_that_it_holds():
    """Left open, and only reachable from a cycle."""
    for _ in range(20):
        disk = MemoryFileSystem()
        db = DB("/db", filesystem=disk, background=False, write_buffer_size=1 << 16)
        for number in range(2000):
            db.put(b"%d" % number, b"x" * 50)
        cycle = [db, db.iterator(), db.raw_iterator(), db.snapshot(), disk]
        next(cycle[1])
        cycle.append(cycle)
        freed = weakref.ref(db)
        del cycle, db, disk
        gc.collect()
        assert freed() is None


def test_an_applied_index_is_announced_only_once_a_power_loss_leaves_it():
    """Whoever keeps the log forgets by it what the tables are said to hold."""
    disk = MemoryFileSystem()
    announced = []
    with DB("/db", filesystem=disk, background=False, wal=False) as db:

        def look(_operation, _path):
            if not announced or announced[-1][0] != db.flushed_index:
                announced.append((db.flushed_index, disk.crash()))

        disk.on_operation = look
        for index in (7, 9):
            batch = WriteBatch()
            batch.put(b"k", b"%d" % index)
            db.write(batch, applied_index=index)
            db.flush()
        db.compact_range()
        disk.on_operation = None
        announced.append((db.flushed_index, disk.crash()))
    assert {index for index, _ in announced} == {0, 7, 9}
    for index, left in announced:
        with DB("/db", filesystem=left, background=False, wal=False) as db:
            assert db.flushed_index >= index
            assert db.get(b"k") == (b"%d" % db.flushed_index if db.flushed_index else None)


def test_a_compaction_of_level_0_takes_what_overlaps_only_what_it_took_along():
    with DB("/db", filesystem=MemoryFileSystem(), background=False, wal=False) as db:
        for writes in (
            {b"a": b"", b"c": b""},
            {b"e": b"old", b"g": b""},
            {b"c": b"", b"e": b"new"},
        ):
            for key, value in writes.items():
                db.put(key, value)
            db.flush()
        # The oldest table reaches the newest, and only that one the table between.
        db.compact_range(start=b"a", stop=b"b")
        assert db.get(b"e") == b"new"
        assert list(db) == [(b"a", b""), (b"c", b""), (b"e", b"new"), (b"g", b"")]


def test_a_table_that_only_changed_its_level_is_there_after_reopening():
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, background=False, compaction_trigger=2) as db:
        for key in (b"a", b"z"):
            db.put(key, b"")
            db.flush()
        assert db.stats()["trivial_moves"] == 1
    del db
    with DB("/db", filesystem=disk) as again:
        assert list(again.iterator(include_value=False)) == [b"a", b"z"]
