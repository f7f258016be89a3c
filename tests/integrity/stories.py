"""What groups of three live through: the disks of the members' forms and of backups."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import Options as EngineOptions
from kvstore.raft import Options as RaftOptions
from kvstore.replica import Identity, ReplicaOptions
from kvstore.replica.storage import MemberLog
from kvstore.state import MemoryBounds, open_command, put_command
from tests.integrity.trees import Tree, tree_of
from tests.unit.replica.driven_group import DrivenGroup, put_of

__all__ = [
    "EMPTY",
    "KEYS",
    "MEMBERS",
    "OPTIONS",
    "OUTGOING",
    "ROOT",
    "State",
    "Told",
    "Truth",
    "another",
    "path_of",
    "plain",
    "truth_of",
    "with_a_snapshot",
]

ROOT = "/data"
OUTGOING = f"{ROOT}/outgoing"
CLUSTER = "a-cluster"
MEMBERS = 3
OPTIONS = ReplicaOptions(
    raft=RaftOptions(tail_entries=16, tail_bytes=4096, log_entries_max=200),
    engine=EngineOptions(
        wal=False, background=False, write_buffer_size=64 << 10, block_size=512, compression=None
    ),
    segment_bytes=8 << 10,
    log_tail_bytes=16 << 10,
    memory=MemoryBounds(requests=64),
)
PUTS = 150
KEYS = 60
BEHIND_PUTS = 420
"""So many that a member that hears none of them needs a snapshot."""
SESSION = bytes(range(16))
UNSYNCED = 5


class State(NamedTuple):
    """What a state machine holds once an entry is applied. ``remembered``: requests, sessions."""

    values: dict[bytes, bytes]
    revision: int
    state_hash: int
    remembered: tuple[int, int]


EMPTY = State({}, 0, 0, (0, 0))


@dataclass(frozen=True)
class Truth:
    """What a member had promised, and what it wrote.

    ``entries``: by index, those that its log had after the mark. ``durable``: the last that was
    promised to anybody. ``states``: by applied index, those after which somebody looked.
    """

    identity: Identity
    path: str
    term: int
    vote: int
    entries: dict[int, Any]
    durable: int
    last: int
    states: dict[int, State]


IDLE_STEPS = 40
"""More than a second: by then the log's end is noted outside it."""


class Story:
    """What a group of three lives through, and the state at each entry."""

    def __init__(self, seed: int, cluster: str) -> None:
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.group = DrivenGroup(options=OPTIONS, seed=seed, cluster=cluster)
        self.disk = self.group.disk
        self.model: dict[bytes, bytes] = {}
        self.states: dict[int, State] = {}
        self.requests = 0
        self.sequence = 0

    def puts(self, count: int) -> None:
        """Puts and deletes, with requests and in a session, one entry each."""
        chance = self.chance
        for _ in range(count):
            self.requests += 1
            key = b"key%03d" % chance.randrange(KEYS)
            value = b"%d " % chance.randrange(10**6) * chance.randrange(1, 12)
            kind = chance.random()
            if kind < 0.1:
                self.group.delete(key, f"request {self.requests}")
                self.model.pop(key, None)
            else:
                if kind < 0.3:
                    self._in_session(key, value)
                else:
                    self.group.ask([put_of(f"request {self.requests}", key, value)])
                self.model[key] = value
            self.note()

    def _in_session(self, key: bytes, value: bytes) -> None:
        if not self.sequence:
            self.group.ask([open_command(SESSION)])
        self.sequence += 1
        floor = max(1, self.sequence - 20)
        self.group.ask([put_command(SESSION, key, value, self.sequence, floor)])

    def note(self) -> None:
        """The leader has applied all that was asked: remember what it holds."""
        machine = self.group.leader().machine
        remembered = machine.remembered
        self.states[machine.applied_index] = State(
            dict(self.model),
            machine.revision,
            machine.state_hash,
            (remembered[0], remembered[2]),
        )

    def follower(self) -> int:
        """A member that doesn't lead."""
        return 1 + self.group.leader().member % MEMBERS

    def isolate(self, member: int) -> None:
        others = [other for other in range(1, MEMBERS + 1) if other != member]
        self.group.group.network.isolate(member, others)


def path_of(member: int) -> str:
    return f"{ROOT}/node{member}"


def truth_of(story: Story, member: int, disk: MemoryFileSystem, durable: int = 0) -> Truth:
    """What ``member`` has on ``disk``; all of it was promised unless ``durable`` says otherwise."""
    identity = Identity(story.cluster, member)
    copy = disk.crash(keep="all")
    log = MemberLog(f"{path_of(member)}/log", identity, filesystem=copy, segment_bytes=8 << 10)
    hard, entries, mark = log.hard_state, list(log.entries), log.mark
    log.close()
    last = entries[-1].index if entries else mark.index
    return Truth(
        identity,
        path_of(member),
        hard.term,
        hard.vote,
        {entry.index: entry for entry in entries},
        durable or last,
        last,
        dict(story.states),
    )


@dataclass(frozen=True)
class Told:
    """A story that has ended. ``member``: the follower to look at. ``older``: the disk at an
    earlier moment; ``died``: where the processes died when the newest entries were written and not
    synced, ``durable`` being the last one that was; ``closed``: after a proper close.

    ``checkpoint``, ``older_checkpoint``: of the state, while it ran.
    """

    story: Story
    member: int
    older: MemoryFileSystem
    died: MemoryFileSystem
    durable: int
    closed: MemoryFileSystem
    checkpoint: Tree
    older_checkpoint: Tree


def _checkpoint_of(story: Story) -> Tree:
    story.group.leader().machine.checkpoint(OUTGOING)
    found = tree_of(story.disk, OUTGOING)
    story.disk.remove_tree(OUTGOING)
    return found


def _tell(story: Story, member: int, first: int, then: int) -> Told:
    """``first`` puts, a look at the disk, ``then`` more, a process that dies, a close."""
    story.puts(first)
    older, older_checkpoint = story.disk.crash(keep="none"), _checkpoint_of(story)
    story.group.group.network.heal()
    story.puts(then)
    story.group.settle()
    for _ in range(IDLE_STEPS):
        story.group.step()
    checkpoint = _checkpoint_of(story)
    durable = story.group.leader().last_log[1]
    died = _dying(story, member)
    story.group.settle()
    for number in range(UNSYNCED):
        story.model[b"key%03d" % number] = b"last"
    story.note()
    story.group.group.close()
    return Told(story, member, older, died, durable, story.disk, checkpoint, older_checkpoint)


def _dying(story: Story, member: int) -> MemoryFileSystem:
    """The disk when ``member`` has written entries that it is about to sync."""
    found: list[MemoryFileSystem] = []

    def before(operation: str, path: str) -> None:
        if operation == "datasync" and f"node{member}/log" in path:
            found.append(story.disk.crash(keep="all"))

    story.disk.on_operation = before
    for number in range(UNSYNCED):
        command = put_of(f"last {number}", b"key%03d" % number, b"last")
        story.group.leader().propose(story.group.encoded(command), lambda outcome: None)
    story.group.until(lambda: found)
    story.disk.on_operation = None
    return found[0]


@functools.cache
def plain() -> Told:
    """All three hear everything."""
    story = Story(1, CLUSTER)
    return _tell(story, story.follower(), PUTS * 2 // 3, PUTS // 3)


@functools.cache
def another() -> Told:
    """The like in another cluster."""
    story = Story(2, "another")
    return _tell(story, story.follower(), PUTS * 2 // 3, PUTS // 3)


@functools.cache
def with_a_snapshot() -> Told:
    """One hears nothing for so long that it gets a snapshot."""
    story = Story(3, CLUSTER)
    story.puts(10)
    member = story.follower()
    story.isolate(member)
    told = _tell(story, member, BEHIND_PUTS, 20)
    assert story.group.group.replicas[member].counters.snapshots_received
    return told
