"""Linearizable reads over changes of leader and lost answers."""

from __future__ import annotations

import pytest

from kvstore.errors import InvalidArgumentError, UnavailableError
from kvstore.raft import Message, MessageKind, Options, Role

from .raft_cluster import Cluster, voters

K = MessageKind


def caught_on_the_wire(cluster: Cluster, kind: MessageKind, rounds: int = 6) -> list[Message]:
    """Run until messages of this kind appear; they are taken off and come back."""
    for _ in range(rounds):
        cluster.collect()
        found = [message for message in cluster.wire if message.kind is kind]
        wire, cluster.wire = cluster.wire, []
        if found:
            return found
        for member in cluster.up:
            member.sync()
        for message in wire:
            cluster.deliver(message)
    raise AssertionError(f"no {kind.name} appears")


def test_answer_of_a_former_leader_completes_nothing_after_the_change() -> None:
    """etcd #20418: a try's id must not be used again over a change of leader."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster[2].read_index(7)
    (answer,) = caught_on_the_wire(cluster, K.READ_RESPONSE)
    stale = answer.log_index
    cluster.isolate(1)
    cluster.elect(3)
    cluster[2].step(answer)
    cluster.settle()
    assert cluster.members[2].reads[7] > stale, "answered by the new leader, in its own term"


def test_late_answer_to_a_try_that_was_given_up_is_dropped() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster[2].read_index(7)
    (first,) = caught_on_the_wire(cluster, K.READ)
    for _ in range(5):
        cluster[2].tick()
    (second,) = caught_on_the_wire(cluster, K.READ)
    assert second.context != first.context
    answer = Message(K.READ_RESPONSE, 2, 1, cluster[2].term, log_index=1, context=first.context)
    cluster[2].step(answer)
    cluster.members[2].collect()
    assert cluster.members[2].reads == {}


def test_ids_of_tries_differ_between_lives_of_a_member() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    seen = set()
    for _ in range(5):
        cluster[2].read_index(7)
        cluster.members[1].collect()
        (sent,) = [m for m in cluster.members[2].collect() if m.kind is K.READ]
        assert sent.context not in seen
        seen.add(sent.context)
        cluster.members[2].crash()
        cluster.members[2].start()
        cluster.wire.clear()
        cluster.tick()


def test_paused_leader_does_not_serve_a_read_that_it_got_before_it_was_replaced() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].read_index(7)
    cluster.elect(2)
    cluster.propose(b"newer")
    assert cluster.members[1].reads == {}
    cluster.heal()
    cluster.tick(3)
    cluster.settle()
    assert cluster.members[1].reads[7] >= max(cluster.committed)


def test_reads_that_wait_share_a_round() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    for context in range(100):
        cluster[1].read_index(context)
    sent = [m for m in cluster.members[1].collect() if m.kind is K.HEARTBEAT]
    assert len(sent) == 2
    for message in sent:
        cluster.deliver(message)
    cluster.settle()
    assert len(cluster.members[1].reads) == 100


def test_later_reads_wait_for_a_later_round() -> None:
    """An answer to heartbeats sent before the read proves nothing for it."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster[1].read_index(1)
    old = [m for m in cluster.members[1].collect() if m.kind is K.HEARTBEAT]
    cluster[1].read_index(2)
    cluster.members[1].collect()
    for message in old:
        cluster.deliver(message)
    for member in (2, 3):
        for answer in cluster.members[member].collect():
            cluster.deliver(answer)
    cluster.members[1].collect()
    assert set(cluster.members[1].reads) == {1}


def test_rounds_under_way_are_bounded_and_nothing_is_forgotten() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    for context in range(50):
        cluster[1].read_index(context)
        cluster.wire += cluster.members[1].collect()
    assert len(cluster[1]._state.reads.rounds) <= 8
    cluster.settle()
    assert set(cluster.members[1].reads) == set(range(50))


def test_learners_confirm_no_read() -> None:
    """A new leader may have been elected without them."""
    cluster = Cluster(voters(1, 2, 3), joining=(4, 5))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, 2, 3, learners=(4, 5)))
    cluster.settle()
    cluster.isolate(2, 3)
    cluster[1].read_index(7)
    cluster.tick(3)
    assert 7 not in cluster.members[1].reads
    assert {peer.member for peer in cluster[1].status().peers} == {2, 3, 4, 5}
    cluster.heal()
    cluster.tick(3)
    assert 7 in cluster.members[1].reads


def test_with_learners_alone_a_leader_does_not_stay_one() -> None:
    cluster = Cluster(voters(1, 2, 3), joining=(4, 5))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, 2, 3, learners=(4, 5)))
    cluster.settle()
    cluster.isolate(2, 3)
    cluster.tick(2 * cluster.options.election_ticks)
    assert cluster[1].role is not Role.LEADER


def test_reads_beyond_the_bound_are_refused() -> None:
    cluster = Cluster(voters(1, 2, 3), options=Options(reads_waiting_max=3))
    for context in range(3):
        cluster[1].read_index(context)
    with pytest.raises(UnavailableError):
        cluster[1].read_index(3)


def test_context_in_use_is_refused() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster[1].read_index(5)
    with pytest.raises(InvalidArgumentError):
        cluster[1].read_index(5)


def test_read_on_a_member_that_knows_no_cluster_is_refused() -> None:
    cluster = Cluster(voters(1), joining=(2,))
    with pytest.raises(UnavailableError):
        cluster[2].read_index(1)


def test_read_without_a_leader_fails_in_the_end() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.isolate(1)
    cluster[1].read_index(9)
    for _ in range(21):
        cluster[1].tick()
        cluster.members[1].collect()
    assert cluster.members[1].reads_failed == [9]


@pytest.mark.parametrize("halted", [1, 4, 9, 12, 30])
def test_leader_that_stood_still_serves_no_stale_read(halted: int) -> None:
    """SIGSTOP and resume: its ticks stood still while the others replaced it."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.isolate(1)
    for _ in range(halted):
        for member in (2, 3):
            cluster[member].tick()
        cluster.settle()
    cluster.heal()
    if cluster[1].role is Role.LEADER and cluster.leader != 1:
        cluster.propose(b"newer")
    floor = max(cluster.committed)
    cluster[1].read_index(5)
    cluster.settle()
    cluster.tick(30)
    assert cluster.members[1].reads[5] >= floor
