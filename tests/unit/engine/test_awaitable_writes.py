"""Writes that are awaited: made in the order of the calls, acknowledged when they are durable.

``held_up`` stands for a disk that hangs: one operation waits until it is let go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from kvstore._engine.database import held, native
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.errors import (
    ClosedError,
    ConflictError,
    InvalidArgumentError,
    OverloadedError,
    StorageError,
)

PATIENCE_S = 60
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SMALL: dict[str, Any] = {"write_buffer_size": 64 << 10, "max_write_buffers": 2}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(coroutine, PATIENCE_S))

    return run


class Gate:
    """The first such operation of the disk waits until it is opened."""

    def __init__(self, disk: MemoryFileSystem, operation: str, path: str) -> None:
        self.operation, self.path = operation, path
        self.reached, self.opened = threading.Event(), threading.Event()
        disk.on_operation = self.pass_by

    def pass_by(self, operation: str, path: str) -> None:
        if operation == self.operation and self.path in path and not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(PATIENCE_S)

    async def wait_until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE_S)


@contextmanager
def opened(disk: MemoryFileSystem, **options: Any) -> Iterator[DB]:
    """With a segment of the log and threads begun: the first writes have to wait for those."""
    with DB("/db", filesystem=disk, **options) as db:
        db.compact_range()
        db.put(b"", b"")
        yield db


def after_power_loss(disk: MemoryFileSystem) -> dict[bytes, bytes]:
    with DB("/db", filesystem=disk.crash()) as db:
        return dict(db.items())


def test_what_was_awaited_is_there_after_a_power_loss(run):
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk) as db:

        async def main() -> None:
            assert await db.put_async(b"a", b"1") is None
            assert after_power_loss(disk) == {b"a": b"1"}
            assert await db.delete_async(b"a") is None
            assert after_power_loss(disk) == {}
            batch = WriteBatch()
            batch.put(b"b", b"2")
            batch.put(b"c", b"3")
            assert await db.write_async(batch) == db.last_sequence == 4
            assert after_power_loss(disk) == {b"b": b"2", b"c": b"3"}
            db.put(b"d", b"4")
            await db.sync_async()
            assert after_power_loss(disk) == {b"b": b"2", b"c": b"3", b"d": b"4"}

        run(main())


def test_it_is_made_when_it_is_called_and_in_that_order(run):
    with opened(MemoryFileSystem()) as db:

        async def main() -> None:
            first = db.put_async(b"k", b"1")
            assert db.get(b"k") == b"1"
            second = db.delete_async(b"k")
            assert db.get(b"k") is None
            db.put(b"k", b"3")
            third = db.put_async(b"k", b"4")
            assert db.get(b"k") == b"4"
            assert db.last_sequence == 5
            await asyncio.gather(third, first, second)
            assert db.get(b"k") == b"4"

        run(main())


def test_a_thousand_in_flight_share_syncs(run):
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk) as db:

        async def main() -> int:
            await db.put_async(b"first", b"")
            before = db.stats()["log"]["syncs"]
            await asyncio.gather(*(db.put_async(b"%d" % n, b"") for n in range(1000)))
            return db.stats()["log"]["syncs"] - before

        # One for all, and one where the log's writer thread was quicker than the loop.
        assert run(main()) <= 2
        assert len(after_power_loss(disk)) == 1001


def test_without_a_running_loop_nothing_is_written():
    with DB("/db", filesystem=MemoryFileSystem()) as db:
        for call in (
            lambda: db.put_async(b"a", b"1"),
            lambda: db.delete_async(b"a"),
            lambda: db.write_async(db.write_batch()),
            db.sync_async,
        ):
            with pytest.raises(RuntimeError, match="no running event loop"):
                call()
        assert db.last_sequence == 0


def test_wrong_arguments_raise_at_the_call(run):
    with DB("/db", filesystem=MemoryFileSystem()) as db:

        async def main() -> None:
            with pytest.raises(TypeError, match="key"):
                db.put_async("a", b"1")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="value"):
                db.put_async(b"a", 1)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError, match="key of"):
                db.delete_async(bytes(2 << 20))
            with pytest.raises(TypeError):
                db.write_async(None)  # type: ignore[arg-type]

        run(main())
        assert db.last_sequence == 0


def test_without_sync_it_is_done_when_it_is_made(run):
    disk = MemoryFileSystem()
    with opened(disk) as db:

        async def main() -> None:
            syncs = db.stats()["log"]["syncs"]
            future = db.put_async(b"a", b"1", sync=False)
            assert future.done()
            assert await db.write_async(WriteBatch(), sync=False) == 2
            await db.delete_async(b"b", sync=False)
            assert db.stats()["log"]["syncs"] == syncs

        run(main())


def test_behind_a_thread_that_syncs_it_is_seen_with_that(run):
    """Without anybody's call, and though the loop is gone."""
    disk = MemoryFileSystem()
    with opened(disk) as db:
        gate = Gate(disk, "datasync", "/wal/")
        syncing = threading.Thread(target=db.put, args=(b"s", b""), kwargs={"sync": True})

        async def main() -> None:
            syncing.start()
            await gate.wait_until_reached()
            db.put_async(b"a", b"1")
            db.put_async(b"b", b"2", sync=False)
            assert [db.get(key) for key in (b"s", b"a", b"b")] == [None] * 3

        run(main())
        # Its own sync hangs.
        later = Gate(disk, "datasync", "/wal/")
        gate.opened.set()
        syncing.join(PATIENCE_S)
        try:
            assert [db.get(key) for key in (b"s", b"a", b"b")] == [b"", b"1", b"2"]
        finally:
            later.opened.set()
        batch = db.write_batch()
        batch.expect(b"c", None)
        batch.put(b"c", b"3")
        batch.write()
        db.sync()
        assert len(after_power_loss(disk)) == 5


KILLED = """
import asyncio, os, signal, sys
import kvstore

db = kvstore.open(sys.argv[1], **{sys.argv[2]: sys.argv[2] != "background"})

async def main():
    for turn in range(2):
        keys = (b"%d-%d" % (turn, number) for number in range(50))
        await asyncio.gather(*(db.put_async(key, b"", sync=False) for key in keys))

asyncio.run(main())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("option", ["write_through", "background"])
def test_without_sync_it_is_done_when_the_system_has_it(tmp_path, option):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "db", option], check=False)
    assert done.returncode == -signal.SIGKILL
    with DB(tmp_path / "db") as db:
        assert len(list(db)) == 100


def test_without_sync_it_needs_no_sync(run):
    disk = MemoryFileSystem()
    with opened(disk, background=False) as db:

        async def main() -> None:
            syncs = db.stats()["log"]["syncs"]
            await db.put_async(b"a", b"1", sync=False)
            assert db.stats()["log"]["syncs"] == syncs
            both = db.put_async(b"b", b"2", sync=False), db.put_async(b"c", b"3")
            await asyncio.gather(*both)
            assert db.stats()["log"]["syncs"] == syncs + 1

        run(main())


def test_a_cancelled_wait_takes_nothing_back(run):
    disk = MemoryFileSystem()
    with opened(disk) as db:
        gate = Gate(disk, "datasync", "/wal/")

        async def main() -> None:
            future = db.put_async(b"a", b"1")
            task = asyncio.ensure_future(asyncio.wait_for(db.put_async(b"b", b"2"), PATIENCE_S))
            await gate.wait_until_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.opened.set()
            await future
            await db.put_async(b"c", b"3")
            assert after_power_loss(disk).keys() == {b"", b"a", b"b", b"c"}

        run(main())


def test_a_sync_that_fails_fails_all_that_wait_and_all_that_come(run):
    disk = MemoryFileSystem()
    with contextlib.suppress(StorageError), opened(disk) as db:

        async def main() -> None:
            await db.put_async(b"kept", b"")
            disk.fail("datasync", errno.EIO, path="/wal/")
            futures = [db.put_async(b"%d" % n, b"") for n in range(10)]
            errors = await asyncio.gather(*futures, return_exceptions=True)
            assert all(isinstance(error, StorageError) for error in errors)
            assert len({id(error) for error in errors}) == 10
            assert db.stats()["failure"] is not None
            late = db.put_async(b"late", b"")
            with pytest.raises(StorageError, match="read-only"):
                await late
            with pytest.raises(StorageError):
                await db.sync_async()
            assert db.get(b"kept") == b""

        run(main())
        assert after_power_loss(disk).keys() == {b"", b"kept"}


def test_what_was_durable_before_the_failure_is_acknowledged(run):
    """A loop that was busy meanwhile looks at both outcomes at once."""
    disk = MemoryFileSystem()
    with contextlib.suppress(StorageError), opened(disk) as db:

        async def main() -> None:
            done = db.put_async(b"a", b"")
            db.sync()
            disk.fail("datasync", errno.EIO, path="/wal/")
            lost = db.put_async(b"b", b"")
            with pytest.raises(StorageError):
                db.sync()
            assert await done is None
            with pytest.raises(StorageError):
                await lost

        run(main())


def test_closing_makes_what_is_awaited_durable(run):
    disk = MemoryFileSystem()

    async def main() -> None:
        with opened(disk) as db:
            future = db.put_async(b"a", b"1")
        assert await future is None
        assert after_power_loss(disk)[b"a"] == b"1"
        with pytest.raises(ClosedError):
            await db.put_async(b"b", b"2")

    run(main())


def test_closing_in_vain_says_so(run):
    disk = MemoryFileSystem()

    async def main() -> None:
        db = DB("/db", filesystem=disk)
        db.put(b"", b"")
        disk.fail("datasync", errno.EIO, path="/wal/", always=True)
        future = db.put_async(b"a", b"1")
        with pytest.raises(StorageError):
            db.close()
        with pytest.raises(StorageError):
            await future

    run(main())


def test_a_loop_that_is_closed_leaves_the_write_and_the_database_as_they_are(run):
    disk = MemoryFileSystem()
    run(asyncio.sleep(0))  # what a first loop leaves open isn't ours
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    with opened(disk) as db:
        for number in range(5):

            async def main(number: int = number) -> None:
                db.put_async(b"%d" % number, b"")

            run(main())
        run(awaited(db.put_async, b"last", b""))
        assert len(after_power_loss(disk)) == 7
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == descriptors + 1  # the last loop's
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def awaited(call: Callable[..., Awaitable[Any]], *given: Any) -> Any:
    return await call(*given)


def test_a_database_that_nobody_holds_any_more_closes_though_its_loop_runs(run):
    disk = MemoryFileSystem()

    async def main() -> None:
        db = DB("/db", filesystem=disk)
        future = db.put_async(b"a", b"1")
        await db.put_async(b"b", b"2")
        del db
        gc.collect()
        await future
        assert len(after_power_loss(disk)) == 2
        DB("/db", filesystem=disk).close()

    run(main())


async def fill_until_held(db: DB) -> list[asyncio.Future[None]]:
    """Awaitable puts until one isn't made at once."""
    futures = []
    for number in range(1000):
        futures.append(db.put_async(b"%05d" % number, bytes(1000)))
        if db.get(b"%05d" % number) is None:
            return futures
    raise AssertionError("memory for writes has no end")


def test_a_full_memory_holds_up_the_write_and_not_the_loop(run):
    disk = MemoryFileSystem()
    with opened(disk, **SMALL) as db:
        gate = Gate(disk, "pwrite", ".sst")

        async def main() -> None:
            futures = await fill_until_held(db)
            assert all(db.get(b"%05d" % n) for n in range(len(futures) - 1))
            behind = [db.put_async(b"x", b"1"), db.delete_async(b"x"), db.put_async(b"x", b"2")]
            batch = db.write_batch()
            batch.put(b"y", b"1")
            sequence = db.write_async(batch)
            batch.clear()
            synced = db.sync_async()
            await gate.wait_until_reached()
            await asyncio.gather(*futures[:-1])
            assert not any(future.done() for future in (futures[-1], *behind, sequence, synced))
            blocking = asyncio.create_task(asyncio.to_thread(db.put, b"x", b"3"))
            gate.opened.set()
            await asyncio.gather(futures[-1], *behind, synced, blocking)
            assert await sequence == len(futures) + 5
            kept = after_power_loss(disk)
            assert kept.keys() == {b"", b"x", b"y", *(b"%05d" % n for n in range(len(futures)))}
            assert kept[b"x"] in (b"2", b"3")
            # And the next is made at once again.
            again = db.put_async(b"x", b"4")
            assert db.get(b"x") == b"4"
            await again

        run(main())


def test_a_call_that_blocks_comes_after_what_was_held_before_it(run):
    disk = MemoryFileSystem()
    with opened(disk, **SMALL) as db:
        gate = Gate(disk, "pwrite", ".sst")

        async def main() -> None:
            await gate_is_reached_by(fill_until_held(db))
            held_back = db.put_async(b"x", b"1")
            threading.Timer(0, gate.opened.set).start()
            db.put(b"x", b"2")
            await held_back
            assert db.get(b"x") == b"2"

        async def gate_is_reached_by(filling: Coroutine[Any, Any, object]) -> None:
            await filling
            await gate.wait_until_reached()

        run(main())


def test_what_is_held_is_bounded(run, monkeypatch):
    monkeypatch.setattr(held, "HELD_BYTES_MAX", 10_000)
    disk = MemoryFileSystem()
    with opened(disk, **SMALL) as db:
        gate = Gate(disk, "pwrite", ".sst")

        async def main() -> None:
            futures = await fill_until_held(db)
            for number in range(1000):
                more = db.put_async(b"more%d" % number, bytes(1000))
                if more.done():
                    break
                futures.append(more)
            with pytest.raises(OverloadedError):
                await more
            gate.opened.set()
            await asyncio.gather(*futures)
            assert db.get(b"more%d" % (number - 1)) is not None
            assert db.get(b"more%d" % number) is None
            await db.put_async(b"more%d" % number, b"")

        run(main())


def test_closing_makes_what_is_held(run):
    disk = MemoryFileSystem()
    with opened(disk, **SMALL) as db:
        gate = Gate(disk, "pwrite", ".sst")

        async def main() -> None:
            futures = await fill_until_held(db)
            futures.append(db.put_async(b"behind", b""))
            await gate.wait_until_reached()
            assert db.stats()["held_bytes"] > 1000
            closing = asyncio.create_task(asyncio.to_thread(db.close))
            gate.opened.set()
            await closing
            await asyncio.gather(*futures)
            assert len(after_power_loss(disk)) == len(futures) + 1
            with pytest.raises(ClosedError):
                await db.put_async(b"late", b"")

        run(main())


def test_closing_a_database_that_failed_refuses_what_is_held(run):
    disk = MemoryFileSystem()
    with contextlib.suppress(StorageError), opened(disk, **SMALL) as db:
        gate = Gate(disk, "pwrite", ".sst")

        async def main() -> None:
            futures = await fill_until_held(db)
            await gate.wait_until_reached()
            disk.fail("datasync", errno.EIO, path=".sst")
            gate.opened.set()
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(db.close)
            with pytest.raises(StorageError):
                await futures[-1]

        run(main())


def test_an_interrupt_ends_the_waiting_for_what_is_held():
    disk = MemoryFileSystem()
    errors: list[BaseException | None] = []
    with opened(disk, **SMALL) as db:
        gate = Gate(disk, "pwrite", ".sst")

        def told(_result: object, error: BaseException | None) -> None:
            errors.append(error)
            gate.opened.set()

        def interrupt() -> None:
            assert gate.reached.wait(PATIENCE_S)
            with contextlib.suppress(ClosedError):
                while True:  # until close() waits for them
                    native.hold_put(db, False, told, b"held", b"")
                    os.sched_yield()
            signal.pthread_kill(main, signal.SIGINT)

        main = threading.get_ident()
        number = 0
        while native.put_at_once(db, False, b"%05d" % number, bytes(1000)) is not None:
            number += 1
        native.hold_put(db, False, told, b"held", b"")
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            db.close()
        interrupting.join()
        assert db.closed
        assert errors
        assert all(isinstance(error, ClosedError) for error in errors)
    assert len(after_power_loss(disk)) == number + 1


def test_closing_meets_a_thread_of_the_log_that_is_being_started(run, monkeypatch):
    disk = MemoryFileSystem()
    db = DB("/db", filesystem=disk)
    start = threading.Thread.start
    outcomes: list[BaseException | None] = []

    def close() -> None:
        try:
            db.close()
        except BaseException as error:  # noqa: BLE001
            outcomes.append(error)
        else:
            outcomes.append(None)

    closing = threading.Thread(target=close)

    def late(thread: threading.Thread) -> None:
        if thread.name == "kvstore-log":
            start(closing)
            while not db.closed:
                os.sched_yield()
            closing.join(0.2)  # it must wait for what comes now
        start(thread)

    async def main() -> None:
        with contextlib.suppress(ClosedError, StorageError):
            await db.put_async(b"a", b"1")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", late)
        run(main())
    closing.join(PATIENCE_S)
    assert outcomes == [None]
    DB("/db", filesystem=disk).close()


def test_one_that_cannot_be_told_does_not_stop_the_line():
    line = held.HeldWrites(lambda: None)
    told: list[object] = []

    def fail(_result: object, _error: BaseException | None) -> None:
        raise MemoryError

    silence, threading.excepthook = threading.excepthook, lambda _: None
    try:
        line.add(lambda: 1, 0, fail)
        line.add(lambda: 2, 0, lambda result, _: told.append(result))
        line.wait_behind()
    finally:
        threading.excepthook = silence
    line.end()
    assert told == [2]


def test_a_database_that_is_only_read_says_so_in_the_future(run):
    disk = MemoryFileSystem()
    DB("/db", filesystem=disk).close()
    with DB("/db", filesystem=disk, read_only=True) as db:

        async def main() -> None:
            for call in (
                lambda: db.put_async(b"a", b"1"),
                lambda: db.delete_async(b"a"),
                lambda: db.write_async(WriteBatch()),
                db.sync_async,
            ):
                future = call()
                with pytest.raises(StorageError) as refused:
                    await future
                assert refused.value.errno == errno.EROFS

        run(main())


@contextmanager
def no_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_a_descriptor_the_future_says_so(run):
    with DB("/db", filesystem=MemoryFileSystem()) as db:

        async def main() -> None:
            with no_descriptors():
                future = db.put_async(b"a", b"1")
            with pytest.raises(StorageError) as refused:
                await future
            assert refused.value.errno == errno.EMFILE
            assert refused.value.retryable
            await db.put_async(b"a", b"1")

        run(main())


def test_the_first_call_after_the_end_leaves_nothing_behind(run, monkeypatch):
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    db = DB("/db", filesystem=MemoryFileSystem())
    db.close()

    async def main() -> None:
        with pytest.raises(ClosedError):
            await db.put_async(b"a", b"1")

    run(main())
    gc.collect()
    assert unraisable == []


def test_a_disk_without_room_for_the_log_refuses_the_call_alone(run):
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk) as db:
        disk.capacity_bytes = disk.used_bytes

        async def main() -> None:
            with pytest.raises(StorageError) as refused:
                await db.put_async(b"a", b"1")
            assert refused.value.retryable
            assert db.get(b"a") is None
            disk.capacity_bytes = None
            await db.put_async(b"b", b"2")

        run(main())
        assert after_power_loss(disk) == {b"b": b"2"}


def test_a_disk_without_room_for_a_flush_refuses_the_call_alone(run):
    disk = MemoryFileSystem()
    with opened(disk, **SMALL) as db:
        disk.fail("pwrite", errno.ENOSPC, path=".sst", always=True)

        async def main() -> None:
            futures = await fill_until_held(db)
            with pytest.raises(StorageError) as refused:
                await futures[-1]
            assert refused.value.retryable
            await db.delete_async(b"00000")  # taken, as delete() is
            disk.heal()
            db.resume()
            await db.put_async(b"more", b"")

        run(main())
        assert after_power_loss(disk).keys() > {b"", b"more"}


def test_conditions_hold_or_nothing_is_written(run):
    disk = MemoryFileSystem()
    with opened(disk) as db:
        db.put(b"a", b"1")
        db.flush()  # so that only the disk knows
        db.put(b"", b"")

        async def main() -> None:
            good = WriteBatch()
            good.expect(b"a", b"1")
            good.put(b"a", b"2")
            bad = WriteBatch()
            bad.expect(b"a", b"1")
            bad.put(b"a", b"3")
            first, second = db.write_async(good), db.write_async(bad)
            with pytest.raises(ConflictError):
                await second
            assert await first == db.last_sequence
            assert db.get(b"a") == b"2"

        run(main())


def test_it_is_not_seen_before_a_synced_write_that_came_first(run):
    disk = MemoryFileSystem()
    with opened(disk) as db:
        gate = Gate(disk, "datasync", "/wal/")

        async def main() -> None:
            synced = asyncio.create_task(asyncio.to_thread(db.put, b"s", b"", sync=True))
            await gate.wait_until_reached()
            future = db.put_async(b"a", b"1")
            unsynced = db.put_async(b"b", b"1", sync=False)
            assert db.get(b"s") is db.get(b"a") is db.get(b"b") is None
            assert not unsynced.done()  # since it isn't seen
            gate.opened.set()
            await future
            assert db.get(b"a") == b"1"
            await synced
            await db.sync_async()
            assert db.get(b"b") == b"1"

        run(main())


@pytest.mark.parametrize(
    "options", [{"wal": False}, {"background": False}, {"write_through": True}]
)
def test_with_other_options(run, options):
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, write_buffer_size=64 << 10, **options) as db:

        async def main() -> None:
            for start in range(0, 500, 50):
                await asyncio.gather(
                    *(db.put_async(b"%05d" % n, bytes(1000)) for n in range(start, start + 50))
                )
            await db.sync_async()
            assert len(list(db)) == 500
            if db.stats()["log"] is not None:
                assert len(after_power_loss(disk)) == 500

        run(main())


def test_a_view_writes_its_own_keys(run):
    with DB("/db", filesystem=MemoryFileSystem()) as db:
        view = db.prefixed_db(b"p:")

        async def main() -> None:
            await view.put_async(b"a", b"1")
            await view.put_async(b"b", b"2")
            await view.delete_async(b"a")
            with view.write_batch() as batch:
                batch.put(b"c", b"3")
            batch.clear()
            batch.put(b"d", b"4")
            assert await db.write_async(batch) == 5
            assert dict(db) == {b"p:b": b"2", b"p:c": b"3", b"p:d": b"4"}

        run(main())


def test_several_loops_and_threads_at_once():
    disk = MemoryFileSystem()
    acknowledged: list[bytes] = []

    def on_a_loop(number: int, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        async def one(worker: int) -> None:
            for n in range(60):
                key = b"%d-%d-%d" % (number, worker, n)
                await db.put_async(key, key * 20)
                assert db.get(key) == key * 20
                acknowledged.append(key)

        async def main() -> None:
            await asyncio.gather(*(one(worker) for worker in range(20)))

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(main(), PATIENCE_S))

    def blocking(number: int) -> None:
        for n in range(300):
            key = b"t%d-%d" % (number, n)
            db.put(key, key, sync=n % 2 == 0)
            assert db.get(key) == key
            if n % 2 == 0:
                acknowledged.append(key)

    with DB("/db", filesystem=disk, **SMALL) as db, ThreadPoolExecutor(5) as pool:
        works = [
            pool.submit(on_a_loop, n, LOOPS[name]) for n, name in enumerate((*LOOPS, "asyncio"))
        ]
        works += [pool.submit(blocking, n) for n in range(2)]
        for work in works:
            work.result(PATIENCE_S)
        kept = after_power_loss(disk)
        assert kept.keys() >= set(acknowledged)
    assert len(acknowledged) == 3 * 20 * 60 + 2 * 150


ENDING = """
import asyncio, sys
import kvstore

db = kvstore.open(sys.argv[1])
db.put(b"first", b"")

async def main():
    db.put_async(b"a", b"1")
    await asyncio.sleep(0)
    db.put_async(b"b", b"2")

asyncio.run(main())
"""

FORKING = """
import asyncio, os, sys
import kvstore

db = kvstore.open(sys.argv[1])

async def main():
    await db.put_async(b"a", b"1")
    pending = db.put_async(b"b", b"2")
    child = os.fork()
    if not child:
        try:
            db.put_async(b"c", b"3")
        except kvstore.ClosedError as error:
            assert "was opened before this process forked" in str(error), error
        asyncio.events._set_running_loop(None)
        async def in_child():
            try:
                await db.put_async(b"c", b"3")
            except kvstore.ClosedError:
                os._exit(7)
        asyncio.new_event_loop().run_until_complete(in_child())
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    await pending
    await db.put_async(b"d", b"4")

asyncio.run(main())
db.close()
"""


@pytest.mark.parametrize(
    ("program", "keys"), [(ENDING, {b"first", b"a", b"b"}), (FORKING, {b"a", b"b", b"d"})]
)
def test_programs_that_end_and_fork(tmp_path, program, keys):
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "db"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with DB(tmp_path / "db") as db:
        assert set(db.keys()) == keys
