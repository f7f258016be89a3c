"""From durable records to a running member."""

from __future__ import annotations

import random

import pytest

from kvstore.errors import CorruptionError
from kvstore.raft import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    Options,
    Raft,
    Role,
    SnapshotMeta,
    bootstrap,
)
from kvstore.raft.codec import encode_membership

from .raft_cluster import Cluster, voters

MEMBERS = voters(1, 2, 3)


def command(term: int, index: int) -> Entry:
    return Entry(term, index, EntryKind.COMMAND, b"%d" % index)


def start(
    hard_state: HardState,
    entries: list[Entry],
    snapshot: SnapshotMeta | None = None,
    applied: int = 0,
    damaged: bool = False,
) -> Raft:
    return Raft(
        1,
        Options(),
        rng=random.Random(1),
        hard_state=hard_state,
        entries=entries,
        snapshot=snapshot or SnapshotMeta(),
        applied=applied,
        damaged=damaged,
    )


def offered(core: Raft) -> list[int]:
    indexes: list[int] = []
    while (bundle := core.ready()) is not None:
        indexes += [entry.index for entry in bundle.committed]
    return indexes


def test_committed_entries_after_the_applied_one_are_offered_again() -> None:
    _, first = bootstrap(MEMBERS)
    log = [*first, command(1, 2), command(1, 3), command(1, 4)]
    assert offered(start(HardState(1, 0, 3), log, applied=1)) == [2, 3]


def test_applied_entries_count_as_committed_even_when_the_hint_is_older() -> None:
    _, first = bootstrap(MEMBERS)
    core = start(HardState(1, 0, 0), [*first, command(1, 2)], applied=2)
    assert (core.commit, offered(core)) == (2, [])


def test_log_goes_on_after_the_snapshot_and_older_entries_are_ignored() -> None:
    snapshot = SnapshotMeta(3, 1, MEMBERS)
    log = [command(1, 2), command(1, 3), command(1, 4), command(2, 5)]
    core = start(HardState(2, 0, 4), log, snapshot, applied=3)
    assert (core.status().first_index, core.status().last_index) == (4, 5)
    assert core.membership == MEMBERS
    assert offered(core) == [4]


def test_newest_configuration_in_the_log_holds_committed_or_not() -> None:
    """Dissertation §4.1: also after a restart."""
    _, first = bootstrap(MEMBERS)
    change = Entry(1, 2, EntryKind.MEMBERSHIP, encode_membership(voters(1, 2, 3, 4)))
    core = start(HardState(1, 0, 1), [*first, change, command(1, 3)])
    assert (core.membership, core.membership_index) == (voters(1, 2, 3, 4), 2)


def test_overwritten_configuration_gives_way_to_the_one_before_after_a_restart() -> None:
    _, first = bootstrap(MEMBERS)
    change = Entry(1, 2, EntryKind.MEMBERSHIP, encode_membership(voters(1, 2, 3, 4)))
    core = start(HardState(1), [*first, change])
    core.step(
        Message(MessageKind.APPEND, 1, 2, 2, log_index=1, log_term=1, entries=[command(2, 2)])
    )
    assert (core.membership, core.membership_index) == (MEMBERS, 1)


def test_unreadable_configuration_changes_nothing() -> None:
    _, first = bootstrap(MEMBERS)
    core = start(HardState(1), [*first, command(1, 2)])
    bad = [Entry(2, 2, EntryKind.MEMBERSHIP, b"\xff")]
    with pytest.raises(CorruptionError):
        core.step(Message(MessageKind.APPEND, 1, 2, 2, log_index=1, log_term=1, entries=bad))
    assert (core.status().last_index, core.membership_index) == (2, 1)


@pytest.mark.parametrize(
    ("hard_state", "log", "snapshot", "applied"),
    [
        (HardState(1), [command(1, 2)], SnapshotMeta(), 0),
        (HardState(2), [command(2, 1), command(1, 2)], SnapshotMeta(), 0),
        (HardState(1), [command(2, 1)], SnapshotMeta(), 0),
        (HardState(2), [command(1, 5)], SnapshotMeta(4, 2, MEMBERS), 4),
        (HardState(1), [], SnapshotMeta(4, 2, MEMBERS), 4),
        (HardState(2), [], SnapshotMeta(4, 2, MEMBERS), 3),
    ],
    ids=["gap", "falling term", "term unknown", "below mark", "mark's term", "state behind mark"],
)
def test_records_that_contradict_each_other_are_refused(
    hard_state: HardState, log: list[Entry], snapshot: SnapshotMeta, applied: int
) -> None:
    with pytest.raises(CorruptionError):
        start(hard_state, log, snapshot, applied)


def test_member_that_joins_with_nothing_never_campaigns() -> None:
    core = start(HardState(), [])
    for _ in range(100):
        core.tick()
    core.campaign()
    assert (core.role, core.term, core.ready()) == (Role.FOLLOWER, 0, None)


def test_vote_and_term_survive() -> None:
    _, first = bootstrap(MEMBERS)
    core = start(HardState(5, 2, 0), list(first))
    core.step(Message(MessageKind.VOTE, 1, 3, 5, log_index=9, log_term=5))
    bundle = core.ready()
    assert bundle is not None
    assert [message.reject for message in bundle.messages] == [True]


@pytest.mark.parametrize("crashed", [(1,), (2,), (1, 2), (1, 2, 3)])
def test_everything_acknowledged_survives_any_crash(crashed: tuple[int, ...]) -> None:
    cluster = Cluster(MEMBERS)
    cluster.elect(1)
    for value in range(10):
        cluster.propose(b"%d" % value)
    for member in crashed:
        cluster.members[member].crash()
    for member in crashed:
        cluster.members[member].start()
    cluster.tick(40)
    cluster.propose(b"after")
    cluster.tick(2)
    assert len(cluster.states()) == 1
    assert [data for _, data in cluster.states().pop()] == [b"%d" % i for i in range(10)] + [
        b"after"
    ]


def test_restart_from_snapshot_and_tail_rebuilds_the_same_state() -> None:
    cluster = Cluster(MEMBERS, options=Options(tail_entries=2))
    cluster.elect(1)
    for value in range(10):
        cluster.propose(b"%d" % value)
    cluster.members[2].compact()
    cluster.propose(b"later")
    before = cluster.members[2].state[:]
    cluster.members[2].crash()
    cluster.members[2].start()
    cluster.tick(2)
    assert cluster.members[2].state == before
    assert cluster[2].membership == Membership(frozenset({1, 2, 3}))
