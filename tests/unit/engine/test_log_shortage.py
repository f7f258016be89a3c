"""What the log does when memory, space or descriptors run short: an error, nothing half done."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import sys

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import StorageError

# Gives the process ever more memory for one large record, so that each allocation of its way fails
# once; says after each try whether it was taken.
LIMITED = """
import os
import resource
import sys
import kvstore
from kvstore._engine.log.native import Log

LARGE = bytes(8 << 20)
STEP = 1 << 20

def limited(extra, work):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + extra, resource.RLIM_INFINITY))
    try:
        work()
        return True
    except MemoryError:
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
DATABASE = """
db = kvstore.open(sys.argv[1], background=False, write_buffer_size=1 << 30)
db.put(b"first", b"1", sync=True)
kept = 0
for step in range(60):
    key = b"%02d" % step
    if limited(step * STEP, lambda: db.put(key, LARGE, sync=True)):
        assert db.get(key) == LARGE
        kept += 1
    else:
        assert db.get(key) is None
    assert db.stats()["failure"] is None
    db.put(b"after " + key, b"1", sync=True)
    if kept == 2:
        break
print(step, kept)
"""
LOG = """
log = Log(sys.argv[1])
kept = 0
for step in range(60):
    records = [(1, 2 * step, 0, b"%02d" % step), (1, 2 * step + 1, 0, LARGE)]
    if limited(step * STEP, lambda: log.append_many(records)):
        kept += 1
    log.append(2, 0, 0, b"%02d %d" % (step, kept))
    log.sync()
    if kept == 2:
        break
print(step, kept)
"""


def run(program: str, path: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED + program, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    steps, kept = map(int, done.stdout.split())
    assert kept == 2
    assert steps > 2
    return steps, kept


def test_a_put_that_finds_no_memory_raises_and_all_others_are_there_afterwards(tmp_path):
    path = str(tmp_path / "db")
    steps, kept = run(DATABASE, path)
    with kvstore.open(path) as db:
        keys = list(db.iterator(include_value=False))
        assert len(keys) == 1 + (steps + 1) + kept
        assert [key for key in keys if key.startswith(b"after")] == [
            b"after %02d" % step for step in range(steps + 1)
        ]


def test_records_that_found_no_memory_are_not_in_the_log_and_those_after_them_are(tmp_path):
    path = str(tmp_path / "log")
    steps, _ = run(LOG, path)
    with Log(path) as log:
        found = list(log.replay())
    kept = [0]
    for kind, index, _, payload in found:
        if kind == 1:
            # Both records of one call, or none.
            kept.append(index)
        else:
            step, count = payload.split()
            assert len(kept) - 1 == 2 * int(count)
    assert int(step) == steps
    assert kept[1::2] == [index - 1 for index in kept[2::2]]


TRANSIENT = [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM]


@pytest.mark.parametrize("operation", ["open", "allocate", "pwrite", "rename"])
@pytest.mark.parametrize("code", TRANSIENT)
@pytest.mark.parametrize("sync", [False, True])
def test_a_put_that_finds_no_room_for_a_segment_raises_alone_and_never_comes_back(
    operation, code, sync
):
    disk = MemoryFileSystem()
    settings = {"filesystem": disk, "background": False, "write_buffer_size": 1 << 20}
    db = kvstore.DB("/db", **settings)
    db.put(b"before", bytes(500), sync=True)
    large = bytes(1 << 20)
    disk.fail(operation, code)
    with pytest.raises(StorageError) as caught:
        db.put(b"large", large, sync=sync)
    assert caught.value.errno == code
    assert db.get(b"large") is None
    assert db.stats()["failure"] is None
    # What fits into the present segment needs no other.
    db.put(b"small", b"1", sync=sync)
    db.put(b"larger", large + large, sync=sync)
    disk.heal()
    assert db.last_sequence == 3
    db.close()
    for left in (disk, disk.crash(keep="none")):
        with kvstore.DB("/db", **settings | {"filesystem": left}) as again:
            assert list(again.iterator(include_value=False)) == [b"before", b"larger", b"small"]


@pytest.mark.parametrize("code", TRANSIENT)
def test_a_recycled_segment_that_finds_no_room_for_its_name_gets_it_later(code):
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096)
    for index in range(1, 5):
        log.append(1, index, 0, b"%d" % index * 2000)
        log.sync()
    log.remove_before(3)
    assert [name.partition(".")[2] for name in disk.names("/log")].count("spare") == 1
    before = disk.names("/log")
    disk.fail("rename", code)
    log.append(1, 5, 0, b"5" * 2000)
    with pytest.raises(StorageError) as caught:
        log.sync()
    assert caught.value.errno == code
    assert log.out_of_space
    assert disk.names("/log") == before
    log.sync()
    assert not log.out_of_space
    assert not any(name.endswith("spare") for name in disk.names("/log"))
    with Log("/log", filesystem=disk.crash()) as again:
        assert [index for _, index, _, _ in again.replay(3)] == [3, 4, 5]


@pytest.mark.parametrize("operation", ["rename", "sync_directory"])
def test_a_segment_that_gets_no_name_for_another_reason_ends_the_log(operation):
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk, segment_bytes=4096)
    log.append(1, 1, 0, b"1" * 2000)
    log.sync()
    log.append(1, 2, 0, b"2" * 2000)
    disk.fail(operation, errno.EIO)
    for _ in range(2):
        with pytest.raises(StorageError):
            log.sync()
    assert not log.out_of_space


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_refuses_puts_one_by_one_and_goes_on_when_there_is_room(background):
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, background=background, write_buffer_size=8 << 20)
    db.put(b"first", bytes(100 << 10), sync=True)
    disk.capacity_bytes = disk.used_bytes
    refused = []
    # The last ones don't fit into the segment, of 8 MiB.
    for number in range(81):
        try:
            db.put(b"%02d" % number, bytes(100 << 10 if number < 77 else 400 << 10))
        except StorageError as error:
            assert error.errno == errno.ENOSPC
            refused.append(number)
    assert refused == [77, 78, 79, 80]
    disk.capacity_bytes = None
    db.put(b"last", b"1")
    db.close()
    with kvstore.DB("/db", filesystem=disk, background=False) as again:
        keys = set(again.iterator(include_value=False))
    assert keys == {b"first", b"last"} | {b"%02d" % n for n in range(80) if n not in refused}


def test_an_error_that_is_no_shortage_stays_final():
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, background=False, write_buffer_size=1 << 20)
    db.put(b"before", b"1", sync=True)
    disk.fail("pwrite", errno.EIO)
    with pytest.raises(StorageError):
        db.put(b"large", bytes(1 << 20))
    with pytest.raises(StorageError, match="read-only"):
        db.put(b"small", b"1")
    assert db.get(b"large") is None
    db.close()
    with kvstore.DB("/db", filesystem=disk.crash(keep="all"), background=False) as again:
        assert list(again.iterator(include_value=False)) == [b"before"]


def test_on_a_nearly_full_disk_a_segment_is_as_large_as_there_is_space_for():
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, background=False, write_buffer_size=4 << 20)
    for number in range(38):
        db.put(b"%02d" % number, bytes(100 << 10), sync=True)
    disk.capacity_bytes = disk.used_bytes + (600 << 10)
    # The first segment, of 4 MiB, has room for 40; the second has half a MiB.
    db.put(b"large", bytes(500 << 10), sync=True)
    assert db.stats()["log"]["segment"] == 2
    assert len(disk.read_file("/db/wal/000002.wal")) == 512 << 10
    with pytest.raises(StorageError):
        db.put(b"larger", bytes(600 << 10))
    with kvstore.DB("/db", filesystem=disk.crash(), read_only=True) as again:
        assert len(list(again)) == 39
    disk.capacity_bytes = None
    db.put(b"larger", bytes(600 << 10))
    db.close()
    with kvstore.DB("/db", filesystem=disk, background=False) as again:
        assert len(list(again)) == 40


def test_deletes_use_up_the_reserve_of_a_full_disk():
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, background=False, write_buffer_size=8 << 20)
    for number in range(75):
        db.put(b"%02d" % number, bytes(100 << 10))
    db.sync()
    disk.capacity_bytes = disk.used_bytes
    with contextlib.suppress(StorageError):
        for _ in range(1000):
            db.put(b"filling", bytes(10 << 10))
    with pytest.raises(StorageError):
        db.put(b"large", bytes(100 << 10))
    with db.write_batch() as batch:
        for number in range(75):
            batch.delete(b"%02d" % number)
    for _ in range(2000):
        db.delete(b"filling")
    assert list(db) == []
    with kvstore.DB("/db", filesystem=disk.crash(keep="all"), read_only=True) as again:
        assert list(again) == []


@pytest.mark.parametrize("torn", [False, True])
def test_a_log_that_was_not_closed_is_made_durable_in_its_place_on_a_full_disk(torn):
    disk = MemoryFileSystem()
    log = Log("/log", filesystem=disk)
    log.append_many([(1, index, 0, b"%d" % index * 50) for index in range(1, 50)])
    log.write()
    content = disk.read_file("/log/000001.wal")
    log.append_many([(1, index, 0, b"%d" % index * 50) for index in range(50, 60)])
    log.write()
    left = disk.crash(keep="all")
    if torn:
        end = len(content.rstrip(b"\0")) // 8 * 8 + 8
        left.flip_bit("/log/000001.wal", end + 100)
    left.capacity_bytes = left.used_bytes
    with Log("/log", filesystem=left) as again:
        found = list(again.replay())
        assert again.recovery.cut_bytes > 0 if torn else again.recovery.cut_bytes == 0
    assert len(found) >= 49 if torn else len(found) == 59
    # What was found is durable now.
    with Log("/log", filesystem=left.crash()) as durable:
        assert list(durable.replay()) == found


@pytest.mark.parametrize(
    ("operation", "error"), [("sync_directory", errno.EMFILE), ("rename", errno.ENOSPC)]
)
def test_a_segment_that_lacks_something_leaves_no_space_reserved(
    operation: str, error: int
) -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, write_buffer_size=64 << 10) as db:
        path = "/db/wal" if operation == "sync_directory" else "/db/wal/000001.spare"
        disk.fail(operation, error, path=path)
        with pytest.raises(StorageError) as caught:
            db.put(b"a", b"1")
        assert caught.value.retryable
        assert disk.names("/db/wal") == []
        db.put(b"b", b"1", sync=True)
        left = disk.crash()
    with kvstore.DB("/db", filesystem=left) as db:
        assert dict(db) == {b"b": b"1"}
