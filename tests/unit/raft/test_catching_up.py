"""A follower that needs a snapshot while the leader goes on writing and compacting."""

from __future__ import annotations

from dataclasses import replace

from kvstore.raft import Message, MessageKind, Options
from kvstore.raft.progress import PeerState

from .raft_cluster import Cluster, voters

OPTIONS = Options(tail_entries=2, tail_bytes=100, transfer_bytes=4000)
PAYLOAD = b"x" * 100


class SlowTransfer(Cluster):
    """Snapshots wait in ``offered`` until :meth:`transfer`."""

    offered: list[Message]
    mark_at_start = 0

    def deliver(self, message: Message) -> None:
        if message.kind is MessageKind.SNAPSHOT and message.to not in self._down():
            self.offered.append(message)
            source = self.members[message.sender]
            self.mark_at_start = source.applied
            self.snapshots[source.applied] = tuple(source.state)
        else:
            super().deliver(message)

    def _down(self) -> set[int]:
        return {to for sender, to in self.cut if sender == self.leader}

    def transfer(self) -> None:
        """What was offered first arrives whole, as it was when it was begun."""
        message = self.offered[-1]
        source = self.members[message.sender]
        mark = replace(
            source.core.snapshot_meta(max(self.mark_at_start, source.core.status().first_index - 1))
        )
        assert mark.index == self.mark_at_start, "the entry after the snapshot is gone"
        self.members[message.to].core.step(replace(message, snapshot=mark))
        source.core.snapshot_status(message.to, ok=True)


def fallen_behind() -> SlowTransfer:
    """Member 3 needs a snapshot, and it is under way."""
    cluster = SlowTransfer(voters(1, 2, 3), options=OPTIONS)
    cluster.offered = []
    cluster.elect(1)
    cluster.isolate(3)
    write(cluster, 10)
    cluster.heal()
    cluster.tick(3)
    assert len(cluster.offered) == 1
    return cluster


def write(cluster: Cluster, count: int) -> None:
    for _ in range(count):
        cluster.propose(PAYLOAD)
        for member in cluster.up:
            member.compact()


def first_index(cluster: Cluster) -> int:
    return cluster[1].status().first_index


def peer(cluster: Cluster, member: int = 3) -> PeerState:
    return next(p.state for p in cluster[1].status().peers if p.member == member)


def test_what_follows_a_snapshot_stays_until_the_follower_has_it():
    cluster = fallen_behind()
    write(cluster, 30)
    assert first_index(cluster) == cluster.mark_at_start + 1
    cluster.transfer()
    cluster.settle()
    cluster.tick(2)
    assert len(cluster.offered) == 1
    assert peer(cluster) is PeerState.REPLICATE
    assert len(cluster.states()) == 1
    # And now it goes.
    write(cluster, 3)
    assert first_index(cluster) >= cluster[1].status().last_index - 2


def test_it_stays_after_the_transfer_as_well_until_the_follower_has_caught_up():
    cluster = fallen_behind()
    write(cluster, 5)
    mark = cluster.mark_at_start
    cluster.transfer()
    # The snapshot is whole there, but its answer is on its way.
    cluster.cut = {(3, 1)}
    for _ in range(3):
        cluster.propose(PAYLOAD)
        cluster.members[1].compact()
    assert first_index(cluster) == mark + 1
    cluster.heal()
    cluster.tick(3)
    assert len(cluster.offered) == 1
    assert peer(cluster) is PeerState.REPLICATE


def test_so_much_and_no_more_is_kept_for_it():
    cluster = fallen_behind()
    write(cluster, 100)
    status = cluster[1].status()
    assert status.log_bytes <= OPTIONS.transfer_bytes
    assert status.log_bytes > OPTIONS.transfer_bytes // 2
    assert first_index(cluster) > cluster.mark_at_start + 1


def test_a_transfer_that_failed_keeps_nothing():
    cluster = fallen_behind()
    write(cluster, 10)
    cluster[1].snapshot_status(3, ok=False)
    write(cluster, 1)
    assert first_index(cluster) >= cluster[1].status().last_index - 2


def test_a_follower_that_went_silent_keeps_nothing():
    cluster = fallen_behind()
    cluster.isolate(3)
    write(cluster, 10)
    assert first_index(cluster) == cluster.mark_at_start + 1
    cluster.tick(10 * OPTIONS.election_ticks)
    write(cluster, 1)
    assert first_index(cluster) >= cluster[1].status().last_index - 2
