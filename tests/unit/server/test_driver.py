"""The driver on a real event loop, with turns and ticks of the test's own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from kvstore.errors import Error, InternalError, StorageError
from kvstore.replica import WorkerThreads
from kvstore.replica.ticks import TICK_S
from kvstore.server.nodes.driver import Driver


def drive(story: Callable[[Driver], object]) -> None:
    """Run ``story``, a coroutine function, on a loop with a driver."""

    async def run() -> None:
        driver = Driver()
        try:
            await asyncio.wait_for(story(driver), 10)  # type: ignore[arg-type]
        finally:
            driver.stop()

    asyncio.run(run())


class Turns:
    """Counts its calls; each may be awaited."""

    def __init__(self) -> None:
        self.count = 0
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._called.set()

    async def next(self) -> None:
        self._called.clear()
        await self._called.wait()


def test_it_begins_with_a_turn_and_many_wakes_make_one_more() -> None:
    async def story(driver: Driver) -> None:
        turns = Turns()
        driver.wake()
        driver.start(turns)
        await turns.next()
        for _ in range(5):
            driver.wake()
        await turns.next()
        assert turns.count == 2

    drive(story)


def test_ticks_come_by_themselves() -> None:
    async def story(driver: Driver) -> None:
        one, two = Turns(), Turns()
        driver.start(lambda: None, one, two)
        for _ in range(3):
            await two.next()
        assert one.count == two.count == 3

    drive(story)


def test_a_signalled_log_is_heard_and_its_signal_taken() -> None:
    async def story(driver: Driver) -> None:
        ready = Turns()
        eventfd = os.eventfd(0, os.EFD_NONBLOCK)
        try:
            driver.watch(eventfd, ready)
            os.eventfd_write(eventfd, 3)
            await ready.next()
            with pytest.raises(BlockingIOError):
                os.eventfd_read(eventfd)
        finally:
            driver.stop()
            os.close(eventfd)

    drive(story)


@pytest.mark.parametrize(
    ("raised", "kind"), [(StorageError("the disk"), StorageError), (KeyError("k"), InternalError)]
)
def test_the_first_failure_ends_it(raised: Exception, kind: type[Error]) -> None:
    async def story(driver: Driver) -> None:
        calls = 0

        def turn() -> None:
            nonlocal calls
            calls += 1
            raise raised

        driver.start(turn)
        assert isinstance(await driver.failed, kind)
        driver.fail(StorageError("another"))
        driver.wake()
        for _ in range(3):
            await asyncio.sleep(0)
        assert calls == 1
        assert isinstance(driver.failed.result(), kind)
        assert "another" not in str(driver.failed.result())

    drive(story)


def test_a_job_beside_the_loop_that_raises_ends_it() -> None:
    async def story(driver: Driver) -> None:
        work = WorkerThreads(driver.post)

        def job() -> None:
            raise KeyError("k")

        with capture_logs() as lines:
            work.run("a job", job, lambda: pytest.fail("it has no outcome"))
            error = await driver.failed
        assert isinstance(error, InternalError)
        assert str(error) == "a job: KeyError: 'k'"
        assert [line["event"] for line in lines] == ["a replica failed"]
        assert lines[0]["exc_info"], "where it was raised is told"
        work.close()

    drive(story)


def test_it_says_how_long_work_took_and_how_late_a_tick_came_for_it() -> None:
    async def story(driver: Driver) -> None:
        ticks = Turns()

        def hold_up() -> None:
            end = time.monotonic() + 3 * TICK_S
            while time.monotonic() < end:
                pass

        driver.start(hold_up, ticks)
        await ticks.next()
        figures = driver.figures()
        assert figures.turn_s >= 3 * TICK_S
        assert figures.late_s >= 1.5 * TICK_S

    drive(story)


def test_after_stop_nothing_is_driven() -> None:
    async def story(driver: Driver) -> None:
        turns = Turns()
        driver.start(turns)
        driver.stop()
        driver.wake()
        for _ in range(3):
            await asyncio.sleep(0)
        assert turns.count == 0

    drive(story)
