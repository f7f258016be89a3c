"""What END notes of manifest and log: what is durable can't go without a word."""

from __future__ import annotations

import contextlib
import errno
import struct

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, IntegrityCode

SMALL = {"background": False, "write_buffer_size": 64 << 10}


def flushed(wal: bool = False) -> MemoryFileSystem:
    """Two flushes, the second of which the manifest's last edit tells of."""
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, wal=wal, **SMALL) as db:
        for number in range(2):
            db.put(b"%d" % number, b"v")
            db.flush()
    return disk


def manifest(disk: MemoryFileSystem) -> str:
    return "/db/" + disk.read_file("/db/CURRENT").decode().split()[0]


def edits(content: bytes) -> list[int]:
    """Where edits begin."""
    places, at = [], 96
    while at < len(content):
        places.append(at)
        at += 20 + int(struct.unpack_from("<I", content, at)[0])
    return places


def refused(disk: MemoryFileSystem, **named: object) -> CorruptionError:
    with pytest.raises(CorruptionError) as caught:
        kvstore.DB("/db", filesystem=disk, **SMALL | named)
    return caught.value


@pytest.mark.parametrize("read_only", [False, True])
def test_a_manifest_that_was_cut_at_an_edit_is_damage(read_only: bool):
    disk = flushed()
    path = manifest(disk)
    content = disk.read_file(path)
    last = edits(content)[-1]
    disk.write_file(path, content[:last])
    error = refused(disk, read_only=read_only, **({} if read_only else {"wal": False}))
    assert (error.code, error.path, error.offset) == (IntegrityCode.TRUNCATED_RECORD, path, last)


def test_a_last_edit_that_is_damaged_is_not_taken_for_one_that_was_torn():
    disk = flushed()
    path = manifest(disk)
    disk.flip_bit(path, len(disk.read_file(path)) - 1)
    assert refused(disk, wal=False).code == IntegrityCode.CHECKSUM_MISMATCH


def test_an_edit_that_was_torn_is_left_out_still():
    disk = flushed()
    path = manifest(disk)
    content = disk.read_file(path)
    disk.write_file(path, content + content[edits(content)[-1] :][:30])
    with kvstore.DB("/db", filesystem=disk, wal=False, **SMALL) as db:
        assert len(list(db)) == 2


def test_an_older_manifest_in_force_is_damage():
    disk = flushed()
    path = manifest(disk)
    old = {name: disk.read_file(name) for name in (path, "/db/CURRENT")}
    with kvstore.DB("/db", filesystem=disk, wal=False, **SMALL) as db:
        db.put(b"more", b"v")
        db.flush()
    for name, content in old.items():
        disk.write_file(name, content)
    error = refused(disk, wal=False)
    assert error.code == IntegrityCode.INVALID_RECORD
    assert "older manifest" in str(error)


def test_the_note_of_another_database_is_refused():
    disk, other = flushed(), flushed()
    disk.write_file("/db/END", other.read_file("/db/END"))
    assert "another log or database" in str(refused(disk, wal=False))


@pytest.mark.parametrize("there", [None, b"", bytes(1024), bytes(range(256)) * 4])
def test_without_a_note_that_can_be_used_the_manifest_is_believed_and_noted(there: bytes | None):
    disk = flushed()
    disk.remove_file("/db/END")
    if there is not None:
        disk.write_file("/db/END", there)
    with kvstore.DB("/db", filesystem=disk, wal=False, **SMALL) as db:
        assert len(list(db)) == 2
    path = manifest(disk)
    content = disk.read_file(path)
    disk.write_file(path, content[: edits(content)[-1]])
    assert refused(disk, wal=False).path == path


def test_an_end_beside_no_current_is_damage():
    disk = MemoryFileSystem()
    kvstore.DB("/db", filesystem=disk, wal=False, **SMALL).close()
    disk.remove_file("/db/CURRENT")
    assert refused(disk).path == "/db/CURRENT"


def test_repair_takes_the_note_away_that_would_refuse_what_it_saved():
    disk = flushed(wal=True)
    path = manifest(disk)
    disk.write_file(path, disk.read_file(path)[:200])
    refused(disk)
    kvstore.repair_db("/db", filesystem=disk)
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        assert len(list(db)) == 2


def test_destroy_removes_the_note():
    disk = flushed()
    kvstore.destroy_db("/db", filesystem=disk)
    assert not disk.exists("/db")


def test_power_lost_at_any_operation_leaves_a_note_that_holds():
    def run(disk: MemoryFileSystem) -> None:
        for _ in range(2):
            with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
                db.put(b"k", b"v", sync=True)
                db.flush()
                db.put(b"l", b"v" * 70_000)
                db.flush()

    whole = MemoryFileSystem()
    run(whole)
    for stop in range(1, whole.operations + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        with contextlib.suppress(kvstore.StorageError):
            run(disk)
        for keep in ("none", "all"):
            with kvstore.DB("/db", filesystem=disk.crash(keep=keep), **SMALL) as db:  # type: ignore[arg-type]
                assert dict(db).keys() <= {b"k", b"l"}


def test_a_segment_that_was_begun_since_the_last_flush_is_noted_by_the_background_thread():
    disk = MemoryFileSystem()
    options = SMALL | {"background": True, "write_buffer_size": 8 << 20}
    db = kvstore.DB("/db", filesystem=disk, **options)
    syncs = 0
    while len([name for name in disk.names("/db/wal") if name.endswith(".wal")]) < 2:
        # Much of the log is of keys that are put again and again: the memtable holds one of each.
        db.put(b"k", bytes(200 << 10))
        syncs += 1
    segments = sorted(name for name in disk.names("/db/wal") if name.endswith(".wal"))
    newest = int(segments[-1].removesuffix(".wal"))
    while int.from_bytes(noted(disk)[16:24], "little") < newest:
        pass  # the test's own limit of time ends it
    left = disk.crash(keep="all")
    left.remove_file(f"/db/wal/{segments[-1]}")
    assert refused(left).code == IntegrityCode.INVALID_RECORD
    db.close()


def noted(disk: MemoryFileSystem) -> bytes:
    """The fields of the newer copy."""
    content = disk.read_file("/db/END")
    slots = [content[:512], content[512:]]
    return max(slots, key=lambda slot: int.from_bytes(slot[16:24], "little"))[40:]


def test_a_full_disk_takes_the_note_and_one_without_descriptors_goes_on():
    disk = flushed()
    with kvstore.DB("/db", filesystem=disk, wal=False, **SMALL) as db:
        disk.fail("open", errno.EMFILE, always=True, path="/db/END")
        db.put(b"more", b"v")
        db.flush()
        disk.heal()
        db.put(b"most", b"v")
        db.flush()
    with kvstore.DB("/db", filesystem=disk, wal=False, **SMALL) as db:
        assert len(list(db)) == 4


def test_a_note_that_cannot_be_written_ends_writing():
    disk = flushed()
    db = kvstore.DB("/db", filesystem=disk, wal=False, **SMALL)
    db.put(b"first", b"v")
    db.flush()  # the first one writes a manifest, too, and notes that
    disk.fail("datasync", errno.EIO, path="/db/END")
    db.put(b"more", b"v")
    with pytest.raises(kvstore.StorageError):
        db.flush()
    with pytest.raises(kvstore.StorageError, match="read-only"):
        db.put(b"most", b"v")
    db.close()
    with kvstore.DB("/db", filesystem=disk, wal=False, **SMALL) as again:
        assert again.get(b"more") == b"v"
