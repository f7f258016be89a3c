"""What opening and closing read and write, and what is on the disk of a database that rests."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, StorageError

SMALL: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
}
CHANGES = ("pwrite", "datasync", "allocate", "truncate", "rename", "unlink")


def settled(**options: Any) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL | options) as db:
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
    def run(disk: MemoryFileSystem, acknowledged: dict[bytes, int]) -> None:
        with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
            for round_ in range(3):
                db.put(b"a", b"%d" % round_, sync=True)
                acknowledged[b"a"] = round_
                db.flush()
        for round_ in range(2):
            with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
                db.put(b"b", b"%d" % round_, sync=True)
                acknowledged[b"b"] = round_
                db.put(b"c", b"%d" % round_)
                if round_:
                    db.flush()
                    acknowledged[b"c"] = round_

    whole = MemoryFileSystem()
    run(whole, {})
    for stop in range(1, whole.operations + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        acknowledged: dict[bytes, int] = {}
        with contextlib.suppress(StorageError):
            run(disk, acknowledged)
        for way in range(4):
            left = disk.crash(
                random.Random(stop * 10 + way), ("none", "all", "random", "prefix")[way]
            )
            with kvstore.DB("/db", filesystem=left, **SMALL) as db:
                found = dict(db)
                assert found.keys() <= {b"a", b"b", b"c"}
                for key, round_ in acknowledged.items():
                    assert int(found[key]) >= round_, (stop, way)
                db.put(b"d", b"1", sync=True)
            with kvstore.DB("/db", filesystem=left.crash(), **SMALL) as db:
                assert dict(db) == found | {b"d": b"1"}


def die_at(disk: MemoryFileSystem, stop: int) -> list[str]:
    """From that operation on nothing happens any more; returns those before it as they come."""
    calls: list[str] = []

    def look(name: str, _: str) -> None:
        if len(calls) == stop:
            raise OSError(errno.EIO, "killed")
        if name in (*CHANGES, "sync_directory"):
            calls.append(name)

    disk.on_operation = look
    return calls


def test_power_may_go_after_the_opening_that_follows_a_kill() -> None:
    """What the killed process did last the next one sees, but a power loss may take it back."""

    def run(disk: MemoryFileSystem) -> None:
        with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
            for round_ in range(3):
                db.put(b"a", b"%d" % round_, sync=True)
                db.flush()

    def check(disk: MemoryFileSystem, found: dict[bytes, bytes], stop: int) -> None:
        for way in range(6):
            left = disk.crash(random.Random(stop * 10 + way), ("random", "prefix")[way % 2])
            with kvstore.DB("/db", filesystem=left, **SMALL) as again:
                assert dict(again) == found, (stop, way)

    whole = MemoryFileSystem()
    calls = die_at(whole, -1)
    run(whole)
    for stop in range(len(calls)):
        disk = MemoryFileSystem()
        die_at(disk, stop)
        with contextlib.suppress(StorageError):
            run(disk)
        disk.on_operation = None
        with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
            found = dict(db)
            check(disk, found, stop)
            db.put(b"b", b"1", sync=True)
            found[b"b"] = b"1"
            check(disk, found, stop)


def killed() -> MemoryFileSystem:
    """Its manifest is from before its log; END alone knows of it."""
    disk = MemoryFileSystem()
    db = kvstore.DB("/db", filesystem=disk, **SMALL)
    db.put(b"a", b"1", sync=True)
    left = disk.crash()
    db.close()
    return left


@pytest.mark.parametrize("options", [{}, {"wal": False}, {"read_only": True}])
def test_a_log_of_which_end_alone_knows_is_missed(options: dict[str, bool]) -> None:
    disk = killed()
    with kvstore.DB("/db", filesystem=disk.crash(), **SMALL | options) as db:
        assert dict(db) == {b"a": b"1"}
    for name in disk.names("/db/wal"):
        disk.remove_file(f"/db/wal/{name}")
    with pytest.raises(CorruptionError):
        kvstore.DB("/db", filesystem=disk.crash(), **SMALL | options)
    disk.remove_tree("/db/wal")
    with pytest.raises(CorruptionError, match="missing"):
        kvstore.DB("/db", filesystem=disk, **SMALL | options)


@pytest.mark.parametrize("make", [settled, killed])
def test_what_is_opened_to_be_read_is_left_as_it_is(make: Callable[[], MemoryFileSystem]) -> None:
    disk = make()

    def files() -> dict[str, bytes]:
        names = [f"/db/{name}" for name in disk.names("/db") if name not in ("wal", "LOCK")]
        names += [f"/db/wal/{name}" for name in disk.names("/db/wal")]
        return {name: disk.read_file(name) for name in names}

    before, counted = files(), changes(disk)
    with kvstore.DB("/db", filesystem=disk, read_only=True, **SMALL) as db:
        assert len(list(db)) in (1, 3000)
    assert files() == before
    assert changes(disk) == counted


@pytest.mark.parametrize("place", [100, 612])
def test_a_damaged_copy_of_end_asks_for_no_log_that_was_let_go_of(place: int) -> None:
    disk = settled()
    disk.flip_bit("/db/END", place, 1)
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        assert len(list(db)) == 3000
        db.put(b"more", b"1", sync=True)
    left = disk.crash()
    with kvstore.DB("/db", filesystem=left, **SMALL) as db:
        assert db.get(b"more") == b"1"
    # What opening wrote anew says of the log again what it must hold.
    disk.remove_tree("/db/wal")
    with pytest.raises(CorruptionError):
        kvstore.DB("/db", filesystem=disk, **SMALL)


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


def test_what_a_killed_process_left_is_durable_before_anybody_reads_it() -> None:
    disk = MemoryFileSystem()
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        db.put(b"a", b"1", sync=True)
    # Longer than its mark of a close: as if that had not been synced.
    content = disk.read_file("/db/wal/000001.wal")
    disk.write_file("/db/wal/000001.wal", content + bytes(4096))
    before = disk.counts["datasync"]
    with kvstore.DB("/db", filesystem=disk, **SMALL) as db:
        assert dict(db) == {b"a": b"1"}
        assert disk.counts["datasync"] > before
        with kvstore.DB("/db", filesystem=disk.crash(), **SMALL) as again:
            assert again.get(b"a") == b"1"


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
