"""The thread of blocking clients: it is shared, gathers calls, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from kvstore.client import background
from kvstore.errors import ClosedError, Outcome, UnavailableError

WAIT_S = 10.0


@pytest.fixture
def leased() -> Iterator[background.Background]:
    made = background.lease()
    yield made
    background.release(made)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "kvstore-client"]


async def thread_of() -> str:
    return threading.current_thread().name


def test_one_thread_serves_all_and_ends_with_the_last() -> None:
    first, second = background.lease(), background.lease()
    assert first is second
    assert threads() == ["kvstore-client"]
    assert first.run(thread_of()) == "kvstore-client"
    background.release(first)
    assert second.run(thread_of()) == "kvstore-client"
    background.release(second)
    assert threads() == []


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (background.loops, "new_event_loop", OSError(errno.EMFILE, "Too many open files")),
        (threading.Thread, "start", RuntimeError("can't start new thread")),
    ],
)
def test_without_a_thread_or_descriptor_nothing_is_sent_and_later_all_is_well(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: Exception
) -> None:
    def fails(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        with pytest.raises(UnavailableError, match=r"Too many open files|new thread") as caught:
            background.lease()
    assert caught.value.outcome is Outcome.NOT_APPLIED
    later = background.lease()
    assert later.run(thread_of()) == "kvstore-client"
    background.release(later)
    assert threads() == []


def test_errors_are_raised_in_the_thread_that_waits(leased: background.Background) -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        leased.run(fails())


def test_what_threads_ask_for_while_the_loop_is_busy_costs_one_wake_up(
    leased: background.Background,
) -> None:
    busy, go_on = threading.Event(), threading.Event()

    async def block() -> None:
        busy.set()
        assert go_on.wait(WAIT_S)

    async def passes() -> int:
        return leased.wake_ups

    blocker = threading.Thread(target=lambda: leased.run(block()))
    blocker.start()
    assert busy.wait(WAIT_S)
    before = leased.wake_ups
    seen: list[int] = []
    others = [threading.Thread(target=lambda: seen.append(leased.run(passes()))) for _ in range(8)]
    for thread in others:
        thread.start()
    while leased.waiting < 8:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in [blocker, *others]:
        thread.join(WAIT_S)
    assert seen == [before + 1] * 8


def test_calls_of_the_last_client_end_by_themselves_when_it_is_closed() -> None:
    made = background.lease()
    closed = asyncio.Event()
    begun = threading.Event()
    got: list[str] = []

    async def call() -> str:
        begun.set()
        await closed.wait()
        await asyncio.sleep(0)
        return "what is known"

    async def close() -> None:
        closed.set()

    thread = threading.Thread(target=lambda: got.append(made.run(call())))
    thread.start()
    assert begun.wait(WAIT_S)
    made.begin(close())
    background.release(made)
    thread.join(WAIT_S)
    assert got == ["what is known"]


def test_calls_under_way_end_when_the_loop_does() -> None:
    made = background.lease()
    begun = threading.Event()
    raised: list[BaseException] = []

    async def stuck() -> None:
        begun.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            made.run(stuck())
        except ClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(WAIT_S)
    background.release(made)
    thread.join(WAIT_S)
    assert len(raised) == 1
    with pytest.raises(ClosedError):
        made.run(thread_of())


class Interrupted(Exception):
    """What a signal's handler raises, as KeyboardInterrupt is."""


def test_an_interrupted_call_is_cancelled(leased: background.Background) -> None:
    cancelled = threading.Event()
    raised = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Interrupted

    async def stuck() -> None:
        try:
            while True:  # one that comes just before the thread waits isn't noticed
                os.kill(os.getpid(), signal.SIGUSR1)
                await asyncio.sleep(0.01)
        finally:
            cancelled.set()

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            leased.run(stuck())
        assert cancelled.wait(WAIT_S)
    finally:
        signal.signal(signal.SIGUSR1, before)


PROGRAM = """
import atexit, os, sys

def late():
    try:
        running.run(answer())
    except ClosedError:
        print("closed", flush=True)

atexit.register(late)  # before ours: it runs after it
from kvstore.client import background
from kvstore.errors import ClosedError

async def answer():
    return os.getpid()

running = background.lease()
assert running.run(answer()) == os.getpid()
child = os.fork()
if child == 0:
    parents, running = running, background.lease()
    assert running is not parents
    assert running.run(answer()) == os.getpid()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert running.run(answer()) == os.getpid()
"""


def test_a_child_has_a_thread_of_its_own_and_both_programs_end() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"closed\nclosed\n", b"")


def test_no_call_waits_for_a_loop_that_has_ended() -> None:
    """Handed over at any moment of its end: among its last tasks, or after them."""

    async def short() -> None:
        await asyncio.sleep(0.001)

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(WAIT_S)
        finally:
            await asyncio.sleep(0.002)  # as connections are closed

    def work(ending: background.Background) -> None:
        with contextlib.suppress(ClosedError):
            while True:
                ending.run(short())

    for _ in range(30):
        ending = background.Background()
        callers = [threading.Thread(target=work, args=(ending,), daemon=True) for _ in range(6)]
        for caller in callers:
            caller.start()
        ending.begin(slow_to_end())
        ending.run(short())
        ending.stop()
        for caller in callers:
            caller.join(WAIT_S)
            assert not caller.is_alive()


def test_an_interrupt_just_before_the_loop_is_woken_holds_up_nobody(
    leased: background.Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = False
    wake = leased._loop_soon

    def interrupted(callback: Callable[[], object]) -> None:
        monkeypatch.setattr(leased, "_loop_soon", wake)
        raise KeyboardInterrupt

    async def work() -> None:
        nonlocal begun
        begun = True

    async def later() -> str:
        return "done"

    monkeypatch.setattr(leased, "_loop_soon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leased.run(work())
    assert leased.run(later()) == "done"
    assert not begun
