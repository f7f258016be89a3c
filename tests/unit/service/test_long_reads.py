"""Ranges that take long, whatever they find: others go on, and what nobody waits for ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from kvstore.errors import InternalError
from kvstore.etcd_errors import Reason
from kvstore.service.etcd.reads import LONG_JOBS_MAX, LONG_S, RANGE_JOBS_MAX
from kvstore.state.mvcc.answers import KeyValue, RangeAnswer
from kvstore.state.mvcc.requests import Range, Txn
from tests.unit.service.etcd_stage import Stage, reasons

KV = KeyValue(b"k", 2, 2, 1, b"v", 0)
ONE = RangeAnswer(1, (KV,), False, 1)
NONE = RangeAnswer(1, (), False, 0)
SHORT = Range(b"k", b"\0")
LONG = Range(b"long", b"\0")
PATIENCE_S = 60


class Threads:
    """Work on threads of its own, whose ends the stage's thread takes."""

    def __init__(self) -> None:
        self._ended: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self.threads: list[threading.Thread] = []

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        def do() -> None:
            job()
            with self._changed:
                self._ended.append(then)
                self._changed.notify_all()

        thread = threading.Thread(target=do, daemon=True)
        self.threads.append(thread)
        thread.start()

    def take(self, patience_s: float = PATIENCE_S) -> None:
        """Wait for ends, and take them."""
        with self._changed:
            came = self._changed.wait_for(lambda: self._ended, patience_s)
            assert came or patience_s < PATIENCE_S
            ended, self._ended = self._ended, []
        for then in ended:
            then()


class Scan:
    """A range over keys without end, of which none is to be shown."""

    def __init__(self) -> None:
        self.begun = 0
        self.is_over = threading.Event()
        self._changed = threading.Condition()
        self.under_way = 0

    def __call__(self, step: Callable[[], None]) -> None:
        with self._changed:
            self.begun += 1
            self.under_way += 1
            self._changed.notify_all()
        try:
            while not self.is_over.wait(0.001):
                step()
        finally:
            with self._changed:
                self.under_way -= 1
                self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S)


class LongStage(Stage):
    def __init__(self) -> None:
        self.work = Threads()
        super().__init__(work=self.work)
        self.scan = Scan()
        self.member.machine.keys[b"k"] = KV
        self.member.machine.endless[b"long"] = self.scan


@pytest.fixture
def stage() -> Iterator[LongStage]:
    made = LongStage()
    yield made
    made.scan.is_over.set()
    for thread in made.work.threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def scans(stage: LongStage, count: int, **options: Any) -> list[list[Any]]:
    """So many long ones, all that may be of them under way."""
    outcomes = [stage.read(LONG, serializable=True, **options) for _ in range(count)]
    stage.turn()
    stage.scan.until(lambda: stage.scan.begun >= 1)
    return outcomes


def until(stage: LongStage, condition: Callable[[], bool]) -> None:
    """Let time pass, as it does for long ranges."""
    ends = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < ends
        stage.wait(LONG_S, LONG_S)
        stage.work.take(patience_s=0.01)


@pytest.mark.parametrize("count", [1, LONG_JOBS_MAX, RANGE_JOBS_MAX, 3 * RANGE_JOBS_MAX])
def test_short_ranges_pass_long_ones(stage: LongStage, count: int) -> None:
    long = scans(stage, count)
    short = stage.read(SHORT, serializable=True)
    key = stage.read(serializable=True)
    stage.turn()
    assert key == [ONE], "memory has it"
    until(stage, lambda: bool(short))
    assert short == [ONE]
    assert not any(long)
    assert stage.scan.under_way <= LONG_JOBS_MAX + RANGE_JOBS_MAX
    stage.scan.is_over.set()
    until(stage, lambda: all(long))
    assert [len(outcomes) for outcomes in long] == [1] * count


def test_ranges_that_share_a_job_with_a_long_one_do_not_wait_for_it(stage: LongStage) -> None:
    """Of many that come at once a job takes several."""
    outcomes = [
        stage.read(LONG if number == 0 else SHORT, serializable=True) for number in range(40)
    ]
    stage.turn()
    stage.scan.until(lambda: stage.scan.begun == 1)
    until(stage, lambda: all(outcomes[1:]))
    assert outcomes == [[], *[[ONE]] * 39]


def test_a_range_that_nobody_competes_with_goes_on(stage: LongStage) -> None:
    scans(stage, RANGE_JOBS_MAX)
    until(stage, lambda: stage.scan.under_way == RANGE_JOBS_MAX)
    stage.wait(20 * LONG_S, LONG_S)
    assert (stage.scan.begun, stage.scan.under_way) == (RANGE_JOBS_MAX, RANGE_JOBS_MAX)


def test_a_range_ends_with_its_callers_patience(stage: LongStage) -> None:
    (own,) = scans(stage, 1, deadline=stage.now + 1)
    stage.wait(2)
    assert reasons(own) == [Reason.DEADLINE]
    stage.scan.until(lambda: stage.scan.under_way == 0)
    stage.work.take()


def test_a_range_ends_when_its_caller_goes(stage: LongStage) -> None:
    gone = threading.Event()
    scans(stage, 1, gone=gone.is_set)
    gone.set()
    stage.scan.until(lambda: stage.scan.under_way == 0)
    stage.work.take()
    # And one that has yet to be begun isn't.
    waiting = stage.read(LONG, serializable=False, gone=gone.is_set)
    stage.turn()
    stage.wait(0.1)
    stage.member.confirm()
    stage.work.take()
    assert stage.scan.begun == 1
    assert waiting, "it doesn't count any more"


def test_a_defect_in_a_job_is_told_to_one_caller_and_the_others_are_read(stage: LongStage) -> None:
    asked = threading.Event()

    def gone() -> bool:
        if threading.current_thread() in stage.work.threads:
            asked.set()
            raise KeyError("gone")
        return False

    failed = stage.read(SHORT, serializable=True, gone=gone)
    read = stage.read(SHORT, serializable=True)
    stage.turn()
    until(stage, lambda: bool(failed and read))
    assert asked.is_set()
    assert isinstance(failed[0], InternalError)
    assert str(failed[0]) == "reading: KeyError: 'gone'"
    assert read == [ONE]


def test_ranges_of_a_transaction_end_as_well(stage: LongStage) -> None:
    gone = threading.Event()
    stage.read(Txn(success=(LONG, LONG)), serializable=True, gone=gone.is_set)
    stage.turn()
    stage.scan.until(lambda: stage.scan.begun == 1)
    gone.set()
    stage.scan.until(lambda: stage.scan.under_way == 0)
    stage.work.take()
    assert stage.scan.begun == 1


def test_what_is_over_before_it_counts_is_counted_once() -> None:
    """The bound of reads that wait isn't worn away by those that never got so far."""
    early = Stage(model=False)
    early.known_level = 0
    early.member.leader = 0
    for _ in range(3):
        early.read(deadline=early.now + 0.1)
    early.wait(1)
    assert early.service._reads._count == 0


def test_more_long_ranges_than_can_be_done_in_time_are_refused_at_once(stage: LongStage) -> None:
    """By what those that are under way have taken already, though none is done yet."""
    long = scans(stage, 60)
    patience_s = stage.service.patience_s
    waited_s = 0.0
    while sum(map(bool, long)) < 40:
        assert waited_s < patience_s * 0.75, "not when their time has passed"
        stage.wait(LONG_S, LONG_S)
        waited_s += LONG_S
        stage.work.take(patience_s=0.01)
    told = [outcomes[0] for outcomes in long if outcomes]
    assert {outcome.reason for outcome in told} == {Reason.TOO_MANY_REQUESTS}
    # Those that are under way go on, and are told what they asked for.
    assert long.count([]) >= LONG_JOBS_MAX
    stage.scan.is_over.set()
    until(stage, lambda: all(long))
    assert sum(outcomes == [NONE] for outcomes in long) >= LONG_JOBS_MAX


def test_one_range_that_takes_very_long_has_no_others_refused(stage: LongStage) -> None:
    stage.member.machine.endless[b"long"] = stage.scan
    long = scans(stage, 1)
    until(stage, lambda: stage.scan.under_way == 1)
    short = [stage.read(SHORT, serializable=True) for _ in range(20)]
    until(stage, lambda: all(short))
    assert [outcomes[0] for outcomes in short] == [ONE] * 20
    assert not any(long)
