"""Disks that hang, are full, fail or lie: who leads then, and what clients are told."""

from __future__ import annotations

import errno
import os
import random
import select
from collections.abc import Callable

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import (
    CorruptionError,
    IntegrityCode,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from kvstore.raft import Membership
from kvstore.replica import Identity, InProcessNetwork, Replica
from kvstore.service import Get, Put
from kvstore.state import encode_commands
from tests.unit.replica.driven_group import SMALL, DrivenGroup, into, put_of
from tests.unit.service.test_failover import ServedGroup

ELECTION_TICKS = SMALL.raft.election_ticks


class HangingGroup(DrivenGroup):
    """Members in ``hanging`` have disks that finish nothing until they are taken out of it."""

    def __enter__(self) -> HangingGroup:
        self.hanging: set[int] = set()
        return self

    def step(self) -> None:
        self.group.turn()
        for member, replica in self.group.replicas.items():
            if replica.storage_busy and member not in self.hanging:
                replica.sync_storage()
        self.group.turn()
        self.group.tick()
        self.steps += 1

    def begin_put(self, member: int, key: bytes) -> list[object]:
        answers: list[object] = []
        self.group.replicas[member].propose(
            self.encoded(put_of(f"put-{key!r}", key, b"value")), into(answers)
        )
        return answers


def test_a_leader_whose_disk_hangs_hands_over_within_two_election_timeouts() -> None:
    with HangingGroup() as driven:
        leader = driven.leader()
        driven.settle()
        driven.hanging.add(leader.member)
        waiting = driven.begin_put(leader.member, b"k")
        began = driven.steps
        driven.until(lambda: not leader.is_leader)
        driven.leader()
        assert driven.steps - began <= 2 * ELECTION_TICKS + 3
        assert isinstance(waiting[0], OutcomeUnknownError)
        assert "hangs" in leader.storage_trouble
        # What it could not write is there, and what follows is written without it.
        assert driven.read(b"k") == b"value"
        for number in range(20):
            assert driven.put(b"%d" % number, b"value") == [False]
        for _ in range(10 * ELECTION_TICKS):
            driven.step()
            assert not leader.is_leader
        assert leader.storage_trouble
        driven.hanging.clear()
        driven.until(lambda: not leader.storage_trouble)
        driven.settle()
        assert len(driven.hashes()) == 1
        assert driven.failed == {}
        # It may lead again once the one that leads has heard so.
        now = driven.leader()
        driven.until(lambda: not any(peer.ailing for peer in now.status().raft.peers))
        now.transfer_leadership(leader.member)
        driven.until(lambda: leader.is_leader)


def test_with_all_disks_hanging_the_leader_stays_and_goes_on_with_them() -> None:
    with HangingGroup() as driven:
        leader = driven.leader()
        driven.settle()
        term = leader.term
        driven.hanging.update(driven.group.replicas)
        waiting = driven.begin_put(leader.member, b"k")
        for _ in range(10 * ELECTION_TICKS):
            driven.step()
        assert leader.is_leader
        assert driven.read(b"other") is None
        assert not waiting
        assert all(replica.storage_trouble for replica in driven.group.replicas.values())
        driven.hanging.clear()
        driven.until(lambda: waiting)
        assert waiting == [[False]]
        assert (driven.leader().member, leader.term) == (leader.member, term)


def test_a_disk_that_hangs_again_and_again_moves_leadership_once() -> None:
    with HangingGroup() as driven:
        first = driven.leader()
        changes = 0
        leader = first.member
        for number in range(60):
            if number % 2:
                driven.hanging.discard(first.member)
            else:
                driven.hanging.add(first.member)
                driven.put(b"%d" % number, b"value")
            for _ in range(2 * ELECTION_TICKS + 5 if number % 2 == 0 else 3):
                driven.step()
            changes += driven.leader().member != leader
            leader = driven.leader().member
        assert changes == 1
        assert leader != first.member


@pytest.mark.parametrize("place", ["state", "log"])
def test_a_leader_without_room_hands_over_and_writes_go_on(place: str) -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        operation = "pwrite" if place == "state" else "open"
        driven.disk.fail(operation, errno.ENOSPC, always=True, path=f"/node{leader.member}/{place}")
        done = 0
        for number in range(200):
            at = driven.leader()
            answers: list[object] = []
            at.propose(
                driven.encoded(put_of(f"put-{number}", b"%06d" % number, bytes(2000))),
                into(answers),
            )
            for _ in range(3 * ELECTION_TICKS):
                if answers:
                    break
                driven.step()
            done += answers == [[False]]
            if isinstance(answers[0], UnavailableError):
                driven.step()
        # While it was full and led it refused some, or could not tell.
        assert 150 < done < 200
        assert driven.leader().member != leader.member
        assert "no room" in leader.storage_trouble
        driven.disk.heal()
        driven.until(lambda: not leader.storage_trouble)
        driven.settle()
        assert len(driven.hashes()) == 1
        assert driven.failed == {}


@pytest.mark.parametrize("member_is", ["leader", "follower", "all"])
@pytest.mark.parametrize("place", ["state", "log"])
def test_a_full_disk_that_gets_room_goes_on_by_itself(place: str, member_is: str) -> None:
    with DrivenGroup() as driven:
        leader = driven.leader().member
        full = {"leader": [leader], "follower": [1 + leader % 3], "all": [1, 2, 3]}[member_is]
        operation = "pwrite" if place == "state" else "open"
        for member in full:
            path = f"/node{member}/{place}"
            driven.disk.fail(operation, errno.ENOSPC, always=True, path=path)
        for number in range(150):
            driven.leader().propose(
                driven.encoded(put_of(f"put-{number}", b"%06d" % number, bytes(2000))),
                lambda answer: None,
            )
            driven.step()
        for _ in range(5 * ELECTION_TICKS):
            driven.step()
        assert all(driven.group.replicas[member].storage_trouble for member in full)
        if (place, member_is) != ("state", "all"):
            # Otherwise something is committed that nobody has room to apply.
            assert driven.read(b"none") is None
        driven.disk.heal()
        driven.until(lambda: not any(r.storage_trouble for r in driven.group.replicas.values()))
        assert driven.put(b"later", b"value") == [False]
        driven.settle()
        assert len(driven.hashes()) == 1
        assert driven.failed == {}


def test_a_log_that_found_no_room_goes_on_by_its_own_thread() -> None:
    disk = MemoryFileSystem()
    disk.make_directories("/data")
    replica = Replica(
        Identity("a-cluster", 1),
        "/data/node1",
        InProcessNetwork(lambda: None),
        options=SMALL,
        rng=random.Random(1),
        wake=lambda: None,
        founders=Membership(voters=frozenset({1})),
        filesystem=disk,
    )

    def drive(condition: Callable[[], object]) -> None:
        for _ in range(2000):
            if condition():
                return
            replica.tick()
            replica.turn()
            # The log's thread says so when it has written, or has found no room.
            if select.select([replica.notify_fd], [], [], 0.005)[0]:
                os.eventfd_read(replica.notify_fd)
        raise AssertionError("not so in time")

    try:
        replica.campaign()
        drive(lambda: replica.is_leader)
        disk.fail("open", errno.ENOSPC, always=True, path="/log/")
        answers: list[object] = []
        asked = 0
        while not replica.lacks_room:
            put = put_of(f"put-{asked}", b"%06d" % asked, bytes(3000))
            replica.propose(encode_commands([put]), into(answers))
            asked += 1
            drive(lambda: replica.lacks_room or len(answers) == asked)  # noqa: B023
        drive(lambda: replica.storage_trouble)
        assert len(answers) < asked
        disk.heal()
        drive(lambda: len(answers) == asked)
        assert answers == [[False]] * asked
        drive(lambda: not replica.storage_trouble)
    finally:
        replica.close()


def test_a_write_whose_leader_fails_to_sync_may_be_retried_at_once() -> None:
    with DrivenGroup() as driven:
        driven.put(b"k", b"1")
        driven.settle()
        leader = driven.leader()
        driven.disk.fail("datasync", errno.EIO, path=f"node{leader.member}/log")
        answer = driven.put(b"k", b"2", "r")
        assert isinstance(answer, OutcomeUnknownError)
        assert answer.code is IntegrityCode.IO_ERROR
        assert isinstance(driven.failed[leader.member], StorageError)
        began = driven.steps
        assert driven.leader().member != leader.member
        # It said so: nobody waited for an election timeout.
        assert driven.steps - began < ELECTION_TICKS
        assert driven.put(b"k", b"2", "r") == [True]
        # For good.
        driven.disk.heal()
        for _ in range(5 * ELECTION_TICKS):
            driven.step()
        assert leader.failure is not None
        answers: list[object] = []
        leader.propose(driven.encoded(put_of("later", b"k", b"3")), answers.append)
        leader.read(answers.append)
        for refused in answers:
            assert isinstance(refused, UnavailableError)
            assert refused.code is IntegrityCode.IO_ERROR


def test_where_no_other_member_has_it_a_failed_disk_is_data_loss() -> None:
    with DrivenGroup(members=1) as driven:
        driven.put(b"k", b"1")
        driven.disk.fail("datasync", errno.EIO, path="node1/log")
        assert isinstance(driven.put(b"k", b"2"), StorageError)


def damage_tables(disk: MemoryFileSystem, member: int) -> None:
    """The first data block of each table of a running member."""
    for path in disk.files(f"/data/node{member}"):
        if path.endswith(".sst"):
            disk.flip_bit(path, 100)


def test_a_leader_that_reads_damage_hands_over_and_is_repaired() -> None:
    with ServedGroup() as group:
        for number in range(120):
            group.put(b"%06d" % number, bytes(2000))
        group.settle()
        leader = group.leader()
        damage_tables(group.disk, leader.member)
        answer = group.call(Get(b"%06d" % 0))
        assert isinstance(answer, UnavailableError)
        assert not isinstance(answer, OutcomeUnknownError)
        assert answer.code is IntegrityCode.CHECKSUM_MISMATCH
        began = group.steps
        group.until(lambda: group.leader() is not leader)
        assert group.steps - began < ELECTION_TICKS
        assert group.call(Get(b"%06d" % 0)) == bytes(2000)
        assert group.call(Put(b"k", b"v", b"a")) is False
        group.until(lambda: leader.counters.repairs_done)
        assert leader.machine.get(b"%06d" % 0) == bytes(2000)
        assert not group.failed


def test_alone_damage_is_told_as_what_it_is() -> None:
    with DrivenGroup(members=1) as driven:
        for number in range(120):
            driven.put(b"%06d" % number, bytes(2000))
        damage_tables(driven.disk, 1)
        replica = driven.leader()
        with pytest.raises(CorruptionError) as caught:
            replica.machine.get(b"%06d" % 0)
        assert replica.read_failed(caught.value) is caught.value


def test_a_read_that_lacked_descriptors_fences_nobody() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        told = leader.read_failed(StorageError("open", errno=errno.EMFILE))
        assert isinstance(told, UnavailableError)
        for _ in range(3):
            driven.step()
        assert leader.is_leader
