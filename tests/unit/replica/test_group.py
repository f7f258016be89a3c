"""Whole members in one process: writes, failover, restarts, lagging and failing members."""

from __future__ import annotations

import errno

import pytest

from kvstore.errors import (
    InvalidArgumentError,
    NotLeaderError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from kvstore.replica import SnapshotPart
from kvstore.state import encode_commands
from tests.unit.replica.driven_group import DrivenGroup, put_of


def test_what_is_written_is_read_and_says_whether_there_was_a_value():
    with DrivenGroup() as group:
        assert group.put(b"k", b"1") == [False]
        assert group.put(b"k", b"2") == [True]
        assert group.read(b"k") == b"2"
        assert group.delete(b"k", "d1") == [True]
        assert group.delete(b"k", "d2") == [False]
        assert group.read(b"k") is None


def test_every_member_comes_to_the_same_state():
    with DrivenGroup(members=5) as group:
        for number in range(50):
            group.put(b"%d" % (number % 7), b"%d" % number)
        group.settle()
        assert len(group.hashes()) == 1


def test_the_same_request_is_done_once_and_answered_as_at_first():
    with DrivenGroup() as group:
        assert group.put(b"k", b"1", "same") == [False]
        assert group.put(b"k", b"1", "same") == [False]
        assert group.ask([put_of("twice", b"x", b""), put_of("twice", b"x", b"")]) == [
            False,
            False,
        ]
        (refused,) = group.put(b"k", b"other", "same")
        assert isinstance(refused, InvalidArgumentError)
        assert group.read(b"k") == b"1"


def test_requests_are_remembered_over_failover_and_restart():
    with DrivenGroup() as group:
        assert group.put(b"k", b"1", "same") == [False]
        old = group.leader().member
        group.group.network.isolate(old, [m for m in group.group.replicas if m != old])
        group.until(
            lambda: group.group.leader_replica() and group.group.leader_replica().member != old
        )
        assert group.put(b"k", b"1", "same") == [False]
        group.group.network.heal()
        group.settle()
        disk = group.power_off()
    with DrivenGroup(disk, seed=2) as group:
        assert group.put(b"k", b"1", "same") == [False]
        assert group.put(b"k", b"1", "new") == [True]


def test_the_oldest_requests_are_forgotten_by_all_alike():
    with DrivenGroup() as group:
        assert group.put(b"k", b"1", "first") == [False]
        for number in range(70):
            group.put(b"other", b"%d" % number)
        assert group.put(b"k", b"1", "first") == [True]
        group.settle()
        assert len(group.hashes()) == 1


@pytest.mark.parametrize("keep", ["none", "prefix", "random", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_a_power_loss_of_all_loses_nothing_acknowledged(keep, seed):
    with DrivenGroup() as group:
        for number in range(40):
            group.put(b"%d" % (number % 9), b"%d" % number)
        expected = {b"%d" % key: group.read(b"%d" % key) for key in range(9)}
        disk = group.power_off(seed, keep)
    with DrivenGroup(disk, seed=seed) as group:
        assert {key: group.read(key) for key in expected} == expected
        group.settle()
        assert len(group.hashes()) == 1


def test_a_leader_without_a_majority_answers_neither_writes_nor_reads():
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        old = group.leader()
        writes: list[object] = []
        reads: list[object] = []
        group.group.network.isolate(old.member, [m for m in (1, 2, 3) if m != old.member])
        old.propose(encode_commands([put_of("lost", b"k", b"2")]), writes.append)
        old.read(reads.append)
        group.until(lambda: writes and reads)
        assert isinstance(writes[0], OutcomeUnknownError)
        assert isinstance(reads[0], UnavailableError | NotLeaderError)
        assert not old.has_quorum_contact
        group.group.network.heal()
        group.settle()
        assert group.read(b"k") == b"1"


def test_a_follower_refuses_writes_and_names_the_leader():
    with DrivenGroup() as group:
        leader = group.leader().member
        group.settle()
        answer = group.ask([put_of("r", b"k", b"")], member=1 + leader % 3)
        assert isinstance(answer, NotLeaderError)
        assert answer.leader == leader


def test_a_member_too_far_behind_gets_a_snapshot_and_catches_up():
    with DrivenGroup() as group:
        leader = group.leader().member
        behind = 1 + leader % 3
        group.group.network.isolate(behind, [m for m in (1, 2, 3) if m != behind])
        for number in range(600):
            group.put(b"%03d" % (number % 200), b"%d" % number * 20)
        group.until(
            lambda: (
                group.group.replicas[leader].status().raft.first_index
                > group.group.replicas[behind].status().raft.last_index + 1
            )
        )
        group.group.network.heal()
        group.settle()
        assert len(group.hashes()) == 1
        sent = group.group.replicas[leader].counters
        received = group.group.replicas[behind].counters
        assert sent.snapshots_sent == received.snapshots_received == 1
        assert sent.snapshot_sent_bytes == received.snapshot_received_bytes > 0
        # The requests came along with the state.
        assert group.put(b"199", b"599" * 20) == [True]
        disk = group.power_off()
    with DrivenGroup(disk, seed=2) as group:
        group.settle()
        assert group.read(b"199") == b"599" * 20
        assert len(group.hashes()) == 1


def test_a_snapshot_that_cannot_be_read_again_fences_the_sender_and_the_others_go_on():
    """The second time it is read is in a tick, when no answer came."""
    with DrivenGroup() as group:
        leader = group.leader().member
        behind = 1 + leader % 3
        network = group.group.network
        network.isolate(behind, [m for m in (1, 2, 3) if m != behind])
        for number in range(600):
            group.put(b"%03d" % (number % 200), b"%d" % number * 20)
        group.until(
            lambda: (
                group.group.replicas[leader].status().raft.first_index
                > group.group.replicas[behind].status().raft.last_index + 1
            )
        )
        sent: list[object] = []
        network.hold = lambda packet: isinstance(packet, SnapshotPart) and not sent.append(packet)
        network.heal()
        group.until(lambda: sent)
        group.disk.fail("pread", errno.EIO, always=True, path=f"node{leader}/outgoing")
        group.until(lambda: leader in group.failed)
        assert isinstance(group.failed[leader], StorageError)
        network.release()
        assert group.put(b"k", b"v") == [False]


def test_a_sync_that_fails_fences_the_member_and_the_others_go_on():
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        leader = group.leader().member
        group.disk.fail("datasync", errno.EIO, path=f"node{leader}/log")
        answer = group.put(b"k", b"2", "r")
        assert isinstance(answer, StorageError | OutcomeUnknownError)
        assert isinstance(group.failed[leader], StorageError)
        assert group.put(b"k", b"2", "r") == [True]
        assert group.leader().member != leader
        assert group.read(b"k") == b"2"


def test_a_member_whose_log_lost_synced_records_stands_aside_until_it_has_them_again():
    with DrivenGroup() as group:
        for number in range(5):
            group.put(b"k", b"%d" % number)
        group.settle()
        disk = group.power_off()
    (segment,) = (name for name in disk.names("/data/node2/log") if name.endswith(".wal"))
    disk.flip_bit(f"/data/node2/log/{segment}", 200)
    with DrivenGroup(disk) as group:
        replica = group.group.replicas[2]
        assert replica.recovery.name == "the log is damaged"
        assert replica.status().raft.damaged
        group.until(lambda: not replica.status().raft.damaged)
        assert group.read(b"k") == b"4"
        assert len(group.hashes()) == 1


def test_each_other_leader_is_counted_once():
    with DrivenGroup() as group:
        first = group.leader().member
        group.settle()
        assert [replica.counters.leader_changes for replica in group.group.replicas.values()] == [
            1,
            1,
            1,
        ]
        group.leader().transfer_leadership(1 + first % 3)
        group.until(lambda: group.leader().member != first)
        group.settle()
        assert [replica.counters.leader_changes for replica in group.group.replicas.values()] == [
            2,
            2,
            2,
        ]


def test_leadership_is_handed_over_on_request():
    with DrivenGroup() as group:
        old = group.leader()
        group.settle()
        new = 1 + old.member % 3
        old.transfer_leadership(new)
        group.until(lambda: group.group.replicas[new].is_leader)
        assert group.put(b"k", b"1") == [False]
