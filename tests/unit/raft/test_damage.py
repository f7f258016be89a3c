"""Members that lost entries which they had acknowledged."""

from __future__ import annotations

import random

import pytest

from kvstore.errors import CorruptionError, InvalidArgumentError
from kvstore.raft import (
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Options,
    Raft,
    Role,
    SnapshotMeta,
    bootstrap,
    damage,
)

from .raft_cluster import Cluster, voters

K = MessageKind


def cut_log(cluster: Cluster, member: int, last: int) -> None:
    disk = cluster.members[member].disk
    disk.entries = {i: e for i, e in disk.entries.items() if i <= last}


def damaged_cluster() -> Cluster:
    """Members 1 and 2 acknowledged an entry that 3 never saw; 2 lost it and knows."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(b"precious")
    for member in (1, 2):
        cluster.members[member].crash()
    cut_log(cluster, 2, 2)
    cluster.members[2].start(damaged=True)
    cluster.heal()
    return cluster


def test_damaged_member_elects_nobody_and_is_not_elected() -> None:
    cluster = damaged_cluster()
    cluster.tick(100)
    assert cluster.leader == 0, "2 and 3 together could otherwise forget the entry"
    cluster[2].campaign()
    assert cluster[2].role is Role.FOLLOWER
    cluster[2].step(Message(K.TIMEOUT_NOW, 2, 3, cluster[2].term))
    assert cluster[2].role is Role.FOLLOWER


def test_damaged_member_is_whole_once_it_has_a_later_leaders_own_entry() -> None:
    cluster = damaged_cluster()
    cluster.tick(100)
    cluster.members[1].start()
    cluster.tick(100)
    assert cluster.leader in (1, 3)
    assert not cluster[2].damaged
    assert {state[0][1] for state in cluster.states()} == {b"precious"}
    cluster.members[cluster.leader].crash()
    cluster.tick(60)
    assert cluster.leader, "it votes again"


def test_what_is_durable_beyond_the_commit_index_heals_as_well() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.propose(b"a")
    cluster.settle()
    state = cluster[2]._state
    state.damaged = True
    state.log.append([Entry(state.term, state.log.last + 1, EntryKind.COMMAND, b"b")])
    state.log.stable = state.log.last
    assert state.log.commit == state.log.stable - 1
    damage.heal(state)
    assert not state.damaged


def test_damage_is_durable_until_healed() -> None:
    cluster = damaged_cluster()
    cluster.settle()
    assert cluster.members[2].disk.hard_state.damaged
    cluster.members[2].crash()
    cluster.members[2].start()
    assert cluster[2].damaged
    term = cluster[2].term
    cluster.members[2].crash()
    cluster.members[2].start()
    assert cluster[2].term == term, "known damage takes no further term"


def test_leader_steps_down_for_a_member_that_lost_what_it_counted_on() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.propose(b"a")
    term = cluster[1].term
    cluster.members[2].crash()
    cut_log(cluster, 2, 2)
    cluster.members[2].start()
    assert not cluster[2].damaged, "it can't know by itself"
    cluster[1].tick()
    cluster.settle()
    assert cluster[2].damaged
    assert cluster[1].role is Role.FOLLOWER
    cluster.tick(60)
    assert cluster[cluster.leader].term > term
    assert not cluster[2].damaged


def test_no_member_is_told_of_acknowledgements_that_it_would_remember() -> None:
    """With a majority that believed it nobody would be elected any more."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.propose(b"a")
    liar = 3
    for member in (1, 2):
        core = cluster[member]
        for term in (core.term + 1, core.term + 2):
            with pytest.raises(CorruptionError, match="acknowledged"):
                core.step(Message(K.HEARTBEAT, member, liar, term, core.status().last_index + 1))
            assert not core.damaged
    cluster.tick(60)
    assert cluster.leader
    cluster.propose(b"b")
    assert len(cluster.states()) == 1


def test_acknowledgement_from_before_the_loss_counts_for_nobody() -> None:
    """It is still on the wire when the member comes back without the entry."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].propose([b"a"])
    cluster.collect()
    (append,) = [m for m in cluster.wire if m.kind is K.APPEND and m.to == 2]
    cluster.wire.clear()
    cluster.deliver(append)
    cluster.members[2].collect()
    cluster.members[2].sync()
    (answer,) = [m for m in cluster.members[2].collect() if m.kind is K.APPEND_RESPONSE]
    cluster.members[1].crash()
    cut_log(cluster, 2, 2)
    cluster.members[2].crash()
    cluster.members[2].start(damaged=True)
    cluster.members[1].start()
    cluster.heal()
    cluster.tick(60)
    leader = cluster[cluster.leader]
    before = leader.commit
    leader.step(Message(answer.kind, leader.id, 2, answer.term, log_index=before + 10))
    assert leader.commit == before


def test_leader_does_not_hand_over_to_a_damaged_member() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.propose(b"a")
    leader = cluster[1]
    leader.step(Message(K.HEARTBEAT_RESPONSE, 1, 2, leader.term, context=1, damaged=True))
    assert [peer.damaged for peer in leader.status().peers] == [True, False]
    with pytest.raises(InvalidArgumentError, match="member 2 lost part of its log"):
        leader.transfer_leadership(2)
    leader.transfer_leadership(3)
    cluster.settle()
    assert cluster.leader == 3


@pytest.mark.parametrize("damaged", [False, True])
def test_a_leader_that_is_removed_names_no_damaged_successor(damaged: bool) -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    leader = cluster[1]
    index = leader.propose_membership(voters(2, 3)).last
    sent = []
    for member in (3, 2):
        cluster.members[1].collect()
        hurt = damaged and member == 2
        answer = Message(K.APPEND_RESPONSE, 1, member, leader.term, log_index=index, damaged=hurt)
        leader.step(answer)
        sent = cluster.members[1].collect()
    assert leader.role is Role.FOLLOWER
    told = [message.to for message in sent if message.kind is K.TIMEOUT_NOW]
    assert told == [3 if damaged else 2]


def follower_of_five(*, damaged: bool) -> Raft:
    """Member 2 with entries of term 2, which follows member 1, the leader of term 5."""
    _, founding = bootstrap(voters(1, 2, 3))
    core = Raft(
        2,
        Options(),
        rng=random.Random(1),
        hard_state=HardState(3),
        entries=[
            *founding,
            Entry(2, 2, EntryKind.EMPTY, b""),
            Entry(2, 3, EntryKind.COMMAND, b"a"),
        ],
        damaged=damaged,
    )
    take(core)
    core.step(Message(K.HEARTBEAT, 2, 1, 5, log_index=0, commit=3, context=1))
    return core


def take(core: Raft) -> None:
    """Everything that comes out is done, and durable."""
    while (bundle := core.ready()) is not None:
        if bundle.must_sync:
            core.stored(bundle.number)
        if bundle.committed:
            core.applied(bundle.committed[-1].index)


def test_what_an_earlier_leader_had_committed_makes_nobody_whole() -> None:
    """Rule 4: the entry that was lost may have been the next one."""
    core = follower_of_five(damaged=True)
    take(core)
    assert (core.leader, core.commit) == (1, 3)
    assert core.damaged
    own = Entry(5, 4, EntryKind.EMPTY, b"")
    core.step(Message(K.APPEND, 2, 1, 5, 3, 2, 3, entries=(own,)))
    take(core)
    assert core.damaged, "the leader's own entry is here, not committed"
    core.step(Message(K.HEARTBEAT, 2, 1, 5, log_index=4, commit=4, context=2))
    assert not core.damaged


def test_entries_make_nobody_whole_before_they_are_durable() -> None:
    core = follower_of_five(damaged=True)
    take(core)
    own = Entry(5, 4, EntryKind.EMPTY, b"")
    core.step(Message(K.APPEND, 2, 1, 5, 3, 2, 4, entries=(own,)))
    assert core.commit == 4
    assert core.damaged
    take(core)
    core.step(Message(K.HEARTBEAT, 2, 1, 5, log_index=4, commit=4, context=2))
    assert not core.damaged


@pytest.mark.parametrize("damaged", [False, True])
def test_a_damaged_member_does_not_stand_at_its_leaders_wish(damaged: bool) -> None:
    core = follower_of_five(damaged=damaged)
    take(core)
    core.step(Message(K.TIMEOUT_NOW, 2, 1, 5))
    assert core.role is (Role.FOLLOWER if damaged else Role.CANDIDATE)
    assert core.term == (5 if damaged else 6)


def test_only_the_leader_may_wish_that_a_member_stands() -> None:
    core = follower_of_five(damaged=False)
    take(core)
    core.step(Message(K.TIMEOUT_NOW, 2, 3, 5))
    assert (core.role, core.term) == (Role.FOLLOWER, 5)


def test_state_machine_ahead_of_the_log_is_damage() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    for _ in range(4):
        cluster.propose(b"x")
    member = cluster.members[2]
    member.crash()
    # The snapshot mark is at 1 and the state machine holds more than the log does.
    cut_log(cluster, 2, 3)
    member.disk.hard_state = HardState(member.disk.hard_state.term, 0, 0)
    core = Raft(
        2,
        Options(),
        rng=random.Random(1),
        hard_state=member.disk.hard_state,
        entries=member.disk.tail(),
        applied=6,
    )
    assert core.damaged
    assert core.commit == 0, "which entries were applied is not known here any more"


@pytest.mark.parametrize("seed", range(25))
def test_one_member_at_a_time_may_lose_its_tail_again_and_again(seed: int) -> None:
    """With the rule nothing committed is ever lost; see ``damage.py``."""
    rng = random.Random(seed)
    size = rng.choice((3, 5))
    cluster = Cluster(voters(*range(1, size + 1)), seed=seed)
    cluster.elect(1)
    for turn in range(12):
        if cluster.leader and rng.random() < 0.8:
            cluster[cluster.leader].propose([b"%d" % turn])
            for _ in range(rng.randint(0, 30)):
                cluster.collect()
                if cluster.wire:
                    position = rng.randrange(len(cluster.wire))
                    cluster.deliver(cluster.wire.pop(position))
                for member in cluster.up:
                    if rng.random() < 0.5:
                        member.sync(1)
        hurt = [m.id for m in cluster.up if m.core.damaged or m.disk.hard_state.damaged]
        victim = cluster.members[rng.randint(1, size)]
        if not hurt or hurt == [victim.id]:
            victim.crash()
            entries = victim.disk.entries
            keep = rng.randint(1, max(entries))
            victim.disk.entries = {i: e for i, e in entries.items() if i <= keep}
            victim.start(damaged=True)
        if rng.random() < 0.5:
            cluster.tick(rng.randint(1, 40))
        cluster.check()
    cluster.settle()
    cluster.tick(100)
    cluster.propose(b"end")
    cluster.tick(3)
    assert len(cluster.states()) == 1
    applied = [index for index, _ in cluster.states().pop()]
    commands = [i for i, e in sorted(cluster.committed.items()) if e.kind == 0]
    assert applied == commands


@pytest.mark.parametrize("known", [True, False], ids=["told by its storage", "by the state alone"])
def test_what_the_state_holds_vouches_for_no_entry_of_a_log_that_lost_its_end(known: bool) -> None:
    """The end had other entries in the place of those that are left, and the state is of them."""
    _, founding = bootstrap(voters(1, 2, 3))
    left = [Entry(1, i, EntryKind.COMMAND, b"same") for i in (2, 3)]
    left += [Entry(2, i, EntryKind.COMMAND, b"replaced") for i in (4, 5, 6)]
    core = Raft(
        2,
        Options(),
        rng=random.Random(1),
        hard_state=HardState(4, commit=3),
        entries=[*founding, *left],
        applied=9,
        damaged=known,
    )
    assert core.damaged
    assert core.commit == 3
    core.compact(9)
    with pytest.raises(InvalidArgumentError):
        core.snapshot_meta(6)
    take(core)
    assert core.status().first_index == 1, "nothing goes that isn't known to be what was applied"
    core.step(Message(K.HEARTBEAT, 2, 1, 9, log_index=0, commit=0, context=1))
    news = [Entry(3, i, EntryKind.COMMAND, b"true") for i in range(4, 10)]
    news.append(Entry(9, 10, EntryKind.EMPTY, b""))
    # The leader probes where it takes the logs to be equal.
    core.step(Message(K.APPEND, 2, 1, 9, 6, 3, 0, entries=news[3:]))
    take(core)
    assert core.damaged
    core.step(Message(K.APPEND, 2, 1, 9, 3, 1, 10, entries=news))
    take(core)
    assert not core.damaged
    log = core._state.log
    assert [(entry.term, entry.data) for entry in log.entries[3:9]] == [(3, b"true")] * 6
    assert (log.commit, log.applied) == (10, 10), "and what the state holds isn't applied again"


def test_who_lost_the_end_of_its_log_says_so_to_those_who_ask_for_an_entry_of_it() -> None:
    for damaged in (False, True):
        core = follower_of_five(damaged=damaged)
        take(core)
        core.step(Message(K.MEND, 2, 3, 5, log_index=7, log_term=2))
        bundle = core.ready()
        assert bundle is not None
        (answer,) = [m for m in bundle.messages if m.kind is K.MEND_RESPONSE]
        assert (answer.reject, answer.damaged) == (True, damaged)


def test_a_snapshot_of_less_than_was_applied_lets_nothing_be_applied_again() -> None:
    members = voters(1, 2, 3)
    core = Raft(
        1, Options(), rng=random.Random(1), hard_state=HardState(2), applied=9, damaged=True
    )
    assert core.term == 3
    core.step(Message(K.SNAPSHOT, 1, 2, 3, snapshot=SnapshotMeta(5, 2, members)))
    bundle = core.ready()
    assert bundle is not None
    assert bundle.snapshot == SnapshotMeta(5, 2, members)
    core.stored(bundle.number)
    assert (core.commit, core.status().applied) == (5, 9)
    entries = [Entry(2 if index < 9 else 3, index, EntryKind.EMPTY, b"") for index in range(6, 12)]
    core.step(Message(K.APPEND, 1, 2, 3, log_index=5, log_term=2, commit=11, entries=entries))
    bundle = core.ready()
    assert bundle is not None
    core.stored(bundle.number)
    bundle = core.ready()
    assert bundle is not None
    assert [entry.index for entry in bundle.committed] == [10, 11]
    core.applied(11)
    assert not core.damaged
