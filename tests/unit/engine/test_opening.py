"""What opening and closing read and write, and what is on the disk of a database that rests."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, StorageError

SMALL = {"background": False, "write_buffer_size": 64 << 10, "max_file_size": 64 << 10}
CHANGES = ("pwrite", "datasync", "allocate", "truncate", "rename", "unlink")


def settled(**options: object) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL | options) as db:  # type: ignore[arg-type]
        for number in range(3000):
            db.put(b"%06d" % number, b"%d" % number * 10)
        db.compact_range()
    return disk


def changes(disk: MemoryFileSystem) -> dict[str, int]:
    return {name: disk.counts[name] for name in CHANGES}


def test_a_settled_database_is_opened_without_its_log_and_nothing_is_written() -> None:
    disk = settled()
    assert disk.names("/db/wal") == []
    before = changes(disk)
    for _ in range(3):
        with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
            assert db.get(b"000007") == b"7" * 10
            assert db.stats()["manifest_bytes"] > 100
    assert changes(disk) == before


def test_what_is_written_after_a_rest_is_there_whatever_happens() -> None:
    def run(disk: MemoryFileSystem) -> None:
        with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
            for round_ in range(3):
                db.put(b"a", b"%d" % round_, sync=True)
                db.flush()
        with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
            db.put(b"b", b"1", sync=True)
            db.put(b"c", b"1")

    whole = MemoryFileSystem()
    run(whole)
    for stop in range(1, whole.operations + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        with contextlib.suppress(StorageError):
            run(disk)
        for way in range(4):
            left = disk.crash(
                random.Random(stop * 10 + way), ("none", "all", "random", "prefix")[way]
            )
            with kvstore.DB("/db", filesystem=left, **SMALL) as db:
                found = dict(db)
                assert found.keys() <= {b"a", b"b", b"c"}
                assert b"c" not in found or b"b" in found
                db.put(b"d", b"1", sync=True)
            with kvstore.DB("/db", filesystem=left.crash(), **SMALL) as db:
                assert dict(db) == found | {b"d": b"1"}


def test_a_flush_that_came_to_nothing_leaves_the_log_where_it_was() -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1")
        disk.fail("pwrite", 28, always=True, path="MANIFEST")
        with pytest.raises(StorageError):
            db.flush()
        db.put(b"b", b"1", sync=True)
        assert db.stats()["log"]["segment"] == 1
        with kvstore.DB("/db", filesystem=disk.crash(), **SMALL) as again:
            assert list(again.iterator(include_value=False)) == [b"a", b"b"]
        disk.heal()
        db.flush()
        assert disk.names("/db/wal") == []


def test_a_log_that_feeds_are_to_read_stays() -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, changes_kept_size=1 << 20, **SMALL) as db:
        db.put(b"a", b"1")
        db.flush()
        with db.changes(since=0, timeout=0) as feed:
            assert [change.key for change in feed] == [b"a"]
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        with db.changes(timeout=0) as feed:
            db.flush()
            db.put(b"b", b"1")
            assert [change.key for change in feed] == [b"b"]
            db.flush()
            db.put(b"c", b"1")
            assert [change.key for change in feed] == [b"c"]
        db.flush()
        with db.changes(timeout=0) as feed:
            db.put(b"d", b"1")
            assert [change.key for change in feed] == [b"d"]


def test_power_lost_while_a_database_is_made_leaves_one_or_none() -> None:
    whole = MemoryFileSystem()
    kvstore.DB("/db", filesystem=whole, **SMALL).close()
    for stop in range(1, whole.operations + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        with contextlib.suppress(StorageError):
            kvstore.DB("/db", filesystem=disk, **SMALL).close()
        for way in range(40):
            left = disk.crash(random.Random(stop * 100 + way), ("random", "prefix")[way % 2])
            with kvstore.DB("/db", filesystem=left, **SMALL) as db:
                assert list(db) == []
                db.put(b"k", b"v", sync=True)
            with kvstore.DB("/db", filesystem=left.crash(), error_if_exists=False, **SMALL) as db:
                assert dict(db) == {b"k": b"v"}


def test_one_that_was_used_is_never_made_anew() -> None:
    for gone in ("CURRENT", "MANIFEST-000001"):
        disk = MemoryFileSystem()
        kvstore.DB("/db", filesystem=disk, wal=False, **SMALL).close()
        disk.remove_file(f"/db/{gone}")
        with pytest.raises(CorruptionError):
            kvstore.DB("/db", filesystem=disk, wal=False, **SMALL)


@pytest.mark.parametrize("act", ["put", "sync", "flush", "close", "feed"])
def test_what_a_killed_process_left_is_durable_before_anything_builds_on_it(act: str) -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1", sync=True)
    # Longer than its mark of a close: as if that had not been synced.
    content = disk.read_file("/db/wal/000001.wal")
    disk.write_file("/db/wal/000001.wal", content + bytes(4096))
    before = disk.counts["datasync"]
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        assert dict(db) == {b"a": b"1"}
        assert disk.counts["datasync"] == before
        if act == "put":
            db.put(b"b", b"1", sync=True)
        elif act == "sync":
            db.sync()
        elif act == "flush":
            db.flush()
        elif act == "feed":
            with db.changes(since=0, timeout=0) as feed:
                assert [change.key for change in feed] == [b"a"]
        if act != "close":
            assert disk.counts["datasync"] > before
    assert disk.counts["datasync"] > before
    with kvstore.DB("/db", filesystem=disk.crash(), **SMALL) as db:
        assert db.get(b"a") == b"1"


# A killed process's log, written in every way: far more than is put in at once.
KILLED = """
import os, random, signal, sys
import kvstore
chance = random.Random(int(sys.argv[2]))
size = int(sys.argv[3])
db = kvstore.DB(sys.argv[1], write_through=True, background=False, write_buffer_size=size)
content = {}
for step in range(6000):
    kind = chance.random()
    key = b"key/%06d" % chance.randrange(4000)
    if kind < 0.7:
        content[key] = b"%d" % step * chance.choice([1, 30])
        db.put(key, content[key])
    elif kind < 0.8:
        content.pop(key, None)
        db.delete(key)
    elif kind < 0.81:
        stop = key + b"9"
        content = {k: v for k, v in content.items() if not key <= k < stop}
        db.delete_range(key, stop)
    else:
        with db.write_batch() as batch:
            for number in range(5):
                key = b"key/%06d" % chance.randrange(4000)
                content[key] = b"%d" % step
                batch.put(key, content[key])
                if number == 3:
                    batch.delete(key)
                    content.pop(key)
with open(sys.argv[1] + ".content", "w") as file:
    file.write(repr(content))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("buffer", [16 << 20, 128 << 10])
def test_a_long_log_is_replayed_as_it_was_written(tmp_path: Path, buffer: int) -> None:
    for seed in range(3):
        path = str(tmp_path / f"db{seed}")
        subprocess.run(
            [sys.executable, "-c", KILLED, path, str(seed), str(buffer)],
            check=False,
            env=os.environ,
        )
        with open(f"{path}.content", encoding="ascii") as file:
            content = eval(file.read(), {})
        for _ in range(2):
            with kvstore.DB(path, background=False, write_buffer_size=buffer) as db:
                assert dict(db) == content
                db.verify()
        with kvstore.DB(path, read_only=True) as db:
            assert dict(db) == content
        with kvstore.DB(path, background=False) as db:
            db.put(b"after", b"1", sync=True)
            db.flush()
            assert dict(db) == content | {b"after": b"1"}
