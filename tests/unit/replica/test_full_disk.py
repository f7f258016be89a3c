"""A member whose disk is full takes no writes, loses nothing, and goes on when there is room."""

from __future__ import annotations

import errno

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import UnavailableError
from kvstore.replica import Packet, Replica, SnapshotPart
from kvstore.replica.hold_off import PAUSE_S
from kvstore.replica.packets import NO_ROOM, SnapshotProgress
from tests.unit.replica.driven_group import TICK_S, DrivenGroup, into, put_of


def filled(driven: DrivenGroup, first: int, count: int, member: int) -> list[bytes]:
    """Puts as long as the member takes them; the keys that were acknowledged."""
    done = []
    for number in range(first, first + count):
        key = b"%06d" % number
        answer = driven.ask([put_of(f"put-{number}", key, bytes(2000))], member)
        if isinstance(answer, UnavailableError):
            assert "disk is full" in str(answer)
            break
        assert answer == [False]
        done.append(key)
    return done


def fall_behind(driven: DrivenGroup) -> int:
    """A member that lacks more than its leader's log has, and is still cut off."""
    leader = driven.leader()
    behind = 1 + leader.member % 3
    driven.group.network.isolate(
        behind, [member for member in driven.group.replicas if member != behind]
    )
    last = driven.group.replicas[behind].status().raft.last_index
    number = 0
    while leader.status().raft.first_index <= last + 1:
        driven.put(b"%06d" % (number % 200), bytes(2000), f"put-{number}")
        number += 1
    return behind


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
@pytest.mark.parametrize("place", ["state", "log"])
def test_a_leader_without_room_refuses_writes_and_goes_on_with_room(place: str, code: int) -> None:
    with DrivenGroup() as driven:
        leader = driven.leader().member
        other = next(member for member in driven.group.replicas if member != leader)
        before = filled(driven, 0, 10, leader)
        assert len(before) == 10
        operation = "pwrite" if place == "state" else "open"
        path = f"/node{leader}/{place}"
        driven.disk.fail(operation, code, always=True, path=path)
        answers: list[object] = []
        replica = driven.group.replicas[leader]
        for number in range(100, 1100):
            if replica.lacks_room:
                break
            replica.propose(
                driven.encoded(put_of(f"put-{number}", b"%06d" % number, bytes(2000))),
                into(answers),
            )
            driven.step()
        assert replica.lacks_room
        refused: list[object] = []
        replica.propose(driven.encoded(put_of("no", b"no", b"")), refused.append)
        assert isinstance(refused[0], UnavailableError)
        for _ in range(30):
            driven.step()
        assert driven.failed == {}
        driven.disk.heal()
        driven.until(lambda: not replica.lacks_room)
        driven.settle()
        after = filled(driven, 2000, 40, driven.leader().member)
        assert len(after) == 40
        driven.settle()
        assert len(driven.hashes()) == 1
        for key in before + after:
            assert driven.group.replicas[other].machine.get(key) == bytes(2000)
        assert driven.failed == {}


def test_to_stop_with_a_full_disk_is_no_failure() -> None:
    driven = DrivenGroup()
    try:
        leader = driven.leader()
        done = filled(driven, 0, 10, leader.member)
        driven.disk.fail("open", errno.ENOSPC, always=True, path="/log")
        for number in range(100, 1100):
            if leader.lacks_room:
                break
            entry = driven.encoded(put_of(f"put-{number}", b"%06d" % number, bytes(2000)))
            leader.propose(entry, lambda outcome: None)
            driven.step()
        assert leader.lacks_room
    finally:
        driven.group.close()
    driven.disk.heal()
    with DrivenGroup(driven.disk) as again:
        again.settle()
        for key in done:
            assert again.leader().machine.get(key) == bytes(2000)


def test_a_follower_without_room_for_its_state_catches_up_with_room() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader().member
        follower = next(member for member in driven.group.replicas if member != leader)
        driven.disk.fail("pwrite", errno.ENOSPC, always=True, path=f"/node{follower}/state")
        done = filled(driven, 0, 120, leader)
        # The others are a majority.
        assert len(done) == 120
        assert driven.group.replicas[follower].lacks_room
        applied = driven.group.replicas[follower].status().applied
        assert applied < driven.group.replicas[leader].status().applied
        assert driven.failed == {}
        driven.disk.heal()
        driven.settle()
        assert not driven.group.replicas[follower].lacks_room
        assert len(driven.hashes()) == 1


def test_a_follower_without_room_for_a_snapshot_waits_and_costs_its_leader_little() -> None:
    with DrivenGroup() as driven:
        behind = fall_behind(driven)
        follower = driven.group.replicas[behind]
        network = driven.group.network
        driven.disk.fail("pwrite", errno.ENOSPC, always=True, path=f"/node{behind}/incoming")
        offers: list[int] = []

        def note(packet: Packet) -> bool:
            if isinstance(packet, SnapshotPart) and packet.offset == 0:
                offers.append(driven.steps)
            return False

        network.hold = note
        reads = driven.disk.counts["pread"]
        network.heal()
        for _ in range(round(130 / TICK_S)):
            driven.step()
        # At 0, 1, 3, 7, 15, 31, 63 and 123 seconds, and each sent anew a few times at most.
        assert 7 <= len(offers) <= 20
        # The leader didn't read its whole state to see whether it is damaged.
        assert driven.disk.counts["pread"] - reads < 1000
        assert driven.failed == {}
        assert "snapshot" in follower.storage_trouble
        assert not follower.directory.filesystem.kind(f"/data/node{behind}/incoming")
        driven.disk.heal()
        driven.settle()
        assert len(driven.hashes()) == 1
        driven.until(lambda: not follower.storage_trouble)


def test_a_follower_that_gets_room_for_a_snapshot_says_so_and_gets_it_at_once() -> None:
    with DrivenGroup() as driven:
        behind = fall_behind(driven)
        follower = driven.group.replicas[behind]
        directory = f"/node{behind}"
        driven.disk.fail("pwrite", errno.ENOSPC, always=True, path=f"{directory}/incoming")
        driven.disk.fail("free_bytes", errno.EIO, always=True, path=directory)
        driven.group.network.heal()
        # After offers at 0, 1, 3, 7, 15 and 31 seconds the next pause lasts 32.
        for _ in range(round(34 / TICK_S)):
            driven.step()
        assert "snapshot" in follower.storage_trouble
        driven.disk.heal()
        began = driven.steps
        driven.settle()
        assert (driven.steps - began) * TICK_S < 5 * PAUSE_S
        assert len(driven.hashes()) == 1
        driven.until(lambda: not follower.storage_trouble)
        assert (driven.steps - began) * TICK_S < 8 * PAUSE_S
        assert driven.failed == {}


def match_of(leader: Replica, member: int) -> int:
    (peer,) = (one for one in leader.status().raft.peers if one.member == member)
    return peer.match


def test_a_follower_that_gets_the_entries_after_all_lacks_no_room_for_the_snapshot() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        driven.settle()
        behind = 1 + leader.member % 3
        follower = driven.group.replicas[behind]
        for operation, place in (("open", "log"), ("pwrite", "incoming")):
            path = f"/node{behind}/{place}"
            driven.disk.fail(operation, errno.ENOSPC, always=True, path=path)
        number = 0
        while leader.status().raft.first_index <= match_of(leader, behind) + 1:
            driven.put(b"%06d" % (number % 200), bytes(2000), f"put-{number}")
            number += 1
        refused: list[Packet] = []

        def note(packet: Packet) -> bool:
            if isinstance(packet, SnapshotProgress) and packet.next == NO_ROOM:
                refused.append(packet)
            return False

        driven.group.network.hold = note
        # It has them all, and they wait for its log. Its leader forgets what is on its way.
        leader.unreachable(behind)
        driven.until(lambda: refused and follower.storage_trouble)
        driven.disk.heal()
        driven.until(lambda: not follower.storage_trouble)
        driven.settle()
        assert len(driven.hashes()) == 1
        assert follower.counters.snapshots_received == 0
        assert driven.failed == {}


def test_a_member_restarts_on_a_full_disk_with_all_that_it_had() -> None:
    disk = MemoryFileSystem()
    disk.make_directories("/data")
    with DrivenGroup(disk) as driven:
        done = filled(driven, 0, 120, driven.leader().member)
        driven.settle()
    disk.fail("pwrite", errno.ENOSPC, always=True, path="/state-")
    with DrivenGroup(disk) as driven:
        driven.settle()
        for key in done:
            assert driven.read(key) == bytes(2000)
        assert driven.failed == {}
        disk.heal()
        driven.settle()
        assert len(filled(driven, 1000, 60, driven.leader().member)) == 60
