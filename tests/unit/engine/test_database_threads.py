"""Many threads on one database: nobody sees a half of anything, and nothing that was promised goes.

The disk is in memory; `Gate` holds one of its operations back, so that what happens meanwhile is no
matter of luck. The others run free, for a number of operations.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Change, WriteBatch
from kvstore.errors import ClosedError, InvalidArgumentError, StorageError

PATIENCE_SECONDS = 60
TINY: dict[str, Any] = {
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "level_size_multiplier": 2,
    "compaction_trigger": 2,
    "compaction_threads": 2,
    "block_size": 512,
    "max_open_files": 16,
    "lru_cache_size": 64 << 10,
}
PAD = b"." * 300


class Gate:
    """Lets the first operation of that name on such a path wait until it is opened."""

    def __init__(self, disk: MemoryFileSystem, operation: str, path: str) -> None:
        self.operation = operation
        self.path = path
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.count = 0
        """Such operations, that one included."""
        disk.on_operation = self.pass_by

    def pass_by(self, operation: str, path: str) -> None:
        if operation != self.operation or self.path not in path:
            return
        self.count += 1
        if not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(PATIENCE_SECONDS)

    def wait_until_reached(self) -> None:
        assert self.reached.wait(PATIENCE_SECONDS)


class Crew:
    """Threads whose errors end up in the test."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def start(self, work: Callable[..., None], *given: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*given)
            except BaseException as error:  # noqa: BLE001
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]


def pair(writer: int, number: int) -> tuple[bytes, bytes]:
    return b"a%02d%03d" % (writer, number), b"z%02d%03d" % (writer, number)


def write_pairs(db: DB, writer: int, count: int, acknowledged: dict[bytes, int]) -> None:
    """Both keys of a pair always change together, and what is in them only grows."""
    rng = random.Random(writer)
    for round_number in range(1, count + 1):
        left, right = pair(writer, rng.randrange(100))
        batch = WriteBatch()
        for key in (left, right):
            batch.put(key, b"%06d" % round_number + PAD)
        sync = rng.random() < 0.1
        db.write(batch, sync=sync)
        acknowledged[left] = acknowledged[right] = round_number


def number_in(value: bytes | None) -> int:
    if value is None:
        return 0
    assert value[6:] == PAD
    return int(value[:6])


def read_pairs(db: DB, seed: int, count: int) -> None:
    rng = random.Random(seed)
    seen: dict[bytes, int] = {}
    for _ in range(count):
        left, right = pair(rng.randrange(3), rng.randrange(100))
        one, other = (number_in(value) for value in db.multi_get([left, right]))
        assert one == other
        assert one >= seen.get(left, 0)
        seen[left] = one
        assert number_in(db.get(left)) >= one


def walk_pairs(db: DB, seed: int, count: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        with db.snapshot() as moment:
            reverse = rng.random() < 0.5
            entries = list(moment.iterator(reverse=reverse))
            found = [key for key, _ in entries]
            assert found == sorted(set(found), reverse=reverse)
            values = dict(entries)
            for key, value in entries:
                assert values[(b"z" if key[:1] == b"a" else b"a") + key[1:]] == value
            for key in rng.sample(found, min(10, len(found))):
                assert moment.get(key) == values[key]


def keep_house(db: DB, disk: MemoryFileSystem, rounds: int) -> None:
    for number in range(rounds):
        db.flush()
        db.compact_range()
        db.checkpoint(f"/copy{number}")
        with DB(f"/copy{number}", filesystem=disk, background=False) as copy:
            copy.verify()
            values = dict(copy.iterator())
            for key, value in values.items():
                if key[:1] == b"a":
                    assert values[b"z" + key[1:]] == value
        assert db.stats()["failure"] is None


def live_tables(db: DB) -> set[str]:
    listing = db.get_property("kvstore.sstables") or b""
    lines = [line for line in listing.decode().splitlines() if line.startswith(" ")]
    return {f"{int(line.partition(':')[0]):06d}.sst" for line in lines}


def check_acknowledged(db: DB, acknowledged: dict[bytes, int]) -> None:
    for key, number in acknowledged.items():
        assert number_in(db.get(key)) >= number


def test_everything_at_once_leaves_exactly_what_was_written() -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **TINY)
    acknowledged: list[dict[bytes, int]] = [{} for _ in range(3)]
    crew = Crew()
    for writer in range(3):
        crew.start(write_pairs, db, writer, 4000, acknowledged[writer])
    for seed in range(2):
        crew.start(read_pairs, db, seed, 10_000)
        crew.start(walk_pairs, db, seed, 120)
    crew.start(keep_house, db, disk, 20)
    crew.join()
    for written in acknowledged:
        assert {key: number_in(db.get(key)) for key in written} == written
    db.flush()
    db.compact_range()
    db.verify()
    assert db.stats()["compactions"]
    db.close()
    with DB("/db", filesystem=disk, background=False) as again:
        again.verify()
        for written in acknowledged:
            assert {key: number_in(again.get(key)) for key in written} == written
        tables = {name for name in disk.names("/db") if name.endswith(".sst")}
        assert tables == live_tables(again)


def test_threads_that_compact_the_same_range_never_work_on_the_same_tables() -> None:
    disk = MemoryFileSystem()
    crew = Crew()

    def compact(db: DB) -> None:
        for _ in range(60):
            db.compact_range()

    def write(db: DB) -> None:
        for number in range(20_000):
            db.put(b"%05d" % (number * 7919 % 1500), b"%06d" % number + PAD)

    with DB("/db", filesystem=disk, **TINY) as db:
        crew.start(write, db)
        for _ in range(3):
            crew.start(compact, db)
        crew.join()
        assert [number_in(value) for _, value in db] == sorted_last_writes(20_000, 1500)
    with DB("/db", filesystem=disk, background=False) as again:
        again.verify()


def sorted_last_writes(count: int, keys: int) -> list[int]:
    last = {number * 7919 % keys: number for number in range(count)}
    return [last[key] for key in sorted(last)]


@pytest.mark.parametrize("how", ["iterator", "raw_iterator", "snapshot"])
def test_what_opens_its_tables_while_a_compaction_replaces_them_keeps_its_moment(how: str) -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, background=False, **TINY) as db:
        for key in range(64):
            db.put(b"%04d" % key, b"%06d" % 1 + PAD)
        db.flush()
    crew = Crew()
    seen: list[bytes] = []

    def walk(db: DB) -> None:
        if how == "raw_iterator":
            raw = db.raw_iterator()
            raw.seek_to_first()
            while raw.valid():
                seen.append(raw.value())
                raw.next()
            return
        source = db.snapshot() if how == "snapshot" else db
        seen.extend(source.iterator(include_key=False))

    with DB("/db", filesystem=disk, background=False, **TINY) as db:
        gate = Gate(disk, "open", ".sst")
        crew.start(walk, db)
        gate.wait_until_reached()
        for key in range(64):
            db.put(b"%04d" % key, b"%06d" % 2 + PAD)
        db.compact_range()
        gate.opened.set()
        crew.join()
    assert [number_in(value) for value in seen] == [1] * 64


@pytest.mark.parametrize("seed", range(8))
def test_closing_in_the_middle_ends_every_thread_and_keeps_what_was_acknowledged(seed: int) -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **TINY)
    acknowledged: list[dict[bytes, int]] = [{} for _ in range(3)]
    underway = threading.Semaphore(0)

    def until_closed(work: Callable[..., None], *given: Any) -> None:
        underway.release()
        with pytest.raises(ClosedError):
            work(db, *given)

    crew = Crew()
    for writer in range(3):
        crew.start(until_closed, write_pairs, writer, 1_000_000, acknowledged[writer])
    crew.start(until_closed, read_pairs, seed, 1_000_000)
    crew.start(until_closed, walk_pairs, seed, 1_000_000)
    crew.start(until_closed, keep_house, disk, 1_000_000)
    for _ in crew.threads:
        assert underway.acquire(timeout=PATIENCE_SECONDS)
    while sum(len(written) for written in acknowledged) < 10 + 40 * seed:
        assert any(thread.is_alive() for thread in crew.threads), "the crew has died"
        threading.Event().wait(0.001)
    db.close()
    crew.join()
    with DB("/db", filesystem=disk, background=False) as again:
        again.verify()
        for written in acknowledged:
            check_acknowledged(again, written)


def follow(db: DB, since: int, most: int) -> Iterator[Change]:
    """All changes up to sequence ``most``, by feeds that end after some of them."""
    rng = random.Random(since)
    while since < most:
        with db.changes(since, timeout=PATIENCE_SECONDS) as feed:
            for _ in range(rng.choice([1, 50, 10_000])):
                if since >= most:
                    return
                change = next(feed)
                assert change.sequence == since + 1
                since = change.sequence
                yield change


def test_feeds_beside_writers_flushes_and_compactions_tell_everything_once() -> None:
    disk = MemoryFileSystem()
    crew = Crew()
    acknowledged: list[dict[bytes, int]] = [{} for _ in range(2)]
    told: list[dict[bytes, bytes]] = [{} for _ in range(3)]

    def read(db: DB, place: int) -> None:
        for change in follow(db, 0, 2 * 2 * 4000):
            assert change.value is not None
            told[place][change.key] = change.value

    with DB("/db", filesystem=disk, changes_kept_size=1 << 30, **TINY) as db:
        for place in range(3):
            crew.start(read, db, place)
        for writer in range(2):
            crew.start(write_pairs, db, writer, 4000, acknowledged[writer])
        crew.join()
        for values in told:
            assert values == dict(db)


def test_closing_ends_every_feed() -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **TINY)
    crew = Crew()
    seen = threading.Semaphore(0)

    def read() -> None:
        feed = db.changes(0)
        try:
            for number, change in enumerate(feed, 1):
                assert change.sequence == number
                seen.release()
        except ClosedError:
            return
        raise AssertionError("it has ended without a word")

    def write() -> None:
        with pytest.raises(ClosedError):
            write_pairs(db, 0, 1_000_000, {})

    for _ in range(3):
        crew.start(read)
    crew.start(write)
    for _ in range(100):
        assert seen.acquire(timeout=PATIENCE_SECONDS)
    db.close()
    crew.join()


def test_a_feed_that_is_closed_while_it_reads_ends() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, background=False, **TINY) as db:
        db.put(b"a", b"1", sync=True)
        feed = db.changes(0)
        gate = Gate(disk, "open", "/wal/")
        crew = Crew()
        found: list[Change] = []
        crew.start(lambda: found.extend(feed))
        gate.wait_until_reached()
        feed.close()
        gate.opened.set()
        crew.join()
        assert len(found) <= 1


def test_a_power_loss_beside_running_threads_keeps_every_synced_write() -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **TINY)
    synced: dict[bytes, int] = {}

    def write_synced() -> None:
        for number in range(1, 400):
            key = b"%03d" % (number % 90)
            db.put(key, b"%06d" % number + PAD, sync=True)
            synced[key] = number

    crew = Crew()
    crew.start(write_synced)
    crew.start(write_pairs, db, 0, 1500, {})
    states = []
    for seed in range(12):
        promised = dict(synced)
        states.append((promised, disk.crash(random.Random(seed), "random")))
        db.flush()
    crew.join()
    db.close()
    for promised, after in states:
        with DB("/db", filesystem=after, background=False) as found:
            found.verify()
            check_acknowledged(found, promised)


def test_snapshots_and_iterators_made_while_a_flush_runs_keep_their_moment() -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, wal=False, **TINY)
    for number in range(100):
        db.put(b"%03d" % number, b"old")
    gate = Gate(disk, "datasync", ".sst")
    crew = Crew()
    crew.start(db.flush)
    gate.wait_until_reached()
    moment = db.snapshot()
    walk = db.iterator()
    first = [next(walk) for _ in range(10)]
    for number in range(0, 100, 2):
        db.put(b"%03d" % number, b"new")
        db.delete(b"%03d" % (number + 1))
    gate.opened.set()
    crew.join()
    db.flush()
    db.compact_range()
    then = [(b"%03d" % number, b"old") for number in range(100)]
    assert first + list(walk) == then
    assert list(moment) == then
    assert list(db) == [(b"%03d" % number, b"new") for number in range(0, 100, 2)]
    moment.close()
    walk.close()
    db.put(b"000", b"new")
    db.put(b"098", b"new")
    db.compact_range()
    assert db.stats()["table_entries"] == 50
    db.close()


@pytest.mark.parametrize("reading", ["a get", "an iterator"])
def test_who_reads_a_table_last_does_not_remove_it(reading: str) -> None:
    """It takes long, and apply waits for the reads of a member."""
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, wal=False, **TINY)
    for key in (b"a", b"b"):
        db.put(key, PAD)
    db.flush()
    (read,) = (path for path in disk.files("/db") if path.endswith(".sst"))
    removing: list[str] = []
    removed = threading.Event()
    gate = Gate(disk, "pread", read)

    def note(operation: str, path: str) -> None:
        gate.pass_by(operation, path)
        if (operation, path) == ("unlink", read):
            removing.append(threading.current_thread().name)
            removed.set()

    disk.on_operation = note
    crew = Crew()
    walk = None
    if reading == "a get":
        crew.start(lambda: db.get(b"a"))
        gate.wait_until_reached()
    else:
        gate.reached.set()
        walk = db.iterator()
        next(walk)
    db.put(b"b", b"")
    db.compact_range()
    assert removing == []
    if walk is not None:
        walk.close()
    gate.opened.set()
    crew.join()
    assert removed.wait(PATIENCE_SECONDS)
    assert [name.rpartition("-")[0] for name in removing] == ["kvstore-compact"]
    db.close()


def test_nobody_sees_a_write_before_it_is_durable() -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **TINY)
    db.put(b"k", b"before", sync=True)
    gate = Gate(disk, "datasync", "wal")
    crew = Crew()
    crew.start(lambda: db.put(b"k", b"after", sync=True))
    gate.wait_until_reached()
    behind = crew.start(lambda: db.put(b"l", b"behind"))
    assert db.get(b"k") == b"before"
    assert list(db) == [(b"k", b"before")]
    assert db.last_sequence == 1
    assert behind.is_alive()
    gate.opened.set()
    crew.join()
    assert list(db) == [(b"k", b"after"), (b"l", b"behind")]
    db.close()


def test_a_sync_that_fails_ends_all_who_wait_and_shows_nothing_of_theirs() -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **TINY)
    db.put(b"k", b"before", sync=True)
    gate = Gate(disk, "datasync", "wal")
    disk.fail("datasync", errno.EIO, path="wal")
    failures: list[StorageError] = []

    def write(number: int) -> None:
        with pytest.raises(StorageError) as caught:
            db.put(b"k%d" % number, b"after", sync=True)
        failures.append(caught.value)

    crew = Crew()
    for number in range(5):
        crew.start(write, number)
    gate.wait_until_reached()
    gate.opened.set()
    crew.join()
    assert {failure.errno for failure in failures} == {errno.EIO}
    assert gate.count == 1
    assert list(db) == [(b"k", b"before")]
    with pytest.raises(StorageError, match="read-only"):
        db.put(b"m", b"")
    db.close()
    assert gate.count == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failure_in_the_background_reaches_writers_and_leaves_reading(code: int) -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, **TINY)
    disk.fail("pwrite", code, path=".sst", always=True)
    acknowledged: dict[bytes, int] = {}
    with pytest.raises(StorageError) as caught:
        write_pairs(db, 0, 100_000, acknowledged)
    assert caught.value.errno == code
    check_acknowledged(db, acknowledged)
    why = "read-only" if code == errno.EIO else "No space left on device"
    with pytest.raises(StorageError, match=why):
        db.flush()
    with pytest.raises(StorageError, match=why):
        db.checkpoint("/copy")
    db.close()
    disk.heal()
    with DB("/db", filesystem=disk, background=False) as again:
        again.verify()
        check_acknowledged(again, acknowledged)


def stalled_writer(disk: MemoryFileSystem, crew: Crew) -> tuple[DB, Gate, threading.Thread]:
    """A database whose flush is held back until a writer has to wait for it."""
    db = DB("/db", filesystem=disk, wal=False, max_write_buffers=2, **TINY)
    gate = Gate(disk, "datasync", ".sst")
    writer = crew.start(write_pairs, db, 0, 1000, {})
    gate.wait_until_reached()
    while not db.stats()["stalls"]:
        assert writer.is_alive()
        threading.Event().wait(0.001)
    return db, gate, writer


def test_a_stalled_writer_goes_on_when_there_is_room() -> None:
    crew = Crew()
    db, gate, _ = stalled_writer(MemoryFileSystem(), crew)
    gate.opened.set()
    crew.join()
    assert db.stats()["stall_seconds"] > 0
    db.close()


def test_closing_wakes_a_stalled_writer() -> None:
    crew = Crew()
    db, gate, writer = stalled_writer(MemoryFileSystem(), crew)
    closing = Crew()
    closing.start(db.close)
    writer.join(PATIENCE_SECONDS)
    with pytest.raises(ClosedError):
        crew.join()
    gate.opened.set()
    closing.join()
    assert db.closed


def test_a_failing_flush_wakes_a_stalled_writer_with_its_error() -> None:
    disk = MemoryFileSystem()
    crew = Crew()
    db, gate, _ = stalled_writer(disk, crew)
    disk.fail("datasync", errno.EIO, path=".sst")
    gate.opened.set()
    with pytest.raises(StorageError) as caught:
        crew.join()
    assert caught.value.errno == errno.EIO
    db.close()


def test_many_flushes_at_once_are_one_after_another() -> None:
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk, max_write_buffers=2, **TINY)

    def write_and_flush(writer: int) -> None:
        for number in range(20):
            db.put(b"%d %d" % (writer, number), PAD)
            db.flush()
            assert db.get(b"%d %d" % (writer, number)) == PAD

    crew = Crew()
    for writer in range(8):
        crew.start(write_and_flush, writer)
    crew.join()
    assert db.stats()["frozen_memtables"] == 0
    assert len(list(db)) == 160
    db.close()


def test_options_that_would_let_writers_wait_for_ever_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="compaction_trigger"):
        DB("/db", filesystem=MemoryFileSystem(), compaction_trigger=64)
