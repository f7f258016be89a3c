"""Renewals and questions on a member that leads, on one that doesn't, and where nobody does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import pytest

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import lease_calls
from kvstore.service.etcd.lease_calls import AGAIN, Answers, LeaseCalls, Questions
from kvstore.service.etcd.lessor import ENDING, Lessor, Lives, Renewed, TimeToLive
from kvstore.state.mvcc.records import LeaseRecord


class Process:
    """One whose member leads or follows, as it is told; its lessor answers when it is told."""

    def __init__(self) -> None:
        self.is_leader = False
        self.leader_id = 2
        self.machine = self
        self.records = {5: LeaseRecord(10, -1, 1), 3: LeaseRecord(10, -1, 2)}
        self.renewals: list[tuple[int, Renewed]] = []
        self.looks: list[tuple[int, Lives]] = []
        self.asked: list[tuple[int, Questions, float, Callable[[Answers | None], None]]] = []
        self.turn: list[Callable[[], None]] = []
        self.now = 50.0
        self.calls = LeaseCalls(
            self,
            cast(Lessor, self),
            patience_s=7.0,
            now=lambda: self.now,
            soon=self.turn.append,
            ask_leader=lambda *asked: self.asked.append(asked),
        )

    @property
    def has_leader(self) -> bool:
        return self.leader_id != 0

    def leases(self) -> dict[int, LeaseRecord]:
        return self.records

    # The lessor.

    def renew(self, id: int, renewed: Renewed) -> None:
        self.renewals.append((id, renewed))

    def time_to_live(self, id: int, lives: Lives) -> None:
        self.looks.append((id, lives))

    def by_expiry(self) -> Callable[[], list[int]] | None:
        return (lambda: [3, 5]) if self.is_leader else None

    # What tests do.

    def ask(self, *ids: int, deadline: float | None = None) -> list[object]:
        """Ask to renew; what is told of each."""
        told: list[object] = [None] * len(ids)
        for place, id in enumerate(ids):
            self.calls.renew(id, deadline, partial(told.__setitem__, place))
        self.take_turn()
        return told

    def take_turn(self) -> None:
        turn, self.turn[:] = list(self.turn), []
        for call in turn:
            call()

    def tick(self, seconds: float = 0.1) -> None:
        self.now += seconds
        self.calls.tick()
        self.take_turn()

    def answer(self, answers: Answers | None) -> None:
        (_, _, _, done) = self.asked.pop(0)
        done(answers)
        self.take_turn()


@pytest.fixture
def process() -> Process:
    return Process()


def reason_of(told: object) -> Reason:
    assert isinstance(told, EtcdError)
    return told.reason


def test_leader_asks_its_own_lessor(process: Process) -> None:
    process.is_leader = True
    told = process.ask(1, 2)
    assert [id for id, _ in process.renewals] == [1, 2]
    process.renewals[1][1](20)
    process.renewals[0][1](0)
    assert told == [0, 20]
    assert process.asked == []


def test_follower_asks_the_leader_once_for_what_came_in_a_turn(process: Process) -> None:
    lives: list[object] = []
    process.calls.time_to_live(7, None, lives.append)
    told = process.ask(1, 2)
    ((leader, questions, _, _),) = process.asked
    assert (leader, questions) == (2, Questions([1, 2], [7]))
    process.answer(Answers([10, 0], [TimeToLive(3, 9)]))
    assert told == [10, 0]
    assert lives == [TimeToLive(3, 9)]


def test_what_comes_while_the_leader_is_asked_goes_together_afterwards(process: Process) -> None:
    process.ask(1)
    process.ask(2)
    process.ask(3)
    assert len(process.asked) == 1
    process.answer(Answers([10], []))
    ((_, questions, _, _),) = process.asked
    assert questions.renew == [2, 3]


def test_late_leader_is_asked_again_beside_that(process: Process) -> None:
    process.ask(1)
    process.tick(0.2)
    process.ask(2)
    assert len(process.asked) == 2
    for _ in range(10):
        process.tick(0.2)
        process.ask(2)
    assert len(process.asked) == lease_calls.CALLS_MAX


def test_call_of_the_leader_has_a_bounded_number_of_questions(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_calls, "BATCH_MAX", 2)
    told = process.ask(1, 2, 3)
    process.answer(Answers([10, 10], []))
    process.answer(Answers([11], []))
    assert told == [10, 10, 11]


@pytest.mark.parametrize(
    "answers", [None, Answers([AGAIN], []), Answers([], []), Answers([1], [TimeToLive(1, 1)])]
)
def test_leader_that_has_no_answer_is_asked_again_at_the_next_tick(
    process: Process, answers: Answers | None
) -> None:
    told = process.ask(1)
    process.answer(answers)
    assert process.asked == []
    process.tick()
    process.answer(Answers([10], []))
    assert told == [10]


@pytest.mark.parametrize("outcome", [ENDING, EtcdError(Reason.NOT_PRIMARY_LESSOR)])
def test_lessor_that_has_no_answer_is_asked_again_at_the_next_tick(
    process: Process, outcome: int | EtcdError
) -> None:
    process.is_leader = True
    told = process.ask(1)
    process.renewals.pop()[1](outcome)
    assert told == [None]
    process.tick()
    process.renewals.pop()[1](0)
    assert told == [0]


def test_next_leader_is_asked(process: Process) -> None:
    told = process.ask(1)
    process.answer(None)
    process.leader_id, process.is_leader = 1, True
    process.tick()
    process.renewals.pop()[1](10)
    assert told == [10]


def test_there_is_no_leader_for_as_long_as_a_call_waits(process: Process) -> None:
    process.leader_id = 0
    told = process.ask(1)
    for _ in range(69):
        process.tick()
    assert told == [None]
    process.tick(0.3)
    assert reason_of(told[0]) is Reason.NO_LEADER
    assert process.asked == []


def test_leader_that_is_found_late_answers(process: Process) -> None:
    process.leader_id = 0
    told = process.ask(1)
    process.tick(5)
    process.leader_id = 3
    process.tick()
    process.answer(Answers([10], []))
    assert told == [10]


def test_leader_that_never_answers_is_a_timeout(process: Process) -> None:
    told = process.ask(1)
    process.answer(None)
    process.tick(7.3)
    assert reason_of(told[0]) is Reason.TIMED_OUT


def test_own_deadline_of_a_client_counts(process: Process) -> None:
    told = process.ask(1, deadline=51.0)
    process.answer(None)
    process.tick(1.3)
    assert reason_of(told[0]) is Reason.DEADLINE
    process.tick()
    assert process.asked == []


def test_answer_after_the_end_of_a_call_is_dropped(process: Process) -> None:
    told = process.ask(1, deadline=51.0)
    process.tick(1.3)
    process.answer(Answers([10], []))
    assert reason_of(told[0]) is Reason.DEADLINE


def test_too_many_calls_are_refused(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_calls, "WAITING_MAX", 1)
    told = process.ask(1, 2)
    assert reason_of(told[1]) is Reason.TOO_MANY_REQUESTS
    process.answer(Answers([10], []))
    assert process.ask(2) == [None]


def test_lessor_that_is_asked_too_much_says_so(process: Process) -> None:
    process.is_leader = True
    told = process.ask(1)
    process.renewals.pop()[1](EtcdError(Reason.TOO_MANY_REQUESTS))
    assert reason_of(told[0]) is Reason.TOO_MANY_REQUESTS


def test_all_that_waits_is_told_of_the_end(process: Process) -> None:
    process.leader_id = 0
    told = process.ask(1)
    process.calls.close()
    assert reason_of(told[0]) is Reason.STOPPED


def test_other_members_get_all_answers_in_one(process: Process) -> None:
    answers: list[Answers] = []
    process.calls.answer(Questions([1, 2, 3], [4, 5]), answers.append)
    process.renewals[2][1](30)
    process.renewals[1][1](ENDING)
    process.renewals[0][1](0)
    process.looks[1][1](EtcdError(Reason.NOT_PRIMARY_LESSOR))
    assert answers == []
    process.looks[0][1](TimeToLive(-1, 0))
    assert answers == [Answers([0, AGAIN, 30], [TimeToLive(-1, 0), TimeToLive(AGAIN, 0)])]


def test_nothing_asked_is_answered_with_nothing(process: Process) -> None:
    answers: list[Answers] = []
    process.calls.answer(Questions([], []), answers.append)
    assert answers == [Answers((), ())]


def test_leases_are_this_members_own(process: Process) -> None:
    assert sorted(process.calls.listing()()) == [3, 5]
    process.is_leader = True
    assert process.calls.listing()() == [3, 5]


def test_question_is_not_told_twice(process: Process) -> None:
    told: list[int | Error] = []
    process.calls.renew(1, None, told.append)
    process.take_turn()
    done = process.asked[0][3]
    done(Answers([10], []))
    process.tick(10)
    assert told == [10]
