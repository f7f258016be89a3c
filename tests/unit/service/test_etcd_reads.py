"""Reads of etcd's API: behind a read point or at once, from memory or beside the loop."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from kvstore.errors import (
    ClosedError,
    CorruptionError,
    IntegrityCode,
    InternalError,
    StorageError,
    UnavailableError,
)
from kvstore.etcd_errors import Reason
from kvstore.service.etcd import EtcdLimits
from kvstore.service.etcd.read_jobs import JOB_BYTES_MAX
from kvstore.service.etcd.upkeep import WAITING_MAX as UPKEEP_WAITING_MAX
from kvstore.service.reading import COLD_JOBS_MAX
from kvstore.state.mvcc.answers import KeyValue, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.requests import Range, Txn
from tests.unit.api.auth_gates import users_of
from tests.unit.service.etcd_stage import LaterWork, Machine, Member, Stage, reasons

KV = KeyValue(b"k", 2, 2, 1, b"v", 0)
ONE = RangeAnswer(1, (KV,), False, 1)
ALL = Range(b"\0", b"\0")


def stage_with_key(**options: Any) -> Stage:
    stage = Stage(**options)
    stage.member.machine.keys[b"k"] = KV
    return stage


@pytest.mark.parametrize("leader", [1, 3])
def test_a_linearizable_read_waits_for_its_point_on_any_member(leader: int) -> None:
    stage = stage_with_key(leader=leader)
    outcomes = [stage.read(), stage.read()]
    stage.turn()
    assert len(stage.member.points) == 1, "they share it"
    assert outcomes == [[], []]
    stage.member.confirm()
    assert outcomes == [[ONE], [ONE]]


def test_a_read_that_is_answered_keeps_its_caller_no_more() -> None:
    class Caller:
        def told(self, outcome: Any) -> None:
            self.outcome = outcome

    stage, caller = stage_with_key(), Caller()
    gone = weakref.ref(caller)
    stage.service.read(Range(b"k"), False, None, caller.told)
    del caller
    stage.turn()
    # Its deadline is known from now on.
    stage.wait(0.1)
    assert gone() is not None
    stage.member.confirm()
    assert gone() is None


def test_a_serializable_read_waits_for_nothing() -> None:
    stage = stage_with_key(leader=0)
    stage.member.has_quorum_contact = False
    outcomes = stage.read(serializable=True)
    stage.turn()
    assert outcomes == [ONE]
    assert not stage.member.points


def test_a_point_that_is_not_confirmed_is_asked_for_again() -> None:
    stage = stage_with_key()
    outcomes = stage.read()
    stage.turn()
    stage.member.confirm(UnavailableError("no majority confirmed the leader in time"))
    stage.turn()
    assert not stage.member.points, "not at once"
    stage.wait(0.1)
    stage.member.confirm()
    assert outcomes == [ONE]


def test_one_that_is_never_confirmed_is_given_up() -> None:
    stage = stage_with_key()
    own, patient = stage.read(deadline=stage.now + 2), stage.read()
    for _ in range(8):
        stage.wait(1)
        stage.member.confirm(UnavailableError("no majority confirmed the leader in time"))
    assert reasons(own) == [Reason.DEADLINE]
    assert reasons(patient) == [Reason.TIMED_OUT]
    stage.wait(1)
    assert not stage.member.points, "nobody waits any more"


def test_a_read_point_alone() -> None:
    stage = Stage(leader=3)
    told: list[Any] = []
    stage.service.read_point(None, told.append)
    stage.turn()
    assert not told
    stage.member.confirm()
    assert told == [None]


def test_a_transaction_that_only_reads() -> None:
    stage = stage_with_key()
    outcomes = stage.read(Txn(success=(Range(b"k"),)))
    stage.turn()
    stage.member.confirm()
    assert outcomes == [TxnAnswer(1, True, (ONE,))]


def test_ranges_and_cold_keys_are_read_beside_the_loop() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    ranges = stage.read(ALL, serializable=True)
    stage.member.machine.is_cold = True
    key = stage.read(serializable=True)
    stage.turn()
    assert (ranges, key) == ([], [])
    work.do()
    assert (ranges, key) == ([ONE], [ONE])


def test_ranges_that_take_long_hold_up_no_keys() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    stage.member.machine.is_cold = True
    for _ in range(20):
        stage.read(ALL, serializable=True)
    key = stage.read(serializable=True)
    stage.turn()
    for kind, job, then in work.jobs:
        if kind == "key":
            job()
            then()
    assert key == [ONE]


def test_jobs_are_bounded_and_each_takes_its_share() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    stage.member.machine.is_cold = True
    outcomes = [stage.read(serializable=True) for _ in range(100)]
    stage.turn()
    assert len(work.jobs) == COLD_JOBS_MAX
    while work.jobs:
        work.do()
    assert outcomes == [[ONE]] * 100


def test_a_job_holds_few_large_answers() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    answers: list[bytes] = []
    rendered: list[bytes] = []

    def render(answer: Any) -> bytes:
        rendered.append(bytes(JOB_BYTES_MAX // 2 + 1))
        return rendered[-1]

    for _ in range(40):
        stage.service.read(ALL, False, None, answers.append, render)
    stage.turn()
    stage.member.confirm()
    begun = [(job, then) for _, job, then in work.jobs]
    work.jobs.clear()
    for job, _ in begun:
        before = len(rendered)
        job()
        assert len(rendered) <= before + 2
    # Meanwhile another member takes the calls: its point has yet to be reached.
    stage.found = other = Member(stage, 2, 2)
    other.machine.keys[b"k"] = KV
    stage.service.tick()
    for _, then in begun:
        then()
    assert answers == rendered
    assert not work.jobs
    while len(answers) < 40:
        stage.wait(0.1)
        other.confirm()
        work.do()
    assert len(rendered) == 40


def test_a_read_that_the_disk_does_not_answer_is_told_to_the_member() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    stage.member.machine.is_cold = True
    stage.read(ALL, serializable=True)
    stage.read(serializable=True)
    stage.wait(1)
    assert stage.member.ages[-1] >= 8
    work.do()
    stage.wait(0.1)
    assert stage.member.ages[-1] == 0


def test_that_a_range_takes_long_says_nothing_of_the_disk() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    stage.read(ALL, serializable=True)
    stage.wait(1)
    assert not any(stage.member.ages)


def test_what_the_caller_makes_of_an_answer_is_made_where_it_was_read() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    made: list[str] = []
    outcomes: list[Any] = []

    def render(answer: RangeAnswer | TxnAnswer) -> str:
        made.append("once")
        return "rendered"

    stage.service.read(ALL, True, None, outcomes.append, render)
    stage.turn()
    assert not made
    work.jobs[0][1]()
    assert made == ["once"]
    work.jobs[0][2]()
    assert outcomes == ["rendered"]


@pytest.mark.parametrize(
    ("error", "kind"), [(StorageError("bad"), StorageError), (ValueError("oh"), InternalError)]
)
def test_what_reading_raises_is_told(error: Any, kind: type[Exception]) -> None:
    stage = stage_with_key()
    stage.member.machine.error = error
    for operation in (Range(b"k"), ALL):
        outcomes = stage.read(operation, serializable=True)
        stage.turn()
        assert isinstance(outcomes[0], kind)


@pytest.mark.parametrize("serializable", [False, True])
def test_a_read_that_meets_damage_that_others_dont_have_waits_for_the_repair(
    serializable: bool,
) -> None:
    stage = stage_with_key()
    member = stage.member
    member.told_of_reads = UnavailableError("damaged")
    member.machine.error = CorruptionError("bad", code=IntegrityCode.CHECKSUM_MISMATCH)
    outcomes = stage.read(ALL, serializable=serializable)
    stage.turn()
    if not serializable:
        member.confirm()
    stage.wait(1)
    assert outcomes == []
    member.machine.error = None
    member.confirm()
    stage.wait(0.2)
    assert outcomes == [ONE]


@pytest.mark.parametrize("operation", [Range(b"k"), ALL, Txn((), (Range(b"k"),), ())])
def test_from_a_state_that_is_known_to_be_damaged_nobody_is_answered(operation: Any) -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    begun = stage.read(ALL, serializable=True)
    stage.turn()
    member = stage.member
    member.state_is_damaged = True
    outcomes = stage.read(operation, serializable=True)
    for _ in range(3):
        stage.turn()
        stage.wait(0.1)
        work.do()
    assert (begun, outcomes) == ([], [])
    member.machine = Machine()
    member.machine.keys[b"k"] = right = KV._replace(value=b"right")
    member.state_is_damaged = False
    for _ in range(3):
        stage.wait(0.1)
        stage.turn()
        work.do()
    assert begun == [RangeAnswer(1, (right,), False, 1)]
    assert len(outcomes) == 1
    assert "right" in repr(outcomes)


def test_what_waits_for_a_damaged_state_has_its_time_all_the_same() -> None:
    stage = stage_with_key()
    stage.member.state_is_damaged = True
    outcomes = stage.read(serializable=True)
    for _ in range(200):
        stage.wait(0.1)
    assert reasons(outcomes) == [Reason.TIMED_OUT]


def test_while_its_state_is_repaired_a_member_that_starts_is_read_by_nobody() -> None:
    stage = stage_with_key(replayed=False, leader=0)
    stage.member.repair = "made anew"
    waits = stage.read(serializable=True)
    stage.wait(2 * stage.service.patience_s)
    assert reasons(waits) == [Reason.TIMED_OUT]
    stage.member.repair = ""
    again = stage.read(serializable=True)
    stage.wait(0.2)
    assert again == [ONE]


def test_a_state_that_a_snapshot_replaces_is_read_anew() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    outcomes = stage.read(ALL, serializable=True)
    stage.turn()
    stage.member.machine.error = ClosedError("closed")
    after = Machine()
    after.keys[b"k"] = KV
    stage.member.machine = after
    work.do()
    work.do()
    stage.turn()
    assert outcomes == [ONE]


def test_a_state_that_is_closed_for_good_answers_nobody() -> None:
    stage = stage_with_key()
    stage.member.machine.error = ClosedError("closed")
    outcomes = stage.read(serializable=True)
    stage.turn()
    assert reasons(outcomes) == [Reason.STOPPED]


def test_beyond_the_bound_there_are_too_many_requests() -> None:
    stage = stage_with_key(limits=EtcdLimits(waiting_max=2))
    outcomes = [stage.read() for _ in range(3)]
    assert reasons(outcomes[2]) == [Reason.TOO_MANY_REQUESTS]
    stage.turn()
    stage.member.confirm()
    assert outcomes[:2] == [[ONE], [ONE]]
    again = stage.read()
    stage.turn()
    stage.member.confirm()
    assert again == [ONE]


def test_another_local_member_needs_a_point_of_its_own() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    stage.member.machine.is_cold = True
    confirmed = [stage.read() for _ in range(COLD_JOBS_MAX + 1)]
    stage.turn()
    stage.member.confirm()
    waiting = stage.read()
    stage.turn()
    former, stage.member = stage.member, Member(stage, 2, 2)
    stage.found = stage.member
    stage.wait(0.1)
    # The last one had found no job: what it may read now is the other member's state.
    assert confirmed[-1] == []
    former.confirm()
    assert waiting == [], "the point of another member's"
    stage.wait(0.1)
    stage.member.machine.keys[b"k"] = KV
    stage.member.confirm()
    work.do()
    work.do()
    assert confirmed[-1] == [ONE]
    assert waiting == [ONE]


def test_another_local_member_is_followed_once_it_has_what_was_told_of() -> None:
    stage = Stage()
    stage.member.machine.revision = 7
    stage.found = other = Member(stage, 2, leader=2)
    other.machine.revision = 6
    stage.service.tick()
    assert stage.service.header().revision == 7
    other.machine.revision = 7
    stage.service.tick()
    assert stage.service.member is other


def test_at_the_end_nobody_is_left_waiting() -> None:
    stage = stage_with_key()
    outcomes = stage.read()
    stage.service.close()
    assert reasons(outcomes) == [Reason.STOPPED]


def test_hashes_and_room_are_a_job_each_at_a_time() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    hashes: list[Any] = []
    done: list[Any] = []
    stage.service.hash_kv(0, hashes.append)
    stage.service.hash_kv(1, hashes.append)
    stage.service.reclaim(done.append)
    assert [kind for kind, _, _ in work.jobs] == ["hash", "reclaim"]
    work.do()
    work.do()
    assert [one.hash_revision for one in hashes] == [1, 1]
    assert done == [None]
    assert stage.member.machine.reclaimed == 1


def test_nobody_is_told_the_hash_of_a_state_that_is_damaged() -> None:
    """Before it begins, and where it becomes known meanwhile."""
    work = LaterWork()
    stage = stage_with_key(work=work)
    hashes: list[Any] = []
    stage.service.hash_kv(0, hashes.append)
    stage.member.state_is_damaged = True
    stage.service.hash_kv(0, hashes.append)
    assert reasons(hashes) == [Reason.CORRUPT]
    work.do()
    assert reasons(hashes) == [Reason.CORRUPT] * 2
    stage.member.state_is_damaged = False
    stage.service.hash_kv(0, hashes.append)
    work.do()
    assert hashes[2].hash_revision == 1


def test_lists_are_made_by_a_worker_one_at_a_time_and_so_many_wait() -> None:
    work = LaterWork()
    stage = stage_with_key(work=work)
    told: list[Any] = []
    for number in range(UPKEEP_WAITING_MAX + 2):
        stage.service.listing(lambda number=number: number, told.append)
    assert [kind for kind, _, _ in work.jobs] == ["listing"]
    assert reasons(told) == [Reason.TOO_MANY_REQUESTS]
    for _ in range(UPKEEP_WAITING_MAX + 1):
        work.do()
    assert told[1:] == [*range(UPKEEP_WAITING_MAX + 1)]


@pytest.mark.parametrize("leader", [1, 3])
def test_keys_that_are_read_together_wait_for_one_point(leader: int) -> None:
    stage = stage_with_key(leader=leader)
    told: list[Any] = []
    stage.service.read_keys([b"k", b"absent"], told.append)
    stage.turn()
    assert (len(stage.member.points), told) == (1, [])
    stage.member.confirm()
    assert told == [[ONE, RangeAnswer(1, (), False, 0)]]


def test_keys_of_which_memory_knows_nothing_are_for_others_to_read() -> None:
    stage = stage_with_key()
    told: list[Any] = []
    stage.member.machine.is_cold = True
    stage.service.read_keys([b"k"], told.append)
    stage.turn()
    stage.member.confirm()
    stage.member.machine.is_cold = False
    stage.member.machine.error = ClosedError("closed")
    stage.service.read_keys([b"k", b"l"], told.append)
    stage.turn()
    stage.member.confirm()
    assert told == [[None], [None, None]]


def test_keys_whose_point_is_never_reached_are_given_up() -> None:
    stage = stage_with_key()
    told: list[Any] = []
    stage.service.read_keys([b"k"], told.append)
    for _ in range(8):
        stage.wait(1)
        stage.member.confirm(UnavailableError("no majority confirmed the leader in time"))
    assert reasons(told) == [Reason.TIMED_OUT]


# --- after a start -------------------------------------------------------------------------------


def test_a_member_that_started_is_not_read_before_it_holds_what_it_held() -> None:
    """Its tables may be old: what was acknowledged, and read, before it was stopped is in its log,
    of which only the leader knows how far it counts."""
    stage = stage_with_key(replayed=False, leader=3)
    read, waiting = stage.read(serializable=True), stage.put()
    stage.wait(1)
    assert (read, waiting) == ([], [])
    assert stage.service.header().revision == 0
    assert len(stage.member.points) == 1
    stage.member.confirm(UnavailableError("no leader"))
    stage.wait(0.2)
    assert read == []
    stage.member.confirm()
    stage.wait(0.2)
    assert read == [ONE]
    assert stage.service.header().revision == 1


def test_without_a_leader_what_its_own_disk_says_has_to_do() -> None:
    stage = stage_with_key(replayed=False, leader=0)
    stage.member.applied = 3
    late = stage.read(serializable=True)
    stage.wait(stage.service.patience_s + 0.5)
    assert reasons(late) == [Reason.TIMED_OUT]
    again = stage.read(serializable=True)
    stage.wait(1)
    assert again == [], "it still replays what it knows to be committed"
    stage.member.applied = 7
    stage.wait(0.2)
    assert again == [ONE]


def test_a_member_that_knows_users_answers_nobody_before_it_knows_the_last_of_them() -> None:
    stage = stage_with_key(replayed=False, leader=0)
    stage.member.applied = 7
    stage.member.machine.auth = users_of({})
    # Of the last entry its disk doesn't know that it is committed.
    stage.member.last_index = 8
    late = stage.read(serializable=True)
    stage.wait(2 * stage.service.patience_s)
    assert reasons(late) == [Reason.TIMED_OUT]
    again = stage.read(serializable=True)
    stage.member.confirm()
    stage.wait(0.2)
    assert again == [ONE]


def test_an_answer_for_a_member_that_was_replaced_meanwhile_says_nothing_of_the_other() -> None:
    stage = stage_with_key(replayed=False)
    first = stage.member
    stage.found = other = Member(stage, 2, 2)
    read = stage.read(serializable=True)
    stage.wait(0.2)
    first.confirm()
    stage.wait(0.2)
    assert read == []
    other.confirm()
    stage.wait(0.2)
    assert read[0].count == 0
