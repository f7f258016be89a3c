"""Random schedules of everything at once; Raft figure 3 and liveness afterwards."""

from __future__ import annotations

import random

import pytest

from kvstore.errors import Error
from kvstore.raft import EntryKind, Options, Role

from .raft_cluster import Cluster, voters

OPTIONS = Options(
    message_bytes_max=40,
    inflight_messages_max=4,
    inflight_bytes_max=100,
    pulse_ticks=40,
    tail_entries=3,
    tail_bytes=60,
)


class Storm:
    """One seed's run: each step is one small event somewhere."""

    def __init__(self, seed: int, size: int, spare: int) -> None:
        self.rng = random.Random(seed)
        self.size = size
        everybody = tuple(range(1, size + spare + 1))
        self.cluster = Cluster(
            voters(*everybody[:size]),
            options=OPTIONS,
            seed=seed,
            joining=everybody[size:],
            tail=(0, 12, 1000)[seed // 7 % 3],
        )
        self.everybody = everybody
        self.counter = 0
        self.floors: dict[tuple[int, int], int] = {}
        self.proposed: set[bytes] = set()
        weights = {
            self.tick: 30,
            self.deliver: 60,
            self.sync: 25,
            self.read_back: 10,
            self.propose: 12,
            self.read: 4,
            self.compact: 2,
            self.crash: 1,
            self.restart: 3,
            self.cut: 1,
            self.heal: 1,
            self.change_members: 2,
            self.transfer: 1,
            self.pulse: 6,
        }
        # Swarm testing: each seed leaves some kinds of trouble out.
        self.events = [
            event
            for event in weights
            if event in (self.tick, self.deliver, self.sync, self.read_back, self.propose)
            or self.rng.random() < 0.7
        ]
        self.weights = [weights[event] for event in self.events]
        self.loss = self.rng.choice((0.0, 0.0, 0.1, 0.3))
        self.doubles = self.rng.choice((0.0, 0.1))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.rng.choices(self.events, self.weights)[0]()
            self.cluster.collect()
            self.check_reads()
            self.cluster.check()

    def tick(self) -> None:
        if self.cluster.up:
            self.rng.choice(self.cluster.up).core.tick()

    def deliver(self) -> None:
        wire = self.cluster.wire
        if not wire:
            return
        message = wire.pop(min(int(self.rng.expovariate(0.3)), len(wire) - 1))
        if self.rng.random() < self.loss:
            self.cluster.lose(message)
            return
        if self.rng.random() < self.doubles:
            wire.append(message)
        self.cluster.deliver(message)

    def sync(self) -> None:
        writing = [member for member in self.cluster.up if member.writing]
        if writing:
            self.rng.choice(writing).sync(1)

    def read_back(self) -> None:
        waiting = [member for member in self.cluster.up if member.fetches]
        if not waiting:
            return
        member = self.rng.choice(waiting)
        if self.rng.random() < 0.1:
            fetch = member.fetches.pop()
            member.core.fetched(fetch.member, fetch.first, ())
        else:
            member.read_back()

    def propose(self) -> None:
        for member in self.cluster.up:
            if member.core.role is Role.LEADER:
                count = self.rng.randint(1, 4)
                payloads = [b"%d" % (self.counter + i) for i in range(count)]
                self.counter += count
                try:
                    member.core.propose(payloads)
                except Error:
                    continue

    def read(self) -> None:
        if not self.cluster.up:
            return
        member = self.rng.choice(self.cluster.up)
        self.counter += 1
        try:
            member.core.read_index(self.counter)
        except Error:
            return
        self.floors[member.id, self.counter] = max(self.cluster.committed, default=0)

    def check_reads(self) -> None:
        """A read sees at least what was applied anywhere when it was asked for (linearizable)."""
        for member in self.cluster.up:
            for context, index in member.reads.items():
                floor = self.floors.pop((member.id, context))
                assert index >= floor, f"stale read: {index} < {floor}"
            member.reads.clear()

    def compact(self) -> None:
        for member in self.cluster.up:
            if self.rng.random() < 0.5:
                member.compact()

    def crash(self) -> None:
        if self.cluster.up:
            self.rng.choice(self.cluster.up).crash()

    def restart(self) -> None:
        for member in self.cluster.members.values():
            if member.raft is None and self.rng.random() < 0.5:
                member.start()

    def cut(self) -> None:
        one, other = self.rng.sample(self.everybody, 2) if len(self.everybody) > 1 else (1, 1)
        self.cluster.cut.add((one, other))
        if self.rng.random() < 0.5:
            self.cluster.cut.add((other, one))

    def heal(self) -> None:
        self.cluster.heal()

    def change_members(self) -> None:
        leader = self.cluster.leader
        if not leader:
            return
        count = self.rng.randint(1, len(self.everybody))
        chosen = self.rng.sample(self.everybody, count)
        cutoff = self.rng.randint(1, count)
        try:
            self.cluster[leader].propose_membership(
                voters(*chosen[:cutoff], learners=tuple(chosen[cutoff:]))
            )
        except Error:
            return

    def transfer(self) -> None:
        leader = self.cluster.leader
        if not leader:
            return
        try:
            self.cluster[leader].transfer_leadership(self.rng.choice(self.everybody))
        except Error:
            return

    def pulse(self) -> None:
        """Any sign of life, true or not: nothing that is safe may depend on one."""
        if self.cluster.up:
            member = self.rng.choice(self.cluster.up).core
            term = member.term + self.rng.choice((-1, 0, 0, 0, 1))
            member.pulse(self.rng.choice(self.everybody), term)

    def calm(self) -> None:
        """Trouble is over: everybody is up, all links work, clocks run alike."""
        cluster = self.cluster
        cluster.heal()
        for member in cluster.members.values():
            if member.raft is None:
                member.start()
        cluster.settle()
        for _ in range(300):
            cluster.tick()
            if cluster.leader and not cluster[cluster.leader].membership.joint:
                leader = cluster[cluster.leader]
                if leader.commit >= leader.status().last_index:
                    break
        else:
            raise AssertionError("no leader could commit within 300 ticks")
        cluster.propose(b"after the storm")
        cluster.tick(30)
        leader = cluster[cluster.leader]
        states = {tuple(cluster.members[m].state) for m in leader.membership.members}
        committed = tuple(
            (index, entry.data)
            for index, entry in sorted(cluster.committed.items())
            if entry.kind is EntryKind.COMMAND
        )
        assert states == {committed}, "members differ from what was committed"
        assert committed[-1][1] == b"after the storm"


@pytest.mark.parametrize("seed", range(60))
def test_random_schedule_keeps_the_invariants_and_comes_back(seed: int) -> None:
    storm = Storm(seed, size=(1, 2, 3, 3, 4, 5, 7)[seed % 7], spare=seed % 3)
    storm.run(1500)
    storm.calm()
