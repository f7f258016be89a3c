"""A member that was away catches up while the others are written to all along."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.raft import Fetch
from kvstore.replica import Replica
from kvstore.replica.packets import SnapshotPart
from kvstore.replica.snapshots import SILENT_S

from .driven_group import SMALL, TICK_S, DrivenGroup, LaterWork, put_of

AWAY = 3
VALUE = b"v" * 1000


def isolate(group: DrivenGroup) -> None:
    leader = group.leader()
    if leader.member == AWAY:
        leader.transfer_leadership(1)
        group.until(lambda: group.leader().member == 1)
    group.group.network.isolate(AWAY, [1, 2])


def write(group: DrivenGroup, count: int, start: int) -> None:
    for number in range(start, start + count):
        group.put(b"key-%d" % (number % 500), VALUE, f"request-{number}")


def test_one_snapshot_is_enough_however_slow_it_is():
    raft = replace(SMALL.raft, log_entries_max=4000)
    options = replace(SMALL, raft=raft, snapshot_part_bytes=5000)
    with DrivenGroup(options=options) as group:
        isolate(group)
        write(group, 250, 0)
        group.group.network.heal()
        away = group.group.replicas[AWAY]
        slow = group.group.network
        written = 250
        while away.counters.snapshots_received == 0:
            # A few writes for each part that gets through.
            slow.hold = lambda packet: isinstance(packet, SnapshotPart)
            write(group, 10, written)
            written += 10
            slow.release()
            assert written < 3000
        slow.hold = None
        assert written > 400, "it was not slow"
        write(group, 50, written)
        group.settle()
        leader = group.leader()
        assert away.counters.snapshots_received == 1
        assert leader.counters.snapshots_sent == 1
        assert len(group.hashes()) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_a_check_that_takes_long_is_no_silence(damaged):
    """The sender waits for longer than it waits for one that says nothing at all."""
    work = LaterWork("check received")
    with DrivenGroup(work=work) as group:
        isolate(group)
        write(group, 300, 0)
        group.group.network.heal()
        group.until(lambda: work.jobs)
        leader = group.leader()
        term = leader.term
        for _ in range(round(3 * SILENT_S / TICK_S)):
            group.step()
        away = group.group.replicas[AWAY]
        assert away.counters.snapshots_received == 0
        assert len(work.jobs) == 1
        if damaged:
            incoming = f"{away.directory.path}/incoming"
            table = max(
                group.disk.names(incoming), key=lambda n: group.disk.size(f"{incoming}/{n}")
            )
            group.disk.flip_bit(f"{incoming}/{table}", 100)
        work.do()
        group.until(lambda: (work.do(), away.counters.snapshots_received)[1])
        group.settle()
        assert (leader.counters.snapshots_sent, leader.term) == (1, term)
        assert away.counters.snapshots_received == 1
        assert len(group.hashes()) == 1


def test_a_snapshot_that_is_checked_while_its_leader_is_elected_anew_is_installed():
    """And nothing is committed without this follower, so the next snapshot is the same one."""
    work = LaterWork("check received")
    with DrivenGroup(work=work) as group:
        isolate(group)
        write(group, 300, 0)
        leader, network = group.leader(), group.group.network
        gone = next(m for m in (1, 2) if m != leader.member)
        network.heal()
        network.isolate(gone, [leader.member, AWAY])
        group.until(lambda: work.jobs)
        term = leader.term
        network.isolate(AWAY, [leader.member])
        group.until(lambda: not leader.is_leader)
        network.heal()
        network.isolate(gone, [leader.member, AWAY])
        group.until(lambda: leader.is_leader and leader.term > term)
        work.do()
        away = group.group.replicas[AWAY]
        group.until(lambda: away.status().applied == leader.status().raft.last_index)
        assert leader.counters.snapshots_sent <= 2
        group.put(b"key", b"value")
        assert away.machine.get(b"key") == b"value"
        assert not group.failed


@pytest.mark.parametrize("at_home", [False, True], ids=["on its way", "at the sender"])
def test_who_sent_a_damaged_snapshot_looks_at_its_own_state(at_home):
    """Damaged on its way it is sent again; damaged at the sender, another member sends it."""
    with DrivenGroup() as group:
        isolate(group)
        write(group, 300, 0)
        leader = group.leader()
        network = group.group.network
        damaged = []

        def damage(packet):
            if isinstance(packet, SnapshotPart) and not damaged:
                half = len(packet.data) // 2
                changed = bytes([packet.data[half] ^ 1])
                packet = replace(
                    packet, data=packet.data[:half] + changed + packet.data[half + 1 :]
                )
                damaged.append(packet)
            return packet

        if at_home:
            for path in group.disk.files(leader.directory.path):
                if path.endswith(".sst"):
                    group.disk.flip_bit(path, 100)
        else:
            send = network.send
            network.send = lambda packets: send([*map(damage, packets)])
        network.heal()
        away = group.group.replicas[AWAY]
        group.until(lambda: away.counters.snapshots_received)
        group.settle()
        assert leader._transfers._verified_at >= 0
        assert bool(damaged) != at_home
        assert bool(leader.counters.repairs_done) == at_home
        assert (group.leader() is leader) != at_home
        assert leader.failure is None
        assert away.failure is None
        assert len(group.hashes()) == 1


def test_a_snapshot_that_is_damaged_each_time_is_sent_less_and_less_often():
    """It took a checkpoint and a transfer in each turn, and the turn of a group never ended."""
    with DrivenGroup() as group:
        isolate(group)
        write(group, 300, 0)
        network = group.group.network
        begun = []
        send = network.send

        def damage(packet):
            if isinstance(packet, SnapshotPart):
                begun.append(packet)
                packet = replace(packet, data=bytes(len(packet.data)))
            return packet

        network.send = lambda packets: send([*map(damage, packets)])
        network.heal()
        for _ in range(round(10 / TICK_S)):
            group.step()
        away = group.group.replicas[AWAY]
        assert 2 <= len(begun) <= 5  # after 0, 1, 3 and 7 s
        assert away.counters.snapshots_received == 0
        network.send = send
        group.until(lambda: away.counters.snapshots_received)
        group.settle()
        assert not group.failed
        assert len(group.hashes()) == 1


def test_a_transfer_that_failed_is_begun_again():
    with DrivenGroup() as group:
        isolate(group)
        write(group, 300, 0)
        network = group.group.network
        network.heal()
        network.hold = lambda packet: isinstance(packet, SnapshotPart)
        group.until(lambda: network._held)
        for _ in range(round(1.5 * SILENT_S / TICK_S)):
            group.step()
        network._held.clear()
        network.hold = None
        group.settle()
        assert group.group.replicas[AWAY].counters.snapshots_received == 1
        assert len(group.hashes()) == 1


@pytest.mark.parametrize(
    ("operation", "place", "lack"),
    [
        ("open", "outgoing", errno.EMFILE),
        ("open", "incoming", errno.EMFILE),
        ("rename", "ready", errno.ENOSPC),
        ("sync_directory", f"node{AWAY}", errno.EMFILE),
        ("open", f"node{AWAY}/state", errno.ENOMEM),
    ],
)
def test_a_passing_lack_while_a_snapshot_moves_ends_nobody(operation, place, lack):
    with DrivenGroup(options=replace(SMALL, snapshot_part_bytes=300)) as group:
        isolate(group)
        write(group, 300, 0)
        leader, away = group.leader(), group.group.replicas[AWAY]
        hits = []

        def refuse(name, path):
            moves = leader._transfers._senders or away._applying.is_installing
            if name == operation and place in path and moves:
                hits.append(path)
                raise OSError(lack, "lacking")

        group.group.network.heal()
        group.disk.on_operation = refuse
        group.until(lambda: hits)
        for _ in range(20):
            group.step()
        group.disk.on_operation = None
        group.settle()
        assert not group.failed
        assert len(group.hashes()) == 1


# --- from the tail on disk ---------------------------------------------------------------------

TAILED = replace(SMALL, log_tail_bytes=4 << 20)


def away_for(group: DrivenGroup, count: int, start: int = 0) -> Replica:
    """Member 3 lacks more than memory holds, and is back."""
    isolate(group)
    write(group, count, start)
    leader = group.leader()
    assert leader.status().raft.first_index > group.group.replicas[AWAY].status().raft.last_index
    group.group.network.heal()
    return group.group.replicas[AWAY]


def test_a_member_that_was_away_gets_entries_from_the_tail():
    with DrivenGroup(options=TAILED) as group:
        away = away_for(group, 600)
        write(group, 50, 600)
        group.settle()
        assert away.counters.snapshots_received == 0
        assert group.leader().counters.log_read_back_bytes > 400 * len(VALUE)
        assert len(group.hashes()) == 1
        assert not group.failed


def test_the_tail_is_bounded_by_bytes():
    options = replace(SMALL, log_tail_bytes=256 << 10)
    with DrivenGroup(options=options) as group:
        away = away_for(group, 1200)
        assert group.leader().status().log["segments"] <= 6
        group.settle()
        assert away.counters.snapshots_received == 1
        assert len(group.hashes()) == 1


def test_a_new_leader_after_a_restart_has_its_tail():
    with DrivenGroup(options=TAILED) as group:
        isolate(group)
        write(group, 600, 0)
        group.group.network.heal()
        # Before member 3 has heard anything.
        disk = group.power_off()
    with DrivenGroup(disk, options=TAILED) as group:
        leader = group.leader()
        assert leader.member != AWAY
        assert leader.status().raft.first_index > 300, "the tail is in memory"
        away = group.group.replicas[AWAY]
        group.settle()
        assert away.counters.snapshots_received == 0
        assert leader.counters.log_read_back_bytes > 300 * len(VALUE)
        assert len(group.hashes()) == 1


def test_damage_in_the_tail_costs_a_snapshot_and_no_more():
    with DrivenGroup(options=TAILED) as group:
        away = away_for(group, 600)
        leader = group.leader()
        folder = leader.directory.log
        oldest = min(name for name in group.disk.names(folder) if name.endswith(".wal"))
        group.disk.flip_bit(f"{folder}/{oldest}", 40_000)
        group.settle()
        assert away.counters.snapshots_received == 1
        assert leader.counters.log_tails_lost == 1
        assert len(group.hashes()) == 1
        write(group, 300, 600)
        assert oldest not in group.disk.names(folder), "the next start would stop at it"
        disk = group.power_off()
    with DrivenGroup(disk, options=TAILED) as group:
        group.settle()
        assert len(group.hashes()) == 1


def test_a_full_disk_takes_the_tail_first():
    disk = MemoryFileSystem(capacity_bytes=8 << 20)
    disk.make_directories("/data")
    with DrivenGroup(disk, options=replace(SMALL, log_tail_bytes=1 << 30)) as group:
        write(group, 2000, 0)
        assert not group.failed
        assert disk.used_bytes <= 8 << 20
        group.settle()
        assert len(group.hashes()) == 1


def test_what_came_before_an_installed_snapshot_is_not_read_back():
    """It may be of another leader's log: here it is, as member 3 wrote what nobody else has."""
    with DrivenGroup(options=replace(TAILED, log_tail_bytes=200 << 10)) as group:
        leader = group.leader()
        if leader.member != AWAY:
            leader.transfer_leadership(AWAY)
            group.until(lambda: group.leader().member == AWAY)
        away = group.group.replicas[AWAY]
        group.group.network.isolate(AWAY, [1, 2])
        for number in range(5):
            away.propose(group.encoded(put_of(f"lost-{number}", b"lost", VALUE)), lambda _: None)
        group.until(lambda: not away.is_leader and group.group.leader_replica() is not None)
        write(group, 600, 0)
        group.group.network.heal()
        group.settle()
        assert away.counters.snapshots_received == 1
        void = away._log.first_readable
        assert void > 500
        disk = group.power_off()
    with DrivenGroup(disk, options=TAILED) as group:
        assert group.group.replicas[AWAY]._log.first_readable == void


def test_what_is_read_back_of_segments_that_go():
    options = replace(SMALL, log_tail_bytes=1 << 30)
    with DrivenGroup(options=options) as group:
        write(group, 300, 0)
        log = group.leader()._log
        fetch = Fetch(AWAY, 5, 250, 100 * len(VALUE))
        found = log.read_back(fetch)
        assert [entry.index for entry in found] == list(range(5, 5 + len(found)))
        assert 90 <= len(found) <= 101
        assert [entry.index for entry in log.read_back(fetch._replace(bytes_max=1))] == [5, 6]
        log.remove_before(200)
        assert log.read_back(fetch) == []
        assert log.first_readable > 5
        assert log.read_back(fetch._replace(first=log.first_readable))


def test_what_the_state_lacks_stays_however_short_the_tail_is():
    options = replace(SMALL, segment_bytes=4096, log_tail_bytes=4096)
    with DrivenGroup(options=options) as group:
        write(group, 230, 0)
        group.settle()
        hashes = group.hashes()
        status = group.leader().status()
        assert status.applied > status.durable + 10, "it is all in tables"
        disk = group.power_off()
    with DrivenGroup(disk, options=options) as group:
        group.settle()
        assert group.hashes() == hashes
