"""Change feeds: what was written, in order, as it becomes durable."""

from __future__ import annotations

import asyncio
import copy
import errno
import gc
import os
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import kvstore
from kvstore import DB, Change, ChangeFeed, ChangeKind, WriteBatch
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives import native as memory
from kvstore.errors import (
    ClosedError,
    CompactedError,
    CorruptionError,
    FutureRevisionError,
    InvalidArgumentError,
    StorageError,
)

PATIENCE_SECONDS = 60
# A segment of the log has 1 MiB, so 40 values of 64 KiB take three.
SMALL: dict[str, Any] = {"background": False, "write_buffer_size": 256 << 10}
LARGE = bytes(64 << 10)


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


@pytest.fixture
def db(disk: MemoryFileSystem) -> Iterator[DB]:
    with DB("/db", filesystem=disk) as db:
        yield db


def sequences(feed: ChangeFeed) -> list[int]:
    return [change.sequence for change in feed]


def write_large(db: DB, count: int) -> None:
    for _ in range(count):
        db.put(b"large", LARGE)


def segments(disk: MemoryFileSystem) -> list[int]:
    return [int(name[:6]) for name in disk.names("/db/wal") if name.endswith(".wal")]


# --- what it gives --------------------------------------------------------------------------------


def test_every_write_is_told_in_order_with_what_it_did(db: DB) -> None:
    db.put(b"a", b"1")
    db.delete(b"a")
    with db.write_batch() as batch:
        batch.put(b"b", b"")
        batch.delete_range(b"c", b"d")
        batch.delete(b"e")
    assert list(db.changes(0, timeout=0)) == [
        Change(1, ChangeKind.PUT, b"a", b"1", None, 1),
        Change(2, ChangeKind.DELETE, b"a", None, None, 2),
        Change(3, ChangeKind.PUT, b"b", b"", None, 5),
        Change(4, ChangeKind.DELETE_RANGE, b"c", None, b"d", 5),
        Change(5, ChangeKind.DELETE, b"e", None, None, 5),
    ]


def test_the_sequence_is_that_of_versioned_reads(db: DB) -> None:
    db.put(b"a", b"1")
    db.put(b"b", b"2")
    for change in db.changes(0, timeout=0):
        assert db.get_versioned(change.key) == (change.value, change.sequence)


def test_a_batch_comes_as_one(db: DB) -> None:
    db.put(b"a", b"1")
    db.update({b"b": b"2", b"c": b"3"})
    feed = db.changes(0, timeout=0)
    assert [[c.key for c in batch] for batch in feed.batches()] == [[b"a"], [b"b", b"c"]]
    assert feed.poll_batch() is None


def test_what_is_left_of_a_batch_comes_as_one(db: DB) -> None:
    db.update({b"a": b"1", b"b": b"2", b"c": b"3"})
    feed = db.changes(1, timeout=0)
    first = next(feed)
    assert (first.key, first.batch, feed.sequence) == (b"b", 3, 2)
    assert [c.key for c in feed.poll_batch() or []] == [b"c"]


def test_bulk_writes_are_told(db: DB) -> None:
    numpy = pytest.importorskip("numpy")
    db.put_many(numpy.arange(1000, dtype=">u8"), numpy.zeros((1000, 10), numpy.uint8))
    feed = db.changes(0, timeout=0)
    assert [int.from_bytes(change.key) for change in feed] == list(range(1000))


def test_without_since_only_what_comes_is_told(db: DB) -> None:
    db.put(b"before", b"")
    feed = db.changes(timeout=0)
    assert list(feed) == []
    db.put(b"after", b"")
    assert [change.key for change in feed] == [b"after"]
    assert list(feed) == []


def test_a_feed_goes_on_where_another_ended(db: DB) -> None:
    for number in range(10):
        db.update({b"a%d" % number: b"", b"b%d" % number: b""})
    found: list[int] = []
    since = 0
    while len(found) < 20:
        with db.changes(since, timeout=0) as feed:
            found.append(next(feed).sequence)
            since = feed.sequence
    assert found == list(range(1, 21))


def test_a_feed_of_a_range_tells_of_its_keys_alone(db: DB) -> None:
    for key in (b"a", b"ab", b"b", b"ba", b"c"):
        db.put(key, b"")
    assert [c.key for c in db.changes(0, prefix=b"a", timeout=0)] == [b"a", b"ab"]
    assert [c.key for c in db.changes(0, start=b"ab", stop=b"c", timeout=0)] == [b"ab", b"b", b"ba"]
    assert [c.key for c in db.changes(0, start=b"b", timeout=0)] == [b"b", b"ba", b"c"]
    with pytest.raises(TypeError, match="prefix"):
        db.changes(0, prefix=b"a", start=b"a")


def test_the_sequence_moves_past_what_is_not_of_the_range(db: DB) -> None:
    feed = db.changes(0, prefix=b"a", timeout=0)
    with db.write_batch() as batch:
        batch.put(b"a", b"")
        for number in range(1000):
            batch.put(b"b%d" % number, b"")
    db.put(b"c", b"")
    assert sequences(feed) == [1]
    assert feed.sequence == db.last_sequence == 1002
    # Each of the other keys is looked at once only.
    assert list(db.changes(feed.sequence, timeout=0)) == []


@pytest.mark.parametrize(
    ("start", "stop", "told"),
    [
        (b"a", b"b", None),
        (b"a", b"c", None),
        (b"a", b"cc", (b"c", b"cc")),
        (b"cc", b"ce", (b"cc", b"ce")),
        (b"cc", b"z", (b"cc", b"d")),
        (b"a", b"z", (b"c", b"d")),
        (b"d", b"z", None),
    ],
)
def test_of_a_deleted_range_what_overlaps_is_told(
    db: DB, start: bytes, stop: bytes, told: tuple[bytes, bytes] | None
) -> None:
    db.delete_range(start, stop)
    found = [(c.key, c.stop) for c in db.changes(0, start=b"c", stop=b"d", timeout=0)]
    assert found == ([] if told is None else [told])


def test_a_view_shows_its_own_keys(db: DB) -> None:
    view = db.prefixed_db(b"user:").prefixed_db(b"x")
    feed = view.changes(0, timeout=0)
    view.put(b"1", b"one")
    db.put(b"user:x", b"itself")
    db.put(b"user:y", b"other")
    view.delete_range(b"2", b"3")
    view.delete_range()
    db.delete_range(b"a", b"user:x5")
    assert [(c.kind, c.key, c.value, c.stop) for c in feed] == [
        (ChangeKind.PUT, b"1", b"one", None),
        (ChangeKind.PUT, b"", b"itself", None),
        (ChangeKind.DELETE_RANGE, b"2", None, b"3"),
        (ChangeKind.DELETE_RANGE, b"", None, None),
        (ChangeKind.DELETE_RANGE, b"", None, b"5"),
    ]
    found = view.changes(0, start=b"1", stop=b"2", timeout=0)
    assert [(c.key, c.stop) for c in found] == [(b"1", None), (b"1", b"2"), (b"1", b"2")]
    assert [c.key for c in view.changes(0, prefix=b"1", timeout=0)] == [b"1", b"1", b"1"]


# --- waiting --------------------------------------------------------------------------------------


def in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def joined(thread: threading.Thread, results: list[Any]) -> Any:
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    return results[0]


def wait_until_it_waits(feed: ChangeFeed) -> None:
    """The other thread is in the feed; it either waits or is about to look whether to."""
    pause = threading.Event()
    while True:
        try:
            feed.poll()
        except InvalidArgumentError:
            return
        pause.wait(0.001)


@pytest.mark.parametrize("sync", [False, True])
def test_a_write_wakes_who_waits(db: DB, sync: bool) -> None:
    feed = db.changes()
    thread, results = in_thread(lambda: next(feed))
    wait_until_it_waits(feed)
    db.put(b"a", b"1", sync=sync)
    assert joined(thread, results).key == b"a"


def test_polling_takes_what_is_there_and_waits_as_long_as_told(db: DB) -> None:
    feed = db.changes()
    assert feed.poll() is None
    assert feed.poll(0.01) is None
    db.put(b"a", b"1")
    change = feed.poll()
    assert change is not None
    assert change.value == b"1"
    db.put(b"b", b"2")
    change = feed.poll(None)
    assert change is not None
    assert change.value == b"2"
    feed = db.changes(timeout=0.01)
    assert list(feed) == []


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (-1, InvalidArgumentError),
        (float("nan"), InvalidArgumentError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_a_timeout_is_a_number_of_seconds(db: DB, timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout"):
        db.changes(timeout=timeout)
    with pytest.raises(error, match="timeout"):
        db.changes().poll(timeout)


def test_closing_the_feed_ends_the_loop_of_who_waits(db: DB) -> None:
    feed = db.changes()
    thread, results = in_thread(lambda: list(feed))
    wait_until_it_waits(feed)
    feed.close()
    assert joined(thread, results) == []
    feed.close()
    assert list(feed) == list(feed.batches()) == []
    for use in (feed.poll, feed.poll_batch):
        with pytest.raises(ClosedError, match="feed is closed"):
            use()
    assert db.stats()["changes"]["feeds"] == 0


def test_closing_the_database_ends_who_waits(disk: MemoryFileSystem) -> None:
    db = DB("/db", filesystem=disk)
    feed = db.changes()
    thread, results = in_thread(lambda: list(feed))
    wait_until_it_waits(feed)
    db.close()
    assert isinstance(joined(thread, results), ClosedError)
    for use in (lambda: next(feed), feed.poll, feed.poll_batch, lambda: db.changes(0)):
        with pytest.raises(ClosedError):
            use()
    feed.close()


def test_a_batch_at_hand_is_not_given_once_the_database_is_closed(disk: MemoryFileSystem) -> None:
    db = DB("/db", filesystem=disk)
    db.update({b"a": b"1", b"b": b"2"})
    feed = db.changes(0)
    next(feed)
    db.close()
    with pytest.raises(ClosedError):
        next(feed)


def test_a_second_thread_is_refused(db: DB) -> None:
    feed = db.changes()
    thread, results = in_thread(lambda: next(feed))
    wait_until_it_waits(feed)
    with pytest.raises(InvalidArgumentError, match="another thread"):
        next(feed)
    db.put(b"a", b"")
    assert joined(thread, results).key == b"a"


def test_a_failure_of_the_database_is_told(db: DB, disk: MemoryFileSystem) -> None:
    feed = db.changes()
    thread, results = in_thread(lambda: next(feed))
    wait_until_it_waits(feed)
    disk.fail("datasync", errno.EIO, path="/wal/")
    with pytest.raises(StorageError):
        db.put(b"a", b"", sync=True)
    assert isinstance(joined(thread, results), StorageError)
    # And again: nothing can come any more.
    with pytest.raises(StorageError, match="read-only"):
        next(feed)


def test_what_can_not_be_made_durable_is_not_told(db: DB, disk: MemoryFileSystem) -> None:
    db.put(b"durable", b"", sync=True)
    db.put(b"not", b"")
    disk.fail("datasync", errno.EIO, path="/wal/", always=True)
    feed = db.changes(0)
    assert next(feed).key == b"durable"
    with pytest.raises(StorageError):
        next(feed)
    disk.heal()
    with pytest.raises(StorageError):
        next(feed)
    with pytest.raises(StorageError):
        db.put(b"later", b"")


def test_an_event_loop_asks_on_a_thread(db: DB) -> None:
    async def main() -> list[bytes]:
        feed = db.changes()
        asyncio.get_running_loop().call_later(0.01, db.put, b"a", b"")
        found = await asyncio.to_thread(feed.poll, PATIENCE_SECONDS)
        return [found.key] if found else []

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS)) == [b"a"]


# --- how far back ---------------------------------------------------------------------------------


def test_the_past_reaches_over_openings(disk: MemoryFileSystem) -> None:
    for number in range(1, 6):
        with DB("/db", filesystem=disk) as db:
            db.put(b"a", b"%d" % number)
            assert sequences(db.changes(0, timeout=0)) == list(range(1, number + 1))
            assert sequences(db.changes(number - 1, timeout=0)) == [number]
    with DB("/db", filesystem=disk) as db:
        feed = db.changes(3, timeout=0)
        assert [change.value for change in feed] == [b"4", b"5"]
        db.put(b"a", b"6")
        assert sequences(feed) == [6]


def test_what_flushes_have_let_go_of_is_refused(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        write_large(db, 60)
        oldest = db.stats()["changes"]["oldest_sequence"]
        assert oldest > 1
        with pytest.raises(CompactedError, match=f"the oldest that is left is {oldest}") as caught:
            db.changes(0)
        assert caught.value.oldest == oldest
        assert sequences(db.changes(oldest - 1, timeout=0)) == list(range(oldest, 61))
        with pytest.raises(CompactedError):
            db.changes(oldest - 2)


@pytest.mark.parametrize("reopened", [False, True])
def test_so_much_of_the_log_is_kept_as_was_asked_for(
    disk: MemoryFileSystem, reopened: bool
) -> None:
    kept = {"changes_kept_size": 2 << 20}
    with DB("/db", filesystem=disk, **SMALL, **kept) as db:
        write_large(db, 100)
        assert 3 <= len(segments(disk)) <= 4
        if not reopened:
            oldest = db.stats()["changes"]["oldest_sequence"]
            assert 101 - oldest >= 2 * 15
            assert sequences(db.changes(oldest - 1, timeout=0)) == list(range(oldest, 101))
    if reopened:
        with DB("/db", filesystem=disk, **SMALL, **kept) as db:
            oldest = db.stats()["changes"]["oldest_sequence"]
            assert 101 - oldest >= 2 * 15
            assert sequences(db.changes(oldest - 1, timeout=0)) == list(range(oldest, 101))
    with DB("/db", filesystem=disk, **SMALL) as db:
        write_large(db, 20)
        assert len(segments(disk)) <= 2


def test_kept_segments_make_no_flush_of_each_opening(disk: MemoryFileSystem) -> None:
    kept = {"changes_kept_size": 1 << 30}
    with DB("/db", filesystem=disk, **SMALL, **kept) as db:
        write_large(db, 200)
        db.flush()
    assert len(segments(disk)) > 8
    with DB("/db", filesystem=disk, **SMALL, **kept) as db:
        db.put(b"small", b"")
    with DB("/db", filesystem=disk, **SMALL, **kept) as db:
        assert db.stats()["memtable_entries"] == 1
        assert db.stats()["flushes"] == 0
        assert sum(1 for _ in db.changes(0, timeout=0)) == 201


def test_what_an_open_feed_has_not_read_is_kept(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        slow = db.changes(0, timeout=0)
        other = db.changes(0, timeout=0)
        write_large(db, 100)
        assert sequences(other) == list(range(1, 101))
        write_large(db, 20)
        assert sequences(slow) == list(range(1, 121))
        write_large(db, 20)
        assert len(segments(disk)) <= 5
        assert sequences(other) == list(range(101, 141))
        assert sequences(slow) == list(range(121, 141))


def test_a_feed_that_is_gone_keeps_nothing(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, **SMALL) as db:
        feed = db.changes(0)
        write_large(db, 60)
        assert len(segments(disk)) > 3
        del feed
        gc.collect()
        assert db.stats()["changes"]["feeds"] == 0
        write_large(db, 10)
        assert len(segments(disk)) <= 2


def test_a_feed_too_far_behind_is_told_so_and_stops_nothing(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, changes_behind_size=2 << 20, **SMALL) as db:
        feed = db.changes(0)
        write_large(db, 20)
        assert next(feed).sequence == 1
        write_large(db, 100)
        assert len(segments(disk)) <= 4
        with pytest.raises(CompactedError) as caught:
            list(feed)
        assert caught.value.oldest == db.stats()["changes"]["oldest_sequence"]
        with pytest.raises(CompactedError):
            next(feed)
        again = db.changes(caught.value.oldest - 1, timeout=0)
        assert sequences(again) == list(range(caught.value.oldest, 121))


def test_changes_of_an_opening_without_a_log_are_missed(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, changes_kept_size=1 << 30) as db:
        db.put(b"a", b"1")
    with DB("/db", filesystem=disk, wal=False) as db:
        with pytest.raises(InvalidArgumentError, match="wal=False"):
            db.changes()
        db.put(b"a", b"2")
        db.flush()
    with DB("/db", filesystem=disk, changes_kept_size=1 << 30) as db:
        with pytest.raises(CompactedError) as caught:
            list(db.changes(0, timeout=0))
        assert caught.value.oldest == 3
        feed = db.changes(2, timeout=0)
        db.put(b"a", b"3")
        assert sequences(feed) == [3]


def test_a_copy_has_no_past(db: DB, disk: MemoryFileSystem) -> None:
    db.put(b"a", b"1")
    db.checkpoint("/copy")
    with DB("/copy", filesystem=disk) as copy_:
        with pytest.raises(CompactedError, match="is left is 2"):
            copy_.changes(0)
        feed = copy_.changes(1, timeout=0)
        copy_.put(b"a", b"2")
        assert sequences(feed) == [2]


def test_a_repaired_database_tells_what_comes(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk) as db:
        db.put(b"a", b"1")
        db.put(b"b", b"2")
    (segment,) = (name for name in disk.names("/db/wal") if name.endswith(".wal"))
    disk.flip_bit(f"/db/wal/{segment}", 180)
    with pytest.raises(CorruptionError):
        DB("/db", filesystem=disk)
    kvstore.repair_db("/db", filesystem=disk)
    with DB("/db", filesystem=disk) as db:
        feed = db.changes(timeout=0)
        db.put(b"c", b"3")
        assert [change.key for change in feed] == [b"c"]


def test_the_future_is_refused(db: DB) -> None:
    db.put(b"a", b"1")
    with pytest.raises(FutureRevisionError, match="the newest is 1"):
        db.changes(2)
    for since in (-1, 1 << 56):
        with pytest.raises(InvalidArgumentError):
            db.changes(since)
    for strange in ("1", True, 1.0):
        with pytest.raises(TypeError):
            db.changes(strange)  # type: ignore[arg-type]


@pytest.mark.parametrize("logged", [True, False])
def test_a_database_opened_to_be_read_ends_its_feeds(disk: MemoryFileSystem, logged: bool) -> None:
    with DB("/db", filesystem=disk, changes_kept_size=1 << 20) as db:
        db.put(b"a", b"1")
        db.put(b"b", b"2")
        db.checkpoint("/copy")
    with DB("/db" if logged else "/copy", filesystem=disk, read_only=True) as db:
        if logged:
            assert sequences(db.changes(0)) == [1, 2]
        else:
            with pytest.raises(CompactedError):
                db.changes(0)
        assert list(db.changes()) == list(db.changes(2)) == []


# --- trouble --------------------------------------------------------------------------------------


def test_damage_is_told_and_nothing_behind_it_given(db: DB, disk: MemoryFileSystem) -> None:
    for number in range(3):
        db.put(b"%d" % number, b"", sync=True)
    (segment,) = (name for name in disk.names("/db/wal") if name.endswith(".wal"))
    # The second record begins behind the header, the first record and the mark of its sync.
    disk.flip_bit(f"/db/wal/{segment}", 128 + 56 + 48 + 20)
    feed = db.changes(0)
    assert next(feed).key == b"0"
    for _ in range(2):
        with pytest.raises(CorruptionError):
            next(feed)


def test_a_read_that_fails_is_tried_again_by_the_next_call(db: DB, disk: MemoryFileSystem) -> None:
    db.put(b"a", b"1", sync=True)
    feed = db.changes(0)
    disk.fail("pread", errno.EIO, path="/wal/")
    with pytest.raises(StorageError):
        next(feed)
    assert next(feed).key == b"a"
    disk.fail("open", errno.EMFILE, path="/wal/")
    again = db.changes(0)
    assert next(again).key == b"a", "the other feed has given back its descriptor"
    feed.close()
    again.close()
    disk.fail("open", errno.EMFILE, path="/wal/")
    alone = db.changes(0)
    with pytest.raises(StorageError):
        next(alone)
    assert next(alone).key == b"a"
    db.put(b"b", b"2")


def test_a_full_disk_takes_back_what_is_kept_for_no_open_feed(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, changes_kept_size=1 << 30, **SMALL) as db:
        write_large(db, 100)
        before = segments(disk)
        disk.capacity_bytes = disk.used_bytes
        write_large(db, 60)
        assert segments(disk)[0] > before[0]
        assert db.get(b"large") == LARGE


def test_a_full_disk_does_not_take_what_an_open_feed_needs(disk: MemoryFileSystem) -> None:
    with DB("/db", filesystem=disk, changes_kept_size=1 << 30, **SMALL) as db:
        feed = db.changes(0, timeout=0)
        write_large(db, 60)
        disk.capacity_bytes = disk.used_bytes
        with pytest.raises(StorageError):
            write_large(db, 60)
        told = sequences(feed)
        assert told == list(range(1, db.last_sequence + 1))
        write_large(db, 20)


def test_memory_that_is_refused_loses_no_change(db: DB) -> None:
    for number in range(5):
        db.put(b"%d" % number, bytes(number * 300_000), sync=True)
    refusals = 0
    for allocation in range(1, 50):
        feed = db.changes(0, timeout=0)
        told: list[int] = []
        memory.fail_allocation(allocation)
        try:
            for _ in range(2):
                try:
                    for batch in feed.batches():
                        told += [change.sequence for change in batch]
                except MemoryError:
                    refusals += 1
        finally:
            memory.reset()
        told += sequences(feed)
        assert told == list(range(1, 6))
    assert refusals > 2


def test_the_files_of_a_closed_database_are_closed(tmp_path: Any) -> None:
    db = DB(tmp_path / "db")
    db.put(b"a", b"1")
    feed = db.changes(0)
    next(feed)
    db.close()
    opened = {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }
    assert not {name for name in opened if name.startswith(str(tmp_path))}


def test_a_feed_is_not_copied(db: DB) -> None:
    feed = db.changes()
    for fork in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="can't be copied or pickled"):
            fork(feed)


def test_changes_can_be_copied_and_pickled(db: DB) -> None:
    db.put(b"a", b"1")
    change = next(db.changes(0))
    assert pickle.loads(pickle.dumps(change)) == copy.deepcopy(change) == change


def test_a_child_of_a_fork_has_no_feed(tmp_path: Any) -> None:
    with DB(tmp_path / "db") as db:
        db.put(b"a", b"1")
        feed = db.changes(0)
        next(feed)
        child = os.fork()
        if child == 0:
            try:
                next(feed)
            except ClosedError:
                feed.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        db.put(b"b", b"2")
        assert next(feed).key == b"b"


def test_a_large_batch_is_one(db: DB) -> None:
    batch = WriteBatch()
    for number in range(50_000):
        batch.put(b"%06d" % number, b"x" * 50)
    db.write(batch)
    feed = db.changes(0, timeout=0)
    (found,) = feed.batches()
    assert len(found) == 50_000
    assert [c.key for c in db.changes(0, start=b"049999", timeout=0)] == [b"049999"]
