"""Work beside the members' thread: bounded, never in another one's way, told of in a turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from kvstore.errors import Error, InternalError, StorageError
from kvstore.replica.work import AtOnce, Jobs, Progress, WorkerThreads
from tests.unit.replica.driven_group import SMALL, DrivenGroup, LaterWork

LARGE = replace(SMALL, engine=replace(SMALL.engine, write_buffer_size=4 << 20))
"""No memtable is full: only a flush that is asked for brings it into tables."""
LONG_S = 30.0
"""What a test waits for what comes at once."""


class Posted:
    """The thread that drives the members, as far as workers see it."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self._came = threading.Condition()

    def post(self, call: Callable[[], None]) -> None:
        with self._came:
            self.calls.append(call)
            self._came.notify_all()

    def wait(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.calls) >= count, LONG_S)


def fail(error: BaseException) -> None:
    raise error


def test_one_job_of_a_kind_is_under_way() -> None:
    work = LaterWork("a", "b")
    woken: list[None] = []
    jobs = Jobs(work, lambda: woken.append(None))
    told: list[object] = []
    assert jobs.start("a", lambda: 1, told.append)
    assert not jobs.start("a", lambda: 2, told.append)
    assert jobs.start("b", lambda: 3, told.append)
    work.do()
    assert woken
    assert told == []
    assert jobs.is_busy("a")
    jobs.take()
    assert told == [1, 3]
    assert not jobs.is_busy("a")
    assert jobs.start("a", lambda: 4, told.append)


def test_a_job_that_goes_on_is_young_however_long_it_takes() -> None:
    work = LaterWork("a", "b")
    jobs = Jobs(work, lambda: None)
    progress = Progress()
    steps = progress.each(range(3))
    jobs.start("a", lambda: 1, lambda outcome: None, progress)
    jobs.start("b", lambda: 1, lambda outcome: None)
    ages = []
    for _ in steps:
        for _ in range(2):
            jobs.tick()
            ages.append(jobs.oldest_ticks)
    assert ages == [0, 1, 0, 1, 0, 1]
    work.do()
    jobs.tick()
    assert jobs.oldest_ticks == 0
    jobs.take()
    assert jobs.oldest_ticks == 0


def test_errors_are_outcomes_and_defects_are_errors() -> None:
    jobs = Jobs(AtOnce(), lambda: None)
    told: list[object] = []
    storage = StorageError("no disk", path="/x")
    jobs.start("disk", lambda: fail(storage), told.append)
    jobs.start("defect", lambda: fail(KeyError("k")), told.append)
    jobs.take()
    assert told[0] is storage
    assert isinstance(told[1], InternalError)
    assert "defect: KeyError" in str(told[1])


def test_after_the_end_nothing_is_told_and_nothing_begun() -> None:
    work = LaterWork("a", "b")
    jobs = Jobs(work, lambda: pytest.fail("woken after the end"))
    told: list[object] = []
    jobs.start("a", lambda: 1, told.append)
    jobs.close()
    work.do()
    jobs.take()
    assert not jobs.start("b", lambda: 2, told.append)
    assert told == []


def test_a_job_that_takes_long_is_in_no_ones_way() -> None:
    posted = Posted()
    work = WorkerThreads(posted.post)
    go_on = threading.Event()
    try:
        work.run("test", go_on.wait, lambda: None)
        for number in range(1, 4):
            work.run("test", lambda: None, lambda: None)
            posted.wait(number)
        go_on.set()
        posted.wait(4)
    finally:
        go_on.set()
        assert work.close()


def test_the_end_waits_for_no_disk_that_hangs() -> None:
    work = WorkerThreads(Posted().post)
    hang = threading.Event()
    begun = threading.Event()
    never = threading.Event()

    def job() -> None:
        begun.set()
        hang.wait()

    work.run("test", job, lambda: None)
    assert begun.wait(LONG_S)
    assert not work.close(wait_s=0.01)
    work.run("test", never.set, lambda: None)
    hang.set()
    assert work.close(LONG_S)
    assert not never.is_set()


def test_a_system_without_threads_gets_its_jobs_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[str] = []
    posted = Posted()
    work = WorkerThreads(posted.post)
    work.run("test", lambda: done.append("job"), lambda: done.append("then"))
    assert done == ["job"]
    posted.calls.pop()()
    assert done == ["job", "then"]
    work.run("test", lambda: fail(KeyError("k")), lambda: done.append("never"))
    with pytest.raises(InternalError, match="test: KeyError: 'k'"):
        posted.calls.pop()()
    assert work.close()


class Ended(BaseException):
    """What nobody takes for an error."""


@pytest.mark.parametrize("raised", [KeyError("k"), StorageError("no disk"), Ended("k")])
def test_a_job_that_raises_is_a_defect_where_its_outcome_is_taken(raised: BaseException) -> None:
    posted = Posted()
    work = WorkerThreads(posted.post)
    told: list[str] = []
    try:
        work.run("test", lambda: fail(raised), lambda: told.append("failed"))
        posted.wait(1)
        with pytest.raises(InternalError, match=f"test: {type(raised).__name__}: ") as defect:
            posted.calls.pop()()
        assert defect.value.__cause__ is raised
        assert told == []
        # Its thread goes on: a count of those that died would keep the end waiting.
        work.run("test", lambda: None, lambda: told.append("done"))
        posted.wait(1)
        posted.calls.pop()()
        assert told == ["done"]
    finally:
        assert work.close(LONG_S)


def test_a_flush_that_takes_long_holds_nothing_up() -> None:
    """The log that is half full is emptied aside; writes and elections go on."""
    work = LaterWork("flush")
    with DrivenGroup(work=work, options=LARGE) as driven:
        for number in range(250):
            assert driven.put(b"%d" % number, b"v") == [False]
        leader = driven.leader()
        assert work.jobs
        first = leader.status().raft.first_index
        for number in range(20):
            assert driven.put(b"%d" % number, b"w") == [True]
        assert leader.status().raft.first_index == first
        driven.until(lambda: work.do() or leader.status().raft.first_index > first)
        assert driven.leader() is leader
        assert not driven.failed


def test_a_flush_that_fails_for_good_fences_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    work = LaterWork("flush")
    with DrivenGroup(work=work, options=LARGE) as driven:
        for number in range(250):
            driven.put(b"%d" % number, b"v")
        leader = driven.leader()

        def fail() -> None:
            raise StorageError("broken", path="/node", errno=5)

        monkeypatch.setattr(leader.machine, "flush", fail)
        work.jobs.clear()
        leader._jobs._busy.clear()
        driven.until(lambda: work.do() or leader.failure)
        failure: Error | None = leader.failure
        assert isinstance(failure, StorageError)
