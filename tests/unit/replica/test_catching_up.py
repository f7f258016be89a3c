"""A member that was away catches up while the others are written to all along."""

from __future__ import annotations

from dataclasses import replace

from kvstore.replica.packets import SnapshotPart

from .driven_group import SMALL, DrivenGroup

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
