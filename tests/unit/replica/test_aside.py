"""Checkpoints, installations and verifications beside the loop, and what can happen meanwhile."""

from __future__ import annotations

from typing import Literal

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.replica import Replica, SnapshotPart
from kvstore.replica.checkpoint_stream import CheckpointReader
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.packets import REFUSED, Packet, SnapshotProgress
from kvstore.replica.snapshots import SnapshotSender
from kvstore.replica.transfers import VERIFY_PAUSE_S
from tests.unit.replica.driven_group import TICK_S, DrivenGroup, LaterWork


def left_behind(driven: DrivenGroup) -> tuple[Replica, Replica]:
    """A leader, and a follower that lacks what the leader's log has no more; cut off still."""
    for number in range(40):
        driven.put(b"%d" % number, b"v" * 500)
    leader = driven.leader()
    victim = driven.group.replicas[leader.member % 3 + 1]
    driven.group.network.isolate(victim.member, [m for m in (1, 2, 3) if m != victim.member])
    for number in range(60):
        driven.put(b"%d" % number, b"w" * 2000)
    leader.machine.flush()
    last = victim.status().raft.last_index
    driven.until(lambda: leader.status().raft.first_index > last + 1)
    return leader, victim


def names(driven: DrivenGroup, replica: Replica) -> list[str]:
    return [name.partition("-")[0] for name in driven.disk.names(f"/data/node{replica.member}")]


def test_writes_go_on_while_a_checkpoint_is_made_and_installed() -> None:
    work = LaterWork("checkpoint", "install", "verify")
    with DrivenGroup(work=work) as driven:
        leader, victim = left_behind(driven)
        work.do()
        driven.group.network.heal()
        driven.until(lambda: leader._jobs.is_busy(f"checkpoint for {victim.member}"))
        for number in range(5):
            assert driven.put(b"%d" % number, b"x") == [True]
        assert "outgoing" not in names(driven, leader)
        driven.until(lambda: victim._applying.is_installing or work.do())
        before = victim.machine
        for number in range(5, 10):
            assert driven.put(b"%d" % number, b"y") == [True]
        # The state from before is there to be looked at, but nothing new is promised.
        assert victim.machine is before
        assert victim.machine.get(b"39") == b"v" * 500
        assert driven.leader() is leader
        driven.until(lambda: work.do() or victim.machine is not before)
        driven.until(lambda: work.do() or len(driven.hashes()) == 1)
        driven.settle()
        work.do()
        driven.step()
        work.do()
        assert names(driven, victim).count("state") == 1
        assert "outgoing" not in names(driven, leader)
        assert not driven.failed


def test_a_checkpoint_that_outlived_its_leader_is_removed_and_not_sent() -> None:
    work = LaterWork("checkpoint", "install", "verify")
    with DrivenGroup(work=work) as driven:
        leader, victim = left_behind(driven)
        work.do()
        sent: list[Packet] = []

        def hold(packet: Packet) -> bool:
            if isinstance(packet, SnapshotPart) and packet.sender == leader.member:
                sent.append(packet)
            return False

        driven.group.network.heal()
        driven.group.network.hold = hold
        driven.until(lambda: leader._jobs.is_busy(f"checkpoint for {victim.member}"))
        driven.group.network.isolate(leader.member, [m for m in (1, 2, 3) if m != leader.member])
        driven.until(lambda: not leader.is_leader)
        for _ in range(4):
            work.do()
            driven.step()
        assert sent == []
        assert "outgoing" not in names(driven, leader)
        driven.group.network.heal()
        driven.until(lambda: work.do() or len(driven.hashes()) == 1)
        assert not driven.failed


def test_writes_go_on_while_parts_of_a_snapshot_are_read_and_written() -> None:
    work = LaterWork("part for", "keep part")
    with DrivenGroup(work=work) as driven:
        leader, victim = left_behind(driven)
        driven.group.network.heal()
        for kind, reads in ((f"part for {victim.member}", True), ("keep part", False)):
            replica = leader if reads else victim
            driven.until(lambda replica=replica, kind=kind: replica._jobs.is_busy(kind))
            for number in range(5):
                assert driven.put(b"%d" % number, kind.encode()) == [True]
            assert driven.leader() is leader
            work.do()
        driven.until(lambda: work.do() or len(driven.hashes()) == 1)
        assert victim.counters.snapshots_received == 1
        assert not driven.failed


@pytest.mark.parametrize("kind", ["part for", "keep part"])
def test_a_disk_that_hangs_over_a_part_is_trouble(kind: str) -> None:
    work = LaterWork(kind)
    with DrivenGroup(work=work) as driven:
        leader, victim = left_behind(driven)
        driven.group.network.heal()
        replica = leader if kind == "part for" else victim
        driven.until(lambda: replica.storage_trouble)
        assert "hangs" in replica.storage_trouble
        driven.until(lambda: work.do() or not replica.storage_trouble)
        driven.until(lambda: work.do() or len(driven.hashes()) == 1)
        assert not driven.failed


def test_what_was_read_of_a_checkpoint_that_is_gone_meanwhile_is_not_sent() -> None:
    """Whether the removal or the read comes first: the read may find no file any more."""
    work = LaterWork("part for")
    with DrivenGroup(work=work) as driven:
        leader, victim = left_behind(driven)
        sent: list[Packet] = []
        driven.group.network.heal()
        driven.group.network.hold = lambda packet: (
            isinstance(packet, SnapshotPart) and not sent.append(packet)
        )
        driven.until(lambda: work.jobs)
        first = leader._transfers._senders[victim.member]
        refuse(leader, victim)
        driven.step()
        assert not driven.disk.exists(first.path)
        driven.until(lambda: leader._transfers._senders.get(victim.member) not in (None, first))
        assert len(work.jobs) == 1
        work.do()
        driven.step()
        assert sent == []
        # The one that is sent now had to wait for it.
        assert len(work.jobs) == 1
        driven.group.network.hold = None
        driven.until(lambda: work.do() or len(driven.hashes()) == 1)
        assert not driven.failed


def test_a_snapshot_that_isnt_wanted_any_more_once_it_is_checked_is_removed() -> None:
    work = LaterWork("check received")
    with DrivenGroup(work=work) as driven:
        driven.put(b"k", b"old")
        driven.settle()
        leader = driven.leader()
        victim = driven.group.replicas[leader.member % 3 + 1]
        path = leader.directory.outgoing(victim.member)
        leader.machine.checkpoint(path)
        meta = leader._raft.snapshot_meta(leader.machine.applied_index)
        stream = CheckpointReader(driven.disk, path)
        sender = SnapshotSender(
            stream, path, leader.member, victim.member, leader.term, meta, 1 << 20, TICK_S
        )
        victim.receive([sender.part(0)])
        driven.step()
        # The entries are here meanwhile.
        driven.put(b"k", b"new")
        driven.settle()
        gone: list[str] = []
        driven.disk.on_operation = lambda operation, path: (
            gone.append(path) if operation == "unlink" else None
        )
        work.do()
        driven.step()
        assert victim.counters.snapshots_received == 1
        # Under another name: a start might take the half of it for the state.
        assert any("/outgoing-unwanted" in path for path in gone)
        assert not any("/ready-" in path for path in gone)
        assert names(driven, victim).count("ready") == 0
        assert victim.machine.get(b"k") == b"new"
        assert not driven.failed


def refuse(leader: Replica, victim: Replica) -> None:
    sender = leader._transfers._senders[victim.member]
    leader.receive(
        [SnapshotProgress(victim.member, leader.member, leader.term, sender.meta.index, REFUSED)]
    )


def test_however_often_a_snapshot_is_refused_the_state_is_verified_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with DrivenGroup() as driven:
        leader, victim = left_behind(driven)
        verified: list[int] = []
        monkeypatch.setattr(
            type(leader.machine), "verify", lambda machine: verified.append(driven.steps)
        )
        driven.group.network.heal()
        driven.group.network.hold = lambda packet: isinstance(packet, SnapshotPart)
        for _ in range(5):
            driven.until(lambda: victim.member in leader._transfers._senders)
            refuse(leader, victim)
        driven.step()
        assert len(verified) == 1
        driven.steps += int(VERIFY_PAUSE_S / TICK_S)
        driven.until(lambda: victim.member in leader._transfers._senders)
        refuse(leader, victim)
        driven.step()
        assert len(verified) == 2
        assert driven.leader() is leader


def test_damage_that_a_refusal_leads_to_fences_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    work = LaterWork("checkpoint", "install", "verify")
    with DrivenGroup(work=work) as driven:
        leader, victim = left_behind(driven)
        damage = CorruptionError("bad", code=IntegrityCode.CHECKSUM_MISMATCH, path="/t")

        def verify() -> None:
            raise damage

        monkeypatch.setattr(leader.machine, "verify", verify)
        driven.group.network.heal()
        driven.group.network.hold = lambda packet: isinstance(packet, SnapshotPart)
        driven.until(lambda: work.do() or victim.member in leader._transfers._senders)
        refuse(leader, victim)
        assert leader.failure is None
        driven.until(lambda: work.do() or leader.failure is not None)
        assert leader.failure is damage


@pytest.mark.parametrize("keep", ["none", "all"])
def test_what_is_left_of_a_ready_snapshot_that_is_removed_never_becomes_the_state(
    keep: Literal["none", "all"],
) -> None:
    """The log's own mark may name its index by then; a start took the half of it for the state."""
    disk = MemoryFileSystem()
    directory = MemberDirectory("/member", disk)
    state = directory.current_state(0)
    with kvstore.open(directory.make_incoming(), filesystem=disk, wal=False) as database:
        database.put(b"k", b"v")
    directory.incoming_is_whole(22)
    assert MemberDirectory("/member", disk.crash()).current_state(22) != state
    directory.withdraw(22)
    disk.rename(directory.withdrawn(22) + "/CURRENT", "/member/outgoing-gone")
    left = disk.crash(keep=keep)
    assert MemberDirectory("/member", left).current_state(22) == state
    assert [name for name in left.names("/member") if name != "log"] == [state.rpartition("/")[2]]
