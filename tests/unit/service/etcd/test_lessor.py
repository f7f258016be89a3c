"""What the lessor tells and proposes, step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from kvstore.errors import Error, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import lessor as lessor_module
from kvstore.service.etcd.lessor import ENDING, Lessor, TimeToLive, ttl_min_s
from kvstore.state.mvcc.answers import (
    Answer,
    LeaseCheckpointAnswer,
    LeaseGrantAnswer,
    LeaseRevokeAnswer,
)
from kvstore.state.mvcc.records import LeaseRecord
from kvstore.state.mvcc.requests import (
    FOR_EVER,
    AlarmKind,
    LeaseCheckpoint,
    LeaseRevoke,
    Operation,
)

Told = Callable[[Answer | Error], None]


class Member:
    """Leads term 1 from the start; reads are confirmed, and entries applied, when it is told."""

    def __init__(self) -> None:
        self.is_leader = True
        self.term = 1
        self.machine = self
        self.records: dict[int, LeaseRecord] = {}
        self.reads: list[Callable[[Error | None], None]] = []
        self.proposed: list[tuple[Operation, Told]] = []
        self.turn: list[Callable[[], None]] = []
        self.now = 100.0
        self.births = 0
        self.alarms: frozenset[tuple[int, int]] = frozenset()
        self.lessor = Lessor(
            lambda: self if self.is_leader else None,
            lambda operation, told: self.proposed.append((operation, told)),
            election_timeout_s=1.0,
            now=lambda: self.now,
            soon=self.turn.append,
        )

    def leases(self) -> dict[int, LeaseRecord]:
        return self.records

    def read(self, done: Callable[[Error | None], None]) -> None:
        self.reads.append(done)

    def grant(self, *ids: int, ttl: int = 10) -> None:
        for id in ids:
            self.births += 1
            self.records[id] = LeaseRecord(ttl, FOR_EVER, self.births)
            self.lessor.applied(self, [(b"", LeaseGrantAnswer(1, id, ttl))])

    def revoke(self, id: int) -> None:
        del self.records[id]
        self.lessor.applied(self, [(b"", LeaseRevokeAnswer(1, id))])

    def take_turn(self) -> None:
        turn, self.turn[:] = list(self.turn), []
        for call in turn:
            call()

    def confirm(self, refusal: Error | None = None) -> int:
        """Confirm all reads; how many they were."""
        self.take_turn()
        reads, self.reads = self.reads, []
        for done in reads:
            done(refusal)
        return len(reads)

    def reign(self) -> None:
        self.lessor.tick()
        self.confirm()

    def tick(self, seconds: float = 0.1) -> list[Operation]:
        """What is proposed in the tick after so much time."""
        before = len(self.proposed)
        self.now += seconds
        self.lessor.tick()
        return [operation for operation, _ in self.proposed[before:]]

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.tick()

    def apply_proposed(self) -> int:
        """Apply all that was proposed and wasn't yet; how many that were."""
        proposed, self.proposed = self.proposed, []
        for operation, told in proposed:
            if isinstance(operation, LeaseRevoke):
                self.revoke(operation.id)
                told(LeaseRevokeAnswer(1, operation.id))
            elif isinstance(operation, LeaseCheckpoint):
                for id, _, rest in operation.rests:
                    self.records[id] = self.records[id]._replace(rest=rest)
                told(LeaseCheckpointAnswer(1))
        return len(proposed)

    def renew(self, *ids: int) -> list[object]:
        """What is told of each; nothing before a round."""
        told: list[object] = [None] * len(ids)
        for place, id in enumerate(ids):
            self.lessor.renew(id, partial(told.__setitem__, place))
        return told

    def renewed(self, *ids: int) -> list[object]:
        """What is told of each after a round."""
        told = self.renew(*ids)
        self.confirm()
        return told


@pytest.fixture
def member() -> Member:
    """Its reign has begun."""
    member = Member()
    member.reign()
    return member


def reason_of(told: object) -> Reason:
    assert isinstance(told, EtcdError)
    return told.reason


def test_renewals_of_a_turn_share_one_confirmed_round(member: Member) -> None:
    member.grant(1, 2)
    told = member.renew(1, 2, 3)
    member.take_turn()
    assert told == [None, None, None]
    assert member.confirm() == 1
    assert told == [10, 10, 0]


def test_renewals_that_come_during_a_round_wait_for_the_next(member: Member) -> None:
    member.grant(1)
    first = member.renew(1)
    member.take_turn()
    second = member.renew(1)
    member.confirm()
    assert (first, second) == ([10], [None])
    assert member.confirm() == 1
    assert second == [10]


def test_renewal_is_refused_where_no_majority_confirms(member: Member) -> None:
    member.grant(1)
    told = member.renew(1)
    member.confirm(UnavailableError("no majority"))
    assert reason_of(told[0]) is Reason.NOT_PRIMARY_LESSOR


def test_renewal_is_refused_where_nobody_leads(member: Member) -> None:
    member.is_leader = False
    told = member.renew(1)
    member.take_turn()
    assert reason_of(told[0]) is Reason.NOT_PRIMARY_LESSOR


def test_confirmation_of_an_earlier_term_renews_nothing(member: Member) -> None:
    member.grant(1)
    told = member.renew(1)
    member.take_turn()
    member.term += 2
    member.confirm()
    assert reason_of(told[0]) is Reason.NOT_PRIMARY_LESSOR


def test_confirmation_that_took_too_long_promises_nothing_but_keeps_the_lease(
    member: Member,
) -> None:
    member.grant(1)
    told = member.renew(1)
    member.take_turn()
    member.run(1.2)
    member.confirm()
    assert reason_of(told[0]) is Reason.NOT_PRIMARY_LESSOR
    member.run(9.5)
    assert member.proposed == []


def test_too_many_renewals_at_one_time_are_refused(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessor_module, "GATHERED_MAX", 2)
    member.grant(1)
    told = member.renew(1, 1, 1)
    assert reason_of(told[2]) is Reason.TOO_MANY_REQUESTS
    member.confirm()
    assert told[:2] == [10, 10]


def test_a_round_is_for_a_bounded_number_of_renewals(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessor_module, "ROUND_MAX", 2)
    member.grant(1)
    told = member.renew(1, 1, 1)
    member.confirm()
    assert told == [10, 10, None]
    member.confirm()
    assert told == [10, 10, 10]


def test_lease_is_revoked_in_this_term_once_its_time_is_over(member: Member) -> None:
    member.grant(1)
    member.run(9.9)
    assert member.proposed == []
    assert member.tick(0.2) == [LeaseRevoke(1, 1, 1)]


def test_renewed_lease_lives_its_whole_ttl_again(member: Member) -> None:
    member.grant(1)
    member.run(6)
    member.renew(1)
    member.confirm()
    member.run(9.9)
    assert member.proposed == []
    assert member.tick(0.2) == [LeaseRevoke(1, 1, 1)]


def test_lease_that_has_run_out_is_never_renewed(member: Member) -> None:
    member.grant(1)
    member.run(9.9)
    member.now += 0.15
    assert member.renewed(1) == [ENDING]
    member.tick()
    assert member.renewed(1) == [ENDING]
    assert member.apply_proposed() == 1
    assert member.renewed(1) == [0]


def test_revocation_that_did_not_happen_is_tried_again(member: Member) -> None:
    member.grant(1)
    member.run(10.2)
    (_, told), *others = member.proposed
    assert others == []
    told(EtcdError(Reason.TIMED_OUT))
    assert len(member.proposed) == 1
    member.tick()
    assert [operation for operation, _ in member.proposed] == 2 * [LeaseRevoke(1, 1, 1)]


def test_lease_that_a_client_revokes_is_not_revoked_again(member: Member) -> None:
    member.grant(1)
    member.revoke(1)
    member.run(20)
    assert member.proposed == []


def test_id_that_is_granted_again_begins_anew(member: Member) -> None:
    member.grant(1)
    member.run(9)
    member.revoke(1)
    member.grant(1)
    member.run(9)
    assert member.proposed == []
    member.run(1.5)
    assert [operation for operation, _ in member.proposed] == [LeaseRevoke(1, 1, 2)]


def test_many_leases_that_run_out_together_go_in_order_at_a_bounded_rate(member: Member) -> None:
    member.grant(*range(1, 3001))
    member.run(10)
    in_flight_max = revoked = seconds = 0
    while member.records:
        before = len(member.records)
        for _ in range(10):
            member.tick()
            while member.proposed:
                in_flight_max = max(in_flight_max, len(member.proposed))
                member.apply_proposed()
        revoked = before - len(member.records)
        assert revoked <= 1100
        seconds += 1
    assert in_flight_max == 16
    assert 3 <= seconds <= 4
    assert member.lessor.figures.expired == 3000


def test_new_leader_gives_every_lease_its_ttl_and_an_election_timeout(member: Member) -> None:
    member.grant(1)
    member.run(9)
    member.is_leader = False
    member.tick()
    member.is_leader, member.term = True, 3
    member.reign()
    member.run(10.8)
    assert member.proposed == []
    assert member.tick(0.3) == [LeaseRevoke(1, 3, 1)]


def test_new_term_between_two_ticks_is_a_new_reign(member: Member) -> None:
    member.grant(1)
    member.run(9)
    member.term = 3
    member.reign()
    member.run(10.8)
    assert member.proposed == []
    assert member.tick(0.3) == [LeaseRevoke(1, 3, 1)]


def test_new_leader_goes_by_what_was_noted(member: Member) -> None:
    member.records[1] = LeaseRecord(3600, 400, 1)
    member.term = 3
    member.reign()
    member.run(400.5)
    assert member.proposed == []
    member.run(0.6)
    assert [operation for operation, _ in member.proposed] == [LeaseRevoke(1, 3, 1)]


def test_nothing_runs_out_before_the_reign_is_confirmed() -> None:
    member = Member()
    member.records[1] = LeaseRecord(2, FOR_EVER, 1)
    member.run(30)
    assert member.proposed == []
    member.confirm(UnavailableError("no majority"))
    member.run(30)
    assert member.proposed == []


def test_after_a_stall_nothing_is_revoked_before_a_majority_has_confirmed(member: Member) -> None:
    member.grant(1)
    assert member.tick(60.0) == []
    member.run(3)
    assert member.proposed == []
    member.confirm()
    assert member.tick() == [LeaseRevoke(1, 1, 1)]
    assert member.lessor.figures.stalls == 1


def test_after_a_stall_a_round_from_before_it_confirms_nothing(member: Member) -> None:
    member.grant(1)
    member.renew(1)
    member.take_turn()
    member.tick(60.0)
    member.confirm()
    member.run(3)
    assert member.proposed == []


def test_renewals_that_waited_out_a_stall_save_their_leases(member: Member) -> None:
    member.grant(1)
    member.now += 60.0
    told = member.renew(1)
    member.tick(0.0)
    member.confirm()
    assert told == [10]
    member.run(9.9)
    assert member.proposed == []


def test_process_that_is_always_late_still_ends_leases(member: Member) -> None:
    member.grant(1)
    proposed: list[Operation] = []
    for _ in range(30):
        proposed += member.tick(0.7)
        member.confirm()
    assert proposed == [LeaseRevoke(1, 1, 1)]


def test_time_to_live_is_what_is_left_in_whole_seconds(member: Member) -> None:
    member.grant(1)
    member.run(2.5)
    told: list[object] = []
    member.lessor.time_to_live(1, told.append)
    member.lessor.time_to_live(2, told.append)
    assert told == []
    member.confirm()
    assert told == [TimeToLive(7, 10), TimeToLive(-1, 0)]
    member.run(8)
    member.lessor.time_to_live(1, told.append)
    member.confirm()
    assert told[2] == TimeToLive(0, 10)


def test_time_to_live_after_a_change_of_leader_is_never_more_than_was_granted() -> None:
    member = Member()
    member.records[1] = LeaseRecord(10, FOR_EVER, 1)
    told: list[object] = []
    member.lessor.time_to_live(1, told.append)
    member.confirm()
    assert told == [TimeToLive(10, 10)]


def test_leases_are_listed_by_time_of_expiry(member: Member) -> None:
    member.grant(1, ttl=30)
    member.grant(2, ttl=10)
    member.grant(3, ttl=20)
    member.renew(2)
    by_expiry = member.lessor.by_expiry()
    assert by_expiry is not None
    assert by_expiry() == [2, 3, 1]
    member.is_leader = False
    assert member.lessor.by_expiry() is None


def test_lease_is_known_as_soon_as_it_is_applied(member: Member) -> None:
    """Though nobody has told of it yet."""
    member.records[1] = LeaseRecord(10, FOR_EVER, 1)
    told = member.renew(1)
    member.confirm()
    assert told == [10]
    del member.records[1]
    told = member.renew(1)
    member.confirm()
    assert told == [0]


def test_what_is_left_of_long_leases_is_noted_every_five_minutes(member: Member) -> None:
    member.grant(1, ttl=3600)
    member.grant(2, ttl=500)
    member.run(299)
    assert member.proposed == []
    member.run(2)
    (operation, _), *others = member.proposed
    assert others == []
    assert isinstance(operation, LeaseCheckpoint)
    ((id, birth, rest),) = operation.rests
    assert (id, birth) == (1, 1)
    # Rounded up: never less than what is left.
    assert 3300 <= rest <= 3301
    member.apply_proposed()
    member.revoke(2)
    member.run(300)
    ((operation, _),) = member.proposed
    assert isinstance(operation, LeaseCheckpoint)
    assert 3000 <= operation.rests[0][2] <= 3001


def test_lease_that_was_renewed_lately_is_not_noted(member: Member) -> None:
    member.grant(1, ttl=3600)
    member.run(270)
    member.renew(1)
    member.confirm()
    member.run(60)
    assert member.proposed == []


def test_note_is_taken_back_before_a_renewal_is_told(member: Member) -> None:
    member.grant(1, ttl=3600)
    member.run(301)
    member.apply_proposed()
    assert member.records[1].rest > 0
    told = member.renew(1)
    member.confirm()
    assert told == [None]
    assert [operation for operation, _ in member.proposed] == [
        LeaseCheckpoint(1, ((1, 1, FOR_EVER),))
    ]
    member.apply_proposed()
    assert told == [3600]
    # And that is enough for the next one.
    told = member.renew(1)
    member.confirm()
    assert told == [3600]


def test_note_under_way_is_taken_back_too(member: Member) -> None:
    member.grant(1, ttl=3600)
    member.run(301)
    told = member.renew(1)
    member.confirm()
    assert member.apply_proposed() == 1
    # Only now: what is under way together may get into the log in any order.
    assert told == [None]
    assert member.apply_proposed() == 1
    assert told == [3600]
    assert member.records[1].rest == FOR_EVER


def test_renewal_is_refused_if_the_note_may_still_stand(member: Member) -> None:
    member.grant(1, ttl=3600)
    member.run(301)
    member.apply_proposed()
    told = member.renew(1)
    member.confirm()
    ((_, outcome),) = member.proposed
    outcome(EtcdError(Reason.TIMED_OUT))
    assert reason_of(told[0]) is Reason.NOT_PRIMARY_LESSOR
    again = member.renew(1)
    member.confirm()
    assert again == [None]


def test_leases_that_come_and_go_leave_nothing_behind(member: Member) -> None:
    for id in range(20_000):
        member.grant(id + 1, ttl=10**9)
        member.revoke(id + 1)
    reign = member.lessor._reign
    assert reign is not None
    assert len(reign.deadlines._heap) <= 2048
    assert len(reign.deadlines) == 0


@pytest.mark.parametrize(("election_s", "least"), [(0.3, 2), (1.0, 2), (1.5, 3), (10.0, 15)])
def test_least_ttl_outlives_an_election(election_s: float, least: int) -> None:
    assert ttl_min_s(election_s) == least


def test_a_corrupt_cluster_is_not_asked_for_revocations_until_that_is_over(member: Member) -> None:
    member.grant(1, ttl=2)
    member.alarms = frozenset({(3, AlarmKind.CORRUPT)})
    member.run(5)
    assert not member.proposed
    assert member.renewed(1) == [ENDING]
    member.alarms = frozenset({(3, AlarmKind.NOSPACE)})
    member.tick()
    assert member.apply_proposed() == 1
    assert 1 not in member.records
