"""Pulses: signs of life of members whose loops are busy, and what they may not do."""

from __future__ import annotations

import pytest

from kvstore.errors import ConfigurationError, UnavailableError
from kvstore.raft import MessageKind, Options, Role

from .raft_cluster import Cluster, voters

ELECTION_TICKS = 10
PULSE_TICKS = 80
OPTIONS = Options(election_ticks=ELECTION_TICKS, pulse_ticks=PULSE_TICKS)


def led_by_one(*, options: Options = OPTIONS, learners: tuple[int, ...] = ()) -> Cluster:
    cluster = Cluster(voters(1, 2, 3, learners=learners), options=options)
    cluster.elect(1)
    return cluster


def tick(cluster: Cluster, member: int, count: int, *pulses: tuple[int, int]) -> int:
    """Tick one member alone, with these pulses before each tick; the ticks until its role or its
    leader changed, or ``count``."""
    core = cluster[member]
    was = core.role, core.leader
    for passed in range(count):
        for pulse in pulses:
            core.pulse(*pulse)
        core.tick()
        if (core.role, core.leader) != was:
            return passed + 1
    return count


def test_follower_of_a_busy_leader_does_not_campaign() -> None:
    cluster = led_by_one()
    assert tick(cluster, 2, PULSE_TICKS, (1, 2)) == PULSE_TICKS
    assert cluster[2].has_quorum_contact
    # Without them it does, a while later and not at once.
    assert ELECTION_TICKS <= tick(cluster, 2, 3 * ELECTION_TICKS) < 2 * ELECTION_TICKS


def test_leader_of_busy_followers_stays_and_steps_down_once_they_are_silent() -> None:
    cluster = led_by_one()
    assert tick(cluster, 1, PULSE_TICKS, (3, 2)) == PULSE_TICKS
    assert cluster[1].role is Role.LEADER
    # As it had heard 3 last in its last tick but one.
    assert tick(cluster, 1, 2 * ELECTION_TICKS) == ELECTION_TICKS - 1
    assert cluster[1].role is Role.FOLLOWER


def test_one_that_is_only_felt_counts_for_pulse_ticks() -> None:
    cluster = led_by_one()
    lasted = tick(cluster, 2, 10 * PULSE_TICKS, (1, 2))
    assert PULSE_TICKS + ELECTION_TICKS <= lasted < PULSE_TICKS + 2 * ELECTION_TICKS
    lasted = tick(cluster, 1, 10 * PULSE_TICKS, (2, 2), (3, 2))
    assert lasted == PULSE_TICKS + ELECTION_TICKS


def test_a_message_lets_pulses_count_again() -> None:
    cluster = led_by_one()
    tick(cluster, 2, PULSE_TICKS, (1, 2))
    cluster.tick(2)
    assert tick(cluster, 2, PULSE_TICKS, (1, 2)) == PULSE_TICKS
    assert tick(cluster, 1, PULSE_TICKS, (2, 2)) == PULSE_TICKS


@pytest.mark.parametrize(
    "pulse", [(1, 1), (1, 3), (3, 2), (2, 2), (0, 2), (9, 2)], ids=lambda pulse: str(pulse)
)
def test_pulse_of_another_member_or_term_is_nothing_to_a_follower(pulse: tuple[int, int]) -> None:
    cluster = led_by_one()
    assert tick(cluster, 2, 5 * ELECTION_TICKS, pulse) < 2 * ELECTION_TICKS
    assert cluster[2].term == 2


@pytest.mark.parametrize("pulse", [(2, 1), (2, 3), (4, 2), (1, 2), (9, 2)], ids=lambda p: str(p))
def test_pulse_of_a_stranger_learner_or_other_term_does_not_keep_a_leader(
    pulse: tuple[int, int],
) -> None:
    cluster = led_by_one(learners=(4,))
    assert tick(cluster, 1, 5 * ELECTION_TICKS, pulse) <= ELECTION_TICKS


def test_a_follower_that_knows_no_leader_is_not_held_back() -> None:
    cluster = Cluster(voters(1, 2, 3), options=OPTIONS)
    assert tick(cluster, 2, 5 * ELECTION_TICKS, (1, 1), (0, 1), (2, 1)) < 2 * ELECTION_TICKS
    assert cluster[2].role is Role.PRE_CANDIDATE


def test_votes_wait_while_a_leader_is_felt_and_not_longer() -> None:
    cluster = led_by_one()
    tick(cluster, 2, 3 * ELECTION_TICKS, (1, 2))
    tick(cluster, 3, 3 * ELECTION_TICKS)
    cluster.isolate(1)
    cluster.settle()
    assert cluster[3].role is Role.PRE_CANDIDATE, "2 still feels its leader"
    cluster.tick(6 * ELECTION_TICKS)
    assert cluster.leader in (2, 3)
    assert cluster[cluster.leader].term > 2


def test_pulses_confirm_no_read_and_commit_nothing() -> None:
    cluster = led_by_one()
    committed = cluster[1].commit
    cluster.isolate(1)
    cluster[1].propose([b"x"])
    cluster[1].read_index(7)
    for _ in range(3 * ELECTION_TICKS):
        cluster[1].pulse(2, 2)
        cluster[1].pulse(3, 2)
        cluster[1].tick()
        cluster.settle()
    assert cluster[1].role is Role.LEADER
    assert not cluster.members[1].reads
    assert cluster.members[1].reads_failed == [7]
    assert cluster[1].commit == committed


def test_one_that_is_only_felt_is_neither_promoted_nor_sent_a_snapshot() -> None:
    cluster = Cluster(
        voters(1, 2, 3, learners=(4,)),
        options=Options(pulse_ticks=PULSE_TICKS, tail_entries=0, tail_bytes=0),
    )
    cluster.elect(1)
    cluster.isolate(4)
    for _ in range(2 * ELECTION_TICKS):
        cluster[1].pulse(4, 2)
        cluster.tick()
    with pytest.raises(UnavailableError, match="4"):
        cluster[1].propose_membership(voters(1, 2, 3, 4))
    cluster.propose(b"a")
    cluster.tick()
    cluster.members[1].compact()
    cluster[1].unreachable(4)
    cluster.heal()
    cluster[1].pulse(4, 2)
    cluster.collect()
    assert not [m for m in cluster.wire if m.kind is MessageKind.SNAPSHOT]


def test_negative_pulse_ticks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="pulse_ticks"):
        Options(pulse_ticks=-1)
