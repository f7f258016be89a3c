"""Changing the members of a running cluster, with a crash at every step."""

from __future__ import annotations

import pytest

from kvstore.errors import NotLeaderError, UnavailableError
from kvstore.raft import Membership, Message, MessageKind, Options, Role

from .raft_cluster import Cluster, voters

K = MessageKind


def step_once(cluster: Cluster) -> bool:
    """One smallest event: a message, or else the oldest write. False when all is at rest."""
    cluster.collect()
    if cluster.wire:
        cluster.deliver(cluster.wire.pop(0))
        return True
    for member in cluster.up:
        if member.writing:
            member.sync(1)
            return True
    return False


def run_change(target: Membership, crash_after: int, victim: int) -> bool:
    """Change 1,2,3 to ``target``, crash and restart ``victim`` after so many events.

    True when the change was over before; then no later crash point exists.
    """
    cluster = Cluster(voters(1, 2, 3), joining=(4, 5))
    cluster.elect(1)
    cluster.propose(b"before")
    for learners in ((4,), (4, 5)):
        cluster[1].propose_membership(voters(1, 2, 3, learners=learners))
        cluster.settle()
    cluster[1].propose_membership(target)
    finished = False
    for _ in range(crash_after):
        if not step_once(cluster):
            finished = True
            break
        cluster.check()
    cluster.members[victim].crash()
    # The others alone must be able to go on where they are enough.
    for _ in range(30):
        cluster.tick()
    cluster.members[victim].start()
    for _ in range(60):
        cluster.tick()
        leader = cluster.leader
        if leader and cluster[leader].membership == target:
            if cluster[leader].commit < cluster[leader].membership_index:
                continue
            break
    else:
        # The change was lost with the leader before a quorum had it: allowed, but whole.
        assert cluster[cluster.leader].membership == voters(1, 2, 3, learners=(4, 5))
        cluster[cluster.leader].propose_membership(target)
        cluster.tick(30)
    leader = cluster.leader
    assert cluster[leader].membership == target
    assert leader in target.voters
    cluster.propose(b"after")
    cluster.tick(3)
    for member in target.members:
        assert [data for _, data in cluster.members[member].state] == [b"before", b"after"]
    return finished


@pytest.mark.parametrize("victim", [1, 2, 4])
@pytest.mark.parametrize(
    "target",
    [
        voters(1, 4, 5, learners=(2,)),
        voters(2, 3, 4),
        voters(4, 5),
        voters(1, 2, 3, 4, 5),
        voters(2, 3, learners=(1,)),
    ],
    ids=["replace two", "replace the leader", "replace all", "grow by two", "demote the leader"],
)
def test_change_survives_a_crash_after_any_event(target: Membership, victim: int) -> None:
    crash_after = 0
    while not run_change(target, crash_after, victim):
        crash_after += 1
        assert crash_after < 200
    assert crash_after > 10


def test_joint_configuration_needs_both_majorities_to_elect() -> None:
    cluster = Cluster(voters(1, 2, 3), joining=(4, 5))
    cluster.elect(1)
    for learners in ((4,), (4, 5)):
        cluster[1].propose_membership(voters(1, 2, 3, learners=learners))
        cluster.settle()
    cluster[1].propose_membership(voters(1, 4, 5))
    while cluster.members[4].core.membership_index < cluster[1].membership_index:
        assert step_once(cluster)
    for member in (1, 2, 3, 4, 5):
        cluster.members[member].sync()
    # Member 4 has the joint configuration. With 5 alone it has the new half only.
    cluster.wire.clear()
    cluster.isolate(4, 5)
    cluster.members[1].crash()
    for _ in range(60):
        cluster.tick()
    assert not {cluster[m].role for m in (4, 5)} & {Role.LEADER}
    # Members 2 and 3 have the old half, which is all they know of.
    cluster.heal()
    cluster.tick(60)
    assert cluster.leader


def test_leader_that_is_removed_leaves_and_names_a_successor() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster[1].propose_membership(voters(2, 3))
    cluster.settle()
    assert cluster[1].role is Role.FOLLOWER
    assert cluster.leader in (2, 3), "without waiting for a timeout"
    with pytest.raises(NotLeaderError):
        cluster[1].propose([b"a"])


def test_a_leader_that_takes_itself_out_is_talked_to_until_that_is_committed() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster[1].propose_membership(voters(2, 3))
    followers: set[frozenset[int]] = set()
    while step_once(cluster):
        assert 1 not in cluster[1].leaving
        for member in (2, 3):
            if cluster[member].membership == voters(2, 3):
                is_committed = cluster[member].membership_index <= cluster[member].commit
                assert cluster[member].leaving == (frozenset() if is_committed else {1})
                followers.add(cluster[member].leaving)
    assert followers == {frozenset(), frozenset({1})}


def test_last_voters_can_be_exchanged_for_others() -> None:
    cluster = Cluster(voters(1), joining=(2,))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, learners=(2,)))
    cluster.settle()
    cluster[1].propose_membership(voters(2))
    cluster.settle()
    cluster.tick(30)
    assert cluster.leader == 2
    cluster.propose(b"alone")
    assert [data for _, data in cluster.members[2].state] == [b"alone"]


def test_two_voters_shrink_to_one_while_the_other_is_down() -> None:
    """etcd-io/raft #12359: the remaining voter must not need the one that is removed."""
    cluster = Cluster(voters(1, 2))
    cluster.elect(1)
    cluster.members[2].crash()
    cluster[1].propose_membership(voters(1))
    cluster.settle()
    assert cluster[1].commit == cluster[1].membership_index
    cluster.propose(b"alone")
    assert [data for _, data in cluster.members[1].state] == [b"alone"]


def test_second_change_is_refused_until_the_first_is_committed() -> None:
    cluster = Cluster(voters(1, 2, 3), joining=(4,))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, 2, 3, learners=(4,)))
    with pytest.raises(UnavailableError):
        cluster[1].propose_membership(voters(1, 2))
    cluster.settle()
    cluster[1].propose_membership(voters(1, 2, 3))


def test_new_leader_refuses_changes_before_it_has_committed_in_its_term() -> None:
    """Ongaro, raft-dev 2015: two leaders could step apart from the same configuration."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.win(2)
    with pytest.raises(UnavailableError, match="has not committed an entry of its term"):
        # By force: else it is refused because nobody has answered yet.
        cluster[2].propose_membership(voters(1, 2), force=True)
    cluster.settle()
    cluster.tick(3)
    cluster[2].propose_membership(voters(1, 2))


def test_removed_member_raises_no_term_and_takes_no_vote() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].propose_membership(voters(1, 2))
    cluster.settle()
    cluster.tick(12)
    cluster.heal()
    term = cluster[1].term
    cluster.tick(100)
    assert (cluster[1].role, cluster[1].term) == (Role.LEADER, term)
    assert cluster[3].role is not Role.LEADER


def test_voter_removed_by_an_uncommitted_configuration_still_campaigns() -> None:
    """Dissertation §4.2.2: the others may need its log to commit the change."""
    cluster = Cluster(voters(1, 2))
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].propose_membership(voters(2))
    cluster.members[1].collect()
    cluster.members[1].sync()
    cluster.members[1].crash()
    cluster.members[1].start()
    cluster.heal()
    for _ in range(80):
        cluster.tick()
    assert cluster[2].membership == voters(2)
    assert cluster.leader == 2


def test_learner_is_not_counted_and_gets_everything() -> None:
    cluster = Cluster(voters(1, 2, 3), joining=(4,))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, 2, 3, learners=(4,)))
    cluster.settle()
    cluster.isolate(2, 3)
    cluster[1].propose([b"a"])
    cluster.settle()
    assert cluster.members[4].core.status().last_index == cluster[1].status().last_index
    assert cluster[1].commit < cluster[1].status().last_index


def test_learner_that_does_not_know_its_promotion_still_votes() -> None:
    """Votes are given by who is asked; the candidate decides whose count (dissertation §4.2)."""
    cluster = Cluster(voters(1, 2), joining=(3,))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, 2, learners=(3,)))
    cluster.settle()
    for _ in range(10):
        cluster[3].tick()
    last = cluster[3].status().last_index
    cluster[3].step(Message(K.VOTE, 3, 2, 9, log_index=last, log_term=2))
    assert cluster[3].status().vote == 2


def test_contexts_reach_every_member() -> None:
    cluster = Cluster(voters(1, 2))
    cluster.elect(1)
    target = Membership(frozenset({1, 2}), contexts=((1, b"one:1"), (2, b"two:2")))
    cluster[1].propose_membership(target)
    cluster.settle()
    assert [cluster[member].membership.context(2) for member in (1, 2)] == [b"two:2"] * 2


def test_promotion_waits_until_the_learner_has_caught_up() -> None:
    cluster = Cluster(voters(1), joining=(2,), options=Options(promote_lag_max=2))
    cluster.elect(1)
    for _ in range(5):
        cluster.propose(b"x")
    cluster.isolate(2)
    cluster[1].propose_membership(voters(1, learners=(2,)))
    cluster.settle()
    with pytest.raises(UnavailableError, match="was not heard from lately"):
        cluster[1].propose_membership(voters(1, 2))
    cluster.heal()
    cluster.tick(3)
    cluster.isolate(2)
    for _ in range(5):
        cluster.propose(b"x")
    with pytest.raises(UnavailableError, match="behind"):
        cluster[1].propose_membership(voters(1, 2))
    cluster.heal()
    cluster.tick(3)
    cluster[1].propose_membership(voters(1, 2))


def test_one_that_was_never_heard_of_or_died_isnt_promoted_but_by_force() -> None:
    cluster = Cluster(voters(1, 2, 3), joining=(4,))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, 2, 3, learners=(4, 5)))
    cluster.settle()
    with pytest.raises(UnavailableError, match="member 5 was not heard from lately"):
        cluster[1].propose_membership(voters(1, 2, 3, 5, learners=(4,)))
    cluster.members[4].crash()
    cluster.tick(cluster.options.election_ticks + 1)
    with pytest.raises(UnavailableError, match="member 4 was not heard from lately"):
        cluster[1].propose_membership(voters(1, 2, 3, 4, learners=(5,)))
    cluster[1].propose_membership(voters(1, 2, 3, 4, learners=(5,)), force=True)
    cluster.settle()
    assert cluster[1].commit >= cluster[1].membership_index


def test_a_change_that_leaves_no_live_majority_is_refused_but_by_force() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.members[3].crash()
    cluster.tick(cluster.options.election_ticks + 1)
    for target in (voters(1, 3), voters(2, 3), voters(3)):
        with pytest.raises(UnavailableError, match=r"only \d were heard from lately"):
            cluster[1].propose_membership(target)
    cluster.propose(b"still written")
    cluster[1].propose_membership(voters(1, 2))
    cluster.settle()
    assert cluster[1].membership == voters(1, 2)
    cluster.members[2].crash()
    cluster.tick()
    cluster[1].propose_membership(voters(1), force=True)


def test_who_was_taken_out_is_in_the_configuration_for_good_also_in_snapshots() -> None:
    cluster = Cluster(voters(1, 2, 3), joining=(4, 5))
    cluster.elect(1)
    for learners in ((4,), (4, 5), (4,)):
        cluster[1].propose_membership(voters(1, 2, 3, learners=learners))
        cluster.settle()
    assert cluster[1].membership.removed == {5}
    cluster[1].propose_membership(voters(1, 4))  # joint: 2 and 3 go at once
    cluster.tick(20)
    for member in (1, 4):
        assert cluster[member].membership == voters(1, 4)
        assert cluster[member].membership.removed == {2, 3, 5}
        mark = cluster[member].snapshot_meta(cluster.members[member].applied)
        assert mark.membership.removed == {2, 3, 5}
    # Whether an id may come back is for the caller to say; one that does isn't removed.
    cluster[1].propose_membership(voters(1, 4, learners=(5,)))
    cluster.settle()
    assert cluster[1].membership.removed == {2, 3}
