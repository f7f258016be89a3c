"""Deleted ranges: what they promise, and that they cost what they should."""

from __future__ import annotations

import random

import numpy
import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.table.native import TableFile
from kvstore.engine import DB, WriteBatch, repair_db
from kvstore.errors import ClosedError, CorruptionError, InvalidArgumentError

SMALL = {"background": False, "max_file_size": 64 << 10, "block_size": 512}


def key(number: int) -> bytes:
    return b"%06d" % number


def fill(db: DB, *numbers: int) -> None:
    db.put_many(
        numpy.array([key(number) for number in numbers], "S6"),
        numpy.full((len(numbers), 100), 7, numpy.uint8),
    )


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def test_a_range_takes_one_sequence_and_a_few_bytes_however_many_keys_it_has(disk):
    with DB("/db", filesystem=disk) as db:
        fill(db, *range(5000))
        before, logged = db.last_sequence, db.stats()["log"]["appended_bytes"]
        db.delete_range(key(10), key(4990))
        assert db.last_sequence == before + 1
        assert db.stats()["log"]["appended_bytes"] - logged < 128
        assert db.stats()["range_tombstones"] == 1
        assert list(db.keys()) == [key(number) for number in (*range(10), *range(4990, 5000))]


def test_where_the_start_is_not_below_the_stop_nothing_is_written(disk):
    with DB("/db", filesystem=disk) as db:
        db.delete_range()  # nothing there at all
        fill(db, 1, 2)
        before = db.last_sequence
        db.delete_range(b"b", b"a")
        db.delete_range(key(1), key(1))
        db.delete_range(b"", b"")
        batch = db.write_batch()
        batch.delete_range(b"b", b"a")
        assert len(batch) == 0
        assert db.last_sequence == before
        assert len(list(db)) == 2


@pytest.mark.parametrize("flushed", [False, True])
def test_ends_may_be_open(disk, flushed):
    with DB("/db", filesystem=disk) as db:
        last = b"\xff" * (1 << 20)  # the largest key of all
        for name in (b"", b"a", b"m", b"\xff", last):
            db.put(name, b"")
        if flushed:
            db.flush()
        with db.snapshot() as moment:
            db.delete_range(b"m")
            assert list(db.keys()) == [b"", b"a"]
            db.put(last, b"again")
            db.delete_range(stop=b"a")
            assert list(db.keys()) == [b"a", last]
            assert len(list(moment)) == 5
        db.delete_range()
        assert list(db) == []


def test_what_is_out_of_bounds_is_refused_and_writes_nothing(disk):
    with DB("/db", filesystem=disk) as db:
        longest = b"k" * (1 << 20)
        db.put(longest, b"")
        for start, stop in ((longest + b"kk", None), (b"a", longest + b"\0\0")):
            with pytest.raises(InvalidArgumentError):
                db.delete_range(start, stop)
        with pytest.raises(TypeError, match="start"):
            db.delete_range("a", b"b")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="stop"):
            db.delete_range(b"a", 5)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="stop"):
            db.write_batch().delete_range(b"a", None)
        assert db.last_sequence == 1
        db.delete_range(longest, longest + b"\0")
        assert list(db) == []
    with pytest.raises(ClosedError):
        db.delete_range(b"a", b"b")


def test_in_a_batch_it_stands_in_the_order_of_the_others(disk):
    with DB("/db", filesystem=disk) as db:
        fill(db, 1, 2, 3)
        with db.write_batch() as batch:
            batch.put(key(2), b"before")
            batch.delete_range(key(2), key(9))
            batch.put(key(3), b"after")
        assert len(batch) == 3
        assert list(db.keys()) == [key(1), key(3)]
        both = WriteBatch()
        both.append(batch)
        both.delete_range(key(1), key(2))
        db.write(both)
        assert list(db.keys()) == [key(3)]


def test_of_a_view_it_deletes_nothing_beyond_the_prefix(disk):
    with DB("/db", filesystem=disk) as db:
        for name in (b"o\xff", b"p", b"pa", b"pz", b"q", b"\xff\xff", b"\xff\xffa"):
            db.put(name, b"")
        view = db.prefixed_db(b"p")
        with view.write_batch() as batch:
            batch.delete_range(b"a", None)
        assert list(view.keys()) == [b""]
        view.delete_range()
        assert list(db.keys()) == [b"o\xff", b"q", b"\xff\xff", b"\xff\xffa"]
        db.prefixed_db(b"\xff\xff").delete_range(b"", None)
        assert list(db.keys()) == [b"o\xff", b"q"]


def test_a_range_may_share_the_sequence_of_puts_outside_of_it(disk):
    with DB("/db", filesystem=disk, wal=False) as db:
        batch = WriteBatch()
        for number in range(1, 9):
            batch.put(b"e%d" % number, b"", sequence=number)
            batch.put(b"state", b"%d" % number, sequence=number)
        db.write(batch, sequence=1)
        for stop in (3, 6):
            # What was put at 8 lies beyond it.
            batch = WriteBatch()
            batch.put(b"state", b"compacted", sequence=8)
            batch.delete_range(b"e", b"e%d" % stop, sequence=8)
            db.write(batch, sequence=8)
            for place in (lambda: None, db.flush, db.compact_range):
                place()
                expected = [b"e%d" % number for number in range(stop, 9)]
                assert list(db.keys()) == [*expected, b"state"]
                assert list(db.iterator(reverse=True, include_value=False)) == [
                    b"state",
                    *expected[::-1],
                ]
                assert db.multi_get([b"e1", b"e8", b"state"]) == [None, b"", b"compacted"]
                assert db.last_sequence == 8
        assert db.stats()["range_tombstones"] == 0
        assert db.stats()["table_entries"] == 4


@pytest.mark.parametrize("history", [None, (b"\x01",)])
def test_a_log_whose_beginning_is_deleted_again_and_again_leaves_nothing_behind(disk, history):
    """As events are that a replica's state machine lets go of: [0, C), C ever higher."""
    options = {
        "wal": False,
        "background": False,
        "history_prefixes": history,
        "write_buffer_size": 256 << 10,
        "max_file_size": 64 << 10,
        "level_size_base": 256 << 10,
        "block_size": 1024,
    }
    db = DB("/db", filesystem=disk, **options)
    db.retain_from(0)
    for revision in range(1, 6001):
        batch = WriteBatch()
        batch.put(b"\x01key%03d" % (revision % 200), b"%d" % revision)
        batch.put(b"\x02%08d" % revision, b"event" * 5)
        batch.put(b"\x00state", b"%d" % revision)
        db.write(batch, sequence=revision, applied_index=revision)
        if revision % 100 == 0:
            compacted = revision - 50
            batch = WriteBatch()
            batch.put(b"\x00state", b"compacted")
            batch.delete_range(b"\x02", b"\x02%08d" % compacted, sequence=revision)
            db.write(batch, sequence=revision, applied_index=revision)
            db.retain_from(compacted - 1)
            assert db.count(prefix=b"\x02") == 51
        if revision % 1000 == 0:
            # Walks over other keys have nothing to do with it.
            before = db.stats()["passed_entries"]
            with db.snapshot() as snapshot:
                assert snapshot.count(prefix=b"\x01") == min(revision, 200)
            with db.iterator(prefix=b"\x02", include_value=False) as events:
                assert next(events) == b"\x02%08d" % compacted
            passed = db.stats()["passed_entries"] - before
            assert passed <= 200 * 16 + 2 * 16
        if revision == 2000:
            db.flush()
            db.checkpoint("/copy")
            db.close()
            db = DB("/copy", filesystem=disk, **options)
        if revision == 4000:
            db.flush()
            db.close()
            db = DB("/copy", filesystem=disk, **options)
    # History of 50 revisions is kept, of events as well where they have one.
    db.compact_range()
    stats = db.stats()
    assert stats["range_tombstones"] <= (0 if history else 1)
    assert stats["table_entries"] <= (200 + 52 + 51 + 1 if history else 460)
    db.retain_from(6000)
    db.compact_range()
    stats = db.stats()
    assert (stats["range_tombstones"], stats["table_tombstones"]) == (0, 0)
    assert stats["table_entries"] == db.count() == 200 + 51 + 1
    db.close()


def test_a_caller_that_numbers_its_writes_gives_a_range_a_sequence_above_what_it_hides(disk):
    with DB("/db", filesystem=disk, wal=False) as db:
        batch = WriteBatch()
        batch.put(b"a", b"")
        batch.put(b"c", b"")
        db.write(batch, sequence=5)
        batch = WriteBatch()
        batch.put(b"a", b"", sequence=6)
        batch.put(b"z", b"", sequence=6)
        batch.delete_range(b"a", b"b", sequence=6)
        # The put came before: who would say whether it is hidden?
        with pytest.raises(InvalidArgumentError, match="sequence 6, which a key in it has"):
            db.write(batch, sequence=6)
        assert (db.last_sequence, list(db.keys())) == (5, [b"a", b"c"])
        # What comes after may share its sequence, and stands.
        batch = WriteBatch()
        batch.delete_range(b"a", b"b", sequence=6)
        batch.delete_range(b"c", b"d", sequence=6)
        batch.put(b"c", b"new", sequence=6)
        db.write(batch, sequence=6)
        assert dict(db) == {b"c": b"new"}
        db.flush()
        batch = WriteBatch()
        batch.put(b"a", b"newer")
        db.write(batch, sequence=6)
        for _ in range(2):
            assert dict(db) == {b"a": b"newer", b"c": b"new"}
            db.compact_range()


def test_reads_of_a_deleted_range_open_next_to_nothing_of_what_lies_under_it(disk):
    with DB("/db", filesystem=disk, lru_cache_size=64 << 20, **SMALL) as db:
        fill(db, *range(20_000))
        db.compact_range()
        tables = sum(level["tables"] for level in db.stats()["levels"])
        assert tables > 20
        db.delete_range(key(100), key(19_900))
        for flushed in (False, True):
            if flushed:
                db.flush()
            before = db.stats()["cache"]["misses"]
            assert len(list(db.keys())) == 200
            assert len(list(db.iterator(reverse=True))) == 200
            with db.iterator(start=key(5000)) as entries:
                assert next(entries)[0] == key(19_900)
            with db.iterator(stop=key(5000), reverse=True) as entries:
                assert next(entries)[0] == key(99)
            # Some blocks at either end, of 2,500 that there are.
            assert db.stats()["cache"]["misses"] - before < 60
        # And neither does the compaction that does away with them read them.
        reads = disk.counts["pread"]
        db.compact_range()
        assert db.stats()["table_entries"] == 200
        assert db.stats()["range_tombstones"] == 0
        assert disk.counts["pread"] - reads < 100


def test_bulk_reads_heed_deleted_ranges(disk):
    with DB("/db", filesystem=disk, **SMALL) as db:
        fill(db, *range(2000))
        db.flush()
        db.delete_range(key(500), key(1500))
        fill(db, *range(700, 710))
        expected = [number < 500 or number >= 1500 or 700 <= number < 710 for number in range(2000)]
        keys = numpy.array([key(number) for number in range(2000)], "S6")
        for step in ("memory", "tables", "compacted"):
            for some in (slice(None), slice(600, 760), slice(None, None, -1)):
                found, _ = db.get_many(keys[some].copy())
                assert found.tolist() == expected[some], step
            scanned = [row for rows, _ in db.scan(rows=64) for row in rows.rows()]  # type: ignore[union-attr]
            assert scanned == [key(number) for number in range(2000) if expected[number]]
            db.flush() if step == "memory" else db.compact_range()


def test_a_memtable_of_ranges_alone_becomes_a_table(disk):
    with DB("/db", filesystem=disk, **SMALL) as db:
        fill(db, *range(10))
        db.compact_range()
        with db.snapshot():  # else it would be compacted at once
            db.delete_range(key(2), key(8))
            db.flush()
            stats = db.stats()
            assert (stats["range_tombstones"], stats["memtable_entries"]) == (1, 0)
            assert sum(level["tables"] for level in stats["levels"]) == 2
            db.verify()
    for _ in range(2):
        with DB("/db", filesystem=disk, **SMALL) as db:
            assert list(db.keys()) == [key(number) for number in (0, 1, 8, 9)]
            assert db.stats()["range_tombstones"] <= 1
            db.compact_range()
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.delete_range(key(0), key(5))
        db.checkpoint("/copy")
        assert (db.stats()["range_tombstones"], db.stats()["table_entries"]) == (1, 4)
    with DB("/copy", filesystem=disk, **SMALL) as copy:
        assert list(copy.keys()) == [key(8), key(9)]


def test_a_range_that_lies_over_nothing_goes_with_the_next_compaction(disk):
    with DB("/db", filesystem=disk, compaction_trigger=2, **SMALL) as db:
        for step in range(3):
            db.delete_range(key(100 * step), key(100 * step + 50))
            fill(db, 100 * step + 60)
            db.flush()
        stats = db.stats()
        assert stats["levels"][1]["tables"] > 0
        # Only the last one may not have been compacted yet.
        assert stats["range_tombstones"] <= 1
        assert len(list(db)) == 3


def test_a_wide_range_does_not_make_one_huge_compaction(disk):
    """On its way down it is cut, so that no table of it lies over too many of the next level."""
    options = SMALL | {"level_size_base": 256 << 10, "level_size_multiplier": 100}
    with DB("/db", filesystem=disk, **options) as db:
        fill(db, *range(60_000))
        db.compact_range()
        lowest = [level["tables"] for level in db.stats()["levels"]]
        assert lowest[1] > 80
        # Down one more level, so that level 1 is empty above a full level 2.
        with db.snapshot():
            db.put(key(0), b"")
            db.flush()
            db.delete_range(key(10), key(59_990))
            db.flush()
            db.compact_range()
            assert len(list(db.keys())) == 20
        db.compact_range()
        assert len(list(db.keys())) == 20


def test_history_and_snapshots_see_what_was_there(disk):
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.retain_from(0)
        fill(db, *range(100))
        sequences = []
        for number in range(0, 100, 10):
            db.delete_range(key(number), key(number + 5))
            sequences.append(db.last_sequence)
        for step in ("memory", "flush", "compact"):
            for done, sequence in enumerate(sequences, start=1):
                seen = [int(each) for each in db.iterator(sequence=sequence, include_value=False)]
                assert seen == [
                    number for number in range(100) if number >= done * 10 or number % 10 >= 5
                ], step
            db.flush() if step == "memory" else db.compact_range()
        assert db.stats()["range_tombstones"] == 10


def test_of_ranges_that_nobody_reads_between_the_newest_are_kept(disk):
    with DB("/db", filesystem=disk, **SMALL) as db:
        fill(db, *range(2000))
        db.compact_range()
        with db.snapshot():  # else they would be compacted at once
            for number in range(1000):
                db.delete_range(None, key(number))  # as a queue trims its head
            assert db.stats()["range_tombstones"] == 1000
            db.flush()
            assert db.stats()["range_tombstones"] == 1
            with db.snapshot() as moment:
                db.delete_range(None, key(1500))
                db.flush()
                assert db.stats()["range_tombstones"] == 2
                assert len(list(moment)) == 2000 - 999
        db.compact_range()
        assert db.stats()["range_tombstones"] == 0
        assert [int(each) for each, _ in db] == list(range(1500, 2000))


def test_a_power_loss_leaves_a_range_deleted_or_not(disk):
    with DB("/db", filesystem=disk, **SMALL) as db:
        fill(db, *range(100))
        db.delete_range(key(0), key(50), sync=True)
        db.delete_range(key(50), key(100))
        kept = set()
        for keep in ("none", "prefix", "random", "all"):
            with DB("/db", filesystem=disk.crash(random.Random(1), keep), **SMALL) as after:
                kept.add(len(list(after)))
        assert kept <= {0, 50}
        assert 50 in kept


def test_damage_to_the_ranges_of_a_table_is_found(disk):
    with DB("/db", filesystem=disk, **SMALL) as db:
        fill(db, *range(10))
        db.delete_range(key(2), key(8))
        db.flush()
    (name,) = [name for name in disk.names("/db") if name.endswith(".sst")]
    data = disk.read_file(f"/db/{name}")
    at = data.index(key(8), data.index(b"\x06" + key(2) + b"\x06" + key(8)))
    disk.write_file(f"/db/{name}", data[:at] + b"9" + data[at + 1 :])
    with DB("/db", filesystem=disk, **SMALL) as db, pytest.raises(CorruptionError):
        list(db)
    with pytest.raises(CorruptionError):
        TableFile(disk, f"/db/{name}", int(name.split(".")[0]))


def test_repair_keeps_the_ranges_of_tables_and_log(disk):
    with DB("/db", filesystem=disk, **SMALL) as db:
        fill(db, *range(100))
        db.flush()
        db.delete_range(key(10), key(50))
        db.flush()
        db.delete_range(key(50), key(90))
    # Without a manifest all tables are merged anew.
    for name in disk.names("/db"):
        if name.startswith("MANIFEST"):
            disk.write_file(f"/db/{name}", b"")
    assert repair_db("/db", filesystem=disk)
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert [int(each) for each, _ in db] == [*range(10), *range(90, 100)]
        db.verify()
