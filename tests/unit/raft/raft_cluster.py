"""A small cluster around the real core: disks that lose what wasn't synced, a wire in a list.

Each member's disk takes bundles in order and makes them durable when told; a crash drops the
rest. The state machine is the list of commands applied, kept in memory and replayed at restart
from its last durable mark. In a cluster with a ``tail`` the disks keep so many entries before the
mark, and give them back when the core asks. Every step checks the invariants of Raft figure 3.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import combinations

from kvstore.raft import (
    Bundle,
    Entry,
    EntryKind,
    Fetch,
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


def voters(*ids: int, learners: tuple[int, ...] = ()) -> Membership:
    return Membership(frozenset(ids), learners=frozenset(learners))


@dataclass
class Disk:
    """What is durable: the hard state, the snapshot mark with its state, entries by index."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    state: tuple[tuple[int, bytes], ...] = ()
    entries: dict[int, Entry] = field(default_factory=dict)
    older: dict[int, Entry] = field(default_factory=dict)
    hollow: set[int] = field(default_factory=set)

    def write(self, bundle: Bundle, snapshots: dict[int, tuple[tuple[int, bytes], ...]]) -> None:
        if bundle.hard_state is not None:
            self.hard_state = bundle.hard_state
        if bundle.snapshot is not None:
            self.snapshot = bundle.snapshot
            self.state = snapshots[bundle.snapshot.index]
            self.entries = {}
            self.older = {}
            self.hollow = set()
        if bundle.entries:
            first = bundle.entries[0].index
            self.hollow = {i for i in self.hollow if i < first}
            self.entries = {i: e for i, e in self.entries.items() if i < first}
            self.entries.update((entry.index, entry) for entry in bundle.entries)

    def tail(self) -> list[Entry]:
        """As it can be read: of a hollow entry index and term alone."""
        return [
            e._replace(data=b"") if i in self.hollow else e
            for i, e in sorted(self.entries.items())
            if i > self.snapshot.index
        ]


class Member:
    """One core with its disk and state machine. ``raft`` is None while it is down."""

    def __init__(self, cluster: Cluster, member: int, disk: Disk) -> None:
        self.cluster = cluster
        self.id = member
        self.disk = disk
        self.raft: Raft | None = None
        self.writing: deque[Bundle] = deque()
        self.state: list[tuple[int, bytes]] = []
        self.applied = 0
        self.reads: dict[int, int] = {}
        self.reads_failed: list[int] = []
        self.fetches: list[Fetch] = []
        self.mends: list[Entry] = []
        self.start()

    def start(self, *, damaged: bool = False) -> None:
        disk = self.disk
        self.cluster.incarnation += 1
        self.raft = Raft(
            self.id,
            self.cluster.options,
            rng=random.Random(self.cluster.seed * 1_000_003 + self.cluster.incarnation),
            hard_state=disk.hard_state,
            snapshot=disk.snapshot,
            entries=disk.tail(),
            applied=disk.snapshot.index,
            damaged=damaged,
            hollow=disk.hollow,
        )
        self.writing.clear()
        self.fetches.clear()
        self.mends.clear()
        self.state = list(disk.state)
        self.applied = disk.snapshot.index
        if self.cluster.tail:
            self.raft.keeps_from(min(disk.older, default=disk.snapshot.index + 1))

    def crash(self) -> None:
        self.raft = None
        self.writing.clear()

    @property
    def core(self) -> Raft:
        assert self.raft is not None, f"member {self.id} is down"
        return self.raft

    def collect(self) -> list[Message]:
        """Take all bundles; what they write waits in ``writing``."""
        messages: list[Message] = []
        while (bundle := self.core.ready()) is not None:
            if bundle.must_sync:
                self.writing.append(bundle)
            messages += bundle.messages
            self._apply(bundle)
            for read in bundle.read_states:
                self.reads[read.context] = read.index
            self.reads_failed += bundle.reads_failed
            self.fetches += bundle.fetches
            self.mends += bundle.mends
        return messages

    def _apply(self, bundle: Bundle) -> None:
        if bundle.snapshot is not None and bundle.snapshot.index > self.applied:
            self.state = list(self.cluster.snapshots[bundle.snapshot.index])
            self.applied = bundle.snapshot.index
        for entry in bundle.committed:
            assert entry.index == self.applied + 1, "entries are applied in order, once"
            self.applied = entry.index
            self.cluster.check_applied(entry)
            if entry.kind is EntryKind.COMMAND:
                self.state.append((entry.index, entry.data))
        if bundle.committed:
            self.core.applied(self.applied)

    def sync(self, count: int | None = None) -> None:
        """The oldest ``count`` writes (all by default) become durable."""
        for _ in range(len(self.writing) if count is None else min(count, len(self.writing))):
            bundle = self.writing.popleft()
            self.disk.write(bundle, self.cluster.snapshots)
            self.core.stored(bundle.number)

    def mend(self) -> None:
        """What came for hollow entries is compared and written in its place."""
        mends, self.mends = self.mends, []
        for entry in mends:
            if entry.index in self.disk.hollow:
                right = self.disk.entries[entry.index] == entry
                if right:
                    self.disk.hollow.discard(entry.index)
                self.core.mended(entry, right=right)

    def read_back(self) -> None:
        """Give the core what it wants from the disk."""
        fetches, self.fetches = self.fetches, []
        for fetch in fetches:
            found: list[Entry] = []
            size = 0
            for index in range(fetch.first, fetch.last + 1):
                entry = self.disk.older.get(index)
                if entry is None or (size >= fetch.bytes_max and len(found) > 1):
                    break
                found.append(entry)
                size += len(entry.data)
            self.cluster.read_back += len(found)
            self.core.fetched(fetch.member, fetch.first, found)

    def compact(self) -> None:
        """Make the state machine durable as it is, and let the log go (tail apart)."""
        if self.writing or self.applied <= self.disk.snapshot.index:
            return
        mark = self.core.snapshot_meta(self.applied)
        self.disk.snapshot = mark
        self.disk.state = tuple(self.state)
        self._move_to_tail(mark.index)
        self.disk.entries = {i: e for i, e in self.disk.entries.items() if i > mark.index}
        self.cluster.snapshots[mark.index] = self.disk.state
        self.core.compact(mark.index)

    def _move_to_tail(self, index: int) -> None:
        if not self.cluster.tail:
            return
        disk = self.disk
        disk.older.update((i, entry) for i, entry in disk.entries.items() if i <= index)
        oldest = index + 1 - self.cluster.tail
        self.core.keeps_from(max(1, oldest))
        for gone in [i for i in disk.older if i < oldest]:
            del disk.older[gone]


class Cluster:
    """Members and the wire between them. Nothing moves by itself."""

    def __init__(
        self,
        membership: Membership,
        *,
        options: Options | None = None,
        seed: int = 1,
        joining: tuple[int, ...] = (),
        tail: int = 0,
    ) -> None:
        self.tail = tail
        self.read_back = 0
        self.options = options or Options()
        self.seed = seed
        self.incarnation = 0
        self.wire: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.snapshots: dict[int, tuple[tuple[int, bytes], ...]] = {}
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, Entry] = {}
        self.members: dict[int, Member] = {}
        hard_state, entries = bootstrap(membership)
        for member in sorted(membership.members):
            disk = Disk(hard_state, entries={entry.index: entry for entry in entries})
            self.members[member] = Member(self, member, disk)
        for member in joining:
            self.members[member] = Member(self, member, Disk())

    def __getitem__(self, member: int) -> Raft:
        return self.members[member].core

    @property
    def up(self) -> list[Member]:
        return [member for member in self.members.values() if member.raft is not None]

    @property
    def leader(self) -> int:
        """The leader of the highest term among those up, or 0."""
        leading = [m.core for m in self.up if m.core.role is Role.LEADER]
        return max(leading, key=lambda core: core.term).id if leading else 0

    # Checks (Raft figure 3)

    def check_applied(self, entry: Entry) -> None:
        known = self.committed.setdefault(entry.index, entry)
        assert known == entry, f"state machine safety: {known} and {entry}"

    def check(self) -> None:
        for member in self.up:
            core = member.core
            if core.role is Role.LEADER:
                other = self.leaders.setdefault(core.term, core.id)
                assert other == core.id, f"election safety: {other} and {core.id} in {core.term}"
        self.check_log_matching()

    def check_log_matching(self) -> None:
        """Two logs with the same term at an index are equal up to there."""
        logs = [member.core._state.log for member in self.up]
        for one, other in combinations(logs, 2):
            index = min(one.last, other.last)
            low = max(one.offset, other.offset)
            while index > low and one.term(index) != other.term(index):
                index -= 1
            if index > low:
                a = one.entries[low - one.offset : index - one.offset]
                b = other.entries[low - other.offset : index - other.offset]
                hollow = one.hollow | other.hollow
                for mine, its in zip(a, b, strict=True):
                    assert mine == its or (mine[:3] == its[:3] and mine.index in hollow), (
                        "log matching"
                    )

    # Moves

    def isolate(self, *members: int) -> None:
        """Cut the given members off from all others, not from each other."""
        for one in self.members:
            for other in self.members:
                if (one in members) != (other in members):
                    self.cut.add((one, other))

    def heal(self) -> None:
        self.cut.clear()

    def collect(self) -> None:
        """Take every member's bundles and put their messages on the wire."""
        for member in self.up:
            self.wire += member.collect()

    def deliver(self, message: Message) -> None:
        """Bring a message to its target, unless the link is cut or the target down."""
        target = self.members.get(message.to)
        if target is None or target.raft is None or (message.sender, message.to) in self.cut:
            self.lose(message)
        elif message.kind is MessageKind.SNAPSHOT:
            self._deliver_snapshot(message, target)
        else:
            target.core.step(message)

    def lose(self, message: Message) -> None:
        """The wire drops a message; of a snapshot's fate the sender is always told."""
        source = self.members[message.sender]
        if message.kind is MessageKind.SNAPSHOT and source.raft is not None:
            source.core.snapshot_status(message.to, ok=False)

    def _deliver_snapshot(self, message: Message, target: Member) -> None:
        """The sender's caller puts what it holds at this moment; the bytes arrive whole."""
        source = self.members[message.sender]
        if source.raft is None:
            return
        mark = source.core.snapshot_meta(source.applied)
        self.snapshots[mark.index] = tuple(source.state)
        target.core.step(replace(message, snapshot=mark))
        source.core.snapshot_status(message.to, ok=True)

    def settle(self, rounds: int = 200) -> None:
        """Sync and deliver until nothing moves and each has heard what is committed."""
        for _ in range(rounds):
            self.collect()
            if not self.wire and not any(m.writing or m.fetches or m.mends for m in self.up):
                # Silence: what no APPEND has carried is told by itself.
                untold = [member.core for member in self.up if member.core.commit_untold]
                if not untold:
                    self.check()
                    return
                for core in untold:
                    core.tell_commit()
            for member in self.up:
                member.sync()
                member.mend()
                member.read_back()
            wire, self.wire = self.wire, []
            for message in wire:
                self.deliver(message)
            self.check()
        raise AssertionError("the cluster doesn't come to rest")

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for member in self.up:
                member.core.tick()
            self.settle()

    def elect(self, member: int) -> None:
        """Let a member win an election."""
        for _ in range(6 * self.options.election_ticks):
            self[member].campaign()
            self.settle()
            if self[member].role is Role.LEADER:
                return
            self.tick()
        raise AssertionError(f"member {member} can't win")

    def win(self, member: int) -> None:
        """Let a member win an election while everything but votes is lost."""
        election = (
            MessageKind.PRE_VOTE,
            MessageKind.PRE_VOTE_RESPONSE,
            MessageKind.VOTE,
            MessageKind.VOTE_RESPONSE,
        )
        for _ in range(6 * self.options.election_ticks):
            self[member].campaign()
            for _ in range(8):
                self.collect()
                if self[member].role is Role.LEADER:
                    self.wire.clear()
                    self.check()
                    return
                for other in self.up:
                    other.sync()
                wire, self.wire = self.wire, []
                for message in wire:
                    if message.kind in election:
                        self.deliver(message)
            for other in self.up:
                other.core.tick()
        raise AssertionError(f"member {member} can't win")

    def propose(self, *payloads: bytes) -> None:
        self[self.leader].propose(payloads)
        self.settle()

    def states(self) -> set[tuple[tuple[int, bytes], ...]]:
        return {tuple(member.state) for member in self.up}
