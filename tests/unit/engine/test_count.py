"""How many keys there are: the same as walking them, wherever they lie, and others may go on."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives import native as memory
from kvstore.engine import DB, WriteBatch
from kvstore.errors import ClosedError, CorruptionError, InvalidArgumentError

SMALL: dict[str, Any] = {
    "background": False,
    "wal": False,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "compaction_trigger": 2,
    "block_size": 1024,
}
PLACES = ["memory", "tables", "both"]


@pytest.fixture(autouse=True)
def refusals_end_with_the_test() -> Iterator[None]:
    yield
    memory.reset()


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


def walked(db: DB, **bounds: Any) -> int:
    return sum(1 for _ in db.iterator(include_value=False, **bounds))


@pytest.mark.parametrize("place", PLACES)
def test_bounds_are_those_of_iterators(disk: MemoryFileSystem, place: str) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(100):
            db.put(b"k%02d" % number, b"")
            if place == "tables" or (place == "both" and number == 50):
                db.flush()
        assert db.count() == db.count(None, None) == db.count(b"") == 100
        assert db.count(b"k10", b"k20") == 10
        assert db.count(b"k10") == 90
        assert db.count(stop=b"k10") == 10
        assert db.count(bytearray(b"k10"), memoryview(b"k100")) == 1
        assert db.count(prefix=b"k1") == 10
        assert db.count(prefix=b"") == 100
        assert db.count(b"k20", b"k10") == db.count(b"k20", b"k20") == db.count(b"l") == 0
        assert db.count(stop=b"") == 0
        with pytest.raises(TypeError, match="prefix"):
            db.count(b"a", prefix=b"b")
        with pytest.raises(TypeError, match="bytes-like"):
            db.count("a")  # type: ignore[arg-type]


def test_an_empty_database_has_none(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert db.count() == 0
        db.delete(b"a")
        assert db.count() == 0
        db.delete_range(b"a", b"b")
        db.flush()
        assert db.count() == 0


@pytest.mark.parametrize("place", PLACES)
def test_it_counts_what_a_reader_at_the_sequence_sees(disk: MemoryFileSystem, place: str) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        db.retain_from(0)
        for number in range(10):
            db.put(b"%d" % number, b"old")  # 1 to 10
        db.put(b"3", b"new")  # 11
        if place != "memory":
            db.flush()
        db.delete(b"4")  # 12
        db.delete_range(b"6", b"8")  # 13
        db.put(b"7", b"back")  # 14
        if place == "tables":
            db.flush()
        expected = [*range(11), 10, 9, 7, 8]
        for _ in range(2):
            assert [db.count(sequence=number) for number in range(15)] == expected
            assert db.count(b"3", b"7", 12) == 3
            db.compact_range()
        for bad in (-1, 15):
            with pytest.raises(InvalidArgumentError):
                db.count(sequence=bad)


def test_history_that_is_gone_is_refused(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        for _ in range(3):
            db.put(b"a", b"")
        with pytest.raises(InvalidArgumentError, match="history"):
            db.count(sequence=1)


def test_views_and_snapshots_count_what_is_theirs(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        view = db.prefixed_db(b"p:")
        for key in (b"a", b"b", b"ba", b"c"):
            view.put(key, b"")
        db.put(b"q", b"")
        with db.snapshot() as snapshot, view.snapshot() as part:
            view.delete(b"a")
            assert (snapshot.count(), part.count()) == (5, 4)
            assert part.count(b"b", b"c") == part.count(prefix=b"b") == 2
            assert (db.count(), view.count(), view.count(b"b", b"c")) == (4, 3, 2)
            assert view.count(prefix=b"b") == 2
        with pytest.raises(ClosedError):
            snapshot.count()


# The memtable is walked 256 entries at first, then 4,096 at a time.
@pytest.mark.parametrize("count", [255, 256, 257, 4351, 4352, 4353, 10_000])
def test_many_keys_in_memory(disk: MemoryFileSystem, count: int) -> None:
    with DB("/db", filesystem=disk, **SMALL, write_buffer_size=64 << 20) as db:
        for number in range(count):
            db.put(b"%06d" % (number * 7 % count), b"")
        for number in range(0, count, 10):
            db.put(b"%06d" % number, b"again")
        assert db.count() == count
        assert db.count(b"000100", b"%06d" % (count - 50)) == count - 150


@pytest.mark.parametrize("versions", [300, 5000])
def test_more_versions_of_a_key_than_a_page_has_room_for(
    disk: MemoryFileSystem, versions: int
) -> None:
    with DB("/db", filesystem=disk, **SMALL, write_buffer_size=64 << 20) as db:
        db.retain_from(0)
        batch = WriteBatch()
        batch.put(b"b", b"", sequence=0)  # the last one of its versions
        batch.put(b"c", b"", sequence=0)
        for number in range(1, versions + 1):
            batch.put(b"b", b"", sequence=number)
            batch.put(b"e", b"", sequence=number)
        batch.put(b"f", b"", sequence=versions)
        db.write(batch, sequence=0)
        for number in (0, 1, versions - 1, versions):
            assert db.count(sequence=number) == walked(db, sequence=number)
        db.delete(b"b")
        db.delete(b"f")
        assert db.count() == 2
        assert db.count(sequence=versions) == 4
        assert db.count(b"b", b"c", sequence=versions) == 1
        assert db.count(b"b\0") == 2


@pytest.mark.parametrize("seed", range(8))
def test_it_counts_what_walking_finds(disk: MemoryFileSystem, seed: int) -> None:
    """With tables in several levels, deleted ranges and history."""
    rng = random.Random(seed)
    with DB("/db", filesystem=disk, **SMALL, write_buffer_size=256 << 10) as db:
        if seed % 2:
            db.retain_from(0)
        for _ in range(40):
            for _ in range(rng.randint(1, 600)):
                key = b"%04d" % rng.randrange(1500)
                if rng.random() < 0.3:
                    db.delete(key)
                else:
                    db.put(key, rng.randbytes(rng.choice([0, 100])))
            low, high = sorted(b"%04d" % rng.randrange(1500) for _ in range(2))
            what = rng.random()
            if what < 0.2:
                db.delete_range(low, high)
            elif what < 0.3:
                db.flush()
            elif what < 0.35:
                db.compact_range()
            assert db.count() == walked(db)
            assert db.count(low, high) == walked(db, start=low, stop=high)
            if seed % 2:
                then = rng.randint(0, db.last_sequence)
                assert db.count(low, high, then) == walked(db, start=low, stop=high, sequence=then)


def test_others_write_and_flush_meanwhile(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, wal=False, write_buffer_size=256 << 10) as db:
        for number in range(20_000):
            db.put(b"%05d" % number, b"")
        stop = threading.Event()
        wrong: list[int] = []
        counted: list[int] = []

        def write() -> None:
            rng = random.Random(1)
            while not stop.is_set():
                db.put(b"%05d" % rng.randrange(20_000), rng.randbytes(50))

        def count() -> None:
            for _ in range(30):
                found = db.count()
                counted.append(found)
                if found != 20_000:
                    wrong.append(found)

        writer = threading.Thread(target=write)
        counters = [threading.Thread(target=count) for _ in range(2)]
        for thread in (writer, *counters):
            thread.start()
        for thread in counters:
            thread.join()
        stop.set()
        writer.join()
        assert len(counted) == 60
        assert not wrong


def test_closing_ends_counts(disk: MemoryFileSystem) -> None:
    db = DB("/db", filesystem=disk, wal=False, write_buffer_size=64 << 20)
    for number in range(50_000):
        db.put(b"%05d" % number, b"")
    begun = threading.Barrier(3)
    ends: list[type[Exception]] = []

    def count() -> None:
        begun.wait()
        try:
            while True:
                assert db.count() == 50_000
        except ClosedError as error:
            ends.append(type(error))

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    db.close()
    for thread in threads:
        thread.join()
    assert ends == [ClosedError, ClosedError]


def test_damage_is_told(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(1000):
            db.put(b"%04d" % number, bytes(20))
        db.flush()
    (name,) = (name for name in disk.names("/db") if name.endswith(".sst"))
    disk.flip_bit(f"/db/{name}", 2000)
    with DB("/db", filesystem=disk, **SMALL) as db:
        with pytest.raises(CorruptionError):
            db.count()
        assert db.count(b"0900") == 100


def test_a_lack_of_memory_is_an_error_and_nothing_is_kept(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(500):
            db.put(b"%04d" % number, b"")
        db.flush()
        for number in range(500):
            db.put(b"%04d" % (number + 250), b"")
        db.delete_range(b"0000", b"0100")
        assert db.count() == 650
        refused = 0
        for number in range(1, 100):
            memory.fail_allocation(number)
            try:
                assert db.count() == 650
            except MemoryError:
                refused += 1
            if not memory.refused():
                break
        else:
            pytest.fail("it asks for memory without end")
        memory.reset()
        assert refused > 3
        assert db.count() == 650
