"""A cluster as its lessors see it: a log, leaders that change, members that stand still.

Time is virtual. What Raft promises is kept (an entry of a leader that was replaced commits with its
successor or never; what a quorum confirms was true after it was asked), and everything else is as
bad as a seed makes it: a leader doesn't know for long that it is none any more, a member that stood
still takes what has come meanwhile in any order, entries commit late or get lost.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from kvstore.errors import Error, OutcomeUnknownError, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.lessor import ENDING, Lessor
from kvstore.state.mvcc.answers import (
    Answer,
    LeaseCheckpointAnswer,
    LeaseGrantAnswer,
    LeaseRevokeAnswer,
)
from kvstore.state.mvcc.records import LeaseRecord
from kvstore.state.mvcc.requests import (
    FOR_EVER,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Operation,
)

ELECTION_S = 1.0
TICK_S = 0.1
Told = Callable[[Answer | Error], None]


@dataclass(eq=False)
class Entry:
    """One operation in the log, or None: what a leader begins its term with."""

    term: int
    operation: Operation | None
    birth: int
    proposer: Node
    told: Told


@dataclass
class State:
    """What the log comes to."""

    leases: dict[int, LeaseRecord] = field(default_factory=dict)

    def apply(self, entry: Entry) -> Answer | EtcdError | None:
        """As ``kvstore.state.mvcc`` does."""
        leases, operation = self.leases, entry.operation
        match operation:
            case LeaseGrant():
                if operation.id in leases:
                    return EtcdError(Reason.LEASE_EXISTS)
                leases[operation.id] = LeaseRecord(operation.ttl, FOR_EVER, entry.birth)
                return LeaseGrantAnswer(1, operation.id, operation.ttl)
            case LeaseRevoke():
                lease = leases.get(operation.id)
                if operation.term and operation.term != entry.term:
                    return EtcdError(Reason.LEADER_CHANGED)
                if lease is None or (operation.term and lease.birth != operation.birth):
                    return EtcdError(Reason.LEASE_NOT_FOUND)
                del leases[operation.id]
                return LeaseRevokeAnswer(1, operation.id)
            case LeaseCheckpoint():
                if operation.term != entry.term:
                    return EtcdError(Reason.LEADER_CHANGED)
                for id, birth, rest in operation.rests:
                    lease = leases.get(id)
                    if lease is not None and lease.birth == birth:
                        leases[id] = lease._replace(rest=rest)
                return LeaseCheckpointAnswer(1)
            case _:
                return None


class Machine:
    """The state of a node."""

    def __init__(self) -> None:
        self.state = State()
        self.alarms: frozenset[tuple[int, int]] = frozenset()

    def leases(self) -> Mapping[int, LeaseRecord]:
        return self.state.leases


class Node:
    """A member, with a lessor of its own and a clock that began at some time of its own."""

    def __init__(self, world: World, name: int) -> None:
        self.world = world
        self.name = name
        self.machine = Machine()
        self.is_leader = False
        self.term = 0
        self.applied = 0
        self.is_still = False
        self._offset = world.rng.uniform(0, 1000)
        self._missed: list[Callable[[], None]] = []
        self._waiting: list[Entry] = []
        self._reads: list[tuple[int, Callable[[Error | None], None]]] = []
        self.lessor = Lessor(
            lambda: self if self.is_leader else None,
            self.propose,
            election_timeout_s=ELECTION_S,
            now=self.now,
            soon=lambda call: self.do(0.0, call),
        )
        self.do(TICK_S, self._tick)

    def now(self) -> float:
        return self.world.now + self._offset

    def do(self, delay_s: float, call: Callable[[], None]) -> None:
        """Make ``call`` then, or when the node goes on after that."""
        self.world.at(delay_s, partial(self._do, call))

    def _do(self, call: Callable[[], None]) -> None:
        if self.is_still:
            self._missed.append(call)
        else:
            call()

    def _tick(self) -> None:
        self.lessor.tick()
        self.do(TICK_S, self._tick)

    def stand_still(self, seconds: float) -> None:
        if not self.is_still:
            self.is_still = True
            self.world.at(seconds, self._go_on)

    def _go_on(self) -> None:
        self.is_still = False
        missed, self._missed = self._missed, []
        self.world.rng.shuffle(missed)
        for call in missed:
            self._do(call)

    # Raft, as a lessor has it.

    def read(self, done: Callable[[Error | None], None]) -> None:
        asked_term, index = self.term, len(self.world.log)
        self.do(self.world.delay(), partial(self._probe, asked_term, index, done))

    def _probe(self, term: int, index: int, done: Callable[[Error | None], None]) -> None:
        """A quorum was asked: the answers are on their way, for as long as they like."""
        if self.is_leader and self.world.leader is self and self.world.term == term == self.term:
            self.do(self.world.delay(), partial(self._confirmed, max(index, self.begun), done))
        else:
            self.do(2 * ELECTION_S, partial(done, UnavailableError("no majority")))

    def _confirmed(self, index: int, done: Callable[[Error | None], None]) -> None:
        self._reads.append((index, done))
        self._serve()

    def _serve(self) -> None:
        reads, self._reads = self._reads, []
        for index, done in reads:
            if index <= self.applied:
                done(None)
            else:
                self._reads.append((index, done))

    def propose(self, operation: Operation, told: Told) -> None:
        """It may wait for its turn, into another term even, and be overtaken there; or be given up
        once it is in the log."""
        rng = self.world.rng
        entry = Entry(self.term, operation, rng.getrandbits(64), self, told)
        self._waiting.append(entry)
        if rng.random() < 0.1:
            self.do(rng.uniform(0, 2), partial(self._append, entry))
        else:
            self._append(entry)

    def _append(self, entry: Entry) -> None:
        if not self.is_leader:
            self.step_down()
        elif self.world.term == self.term and entry in self._waiting:
            entry.term = self.term
            self.world.append(entry)
            if self.world.rng.random() < 0.05:
                self._waiting.remove(entry)
                entry.told(EtcdError(Reason.TIMED_OUT))

    def lead(self, term: int) -> None:
        self.is_leader, self.term = True, term
        self.begun = len(self.world.log) + 1
        self.world.append(Entry(term, None, 0, self, lambda outcome: None))

    def step_down(self) -> None:
        self.is_leader = False
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            entry.told(OutcomeUnknownError("leadership was lost"))

    def apply_next(self) -> None:
        """Apply what is committed, in order, however late it is told of."""
        log = self.world.log
        while self.applied < len(log):
            entry = log[self.applied]
            self.applied += 1
            answer = self.machine.state.apply(entry)
            if answer is not None:
                told = partial(self.lessor.applied, self, [(b"", answer)])
                waits = entry in self._waiting
                if waits:
                    self._waiting.remove(entry)
                calls = [told, partial(entry.told, answer)] if waits else [told]
                self.world.rng.shuffle(calls)
                for call in calls:
                    call()
        self._serve()


class World:
    """Three nodes. ``broken`` says how the rule was broken."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.term = 0
        self.leader: Node | None = None
        self.log: list[Entry] = []
        # By id, whose birth: until when the lease must live, as somebody was told.
        self.promised: dict[tuple[int, int], float] = {}
        self.truth = State()
        self.ended: dict[int, float] = {}
        self.expired = 0
        self.broken: list[str] = []
        self._pending: list[Entry] = []
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self.nodes = [Node(self, name) for name in range(3)]
        self.elect(self.nodes[0])

    def delay(self) -> float:
        """Of a message, now and then a very long one."""
        return self.rng.choice((0.001, 0.003, 0.01, 0.05, self.rng.uniform(0, 1.5)))

    def at(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self.now + delay_s, next(self._number), call))

    def run_until(self, time: float) -> None:
        while self._calls and self._calls[0][0] <= time:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = time

    # The log.

    def append(self, entry: Entry) -> None:
        self._pending.append(entry)
        entry.proposer.do(self.delay(), partial(self._commit_through, entry))

    def _commit_through(self, entry: Entry) -> None:
        """A majority has it, and so all before it; unless another leader has decided."""
        if entry in self._pending:
            last = self._pending.index(entry) + 1
            committed, self._pending = self._pending[:last], self._pending[last:]
            for each in committed:
                self._commit(each)

    def _commit(self, entry: Entry) -> None:
        before = dict(self.truth.leases)
        answer = self.truth.apply(entry)
        self.log.append(entry)
        operation = entry.operation
        if isinstance(answer, LeaseGrantAnswer):
            self.promised[answer.id, entry.birth] = self.now + answer.ttl
        elif isinstance(answer, LeaseRevokeAnswer):
            assert isinstance(operation, LeaseRevoke)
            self.ended[operation.id] = self.now
            promised = self.promised.pop((operation.id, before[operation.id].birth))
            if operation.term:
                self.expired += 1
                if self.now < promised - 1e-6:
                    self.broken.append(
                        f"at {self.now:.3f} lease {operation.id} was revoked in term "
                        f"{entry.term}, promised until {promised:.3f}"
                    )
        for node in self.nodes:
            node.do(0.0 if node is entry.proposer else self.delay(), node.apply_next)

    def elect(self, node: Node) -> None:
        """Another one leads; it has all that was committed, and some of what wasn't."""
        former, self.leader = self.leader, node
        self.term += 1
        adopted = self._pending[: self.rng.randint(0, len(self._pending))]
        self._pending = []
        for entry in adopted:
            self._commit(entry)
        if former is not None and former is not node:
            former.do(self.rng.uniform(0, 3), partial(self._learn, former, self.term))
        node.do(self.delay(), partial(self._begin, node, self.term))

    def _learn(self, node: Node, term: int) -> None:
        if node.term < term:
            node.step_down()
            node.term = max(node.term, term)

    def _begin(self, node: Node, term: int) -> None:
        if self.term == term:
            node.lead(term)

    # Clients.

    def keep(self, id: int, renewed: Callable[[int], None]) -> None:
        """Renew a lease at somebody who says that he leads; ``renewed`` gets the TTL, if any."""
        leaders = [node for node in self.nodes if node.is_leader and not node.is_still]
        if leaders:
            asked = self.now, self.truth.leases.get(id)
            lessor = self.rng.choice(leaders).lessor
            lessor.renew(id, partial(self._renewed, id, asked, renewed))

    def _renewed(
        self,
        id: int,
        asked: tuple[float, LeaseRecord | None],
        renewed: Callable[[int], None],
        ttl: int | EtcdError,
    ) -> None:
        if isinstance(ttl, EtcdError) or ttl == ENDING:
            return
        asked_at, before = asked
        now = self.truth.leases.get(id)
        if ttl and now is None and self.ended.get(id, 0.0) < asked_at:
            self.broken.append(f"lease {id} was renewed at {asked_at:.3f}, after its end")
        elif not ttl and before is not None and now is not None and before.birth == now.birth:
            self.broken.append(f"at {self.now:.3f} lease {id} was said to be gone, and lives")
        elif ttl and before is not None and now is not None and before.birth == now.birth:
            key = id, now.birth
            self.promised[key] = max(self.promised[key], self.now + ttl)
        renewed(ttl)

    def do(self, operation: Operation) -> None:
        """Have a client's operation proposed by somebody who says that he leads."""
        leaders = [node for node in self.nodes if node.is_leader and not node.is_still]
        if leaders:
            self.rng.choice(leaders).propose(operation, lambda outcome: None)
