"""The ledger takes what a linearizable store could say, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from kvstore.errors import InternalError, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.raft import Entry, EntryKind
from kvstore.service.etcd.lessor import TimeToLive
from kvstore.state.mvcc.answers import KeyValue, PutAnswer, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import (
    Compact,
    Compare,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    Range,
    Txn,
)
from tests.simulator.agenda import SECOND, Agenda
from tests.simulator.ledger import Ledger
from tests.simulator.oracle import Model
from tests.simulator.trace import Violation

KEY = b"k"
TERM = 3


@dataclass
class Story:
    """Operations get into the log here, and what comes of them is told by hand."""

    agenda: Agenda = field(default_factory=Agenda)
    model: Model = field(default_factory=Model)
    ledger: Ledger = field(init=False)
    made: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.agenda, self.model, 2.0)
        self.commit(EnableModel())

    def commit(self, operation: Operation) -> tuple[bytes, Any]:
        """The next entry of the log: its proposal's id, and what it comes to."""
        self.made += 1
        made = self.made.to_bytes(16, "big")
        data = encode_operations([Proposal(made, operation)])
        self.model.apply(Entry(TERM, self.model.index + 1, EntryKind.COMMAND, data))
        return made, self.model.operated[made].answer

    def write(self, operation: Operation) -> Any:
        """One that is answered as it should be."""
        asked = self.ledger.asks()
        made, answer = self.commit(operation)
        self.ledger.wrote(asked, operation, made, answer)
        return answer

    def read(self, answer: RangeAnswer, *, serializable: bool = False, applied: int = 0) -> None:
        self.ledger.read(self.ledger.asks(), Range(KEY), serializable, applied, answer)

    def wait(self, seconds: float) -> None:
        self.agenda.now += int(seconds * SECOND)


@pytest.fixture
def story() -> Story:
    return Story()


def holding(revision: int, *kvs: KeyValue) -> RangeAnswer:
    return RangeAnswer(revision, kvs, False, len(kvs))


# --- writes --------------------------------------------------------------------------------------


def test_what_the_log_says_is_taken(story: Story) -> None:
    assert story.write(Put(KEY, b"1")) == PutAnswer(2)
    txn = Txn((Compare(KEY, 2, 0, 2),), (Put(KEY, b"2"), Range(KEY)))
    assert story.write(txn).succeeded
    story.read(holding(3, KeyValue(KEY, 2, 3, 2, b"2", 0)))
    story.ledger.check_refused()


def test_an_answer_of_what_is_not_committed_is_refused(story: Story) -> None:
    with pytest.raises(Violation, match="isn't committed"):
        story.ledger.wrote(story.ledger.asks(), Put(KEY), b"never made", PutAnswer(2))


def test_another_answer_than_the_logs_is_refused(story: Story) -> None:
    asked = story.ledger.asks()
    txn = Txn((Compare(KEY, 2, 0, 7),), (Put(KEY),))
    made, answer = story.commit(txn)
    assert not answer.succeeded
    with pytest.raises(Violation, match="expected"):
        story.ledger.wrote(asked, txn, made, TxnAnswer(2, True, (PutAnswer(2),)))


def test_a_write_before_what_was_answered_when_it_was_asked_for_is_refused(story: Story) -> None:
    early, answer = story.commit(Put(KEY, b"1"))
    story.write(Put(KEY, b"2"))
    with pytest.raises(Violation, match="place"):
        story.ledger.wrote(story.ledger.asks(), Put(KEY, b"1"), early, answer)


def test_writes_under_way_together_may_come_in_any_order(story: Story) -> None:
    asked = story.ledger.asks()
    first, one = story.commit(Put(KEY, b"1"))
    second, other = story.commit(Put(KEY, b"2"))
    story.ledger.wrote(asked, Put(KEY, b"2"), second, other)
    story.ledger.wrote(asked, Put(KEY, b"1"), first, one)


@pytest.mark.parametrize("reason", [Reason.TIMED_OUT, Reason.DEADLINE, Reason.STOPPED])
def test_of_a_write_of_unknown_outcome_both_is_right(story: Story, reason: Reason) -> None:
    made, _ = story.commit(Put(KEY))
    for proposal_id in (made, b"never made"):
        story.ledger.wrote(story.ledger.asks(), Put(KEY), proposal_id, EtcdError(reason))
    story.ledger.check_refused()


def test_what_is_done_though_it_was_refused_is_found(story: Story) -> None:
    made = (story.made + 1).to_bytes(16, "big")
    error = EtcdError(Reason.TOO_MANY_REQUESTS)
    story.ledger.wrote(story.ledger.asks(), Put(KEY), made, error)
    story.ledger.check_refused()
    story.commit(Put(KEY))
    with pytest.raises(Violation, match="was refused, and done"):
        story.ledger.check_refused()


def test_an_error_that_the_log_does_not_say_is_refused(story: Story) -> None:
    made, _ = story.commit(Put(KEY))
    with pytest.raises(Violation, match="expected"):
        story.ledger.wrote(story.ledger.asks(), Put(KEY), made, EtcdError(Reason.LEASE_NOT_FOUND))


def test_what_is_refused_by_its_looks_has_to_look_so(story: Story) -> None:
    twice = Txn(success=(Put(KEY), Put(KEY)))
    story.ledger.wrote(story.ledger.asks(), twice, b"", EtcdError(Reason.DUPLICATE_KEY))
    with pytest.raises(Violation, match="looks"):
        story.ledger.wrote(story.ledger.asks(), Put(KEY), b"", EtcdError(Reason.DUPLICATE_KEY))


def test_an_error_of_no_api_is_refused(story: Story) -> None:
    with pytest.raises(Violation):
        story.ledger.wrote(story.ledger.asks(), Put(KEY), b"", UnavailableError("why?"))


# --- reads ---------------------------------------------------------------------------------------


def test_a_stale_read_is_refused_unless_it_may_be_stale(story: Story) -> None:
    story.write(Put(KEY, b"1"))
    story.read(holding(1), serializable=True)
    with pytest.raises(Violation, match="stale"):
        story.read(holding(1))


def test_what_one_has_read_is_before_what_others_ask_for_later(story: Story) -> None:
    story.commit(Put(KEY, b"1"))
    story.read(holding(1))
    story.read(holding(2, KeyValue(KEY, 2, 2, 1, b"1", 0)))
    with pytest.raises(Violation, match="stale"):
        story.read(holding(1))


def test_a_member_never_reads_what_it_had_before_the_call(story: Story) -> None:
    story.commit(Put(KEY, b"1"))
    with pytest.raises(Violation, match="that had 2"):
        story.read(holding(1), serializable=True, applied=2)


def test_a_read_of_what_nobody_committed_is_refused(story: Story) -> None:
    with pytest.raises(Violation, match="only 1 is committed"):
        story.read(holding(2, KeyValue(KEY, 2, 2, 1, b"1", 0)))


def test_a_read_of_anything_else_is_refused(story: Story) -> None:
    story.write(Put(KEY, b"1"))
    with pytest.raises(Violation, match="expected"):
        story.read(holding(2, KeyValue(KEY, 2, 2, 2, b"1", 0)))


def test_the_past_is_read_as_it_was_unless_it_is_compacted(story: Story) -> None:
    for value in (b"1", b"2"):
        story.write(Put(KEY, value))
    ledger, past = story.ledger, Range(KEY, revision=2)
    told = holding(3, KeyValue(KEY, 2, 2, 1, b"1", 0))
    ledger.read(ledger.asks(), past, False, 0, told)
    with pytest.raises(Violation, match="compacted to -1"):
        ledger.read_refused(ledger.asks(), past, False, EtcdError(Reason.COMPACTED))
    early = ledger.asks()
    story.write(Compact(3))
    # Under way together: either is right.
    ledger.read(early, past, False, 0, told)
    ledger.read_refused(early, past, False, EtcdError(Reason.COMPACTED))
    # A member that lags may know nothing of it.
    ledger.read(ledger.asks(), past, True, 0, told)
    with pytest.raises(Violation, match="compacted to 3"):
        ledger.read(ledger.asks(), past, False, 0, told)


def test_a_revision_that_was_told_of_is_no_future_one(story: Story) -> None:
    story.write(Put(KEY))
    ledger, future = story.ledger, EtcdError(Reason.FUTURE_REVISION)
    ledger.read_refused(ledger.asks(), Range(KEY, revision=3), False, future)
    # A member that lags may say so.
    ledger.read_refused(ledger.asks(), Range(KEY, revision=2), True, future)
    with pytest.raises(Violation):
        ledger.read_refused(ledger.asks(), Range(KEY, revision=2), False, future)


def test_a_read_that_finds_damage_says_to_ask_elsewhere(story: Story) -> None:
    ledger = story.ledger
    ledger.read_refused(ledger.asks(), Range(KEY), False, UnavailableError("damaged"))
    with pytest.raises(Violation, match="got"):
        ledger.read_refused(ledger.asks(), Range(KEY), False, InternalError("a defect"))


# --- leases --------------------------------------------------------------------------------------


def run_out(story: Story, id: int) -> None:
    birth = story.model.keyspace.leases[id][2]
    story.commit(LeaseRevoke(id, TERM, birth))


def test_a_lease_that_runs_out_in_its_time_is_right(story: Story) -> None:
    story.write(LeaseGrant(7, 4))
    story.wait(1)
    story.ledger.renewed(story.ledger.asks(), 7, 4)
    story.wait(2)  # four seconds of the fastest clock
    run_out(story, 7)
    assert story.ledger.expired == 1
    story.ledger.renewed(story.ledger.asks(), 7, 0)
    story.ledger.looked(story.ledger.asks(), 7, TimeToLive(-1, 0))


def test_a_lease_that_runs_out_before_its_time_is_found(story: Story) -> None:
    story.write(LeaseGrant(7, 4))
    story.wait(1.9)
    with pytest.raises(Violation, match="before its time"):
        run_out(story, 7)


def test_a_renewal_counts_from_when_it_was_sent(story: Story) -> None:
    story.write(LeaseGrant(7, 4))
    story.wait(1)
    asked = story.ledger.asks()
    story.wait(1.5)
    story.ledger.renewed(asked, 7, 4)
    story.wait(0.6)
    run_out(story, 7)


def test_a_renewal_that_is_told_after_the_end_it_should_have_put_off_is_found(
    story: Story,
) -> None:
    story.write(LeaseGrant(7, 4))
    story.wait(1.5)
    asked = story.ledger.asks()
    story.wait(1)
    run_out(story, 7)
    with pytest.raises(Violation, match="before its time"):
        story.ledger.renewed(asked, 7, 4)


def test_a_renewal_of_what_is_gone_is_found(story: Story) -> None:
    story.write(LeaseGrant(7, 4))
    story.write(LeaseRevoke(7))
    story.wait(1)
    with pytest.raises(Violation, match="renewal"):
        story.ledger.renewed(story.ledger.asks(), 7, 4)
    with pytest.raises(Violation, match="question"):
        story.ledger.looked(story.ledger.asks(), 7, TimeToLive(3, 4))


def test_a_lease_that_is_there_is_not_said_to_be_gone(story: Story) -> None:
    story.write(LeaseGrant(7, 4))
    story.wait(1)
    with pytest.raises(Violation, match="finds none"):
        story.ledger.renewed(story.ledger.asks(), 7, 0)
    with pytest.raises(Violation, match="finds none"):
        story.ledger.looked(story.ledger.asks(), 7, TimeToLive(-1, 0))


def test_a_lease_granted_while_its_renewal_is_under_way_may_be_there_or_not(story: Story) -> None:
    asked = story.ledger.asks()
    story.wait(1)
    story.write(LeaseGrant(7, 4))
    story.ledger.renewed(asked, 7, 0)
    story.ledger.renewed(asked, 7, 4)


def test_more_is_never_left_than_was_granted(story: Story) -> None:
    story.write(LeaseGrant(7, 4))
    with pytest.raises(Violation, match="has 5 s left"):
        story.ledger.looked(story.ledger.asks(), 7, TimeToLive(5, 4))


def test_an_operation_that_is_applied_twice_is_found(story: Story) -> None:
    story.commit(Put(KEY))
    story.made -= 1
    with pytest.raises(Violation, match="applied twice"):
        story.commit(Put(KEY))
