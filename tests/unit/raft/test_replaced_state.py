"""A member whose state machine is replaced by another member's while its log stays."""

from __future__ import annotations

import pytest

from kvstore.errors import InternalError
from kvstore.raft import Role, SnapshotMeta

from .raft_cluster import Cluster, voters


def written(cluster: Cluster, count: int) -> None:
    for number in range(count):
        cluster.propose(b"%d" % number)


def test_the_log_goes_on_after_what_it_holds_committed_and_of_that_term_alone() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    written(cluster, 3)
    raft = cluster[2]
    term, last = raft.last_entry
    assert raft.commit == last
    assert raft.goes_on_after(SnapshotMeta(last, term, voters(1, 2, 3)))
    assert not raft.goes_on_after(SnapshotMeta(last, term - 1, voters(1, 2, 3)))
    assert not raft.goes_on_after(SnapshotMeta(last + 1, term, voters(1, 2, 3)))


def test_a_state_is_not_taken_before_it_is_known_to_be_committed_here() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    written(cluster, 2)
    cluster.isolate(1)
    term, last = cluster[1].last_entry
    cluster[1].propose([b"of nobody else"])
    cluster.tick(1)
    assert cluster[1].last_entry == (term, last + 1)
    assert not cluster[1].goes_on_after(SnapshotMeta(last + 1, term, voters(1, 2, 3)))
    with pytest.raises(InternalError, match="doesn't go on after"):
        cluster[1].state_replaced(SnapshotMeta(last + 1, term, voters(1, 2, 3)))


def test_what_the_other_state_holds_is_not_offered_again() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    written(cluster, 3)
    raft = cluster[2]
    term, last = raft.last_entry
    log = raft._state.log
    # Nothing was applied since the entry before the last three.
    log.applied = log.offered = last - 3
    raft.state_replaced(SnapshotMeta(last - 1, term, voters(1, 2, 3)))
    assert (log.applied, log.offered) == (last - 1, last - 1)
    bundle = raft.ready()
    assert bundle is not None
    assert [entry.index for entry in bundle.committed] == [last]
    # An older one changes nothing.
    raft.state_replaced(SnapshotMeta(last - 2, term, voters(1, 2, 3)))
    assert (log.applied, log.offered) == (last - 1, last)


def test_leadership_goes_to_who_can_have_it() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    written(cluster, 1)
    cluster[2].hand_over()
    assert cluster[2].role is Role.FOLLOWER
    cluster[2].storage_is_well(False)
    cluster.tick(3)
    cluster[1].hand_over()
    cluster.tick(3)
    assert cluster.leader == 3


def test_a_leader_that_nobody_can_follow_stays() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    for member in (2, 3):
        cluster[member].storage_is_well(False)
    cluster.tick(3)
    cluster[1].hand_over()
    cluster.tick(3)
    assert cluster.leader == 1


def test_an_idle_leader_appends_nothing_of_anybodys_once() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    written(cluster, 1)
    before = cluster[1].commit
    cluster[2].propose_nothing()
    cluster[1].propose_nothing()
    cluster[1].propose_nothing()
    cluster.tick(2)
    assert cluster[1].commit == cluster[2].last_entry[1] == before + 1
