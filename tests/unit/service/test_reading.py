"""Reads: what memory knows at once and in slices, what the disk knows beside the loop, bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import pytest

from kvstore.errors import (
    ClosedError,
    CorruptionError,
    Error,
    InternalError,
    StorageError,
    UnavailableError,
)
from kvstore.service import Get, Limits
from kvstore.service.calls import as_calls
from kvstore.service.desks import new_desk
from kvstore.service.operations import Result
from kvstore.service.reading import COLD_JOBS_MAX, COLD_READS_MAX, SLICE_READS, SLICE_S, Reading
from kvstore.state import COLD, USERS_CHANGED, Cold
from tests.unit.service.test_service import ScriptedMember


class Member(ScriptedMember):
    """Knows every key; of those in ``cold`` only the disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []
        self.clock = 0.0
        self.trouble: Exception | None = None
        self.next: Member | None = None
        self.closed = False

    @property
    def machine(self) -> Member:
        return self.next or self

    def get(self, key: bytes) -> bytes | None:
        self.asked.append(key)
        if self.trouble is not None:
            raise self.trouble
        return key

    def get_cached(self, key: bytes) -> bytes | Cold | None:
        if self.closed:
            raise ClosedError("the database is closed")
        self.clock += SLICE_S / SLICE_READS
        return COLD if key in self.cold else key

    def read_failed(self, error: Error) -> Error:
        return UnavailableError("damaged here")


NEVER = 1e9


class Desk:
    """A reading whose jobs and turns the test gets to."""

    def __init__(self, plain: bool) -> None:
        self.member = Member()
        self.desk = new_desk(Limits(calls_max=100_000), plain=plain)
        self.soon: deque[Callable[[], None]] = deque()
        self.jobs: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()
        self.results: list[Result] = []
        self.reading = Reading(
            self.desk,
            now=lambda: self.member.clock,
            soon=self.soon.append,
            work=self,
        )

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        assert kind == "read"
        self.jobs.append((job, then))

    def ask(self, keys: Sequence[bytes], deadline: float = NEVER) -> None:
        """One call for all of them."""
        calls, answered = as_calls([*map(Get, keys)], deadline, self.results.extend, bytes)
        now = self.member.clock
        self.desk.take(calls, answered, now, None, self.member)
        point = self.desk.next_point(now)
        assert point is not None
        self.reading.answer(self.member, point, self.member.guard)

    def work(self) -> None:
        for _ in range(len(self.jobs)):
            job, then = self.jobs.popleft()
            job()
            then()


@pytest.fixture(params=[False, True], ids=["native", "plain"])
def desk(request: pytest.FixtureRequest) -> Desk:
    return Desk(request.param)


def names(count: int) -> list[bytes]:
    return [b"%06d" % number for number in range(count)]


def test_what_memory_knows_is_answered_at_once(desk: Desk) -> None:
    desk.ask([b"a", b"b"])
    assert desk.results == [b"a", b"b"]
    assert not desk.jobs
    assert not desk.member.asked


def test_what_the_disk_knows_is_read_beside_the_loop_and_holds_nobody_up(desk: Desk) -> None:
    desk.member.cold = {b"a"}
    desk.ask([b"a"])
    assert desk.results == []
    desk.ask([b"b"])
    assert desk.results == [b"b"]
    assert not desk.member.asked
    desk.work()
    assert desk.results == [b"b", b"a"]


def test_many_reads_are_answered_in_slices(desk: Desk) -> None:
    keys = names(10 * SLICE_READS)
    desk.ask(keys)
    desk.ask([b"late"])
    slices = 1
    while desk.soon:
        before = desk.member.clock
        desk.soon.popleft()()
        assert desk.member.clock - before < 2 * SLICE_S
        slices += 1
    assert slices >= 5
    assert desk.results == [*keys, b"late"]


def test_reads_of_the_disk_are_bounded_and_all_are_answered(desk: Desk) -> None:
    keys = names(3000)
    desk.member.cold = set(keys)
    desk.ask(keys)
    while desk.soon:
        desk.soon.popleft()()
    assert len(desk.jobs) == COLD_JOBS_MAX
    while desk.jobs:
        before = len(desk.member.asked)
        assert len(desk.jobs) <= COLD_JOBS_MAX
        desk.jobs[0][0]()
        assert len(desk.member.asked) - before <= COLD_READS_MAX
        desk.jobs.popleft()[1]()
    assert desk.results == keys


def test_few_reads_of_the_disk_are_read_side_by_side(desk: Desk) -> None:
    keys = names(COLD_JOBS_MAX)
    desk.member.cold = set(keys)
    desk.ask(keys)
    assert len(desk.jobs) > COLD_JOBS_MAX // 2


def test_nothing_is_read_for_a_call_that_has_expired(desk: Desk) -> None:
    keys = names(4000)
    desk.member.cold = set(keys)
    for key in keys:
        desk.ask([key], deadline=1e6)
    desk.member.clock = 1e6
    desk.reading.expire()
    assert len(desk.results) == len(keys)
    under_way = len(desk.jobs)
    while desk.jobs:
        desk.work()
    assert len(desk.member.asked) <= under_way * COLD_READS_MAX
    desk.member.cold = {b"x"}
    desk.results.clear()
    desk.ask([b"x"])
    desk.work()
    assert desk.results == [b"x"]


@pytest.mark.parametrize(
    ("trouble", "answer"),
    [
        (CorruptionError("damage"), UnavailableError),
        (ClosedError("closed"), UnavailableError),
        (KeyError("defect"), InternalError),
    ],
)
def test_trouble_with_one_read_is_its_answer(
    desk: Desk, trouble: Exception, answer: type[Error]
) -> None:
    desk.member.cold = {b"a"}
    desk.member.trouble = trouble
    desk.ask([b"a"])
    desk.work()
    assert isinstance(desk.results[0], answer)
    desk.member.trouble = None
    desk.ask([b"a"])
    desk.work()
    assert desk.results[1] == b"a"


def test_behind_a_disk_that_hangs_expired_reads_dont_gather(desk: Desk) -> None:
    keys = names(5000)
    desk.member.cold = {*keys, b"waits"}
    for key in keys:
        desk.ask([key], deadline=1e6)
    desk.ask([b"waits"])
    desk.member.clock = 1e6
    desk.reading.expire()
    assert len(desk.reading._cold) == 1
    while desk.jobs:
        desk.work()
    assert desk.results[-1] == b"waits"
    for key in keys[: COLD_JOBS_MAX + 10]:
        desk.ask([key], deadline=2e6)
    desk.member.clock = 2e6
    desk.reading.expire()
    assert len(desk.reading._cold) == 0


def test_a_member_learns_for_how_long_its_disk_has_been_asked(desk: Desk) -> None:
    desk.reading.expire()
    assert desk.member.ages == []
    desk.member.cold = {b"a"}
    desk.ask([b"a"])
    for _ in range(3):
        desk.reading.expire()
    assert desk.member.ages == [0, 1, 2]
    desk.work()
    desk.reading.expire()
    desk.reading.expire()
    assert desk.member.ages == [0, 1, 2, 0]


def test_a_loop_that_was_held_up_takes_no_disk_for_one_that_hangs(desk: Desk) -> None:
    """The job was done at once; its outcome waits behind the timers."""
    desk.member.cold = {b"a"}
    desk.ask([b"a"])
    desk.reading.expire()
    desk.jobs[0][0]()
    desk.member.clock += 100.0
    for _ in range(5):
        desk.reading.expire()
    assert set(desk.member.ages) == {0}


def test_a_read_that_fails_in_a_state_that_was_replaced_is_no_damage_of_the_next(
    desk: Desk,
) -> None:
    desk.member.cold = {b"a"}
    desk.ask([b"a"])
    desk.member.trouble = StorageError("the file is gone")
    desk.jobs[0][0]()
    desk.member.next = Member()
    desk.jobs[0][1]()
    assert "replaced" in str(desk.results[0])


def test_a_state_that_is_closed_holds_no_later_read_up(desk: Desk) -> None:
    desk.member.closed = True
    desk.ask([b"a", b"b"])
    assert ["replaced" in str(result) for result in desk.results] == [True, True]
    desk.member.closed = False
    desk.ask([b"c"])
    assert desk.results[2:] == [b"c"]


def test_what_users_could_read_before_is_not_read_for_them(desk: Desk) -> None:
    """A change of users between two slices, and while a worker reads."""
    desk.member.cold = {b"cold"}
    desk.ask([b"cold"])
    desk.ask(names(2 * SLICE_READS))
    desk.ask([b"later"])
    assert desk.soon, "more slices are to come"
    desk.member.guard = 5
    while desk.soon:
        desk.soon.popleft()()
    desk.work()
    refused = [result for result in desk.results if isinstance(result, UnavailableError)]
    assert {str(result) for result in refused} == {USERS_CHANGED}
    # What one slice read, the rest of that call, the later one, and what a worker read.
    assert len(refused) == SLICE_READS + 2
    assert [result for result in desk.results if isinstance(result, bytes)] == names(SLICE_READS)
    desk.ask([b"cold", b"warm"])
    desk.work()
    assert desk.results[-2:] == [b"cold", b"warm"]
