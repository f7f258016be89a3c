"""When a store is found full, and what is done about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import AtOnce
from kvstore.service.etcd.quota import LOOK_S, Quota, QuotaFigures, Service
from kvstore.state.mvcc.answers import AlarmAnswer
from kvstore.state.mvcc.requests import Alarm, AlarmAction, AlarmKind, Operation
from tests.unit.service.etcd_stage import LaterWork

NOSPACE = (7, AlarmKind.NOSPACE)
RESERVE = 100


class Stage:
    """A service whose sizes a test sets. It is member 7, and has the only vote."""

    def __init__(self, quota_bytes: int = 1000, work: Any = None) -> None:
        self.time = 0.0
        self.member_id = 7
        self.member = self
        self.machine = self
        self.is_alone = True
        self.model_enabled = True
        self.stored_bytes = 0
        self.revision = 1
        self.free = 10 * RESERVE
        self.alarms: frozenset[tuple[int, int]] = frozenset()
        self.refusal: Error | None = None
        self.holds = False
        self.held: list[Callable[[], None]] = []
        self.asked: list[Alarm] = []
        self.said: list[str] = []
        self.ended: list[str] = []
        self.quota = Quota(
            cast(Service, self),
            quota_bytes,
            now=lambda: self.time,
            work=work or AtOnce(),
            raised=self.said.append,
            ended=self.ended.append,
            is_alone=lambda: self.is_alone,
            reserve_bytes=RESERVE,
        )

    def free_bytes(self) -> int:
        return self.free

    def propose_for_server(self, operation: Operation, done: Callable[[Any], None]) -> None:
        assert isinstance(operation, Alarm)
        self.asked.append(operation)

        def apply() -> None:
            if self.refusal is not None:
                done(self.refusal)
                return
            one = frozenset({(operation.member, operation.kind)})
            if operation.action == AlarmAction.ACTIVATE:
                self.alarms |= one
            else:
                self.alarms -= one
            done(AlarmAnswer(1, tuple(one)))

        if self.holds:
            self.held.append(apply)
        else:
            apply()

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.time += LOOK_S
            self.quota.tick()


def test_a_store_beyond_its_quota_raises_the_alarm_once() -> None:
    stage = Stage()
    stage.stored_bytes = 999
    stage.look(3)
    assert not stage.asked
    stage.stored_bytes = 1000
    stage.look(3)
    assert stage.asked == [Alarm(AlarmAction.ACTIVATE, *NOSPACE)]
    assert len(stage.said) == 1
    assert "quota of 1000" in stage.said[0]
    assert stage.quota.figures() == QuotaFigures(1000, 1000, frozenset({NOSPACE}))


def test_a_member_among_others_raises_it_as_well() -> None:
    stage = Stage()
    stage.is_alone = False
    stage.stored_bytes = 1000
    stage.look()
    assert stage.alarms == {NOSPACE}


def test_it_is_not_ended_by_itself_and_raised_again_by_the_next_write_without_room() -> None:
    stage = Stage()
    stage.stored_bytes = 1000
    stage.look(2)
    stage.revision += 1  # a delete
    stage.look()
    stage.alarms = frozenset()  # somebody disarms it
    stage.look(3)
    assert not stage.alarms
    stage.revision += 1
    stage.look()
    assert stage.alarms == {NOSPACE}
    stage.stored_bytes = 1
    stage.look(10)
    assert stage.alarms == {NOSPACE}
    stage.alarms = frozenset()
    stage.revision += 1
    stage.look(10)
    assert not stage.alarms


def test_another_member_s_alarm_is_not_this_one_s() -> None:
    stage = Stage()
    stage.alarms = frozenset({(8, AlarmKind.NOSPACE), (7, AlarmKind.CORRUPT)})
    stage.stored_bytes = 1000
    stage.look()
    assert NOSPACE in stage.alarms


def test_without_a_quota_no_size_is_too_large() -> None:
    stage = Stage(quota_bytes=0)
    stage.stored_bytes = 1 << 60
    stage.look(3)
    assert not stage.asked


def test_one_proposal_at_a_time_and_again_after_it_came_to_nothing() -> None:
    stage = Stage()
    stage.holds = True
    stage.stored_bytes = 1000
    stage.look(5)
    assert len(stage.asked) == 1
    stage.refusal = EtcdError(Reason.TIMED_OUT)
    stage.held.pop()()
    assert not stage.said
    stage.refusal = None
    stage.holds = False
    stage.look()
    assert stage.alarms == {NOSPACE}


def test_sizes_are_looked_at_now_and_then_alone() -> None:
    stage = Stage()
    stage.look()
    stage.stored_bytes = 1000
    stage.time += LOOK_S / 2
    stage.quota.tick()
    assert not stage.asked


@pytest.mark.parametrize("field", ["member", "machine"])
def test_nothing_is_asked_of_a_member_that_is_not_there(field: str) -> None:
    stage = Stage()
    stage.stored_bytes = 1000
    setattr(stage, field, None)
    stage.look()
    assert not stage.asked


def test_nothing_is_asked_before_keys_have_revisions() -> None:
    stage = Stage()
    stage.model_enabled = False
    stage.stored_bytes = 1000
    stage.look()
    assert not stage.asked
    assert stage.quota.figures() == QuotaFigures(1000, 1000, frozenset())


def test_the_only_disk_that_is_nearly_full_raises_it_and_ends_it_with_room() -> None:
    stage = Stage()
    stage.free = RESERVE - 1
    stage.look(3)
    assert stage.asked == [Alarm(AlarmAction.ACTIVATE, *NOSPACE)]
    stage.free = 2 * RESERVE - 1
    stage.look(3)
    assert stage.alarms == {NOSPACE}, "no to and fro"
    stage.is_alone = False  # there are others meanwhile
    stage.free = 2 * RESERVE
    stage.look(3)
    assert stage.asked[1:] == [Alarm(AlarmAction.DEACTIVATE, *NOSPACE)]
    assert not stage.alarms
    assert (len(stage.said), len(stage.ended)) == (1, 1)
    assert "room again" in stage.ended[0]


def test_an_alarm_for_the_disk_that_comes_late_is_ended_all_the_same() -> None:
    stage = Stage()
    stage.holds = True
    stage.free = 0
    stage.look()
    (applies,) = stage.held
    stage.held = []
    stage.free = 10 * RESERVE
    stage.look(3)
    assert not stage.alarms
    applies()
    stage.holds = False
    stage.look(2)
    assert not stage.alarms
    assert [alarm.action for alarm in stage.asked] == [
        AlarmAction.ACTIVATE,
        AlarmAction.DEACTIVATE,
    ]


def test_an_alarm_that_others_raise_later_is_not_ended_for_the_disk() -> None:
    stage = Stage()
    stage.free = 0
    stage.look(2)
    stage.alarms = frozenset()  # somebody disarms it, and there is room
    stage.free = 10 * RESERVE
    stage.look(2)
    stage.alarms = frozenset({NOSPACE})
    stage.look(3)
    assert stage.alarms == {NOSPACE}


def test_a_disk_among_others_is_no_reason() -> None:
    stage = Stage()
    stage.is_alone = False
    stage.free = 0
    stage.look(3)
    assert not stage.asked


def test_an_alarm_that_the_quota_is_a_reason_for_stays() -> None:
    stage = Stage()
    stage.free = 0
    stage.look()
    stage.stored_bytes = 1000
    stage.look()
    stage.stored_bytes = 1
    stage.free = 10 * RESERVE
    stage.look(3)
    assert stage.alarms == {NOSPACE}


def test_an_alarm_that_others_raised_is_not_ended_for_the_disk() -> None:
    stage = Stage()
    stage.alarms = frozenset({NOSPACE})
    stage.free = 0
    stage.look()
    stage.free = 10 * RESERVE
    stage.look(3)
    assert stage.alarms == {NOSPACE}


def test_a_disk_that_hangs_is_asked_once() -> None:
    work = LaterWork()
    stage = Stage(work=work)
    stage.free = 0
    stage.look(5)
    assert len(work.jobs) == 1
    stage.stored_bytes = 1000
    stage.look()
    assert stage.alarms == {NOSPACE}, "the quota needs no disk"
    work.do()
    assert stage.asked == [Alarm(AlarmAction.ACTIVATE, *NOSPACE)]


def test_an_answer_about_another_member_s_disk_says_nothing() -> None:
    work = LaterWork()
    stage = Stage(work=work)
    stage.free = 0
    stage.look()
    stage.member = cast(Any, object())
    work.do()
    assert not stage.asked
