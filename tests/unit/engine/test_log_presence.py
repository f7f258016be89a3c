"""What the manifest notes of the log: that it is there, where it begins, how far it was durable."""

from __future__ import annotations

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, IntegrityCode

SMALL = {"background": False, "write_buffer_size": 64 << 10}


def closed_database(puts: int = 3, size: int = 100) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(puts):
            db.put(b"%04d" % number, bytes(size))
    return disk


def segments(disk: MemoryFileSystem) -> list[str]:
    return [f"/db/wal/{name}" for name in disk.names("/db/wal") if name.endswith(".wal")]


def refused(disk: MemoryFileSystem, **named: object) -> CorruptionError:
    with pytest.raises(CorruptionError) as caught:
        kvstore.DB("/db", filesystem=disk, **SMALL | named)
    return caught.value


@pytest.mark.parametrize("named", [{}, {"read_only": True}, {"wal": False}])
def test_a_log_that_is_gone_after_a_clean_close_is_damage(named):
    disk = closed_database()
    for path in segments(disk):
        disk.remove_file(path)
    error = refused(disk, **named)
    assert error.code == IntegrityCode.INVALID_RECORD
    assert error.path == "/db/wal/000001.wal"


def test_a_newest_segment_that_is_gone_is_damage():
    disk = closed_database(1)
    for _ in range(3):
        with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
            db.put(b"more", b"1", sync=True)
    newest = segments(disk)[-1]
    assert len(segments(disk)) == 4
    disk.remove_file(newest)
    assert refused(disk).path == newest


def test_an_oldest_segment_that_is_gone_is_damage():
    disk = closed_database(1)
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"more", b"1")
    disk.remove_file(segments(disk)[0])
    error = refused(disk)
    assert error.code == IntegrityCode.INVALID_RECORD
    assert "1 is missing" in str(error)


def test_a_durable_end_that_is_gone_is_damage_even_where_the_log_itself_cannot_know():
    disk = closed_database(3)
    (path,) = segments(disk)
    content = disk.read_file(path)
    # The last record and the mark of the close: what is left looks like a log that was not closed.
    cut = content.rindex(b"KR", 0, len(content) - 48)
    disk.write_file(path, content[:cut])
    error = refused(disk)
    assert (error.code, error.path, error.offset) == (IntegrityCode.TRUNCATED_RECORD, path, cut)
    # It changes nothing.
    assert disk.read_file(path) == content[:cut]
    assert refused(disk).offset == cut


def test_the_log_of_another_database_is_refused():
    disk, other = closed_database(), closed_database()
    for path in segments(disk):
        disk.write_file(path, other.read_file(path))
    assert "another" in str(refused(disk))


def test_a_flush_notes_what_it_lets_go_of():
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, **SMALL)
    for number in range(100):
        db.put(b"%04d" % number, bytes(64 << 10))
    db.flush()
    # All of it is in tables.
    left = disk.crash()
    assert segments(left) == []
    with kvstore.DB("/db", filesystem=left, **SMALL) as again:
        assert len(list(again)) == 100
    db.put(b"more", b"", sync=True)
    left = disk.crash()
    assert len(segments(left)) == 1
    whole = left.crash()
    with kvstore.DB("/db", filesystem=whole, **SMALL) as again:
        assert len(list(again)) == 101
    left.remove_file(segments(left)[0])
    assert refused(left).code == IntegrityCode.INVALID_RECORD


def test_repair_opens_what_lost_its_log_and_says_so():
    disk = closed_database(3)
    (path,) = segments(disk)
    content = disk.read_file(path)
    cut = content.rindex(b"KR", 0, len(content) - 48)
    disk.write_file(path, content[:cut])
    report = kvstore.repair_db("/db", filesystem=disk)
    assert any("durable log records are gone" in line for line in report.actions)
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        assert list(db.iterator(include_value=False)) == [b"0000", b"0001"]
        db.put(b"more", b"1")
    for gone in segments(disk):
        disk.remove_file(gone)
    assert any("missing" in line for line in kvstore.repair_db("/db", filesystem=disk).actions)
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        # The first repair had put into tables what was whole.
        assert list(db.iterator(include_value=False)) == [b"0000", b"0001"]


def test_a_checkpoint_and_a_database_without_a_log_are_not_asked_for_one():
    disk = closed_database(2)
    with kvstore.DB("/db", filesystem=disk, wal=False, **SMALL) as db:
        db.put(b"more", b"1")
        db.flush()
        db.checkpoint("/copy")
    for name in disk.names("/db/wal"):
        disk.remove_file(f"/db/wal/{name}")
    for path in ("/db", "/copy"):
        for wal in (False, True):
            with kvstore.DB(path, filesystem=disk, wal=wal, **SMALL) as db:
                assert len(list(db)) == 3
