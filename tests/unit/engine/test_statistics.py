"""What ``stats()`` counts, and what the options that hold compactions back do."""

from __future__ import annotations

import threading
import time

import pytest

from kvstore import DB
from kvstore._engine.files.native import MemoryFileSystem

SMALL = {"background": False, "compression": None, "bloom_filter_bits": 0}


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def fill(db: DB, version: bytes) -> None:
    for number in range(1000):
        db.put(b"%04d" % number, version * 100)
    db.flush()


def test_amplification_says_what_was_written_and_is_kept_for_what_was_put(
    disk: MemoryFileSystem,
) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert db.stats()["write_amplification"] == db.stats()["space_amplification"] == 0.0
        fill(db, b"a")
        stats = db.stats()
        assert stats["user_bytes"] == 1000 * 104
        assert stats["flushed_bytes"] == stats["table_bytes"]
        assert stats["write_amplification"] == stats["flushed_bytes"] / stats["user_bytes"]
        assert 1.0 < stats["write_amplification"] < 1.3
        db.compact_range()
        assert db.stats()["space_amplification"] == 1.0
        fill(db, b"b")
        assert 1.9 < db.stats()["space_amplification"] < 2.1
        db.compact_range()
        stats = db.stats()
        assert stats["space_amplification"] == 1.0
        assert stats["dropped_entries"] == 1000
        assert stats["compactions"] - stats["trivial_moves"] >= 1
        # Two flushes, and at least one compaction that wrote all that is kept.
        assert stats["compacted_bytes"] >= stats["table_bytes"]
        written = stats["flushed_bytes"] + stats["compacted_bytes"]
        assert stats["write_amplification"] == written / stats["user_bytes"] > 1.4


def test_compactions_keep_to_their_rate(disk: MemoryFileSystem) -> None:
    limit = 400_000
    with DB("/db", filesystem=disk, compaction_rate_limit=limit, **SMALL) as db:
        for version in (b"a", b"b"):
            fill(db, version)
        before = db.stats()["compacted_bytes"]
        began = time.monotonic()
        db.compact_range()
        took_s = time.monotonic() - began
        written = db.stats()["compacted_bytes"] - before
    # The last block of a table is not waited for.
    assert took_s >= 0.8 * (written - 8192) / limit > 0.1


def test_a_full_memtable_waits_while_level_0_has_too_many_tables(disk: MemoryFileSystem) -> None:
    goes_on, reads = threading.Event(), threading.Event()

    def hold(operation: str, path: str) -> None:
        if operation == "pread" and path.endswith(".sst"):
            reads.set()
            goes_on.wait(60)

    options = {"compaction_trigger": 4, "slowdown_files": 5, "stop_files": 6}
    with DB("/db", filesystem=disk, write_buffer_size=64 << 10, **options) as db:
        disk.on_operation = hold
        try:
            for number in range(6):
                db.put(b"%d" % number, b"v")
                db.put(b"z", b"v")
                db.flush()
            assert reads.wait(60), "a compaction is under way"
            while db.make_room(wait=False):
                assert db.stats()["memtable_bytes"] < 128 << 10
                db.put(b"k", bytes(10_000))
            assert db.stats()["levels"][0]["tables"] >= 6
        finally:
            goes_on.set()
        assert db.make_room()
        assert db.stats()["stalls"] >= 1


def test_what_an_opening_cut_off_the_log_is_told(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, write_through=True, **SMALL) as db:
        db.put(b"durable", b"1", sync=True)
        db.put(b"torn", b"2" * 100)
        assert db.stats()["log_cut_bytes"] == 0
        died = disk.crash(keep="all")
    (segment,) = (path for path in died.files("/db") if path.endswith(".wal"))
    died.flip_bit(segment, died.read_file(segment).rindex(b"2"))
    with DB("/db", filesystem=died, **SMALL) as db:
        assert dict(db) == {b"durable": b"1"}
        assert db.stats()["log_cut_bytes"] > 100
    with DB("/db", filesystem=died, **SMALL) as db:
        assert db.stats()["log_cut_bytes"] == 0
