"""Members whose log has hollow entries: known by index and term, their data damaged."""

from __future__ import annotations

import random

import pytest

from kvstore.raft import Entry, EntryKind, Message, MessageKind, Options, Raft, Role
from kvstore.raft.mending import AT_ONCE

from .raft_cluster import Cluster, voters

K = MessageKind


def damaged(hollow: dict[int, set[int]], *, entries: int = 4, size: int = 3) -> Cluster:
    """A cluster that has entries 1 (members), 2 (empty) and then commands, all committed, starts
    again where these ``hollow`` entries of each member are damaged."""
    cluster = Cluster(voters(*range(1, size + 1)))
    cluster.elect(1)
    for number in range(entries):
        cluster.propose(b"%d" % number)
    cluster.tick(3)
    restart(cluster, hollow)
    return cluster


def restart(cluster: Cluster, hollow: dict[int, set[int]]) -> None:
    for member in cluster.members.values():
        member.crash()
    cluster.wire.clear()
    for member in cluster.members.values():
        member.disk.hollow |= hollow.get(member.id, set())
        member.start()


def whole(cluster: Cluster) -> bool:
    return not any(member.core.status().hollow for member in cluster.up)


def test_each_gets_from_another_what_it_lacks_and_all_have_everything() -> None:
    cluster = damaged({1: {3}, 2: {4, 6}, 3: {5}})
    assert [cluster[member].status().hollow for member in (1, 2, 3)] == [1, 2, 1]
    cluster.tick(60)
    assert whole(cluster)
    assert cluster.leader
    (state,) = cluster.states()
    assert [data for _, data in state] == [b"0", b"1", b"2", b"3"]
    assert not any(member.disk.hollow for member in cluster.members.values())


def test_what_is_damaged_at_every_member_stops_all_and_is_named() -> None:
    cluster = damaged({1: {5}, 2: {5, 3}, 3: {5}})
    cluster.tick(100)
    assert cluster.leader == 0
    assert [cluster[member].status().lost for member in (1, 2, 3)] == [5, 5, 5]
    assert [cluster[member].status().hollow for member in (1, 2, 3)] == [1, 1, 1]
    assert max(member.applied for member in cluster.up) == 4, "and not what comes after it"


def test_nothing_is_called_lost_before_all_others_have_said_so() -> None:
    cluster = damaged({1: {5}, 2: {5}, 3: set()})
    cluster.isolate(3)
    cluster.tick(20)
    assert [cluster[member].status().lost for member in (1, 2)] == [0, 0]
    cluster.heal()
    cluster.tick(60)
    assert whole(cluster)


def test_a_hollow_member_votes_and_never_stands() -> None:
    cluster = damaged({1: set(), 2: {3}, 3: {3}})
    for member in (2, 3):
        cluster[member].campaign()
        assert cluster[member].role is Role.FOLLOWER
    cluster.isolate(3)
    # What 1 gives for the asking is lost.
    election = (K.PRE_VOTE, K.PRE_VOTE_RESPONSE, K.VOTE, K.VOTE_RESPONSE)
    cluster[1].campaign()
    for _ in range(8):
        cluster.collect()
        for member in cluster.up:
            member.sync()
        wire, cluster.wire = cluster.wire, []
        for message in wire:
            if message.kind in election:
                cluster.deliver(message)
    assert cluster[1].role is Role.LEADER
    assert cluster[2].status().hollow == 1


def test_a_hollow_member_elects_nobody_who_lacks_the_entry() -> None:
    """1 and 2 have entry 3, committed; 3 never saw it. 2 still knows that it is there."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(b"precious")
    restart(cluster, {2: {3}})
    cluster.members[1].crash()
    cluster.heal()
    cluster.tick(100)
    assert cluster.leader == 0
    cluster.members[1].start()
    cluster.tick(60)
    assert cluster.leader in (1, 2)
    assert {state[0][1] for state in cluster.states()} == {b"precious"}


def test_a_leader_sends_again_what_is_hollow_though_nobody_was_asked() -> None:
    cluster = damaged({2: {3, 5}})
    cluster[1].campaign()
    for _ in range(60):
        cluster[1].tick()
        cluster.collect()
        cluster.wire = [m for m in cluster.wire if m.kind not in (K.MEND, K.MEND_RESPONSE)]
        cluster.settle()
    assert whole(cluster)
    assert len(cluster.states()) == 1


def test_a_hollow_member_acknowledges_and_commits_nothing_beyond_its_first_hole() -> None:
    cluster = damaged({2: {4}})
    cluster.isolate(3)
    core = cluster[2]
    assert core.commit == 3
    term = core.term + 1
    core.step(Message(K.APPEND, 2, 1, term, 6, 2, 6))
    core.step(Message(K.HEARTBEAT, 2, 1, term, 3, commit=6, context=1))
    (refused, _) = [m for m in cluster.members[2].collect() if m.term == term]
    assert (refused.kind, refused.reject, refused.hint_index) == (K.APPEND_RESPONSE, True, 3)
    assert core.commit == 3
    core.step(
        Message(K.APPEND, 2, 1, term, 3, 2, 6, entries=[Entry(2, 4, EntryKind.COMMAND, b"1")])
    )
    cluster.members[2].collect()
    cluster.members[2].sync()
    answers = [m for m in cluster.members[2].collect() if m.kind is K.APPEND_RESPONSE]
    assert [m.log_index for m in answers] == [3], "it isn't durable yet"
    cluster.members[2].mend()
    core.step(Message(K.HEARTBEAT, 2, 1, term, 3, commit=6, context=2))
    assert core.commit == 6


def test_a_wrong_answer_is_not_taken_and_asked_for_again() -> None:
    cluster = damaged({2: {4}})
    core = cluster[2]
    core.step(
        Message(K.MEND_RESPONSE, 2, 3, 1, 4, 2, entries=[Entry(2, 4, EntryKind.COMMAND, b"lie")])
    )
    cluster.members[2].collect()
    cluster.members[2].mend()
    assert core.status().hollow == 1
    cluster.tick(60)
    assert whole(cluster)


@pytest.mark.parametrize("place", [(4, 3), (40, 2), (3, 2)])
def test_an_answer_for_another_place_is_nothing(place: tuple[int, int]) -> None:
    index, term = place
    cluster = damaged({2: {4}})
    core = cluster[2]
    entry = Entry(term, index, EntryKind.COMMAND, b"1")
    core.step(Message(K.MEND_RESPONSE, 2, 3, 1, index, term, entries=[entry]))
    cluster.members[2].collect()
    assert not cluster.members[2].mends
    assert core.status().hollow == 1


def test_what_a_member_has_in_another_term_or_not_at_all_it_does_not_give() -> None:
    cluster = damaged({2: {4}})
    for index, term in ((4, 1), (40, 2)):
        cluster[1].step(Message(K.MEND, 1, 2, 0, index, term))
        (answer,) = cluster.members[1].collect()
        assert (answer.kind, answer.reject, answer.damaged) == (K.MEND_RESPONSE, True, False)
    cluster[2].step(Message(K.MEND, 2, 1, 0, 4, 2))
    (answer,) = cluster.members[2].collect()
    assert (answer.reject, answer.damaged) == (True, True)


def test_so_many_are_asked_for_at_one_time() -> None:
    cluster = damaged({2: set(range(3, 43))}, entries=40)
    cluster[2].tick()
    asked = [m.log_index for m in cluster.members[2].collect() if m.kind is K.MEND and m.to == 1]
    assert asked == list(range(3, 3 + AT_ONCE))
    cluster.tick(100)
    assert whole(cluster)
    assert len(cluster.states()) == 1


def test_a_conflicting_entry_replaces_a_hollow_one() -> None:
    """Entry 3 of term 2 was never committed; its leader's own copy is damaged."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.isolate(1)
    cluster[1].propose([b"lost"])
    cluster.settle()
    cluster.elect(2)
    cluster.propose(b"right")
    restart(cluster, {1: {3}})
    cluster.heal()
    cluster.tick(80)
    assert whole(cluster)
    assert {tuple(data for _, data in state) for state in cluster.states()} == {(b"right",)}


def test_a_damaged_list_of_members_holds_again_once_it_is_mended() -> None:
    cluster = Cluster(voters(1, 2, 3), joining=(4,))
    cluster.elect(1)
    cluster[1].propose_membership(voters(1, 2, 3, learners=(4,)))
    cluster.settle()
    cluster.propose(b"a")
    index = cluster[2].membership_index
    restart(cluster, {2: {index}})
    assert cluster[2].membership == voters(1, 2, 3)
    cluster.tick(60)
    assert whole(cluster)
    assert cluster[2].membership == voters(1, 2, 3, learners=(4,))
    assert cluster[2].membership_index == index


def test_what_the_state_machine_holds_needs_no_data() -> None:
    cluster = damaged({})
    disk = cluster.members[2].disk
    disk.hollow = {2, 4}
    core = Raft(
        2,
        Options(),
        rng=random.Random(1),
        hard_state=disk.hard_state,
        entries=disk.tail(),
        applied=5,
        hollow=disk.hollow,
    )
    status = core.status()
    assert (status.hollow, status.first_index, status.last_index, status.commit) == (0, 5, 6, 5)
    assert core.membership == voters(1, 2, 3)


def test_a_list_of_members_that_the_state_went_past_makes_the_log_short() -> None:
    """Others may have it in their snapshots alone."""
    cluster = damaged({})
    cluster.tick(60)
    hurt = cluster.leader % 3 + 1
    member = cluster.members[hurt]
    cluster.members[cluster.leader].compact()
    state, applied = tuple(member.state), member.applied
    disk = member.disk
    member.crash()
    disk.hollow = {1}
    core = Raft(
        hurt,
        Options(),
        rng=random.Random(1),
        hard_state=disk.hard_state,
        entries=disk.tail(),
        applied=applied,
        hollow=disk.hollow,
    )
    status = core.status()
    assert (status.damaged, status.hollow, status.last_index) == (True, 0, 0)
    member.raft = core
    member.state, member.applied = list(state), applied
    cluster.tick(100)
    assert not core.damaged
    assert core.membership == voters(1, 2, 3)
    assert len(cluster.states()) == 1


def test_a_snapshot_over_hollow_entries_costs_the_vote_for_what_it_lets_go() -> None:
    cluster = damaged({3: {4}})
    cluster.isolate(3)
    cluster[1].campaign()
    cluster.tick(60)
    cluster.members[cluster.leader].compact()
    core = cluster[3]
    term = core.term
    meta = cluster[cluster.leader].snapshot_meta(5)
    core.step(Message(K.SNAPSHOT, 3, cluster.leader, cluster[cluster.leader].term, snapshot=meta))
    assert core.status().last_index == 5
    assert core.status().hollow == 0
    assert core.damaged
    assert core.term > term
    cluster.snapshots[5] = tuple(cluster.members[1].state[:3])
    cluster.heal()
    cluster.tick(100)
    assert not core.damaged
    assert len(cluster.states()) == 1


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_whole_somewhere_comes_back_whatever_else_happens(seed: int) -> None:
    """Logs that differ, terms that change, uncommitted tails, crashes and losses while it heals."""
    rng = random.Random(seed)
    size = rng.choice((3, 3, 5))
    cluster = Cluster(voters(*range(1, size + 1)), seed=seed)
    cluster.elect(1)
    for turn in range(8):
        if cluster.leader and rng.random() < 0.9:
            cluster[cluster.leader].propose([b"%d" % turn])
        for _ in range(rng.randint(0, 25)):
            cluster.collect()
            if cluster.wire:
                cluster.deliver(cluster.wire.pop(rng.randrange(len(cluster.wire))))
            for member in cluster.up:
                if rng.random() < 0.5:
                    member.sync(1)
        if rng.random() < 0.3:
            cluster.wire.clear()
            cluster.tick(rng.randint(1, 30))
    # What each has, by index and term; one copy of each stays whole.
    owners: dict[tuple[int, int], list[int]] = {}
    for member in cluster.members.values():
        member.crash()
        for entry in member.disk.entries.values():
            owners.setdefault((entry.index, entry.term), []).append(member.id)
    hollow: dict[int, set[int]] = {}
    for (index, _), members in owners.items():
        spared = rng.choice(members)
        for member in members:
            if member != spared and rng.random() < 0.5:
                hollow.setdefault(member, set()).add(index)
    acknowledged = dict(cluster.committed)
    restart(cluster, hollow)
    for _ in range(rng.randint(0, 60)):
        cluster.collect()
        if cluster.wire:
            message = cluster.wire.pop(rng.randrange(len(cluster.wire)))
            if rng.random() < 0.8:
                cluster.deliver(message)
        for member in cluster.up:
            if rng.random() < 0.5:
                member.sync(1)
                member.mend()
            if rng.random() < 0.2:
                member.core.tick()
        if rng.random() < 0.1:
            victim = cluster.members[rng.randint(1, size)]
            victim.crash()
            victim.start()
        cluster.check()
    cluster.settle()
    cluster.tick(120)
    assert whole(cluster)
    cluster.propose(b"end")
    cluster.tick(3)
    assert len(cluster.states()) == 1
    assert {index: cluster.committed[index] for index in acknowledged} == acknowledged


def test_who_lost_the_list_of_members_asks_whom_it_hears() -> None:
    """3 has all but the last entry: it can't win, and the others know nobody to ask."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.propose(b"a")
    cluster.isolate(3)
    cluster.propose(b"b")
    cluster.heal()
    restart(cluster, {1: {1, 3}, 2: {1, 2}})
    assert [cluster[member].membership.members for member in (1, 2)] == [frozenset()] * 2
    assert [cluster[member].status().lost for member in (1, 2)] == [0, 0]
    cluster.tick(80)
    assert whole(cluster)
    assert len(cluster.states()) == 1


@pytest.mark.parametrize("tail", [0, 100])
def test_who_is_hollow_below_what_the_same_leader_counts_on_becomes_whole(tail: int) -> None:
    """1 leads on and has let entry 10 go, which 2 had acknowledged; 3 is down."""
    cluster = Cluster(voters(1, 2, 3), options=Options(tail_entries=2), tail=tail)
    cluster.elect(1)
    for number in range(20):
        cluster.propose(b"%d" % number)
    cluster.tick(5)
    cluster.members[1].compact()
    term, commit = cluster[1].term, cluster[1].commit
    cluster.members[3].crash()
    cluster.members[2].crash()
    cluster.members[2].disk.hollow |= {10}
    cluster.members[2].start()
    cluster.propose(b"more")
    cluster.tick(60)
    assert whole(cluster)
    assert cluster[1].commit > commit
    assert not cluster[2].damaged, "it has all that it had, by index and term"
    assert cluster.leader == 1
    assert cluster[1].term == term + 2, "and that only once"
    assert len(cluster.states()) == 1


def test_an_append_that_is_refused_though_it_was_acknowledged_waits_for_a_heartbeat() -> None:
    cluster = Cluster(voters(1, 2, 3), options=Options(tail_entries=2))
    cluster.elect(1)
    for number in range(20):
        cluster.propose(b"%d" % number)
    cluster.tick(5)
    cluster.members[1].compact()
    cluster.isolate(3)
    cluster.members[2].crash()
    cluster.members[2].disk.hollow |= {10}
    cluster.members[2].start()
    cluster.propose(b"more")
    cluster.tick(5)
    sent = 0
    for _ in range(4):
        cluster[1].tick()
        for _ in range(100):
            cluster.collect()
            wire, cluster.wire = cluster.wire, []
            for message in wire:
                sent += message.kind is K.APPEND and message.to == 2
                cluster.deliver(message)
    assert 0 < sent <= 2 * 4


def test_nothing_that_others_give_costs_the_leader_its_term() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    for number in range(100):
        cluster.propose(b"%d" % number)
    cluster.tick(5)
    term = cluster[1].term
    cluster.members[2].crash()
    cluster.members[2].disk.hollow |= set(range(3, 100))
    cluster.members[2].start()
    cluster.tick(60)
    assert whole(cluster)
    assert (cluster.leader, cluster[1].term) == (1, term)
