"""Entries a second through the consensus core alone, on one CPU, beside PySyncObj in the same run.

No disk, no socket, no state machine: messages are handed over as objects in one process, writes
are durable at once, applying counts entries. PySyncObj runs the same way through a transport of
its own kind: its commands are put into its queue ready-made (pickled before the clock starts), it
is driven by hand so that it never waits for its timers, and it keeps its journal in memory.

``extra_info`` has, for each case: entries a second and µs an entry for both, and the ratio. Run::

    pytest benchmarks/test_raft.py --benchmark-enable
"""

from __future__ import annotations

import pickle
import random
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from kvstore.raft import Membership, Message, Options, Raft, Role, bootstrap

VALUE = b"v" * 100
REGULAR = 0
"""PySyncObj's mark of an ordinary command."""


class Ours:
    """A cluster of cores that hand each other messages until none is left."""

    def __init__(self, members: int) -> None:
        hard_state, entries = bootstrap(Membership(frozenset(range(1, members + 1))))
        self.members = [
            Raft(
                member,
                Options(tail_entries=1000),
                rng=random.Random(member),
                hard_state=hard_state,
                entries=entries,
            )
            for member in range(1, members + 1)
        ]
        self.wire: list[Message] = []
        self.applied = dict.fromkeys(range(1, members + 1), 0)
        self.leader = self.members[0]
        self.leader.campaign()
        self.settle()
        assert self.leader.role is Role.LEADER

    def drain(self, core: Raft) -> None:
        while (bundle := core.ready()) is not None:
            self.wire += bundle.messages
            if bundle.must_sync:
                core.stored(bundle.number)
            if bundle.committed:
                self.applied[core.id] += len(bundle.committed)
                core.applied(bundle.committed[-1].index)
            elif not bundle.must_sync:
                # Nothing was given back to the core, so that it has nothing new.
                break

    def settle(self) -> None:
        self.drain(self.leader)
        while self.wire:
            wire, self.wire = self.wire, []
            for message in wire:
                self.members[message.to - 1].step(message)
            for member in {message.to for message in wire}:
                self.drain(self.members[member - 1])

    def run(self, batch: int, batches: int) -> None:
        payloads = [VALUE] * batch
        for _ in range(batches):
            self.leader.propose(payloads)
            self.settle()
        for core in self.members:
            core.compact(core.status().applied)

    def entries(self) -> int:
        return min(self.applied.values())


class Wire(Transport):  # type: ignore[misc]
    """PySyncObj's messages in a queue shared by its nodes."""

    queue: deque[tuple[Wire, Node, dict[str, Any]]]
    peers: dict[str, Wire]

    def __init__(self, node: Node, queue: deque[Any], peers: dict[str, Wire]) -> None:
        super().__init__(None, node, ())
        self.node = node
        self.queue = queue
        self.peers = peers
        peers[node.id] = self

    def connect(self, node: Node) -> None:
        self._onNodeConnected(node)

    def receive(self, node: Node, message: dict[str, Any]) -> None:
        self._onMessageReceived(node, message)

    @property
    def ready(self) -> bool:
        return True

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self.queue.append((self.peers[node.id], self.node, message))
        return True

    def destroy(self) -> None:
        self.peers.clear()


class Counter(SyncObj):  # type: ignore[misc]
    """The smallest state machine that PySyncObj takes."""

    applied = 0

    @replicated  # type: ignore[untyped-decorator]
    def put(self, value: bytes) -> None:
        self.applied += 1


class Theirs:
    """The same cluster of PySyncObj nodes."""

    def __init__(self, members: int) -> None:
        conf = {
            "autoTick": False,
            "commandsQueueSize": 1_000_000,
            "raftMinTimeout": 1e6,
            "raftMaxTimeout": 2e6,
            "connectionTimeout": 3e6,
            "leaderFallbackTimeout": 1e6,
            "logCompactionMinEntries": 1 << 60,
            "logCompactionMinTime": 1 << 60,
            "appendEntriesBatchSizeBytes": 1 << 20,
            "appendEntriesPeriod": 10.0,
        }
        nodes = [Node(f"n{i}") for i in range(members)]
        self.queue: deque[tuple[Wire, Node, dict[str, Any]]] = deque()
        peers: dict[str, Wire] = {}
        self.members: list[Counter] = []
        for node in nodes:
            others = [other for other in nodes if other is not node]
            wire = Wire(node, self.queue, peers)
            self.members.append(Counter(node, others, SyncObjConf(**conf), transport=wire))
        for wire in peers.values():
            for other in nodes:
                if other is not wire.node:
                    wire.connect(other)
        self.leader = self.members[0]
        # Its first election deadline is past; the next ones are far away.
        self.leader._SyncObj__raftElectionDeadline = 0
        self.command = pickle.dumps((self.leader._methodToID["put_v0"], (VALUE,)))
        self.leader.doTick(0)
        self.deliver()
        assert self.leader._isLeader()

    def deliver(self) -> None:
        while self.queue:
            target, node, message = self.queue.popleft()
            target.receive(node, message)

    def run(self, batch: int, batches: int) -> None:
        leader = self.leader
        for _ in range(batches):
            for _ in range(batch):
                leader._applyCommand(self.command, None, REGULAR)
            leader._checkCommandsToApply()
            leader._SyncObj__sendAppendEntries()
            self.deliver()
            leader.doTick(0)
            # Applying sent the new commit index; the followers apply on their ticks.
            self.deliver()
            for member in self.members[1:]:
                member.doTick(0)
            self.deliver()

    def entries(self) -> int:
        return min(member.applied for member in self.members)

    def close(self) -> None:
        for member in self.members:
            member.destroy()


def seconds(run: Callable[[int, int], None], batch: int, batches: int) -> float:
    start = time.perf_counter()
    run(batch, batches)
    return time.perf_counter() - start


@pytest.mark.parametrize("batch", [1, 16, 256])
@pytest.mark.parametrize("members", [1, 3, 5, 7])
def test_entries_through_the_core(benchmark: Any, members: int, batch: int) -> None:
    ours, theirs = Ours(members), Theirs(members)
    batches = max(8, 2048 // batch)
    try:
        ours.run(batch, 8)
        theirs.run(batch, 8)
        # Turn by turn, so that whatever else the machine does slows both.
        pairs = [
            (seconds(ours.run, batch, batches), seconds(theirs.run, batch, max(2, batches // 4)))
            for _ in range(5)
        ]
        benchmark.pedantic(ours.run, (batch, batches), rounds=5, warmup_rounds=0)
        assert ours.entries() >= batch * (8 + 5 * batches), "all entries were applied everywhere"
        assert theirs.entries() >= batch * 8, "PySyncObj applied entries too"
    finally:
        theirs.close()
    count = batch * batches
    theirs_count = batch * max(2, batches // 4)
    mine = median(pair[0] for pair in pairs) / count
    other = median(pair[1] for pair in pairs) / theirs_count
    benchmark.extra_info.update(
        members=members,
        batch=batch,
        entries_per_second=round(1 / mine),
        us_per_entry=round(mine * 1e6, 3),
        pysyncobj_entries_per_second=round(1 / other),
        pysyncobj_us_per_entry=round(other * 1e6, 3),
        ratio=round(other / mine, 2),
    )
