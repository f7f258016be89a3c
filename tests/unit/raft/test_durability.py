"""What waits for the disk, in every order in which the disk can finish."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.errors import InternalError
from kvstore.raft import Bundle, MessageKind, Role

from .raft_cluster import Cluster, voters


def promises(messages: list[object]) -> list[MessageKind]:
    return [m.kind for m in messages if m.kind in (MessageKind.VOTE, MessageKind.VOTE_RESPONSE)]  # type: ignore[attr-defined]


def test_candidate_asks_for_votes_only_when_its_term_is_durable() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster[1].campaign()
    cluster.collect()
    for message in cluster.wire:
        cluster.deliver(message)
    cluster.wire.clear()
    cluster.collect()
    for message in cluster.wire:
        cluster.deliver(message)
    cluster.wire.clear()
    assert cluster[1].role is Role.CANDIDATE
    assert promises(list(cluster.members[1].collect())) == []
    cluster.members[1].sync()
    assert promises(list(cluster.members[1].collect())) == [MessageKind.VOTE] * 2


def test_crashed_candidate_never_leads_the_same_term_twice() -> None:
    """The reason for waiting: its first leadership would be forgotten."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.win(1)
    first = cluster[1].term
    cluster.members[1].crash()
    cluster.members[1].start()
    assert cluster[1].term == first
    cluster.elect(1)
    assert cluster[1].term > first


def test_single_member_commits_only_what_is_durable() -> None:
    """etcd #14370: acknowledged before the sync."""
    cluster = Cluster(voters(1))
    cluster[1].campaign()
    member = cluster.members[1]
    member.collect()
    assert cluster[1].role is Role.CANDIDATE
    member.sync()
    member.collect()
    member.sync()
    member.collect()
    cluster[1].propose([b"a"])
    member.collect()
    assert member.state == []
    member.sync()
    member.collect()
    assert [data for _, data in member.state] == [b"a"]


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_entry_commits_with_the_second_disk_whichever_it_is(order: tuple[int, ...]) -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    before = cluster[1].commit
    cluster[1].propose([b"a"])
    for _ in range(3):
        cluster.collect()
        wire, cluster.wire = cluster.wire, []
        for message in wire:
            cluster.deliver(message)
    for position, member in enumerate(order):
        assert (cluster[1].commit > before) is (position >= 2)
        cluster.members[member].sync()
        cluster.collect()
        wire, cluster.wire = cluster.wire, []
        for message in wire:
            cluster.deliver(message)
    cluster.settle()
    cluster.tick()
    assert len(cluster.states()) == 1


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_crash_between_any_two_events_loses_nothing_that_was_acknowledged(
    data: st.DataObject,
) -> None:
    """Proposals, writes, messages and one crash in any order; what was applied stays."""
    cluster = Cluster(voters(1, 2, 3), seed=data.draw(st.integers(0, 1000)))
    cluster.elect(1)
    crash_at = data.draw(st.integers(0, 40))
    victim = data.draw(st.integers(1, 3))
    for step in range(40):
        if step == crash_at:
            cluster.members[victim].crash()
            cluster.members[victim].start()
        action = data.draw(st.sampled_from(("propose", "sync", "deliver", "deliver")))
        if action == "propose" and cluster.leader:
            cluster[cluster.leader].propose([b"%d" % step])
        elif action == "sync":
            cluster.members[data.draw(st.integers(1, 3))].sync(1)
        elif cluster.wire:
            position = data.draw(st.integers(0, len(cluster.wire) - 1))
            cluster.deliver(cluster.wire.pop(position))
        cluster.collect()
        cluster.check()
    acknowledged = dict(cluster.committed)
    cluster.settle()
    cluster.tick(40)
    assert cluster.leader
    for member in cluster.members.values():
        assert member.core.commit >= max(acknowledged, default=0)


def test_stored_may_come_late_twice_and_for_several_at_once() -> None:
    cluster = Cluster(voters(1))
    cluster.elect(1)
    core = cluster[1]
    numbers = []
    for value in (b"a", b"b", b"c"):
        core.propose([value])
        bundle = core.ready()
        assert bundle is not None
        numbers.append(bundle.number)
    core.stored(numbers[1])
    assert core.commit == 4
    core.stored(numbers[1])
    core.stored(numbers[0])
    assert core.commit == 4
    core.stored(numbers[2])
    assert core.commit == 5


def test_bundle_that_was_never_given_cannot_be_stored() -> None:
    cluster = Cluster(voters(1))
    with pytest.raises(InternalError, match="never given"):
        cluster[1].stored(1)


def test_commit_hint_never_names_what_could_be_lost_with_it() -> None:
    """Otherwise a torn write would look like damage at the next start."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.propose(b"a")
    follower = cluster.members[2]
    durable = follower.core.status().durable
    cluster[1].propose([b"b"])
    cluster.collect()
    cluster.members[1].sync()
    cluster.members[3].sync()
    for step in range(6):
        wire, cluster.wire = cluster.wire, []
        for message in wire:
            cluster.deliver(message)
        cluster.members[3].sync()
        if step == 3:
            # The next APPEND carries the commit index; member 2 has not written anything yet.
            cluster[1].propose([b"c"])
        cluster.collect()
    assert follower.core.commit > durable
    hints = [bundle.hard_state.commit for bundle in follower.writing if bundle.hard_state]
    assert hints
    assert max(hints) <= durable


def hints(bundles: list[Bundle]) -> list[int]:
    return [bundle.hard_state.commit for bundle in bundles if bundle.hard_state]


def test_the_commit_index_is_written_once_nothing_else_was_for_a_while() -> None:
    """A member that is started alone then knows of its last entries that they are committed."""
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    cluster.propose(b"a")
    cluster.settle()
    commit = cluster[1].commit
    for number, member in cluster.members.items():
        member.crash()
        member.start()
        assert cluster[number].commit < commit, "nothing says so yet"
    cluster.elect(1)
    cluster.propose(b"b")
    cluster.settle()
    cluster.tick(20)
    cluster.settle()
    commit = cluster[1].commit
    for number, member in cluster.members.items():
        member.crash()
        member.start()
        assert cluster[number].commit == commit


def test_the_commit_index_costs_no_write_of_its_own_under_load() -> None:
    cluster = Cluster(voters(1))
    cluster.elect(1)
    core = cluster[1]
    written: list[Bundle] = []

    def take() -> None:
        while (bundle := core.ready()) is not None:
            if bundle.must_sync:
                written.append(bundle)
            core.stored(bundle.number)

    take()
    written.clear()
    for round in range(30):
        core.propose([b"%d" % round])
        take()
        # Less than it takes to be idle.
        for _ in range(core._state.options.election_ticks - 1):
            core.tick()
            take()
    assert len(written) == 30
    assert all(bundle.entries for bundle in written)
    for _ in range(5 * core._state.options.election_ticks):
        core.tick()
        take()
    assert len(written) == 31, "once, and no more while there is nothing new"
    assert hints(written[-1:]) == [core.commit]


def test_the_commit_index_waits_for_a_disk_that_is_well() -> None:
    cluster = Cluster(voters(1))
    cluster.elect(1)
    core = cluster[1]
    core.propose([b"a"])
    cluster.settle()
    core.storage_is_well(False)
    for _ in range(3 * core._state.options.election_ticks):
        core.tick()
    bundle = core.ready()
    assert bundle is None or not bundle.must_sync
    core.storage_is_well(True)
    bundle = core.ready()
    assert bundle is not None
    assert hints([bundle]) == [core.commit]
