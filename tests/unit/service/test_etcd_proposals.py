"""Proposals of etcd's API: into the log once, by whoever leads, and back from the own apply."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from kvstore.errors import (
    CorruptionError,
    InvalidArgumentError,
    NotLeaderError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from kvstore.etcd_errors import Reason
from kvstore.service.etcd import EtcdLimits, Passed
from kvstore.state.mvcc.answers import PutAnswer
from kvstore.state.mvcc.operations import decode_operations, encode_proposal, join_proposals
from kvstore.state.mvcc.requests import Compact, EnableModel, Numbered, Proposal, Put, UserAdd
from tests.unit.service.etcd_stage import Stage, reasons


def proposed(stage: Stage) -> list[list[Any]]:
    """The operations of each entry in the log that isn't committed."""
    return [[each.operation for each in proposals] for proposals, _ in stage.member.log]


def passed(stage: Stage) -> list[Proposal]:
    return [
        proposal
        for _, encoded, _ in stage.passed
        for proposal in decode_operations(join_proposals(encoded))
    ]


def test_what_comes_in_a_turn_is_one_entry_and_is_answered_when_that_is_applied() -> None:
    stage = Stage()
    outcomes = [stage.put(b"a"), stage.put(b"b")]
    assert not stage.member.log
    stage.turn()
    assert proposed(stage) == [[Put(b"a", b"v"), Put(b"b", b"v")]]
    assert outcomes == [[], []]
    stage.member.commit()
    assert outcomes == [[PutAnswer(2)], [PutAnswer(3)]]
    assert stage.service.header() == (77, 1, 3, 1)


def test_what_comes_while_entries_are_under_way_makes_the_next_one() -> None:
    stage = Stage()
    for number in range(5):
        stage.put(b"%d" % number)
        stage.turn()
    assert [len(entry) for entry in proposed(stage)] == [1]
    stage.member.commit()
    stage.turn()
    assert [len(entry) for entry in proposed(stage)] == [4]


def test_an_entry_is_bounded_in_number_and_bytes() -> None:
    stage = Stage(limits=EtcdLimits(entry_operations_max=3, entry_bytes_max=1000))
    for number in range(4):
        stage.put(b"%d" % number)
    stage.put(b"4", bytes(900))
    stage.put(b"5", bytes(2000))
    sizes = []
    for _ in range(4):
        stage.turn()
        sizes.append([len(entry) for entry in proposed(stage)])
        stage.member.commit()
    assert [size for entry in sizes for size in entry] == [3, 2, 1]


def test_a_compaction_has_an_entry_for_itself() -> None:
    stage = Stage()
    outcomes: list[Any] = []
    stage.put(b"a")
    stage.service.propose(Compact(1), None, None, outcomes.append)
    stage.put(b"b")
    entries = []
    for _ in range(3):
        stage.turn()
        entries += proposed(stage)
        stage.member.commit()
    assert entries == [[Put(b"a", b"v")], [Compact(1)], [Put(b"b", b"v")]]
    assert len(outcomes) == 1


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (Put(b""), Reason.EMPTY_KEY),
        (Put(b"k", b"v", ignore_value=True), Reason.VALUE_PROVIDED),
        (Put(b"k", bytes(1_572_864)), Reason.REQUEST_TOO_LARGE),
    ],
)
def test_what_can_not_be_right_is_refused_at_once(put: Put, reason: Reason) -> None:
    stage = Stage()
    outcomes: list[Any] = []
    stage.service.propose(put, None, None, outcomes.append)
    assert reasons(outcomes) == [reason]
    stage.turn()
    assert not stage.member.log


@pytest.mark.parametrize("limits", [EtcdLimits(waiting_max=2), EtcdLimits(waiting_bytes_max=100)])
def test_beyond_the_bound_there_are_too_many_requests(limits: EtcdLimits) -> None:
    stage = Stage(limits=limits)
    outcomes = [stage.put(value=bytes(20)) for _ in range(3)]
    assert reasons(outcomes[2]) == [Reason.TOO_MANY_REQUESTS]
    stage.turn()
    stage.member.commit()
    assert [len(one) for one in outcomes] == [1, 1, 1]
    # There is room again.
    again = stage.put()
    stage.turn()
    stage.member.commit()
    assert isinstance(again[0], PutAnswer)


def test_ids_are_never_drawn_twice() -> None:
    stage = Stage()
    for _ in range(100):
        stage.put()
    stage.turn()
    ids = [proposal.id for proposals, _ in stage.member.log for proposal in proposals]
    assert len({*ids}) == 100
    # A lease's birth is the first half of one.
    assert len({unique[:8] for unique in ids}) == 100


# --- while there is no leader --------------------------------------------------------------------


def test_without_a_leader_it_waits_for_one_until_its_time_is_over() -> None:
    stage = Stage(leader=0)
    stage.member.has_quorum_contact = False
    first = stage.put()
    stage.wait(5)
    second = stage.put()
    stage.wait(2.5)
    assert reasons(first) == [Reason.TIMED_OUT]
    assert second == []
    stage.member.leader, stage.member.has_quorum_contact = 1, True
    stage.wait(0.1)
    assert len(stage.member.log) == 1, "the first isn't proposed any more"
    stage.member.commit()
    assert isinstance(second[0], PutAnswer)


def test_a_clients_own_deadline_is_told_as_such() -> None:
    stage = Stage(leader=0)
    outcomes = stage.put(deadline=stage.now + 1)
    patient = stage.put(deadline=stage.now + 100)
    stage.wait(1.3)
    assert reasons(outcomes) == [Reason.DEADLINE]
    stage.wait(7)
    assert reasons(patient) == [Reason.TIMED_OUT]


def test_what_the_leader_refuses_for_now_it_is_asked_again() -> None:
    stage = Stage()
    stage.member.refusal = UnavailableError("leadership is being handed to member 2")
    outcomes = stage.put()
    stage.turn()
    stage.member.refusal = None
    stage.wait(0.1)
    stage.member.commit()
    assert outcomes == [PutAnswer(2)]


def test_what_a_former_leader_refuses_goes_to_the_present_one() -> None:
    stage = Stage()
    stage.member.refusal = NotLeaderError(2)
    stage.put()
    stage.turn()
    stage.member.leader = 2
    stage.wait(0.1)
    assert [leader for leader, _, _ in stage.passed] == [2]


# --- by way of the leader ------------------------------------------------------------------------


def test_a_follower_passes_on_and_answers_from_its_own_apply() -> None:
    stage = Stage(leader=3)
    outcomes = [stage.put(b"a"), stage.put(b"b")]
    stage.turn()
    ((leader, encoded, done),) = stage.passed
    assert (leader, len(encoded)) == (3, 2)
    done(Passed.TAKEN)
    assert outcomes == [[], []]
    stage.member.apply(passed(stage))
    assert outcomes == [[PutAnswer(2)], [PutAnswer(3)]]


def test_it_may_be_applied_before_the_leader_says_that_it_took_it() -> None:
    stage = Stage(leader=3)
    outcomes = stage.put()
    stage.turn()
    stage.member.apply(passed(stage))
    stage.passed[0][2](Passed.TAKEN)
    assert outcomes == [PutAnswer(2)]


def test_what_was_refused_for_certain_goes_again_and_what_was_lost_does_not() -> None:
    stage = Stage(leader=3)
    refused = stage.put(b"a")
    stage.turn()
    stage.passed.pop()[2](Passed.REFUSED)
    stage.wait(0.1)
    assert [each.operation for each in passed(stage)] == [Put(b"a", b"v")]
    stage.passed.pop()[2](Passed.LOST)
    stage.wait(3)
    assert not stage.passed
    assert refused == []
    stage.wait(4)
    assert reasons(refused) == [Reason.TIMED_OUT_CONNECTION_LOST]


def test_what_is_not_applied_before_an_entry_of_a_later_term_is_proposed_anew() -> None:
    stage = Stage(leader=3)
    lost, applied = stage.put(b"a"), stage.put(b"b")
    stage.turn()
    first, second = passed(stage)
    stage.passed.pop()[2](Passed.LOST)
    stage.member.leader, stage.member.term = 2, 2
    stage.wait(1)
    assert not stage.passed, "it may be applied yet"
    stage.member.apply([second], term=1)
    stage.member.apply([], term=2)
    stage.turn()
    assert passed(stage) == [first]
    stage.member.apply([first])
    assert (lost, applied) == ([PutAnswer(3)], [PutAnswer(2)])


def test_words_that_come_late_change_nothing() -> None:
    stage = Stage(leader=3)
    outcomes = stage.put(b"a")
    stage.turn()
    late = stage.passed.pop()[2]
    stage.member.leader, stage.member.term = 2, 2
    stage.member.apply([], term=2)
    stage.turn()
    assert len(stage.passed) == 1
    late(Passed.REFUSED)
    stage.wait(1)
    assert len(stage.passed) == 1, "it is under way again already"
    stage.member.apply(passed(stage))
    stage.member.leader, stage.member.term = 1, 3
    stage.member.apply([], term=3)
    stage.wait(1)
    assert not stage.member.log
    assert outcomes == [PutAnswer(2)]


def test_after_a_snapshot_nobody_knows_what_was_applied_in_it() -> None:
    stage = Stage(leader=3)
    under_way = stage.put(b"a")
    stage.turn()
    waiting = stage.put(b"b")
    stage.install()
    assert reasons(under_way) == [Reason.TIMED_OUT_APPLYING]
    assert waiting == []


def test_a_leader_that_lost_its_reign_waits_for_what_its_log_may_hold() -> None:
    stage = Stage()
    outcomes = stage.put()
    stage.turn()
    ((proposals, done),) = stage.member.log
    done(OutcomeUnknownError("leadership was lost"))
    stage.member.leader, stage.member.term = 2, 2
    stage.wait(1)
    assert outcomes == []
    stage.member.apply(proposals, term=1)
    assert outcomes == [PutAnswer(2)]


def test_what_was_overwritten_in_a_former_leaders_log_goes_to_the_present_one() -> None:
    stage = Stage()
    outcomes = stage.put()
    stage.turn()
    stage.member.log.pop()[1](OutcomeUnknownError("leadership was lost"))
    stage.member.leader, stage.member.term = 2, 2
    stage.member.apply([], term=2)
    stage.turn()
    assert [leader for leader, _, _ in stage.passed] == [2]
    stage.member.apply(passed(stage))
    assert outcomes == [PutAnswer(2)]


def test_what_is_for_the_leader_alone_is_passed_on_to_nobody() -> None:
    stage = Stage(leader=3)
    outcomes: list[Any] = []
    stage.service.propose_here(Put(b"k"), outcomes.append)
    stage.turn()
    assert reasons(outcomes) == [Reason.NOT_LEADER]
    assert not stage.passed
    stage.member.leader = 1
    stage.service.propose_here(Put(b"k"), outcomes.append)
    stage.turn()
    stage.member.commit()
    assert outcomes[1:] == [PutAnswer(2)]


# --- for other members ---------------------------------------------------------------------------


def foreign(*keys: bytes) -> list[bytes]:
    return [encode_proposal(Proposal(key * 16, Put(key))) for key in keys]


def test_a_leader_proposes_what_others_pass_on_with_what_it_has() -> None:
    stage = Stage()
    told: list[Passed] = []
    stage.put(b"own")
    stage.service.take(1, foreign(b"a", b"b"), told.append)
    stage.turn()
    assert proposed(stage) == [[Put(b"own", b"v"), Put(b"a"), Put(b"b")]]
    assert told == [Passed.TAKEN]
    stage.member.commit()


@pytest.mark.parametrize("leader", [0, 2])
def test_who_does_not_lead_refuses_what_others_pass_on(leader: int) -> None:
    stage = Stage(leader=leader)
    told: list[Passed] = []
    stage.service.take(1, foreign(b"a"), told.append)
    stage.turn()
    assert told == [Passed.REFUSED]
    assert not stage.passed


def test_who_leads_in_another_term_refuses_what_others_pass_on() -> None:
    stage = Stage()
    told: list[Passed] = []
    stage.service.take(2, foreign(b"a"), told.append)
    stage.service.take(1, foreign(b"b"), told.append)
    stage.member.term = 3
    stage.turn()
    assert told == [Passed.REFUSED] * 2
    assert not stage.member.log


def test_who_leads_no_more_before_it_could_propose_says_so() -> None:
    stage = Stage()
    told: list[Passed] = []
    stage.member.refusal = NotLeaderError(2)
    stage.service.take(1, foreign(b"a"), told.append)
    stage.turn()
    stage.member.refusal = None
    stage.service.take(1, foreign(b"b"), told.append)
    stage.member.leader = 2
    stage.wait(0.1)
    assert told == [Passed.REFUSED] * 2
    assert not stage.passed


def test_what_no_member_sends_is_refused() -> None:
    stage = Stage()
    with pytest.raises(CorruptionError):
        stage.service.take(1, [b"nonsense"], lambda passed: None)


# --- ends ----------------------------------------------------------------------------------------


def test_a_member_that_failed_tells_all_who_wait() -> None:
    stage = Stage()
    outcomes = stage.put()
    stage.turn()
    stage.member.failure = StorageError("gone")
    stage.member.log[0][1](OutcomeUnknownError("this member's storage failed"))
    assert reasons(outcomes) == [Reason.STOPPED]


def test_what_the_core_can_not_take_is_too_large() -> None:
    stage = Stage()
    stage.member.refusal = InvalidArgumentError("a payload beyond proposal_bytes_max")
    outcomes = stage.put()
    stage.turn()
    assert reasons(outcomes) == [Reason.REQUEST_TOO_LARGE]


def test_at_the_end_nobody_is_left_waiting() -> None:
    stage = Stage(leader=3)
    outcomes = [stage.put()]
    stage.turn()
    outcomes.append(stage.put())
    stage.service.close()
    assert [reasons(one) for one in outcomes] == [[Reason.STOPPED], [Reason.STOPPED]]


def test_another_local_member_that_takes_over_ends_what_the_one_before_had_under_way() -> None:
    stage = Stage()
    under_way = stage.put(b"a")
    stage.turn()
    waiting = stage.put(b"b")
    first, second = stage.member, type(stage.member)(stage, 2, 2)
    stage.found = stage.member = second
    stage.wait(0.1)
    assert reasons(under_way) == [Reason.TIMED_OUT_LEADER_FAILED]
    # What the one before applies is nobody's business any more.
    first.commit()
    second.commit()
    assert waiting == [PutAnswer(2)]


# --- before keys have revisions ------------------------------------------------------------------


def test_calls_wait_until_the_leader_has_switched_the_model_on() -> None:
    stage = Stage(model=False)
    write, read = stage.put(), stage.read()
    stage.turn()
    # The one proposal is the model's.
    stage.member.commit()
    assert stage.service.model_enabled
    stage.turn()
    stage.member.commit()
    stage.member.confirm()
    assert write == [PutAnswer(2)]
    assert read[0].count == 1


def test_a_follower_leaves_it_to_the_leader() -> None:
    stage = Stage(model=False, leader=3)
    stage.wait(1)
    assert not stage.member.log
    assert not stage.passed


def test_where_a_member_is_too_old_the_cluster_is_not_capable() -> None:
    stage = Stage(model=False, leader=3)
    stage.known_level = 0
    early = stage.put()
    stage.wait(7.5)
    late = stage.put()
    assert reasons(early) == [Reason.NOT_CAPABLE]
    assert reasons(late) == [Reason.NOT_CAPABLE], "nobody is let wait for an operator"
    stage.member.leader = 1
    stage.wait(1)
    assert not stage.member.log


def test_what_only_some_members_know_is_left_off_until_all_do() -> None:
    stage = Stage(model=False, leader=3)
    stage.known_level = 1
    stage.member.leader = 1
    stage.wait(0.1)
    assert proposed(stage) == [[EnableModel()]]
    stage.member.commit()
    number = Numbered(bytes(16), 1, 1)
    assert reasons(stage.put(request=number)) == [Reason.NOT_CAPABLE]
    told: list[Any] = []
    stage.service.propose(UserAdd("root", b""), None, None, told.append)
    assert reasons(told) == [Reason.NOT_CAPABLE]
    assert not stage.service.numbers_requests
    stage.wait(1)
    assert not stage.member.log
    stage.known_level = 2
    stage.wait(0.1)
    stage.member.commit()
    assert stage.service.numbers_requests
    stage.put(request=number)
    stage.turn()
    assert stage.member.log[0][0][0].request == number


def test_switching_on_that_came_to_nothing_is_tried_again() -> None:
    stage = Stage(model=False)
    stage.member.log.pop()[1](OutcomeUnknownError("leadership was lost"))
    stage.member.apply([], term=2)
    stage.member.term = 2
    stage.wait(0.1)
    stage.member.commit()
    assert stage.service.model_enabled


def test_a_disk_that_stays_full_is_told_of_and_then_at_once() -> None:
    stage = Stage(limits=EtcdLimits(full_patience_s=2.0))
    stage.member.refusal = UnavailableError("this member's disk is full")
    stage.member.lacks_room = True
    first = stage.put()
    stage.wait(1.5)
    assert not first, "another member may take over"
    stage.wait(1.0)
    assert reasons(first) == [Reason.NO_SPACE]
    later = stage.put()
    stage.turn()
    assert reasons(later) == [Reason.NO_SPACE]
    stage.member.refusal = None
    stage.member.lacks_room = False
    served = stage.put()
    stage.wait(0.2)
    stage.member.commit()
    assert served == [PutAnswer(2)]
    # Full anew: others get their time once more.
    stage.member.refusal = UnavailableError("this member's disk is full")
    stage.member.lacks_room = True
    again = stage.put()
    stage.wait(1.5)
    assert not again


def test_what_others_passed_on_is_told_of_a_full_disk_as_well() -> None:
    stage = Stage(limits=EtcdLimits(full_patience_s=2.0))
    stage.member.refusal = UnavailableError("this member's disk is full")
    stage.member.lacks_room = True
    encoded = [encode_proposal(Proposal(bytes(16), Put(b"k", b"v")))]
    outcomes: list[Passed] = []
    stage.service.take(1, encoded, outcomes.append)
    stage.turn()
    assert outcomes == [Passed.REFUSED], "it comes again until that is certain"
    stage.wait(2.5)
    stage.service.take(1, encoded, outcomes.append)
    stage.turn()
    assert outcomes[1:] == [Passed.NO_ROOM]


def test_a_follower_tells_what_its_leader_has_no_room_for() -> None:
    stage = Stage(leader=2)
    outcomes = stage.put()
    stage.turn()
    ((_, _, done),) = stage.passed
    done(Passed.NO_ROOM)
    assert reasons(outcomes) == [Reason.NO_SPACE]


def test_a_proposal_that_comes_encoded_goes_the_way_of_all_others() -> None:
    stage = Stage()
    outcomes: list[Any] = []
    ids = [stage.service.new_id() for _ in range(2)]
    for id in ids:
        encoded = encode_proposal(Proposal(id, Put(b"k", b"v")))
        stage.service.propose_encoded(id, encoded, None, outcomes.append)
    other = stage.put(b"a")
    stage.turn()
    assert proposed(stage) == [[Put(b"k", b"v")] * 2 + [Put(b"a", b"v")]]
    assert len({*ids, stage.member.log[0][0][2].id}) == 3
    stage.member.commit()
    assert (outcomes, other) == ([PutAnswer(2), PutAnswer(3)], [PutAnswer(4)])


def test_a_proposal_that_comes_encoded_and_is_too_large_is_refused() -> None:
    stage = Stage()
    outcomes: list[Any] = []
    id = stage.service.new_id()
    encoded = encode_proposal(Proposal(id, Put(b"k", bytes(1_572_864))))
    stage.service.propose_encoded(id, encoded, None, outcomes.append)
    assert reasons(outcomes) == [Reason.REQUEST_TOO_LARGE]


def test_what_was_proposed_is_kept_no_longer_than_it_is_waited_for() -> None:
    stage = Stage()
    outcomes: list[Any] = []
    id = stage.service.new_id()
    encoded = encode_proposal(Proposal(id, Put(b"k", b"v")))
    held = sys.getrefcount(encoded)
    stage.service.propose_encoded(id, encoded, None, outcomes.append)
    stage.turn()
    # Its deadline is known from now on.
    stage.wait(0.1)
    assert sys.getrefcount(encoded) > held
    stage.member.commit()
    assert outcomes == [PutAnswer(2)]
    assert sys.getrefcount(encoded) == held
