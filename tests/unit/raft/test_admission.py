"""Who is heard: a sender outside the configuration only where the protocol needs it."""

from __future__ import annotations

import pytest

from kvstore.errors import CorruptionError
from kvstore.raft import Entry, EntryKind, Message, MessageKind, Role, SnapshotMeta
from kvstore.raft.admission import TERM_LEAP_MAX

from .raft_cluster import Cluster, voters

K = MessageKind
STRANGER = 9


def led_cluster() -> Cluster:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.settle()
    return cluster


def append_of(sender: int, to: int, term: int, index: int, log_term: int) -> Message:
    entry = Entry(term, index + 1, EntryKind.COMMAND, b"x")
    return Message(K.APPEND, to, sender, term, index, log_term, entries=[entry])


@pytest.mark.parametrize("kind", list(K))
@pytest.mark.parametrize("member", [1, 2])
def test_a_stranger_changes_nothing_while_a_leader_is_heard(member: int, kind: K) -> None:
    cluster = led_cluster()
    core = cluster[member]
    before = core.status()
    for term in (before.term, before.term + 10):
        message = append_of(STRANGER, member, term, before.last_index, before.term)
        message.kind = kind
        core.step(message)
    assert core.status() == before
    assert core.ready() is None


def test_a_stranger_is_heard_by_one_that_hears_no_leader():
    cluster = led_cluster()
    core = cluster[3]
    cluster.isolate(3)
    for _ in range(2 * cluster.options.election_ticks):
        core.tick()
    last = core.status()
    core.step(append_of(STRANGER, 3, last.term + 5, last.last_index, 2))
    assert (core.term, core.leader) == (last.term + 5, STRANGER)
    assert core.status().last_index == last.last_index + 1


def test_a_joiner_hears_whoever_comes():
    cluster = Cluster(voters(1), joining=(2,))
    cluster[2].step(Message(K.HEARTBEAT, 2, STRANGER, 4))
    assert (cluster[2].term, cluster[2].leader) == (4, STRANGER)


def test_a_voter_that_a_follower_never_heard_of_comes_to_lead_it():
    cluster = Cluster(voters(1, 2, 3), joining=(4,))
    cluster.elect(1)
    cluster.settle()
    cluster.isolate(3)
    cluster[1].propose_membership(voters(1, 2, 3, learners=(4,)))
    cluster.settle()
    cluster[1].propose_membership(voters(1, 2, 3, 4))
    cluster.settle()
    cluster.heal()
    cluster.members[1].crash()
    # Of 2, 3 and 4 all must agree: 3 must vote for one that is in no configuration it has.
    assert 4 not in cluster[3].membership.members
    cluster[4].campaign()
    for _ in range(40):
        cluster.tick()
    assert cluster.leader in (2, 3, 4)
    cluster.propose(b"after")
    cluster.settle()
    assert cluster[3].membership == voters(1, 2, 3, 4)


def test_a_term_that_leaps_is_refused_and_the_next_election_works():
    cluster = led_cluster()
    core = cluster[2]
    before = core.status()
    for kind in (K.APPEND, K.HEARTBEAT, K.VOTE, K.APPEND_RESPONSE, K.PRE_VOTE_RESPONSE):
        forged = Message(kind, 2, 3, before.term + TERM_LEAP_MAX + 1, reject=True)
        with pytest.raises(CorruptionError, match="INVALID_RECORD: term"):
            core.step(forged)
    assert core.status() == before
    cluster.members[1].crash()
    cluster.elect(2)


def test_a_second_leader_of_a_term_is_refused_and_the_first_goes_on():
    cluster = led_cluster()
    leader, follower = cluster[1], cluster[2]
    for core in (leader, follower):
        before = core.status()
        with pytest.raises(CorruptionError, match="members 1 and 3 lead term"):
            core.step(Message(K.HEARTBEAT, core.id, 3, core.term))
        assert core.status() == before
    assert leader.role is Role.LEADER


@pytest.mark.parametrize(("leader", "other"), [(1, 3), (3, 1)])
def test_a_second_leader_of_a_term_is_a_lie(leader: int, other: int) -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(leader)
    cluster.settle()
    core = cluster[2]
    with pytest.raises(CorruptionError):
        core.step(Message(K.HEARTBEAT, 2, other, core.term))
    assert core.leader == leader


def test_only_the_leader_that_is_followed_is_heard_with_a_snapshot() -> None:
    cluster = led_cluster()
    core = cluster[2]
    mark = SnapshotMeta(9, core.term, voters(1, 2, 3))

    def offered(sender: int, term: int) -> bool:
        return core.hears(Message(K.SNAPSHOT, 2, sender, term, snapshot=mark))

    assert offered(1, core.term)
    assert not offered(1, core.term - 1)
    assert not offered(1, core.term + 1)
    assert not offered(3, core.term + 1)
    with pytest.raises(CorruptionError):
        offered(3, core.term)
    # Nor by the leader itself.
    assert not cluster[1].hears(Message(K.SNAPSHOT, 1, 3, core.term + 1, snapshot=mark))
