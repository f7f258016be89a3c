"""A service of etcd's API over a member that does what a test says, and a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from kvstore.errors import Error, StorageError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.raft import Membership
from kvstore.replica.options import ReplicaStatus
from kvstore.replica.work import Work
from kvstore.service.etcd import Answers, EtcdLimits, EtcdService, Passed
from kvstore.service.etcd.member import LocalMember
from kvstore.state import COLD, Cold
from kvstore.state.mvcc.answers import (
    CompactAnswer,
    EnableAnswer,
    HashAnswer,
    KeyValue,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.auth import NOBODY
from kvstore.state.mvcc.operations import decode_operations
from kvstore.state.mvcc.requests import (
    LEVEL_MODEL,
    LEVEL_NUMBERED,
    Compact,
    EnableModel,
    Numbered,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    Txn,
)

Done = Callable[[bytes | Error], None]

KEY = Range(b"k")


class Machine:
    """Knows puts of single keys, and how many there were."""

    def __init__(self) -> None:
        self.level = LEVEL_NUMBERED
        self.revision = 1
        self.compacted = -1
        self.applied_term = 1
        self.alarms: frozenset[tuple[int, int]] = frozenset()
        self.auth = NOBODY
        self.write_delay_s = 0.0
        self.keys: dict[bytes, KeyValue] = {}
        self.is_cold = False
        # What reading a range from such a key on does first, with its step.
        self.endless: dict[bytes, Callable[[Callable[[], None]], None]] = {}
        self.error: Error | None = None
        self.reclaimed = 0
        self.stored_bytes = 0

    @property
    def model_enabled(self) -> bool:
        return self.level >= LEVEL_MODEL

    def apply(self, proposal: Proposal) -> Any:
        match proposal.operation:
            case Put(key, value):
                self.revision += 1
                self.keys[key] = KeyValue(key, self.revision, self.revision, 1, value, 0)
                return PutAnswer(self.revision)
            case Compact(revision):
                self.compacted = revision
                return CompactAnswer(self.revision)
            case EnableModel():
                self.level = LEVEL_MODEL
                return EnableAnswer(self.revision)
            case RaiseLevel(level):
                self.level = level
                return EnableAnswer(self.revision)
            case _:
                return EtcdError(Reason.LEASE_NOT_FOUND)

    def read_range(self, operation: Range, step: Callable[[], None] = lambda: None) -> RangeAnswer:
        if operation.key in self.endless:
            self.endless[operation.key](step)
        if self.error is not None:
            raise self.error
        found = [kv for key, kv in sorted(self.keys.items()) if key >= operation.key]
        if not operation.range_end:
            found = [kv for kv in found if kv.key == operation.key]
        return RangeAnswer(self.revision, tuple(found), False, len(found))

    def read_range_cached(self, operation: Range) -> RangeAnswer | Cold:
        return COLD if self.is_cold else self.read_range(operation)

    def read_keys_cached(self, keys: list[bytes]) -> list[RangeAnswer | None]:
        answers = [self.read_range_cached(Range(key)) for key in keys]
        return [None if isinstance(answer, Cold) else answer for answer in answers]

    def read_txn(self, operation: Txn, step: Callable[[], None] = lambda: None) -> TxnAnswer:
        ranges = [self.read_range(one, step) for one in operation.success if isinstance(one, Range)]
        return TxnAnswer(self.revision, True, tuple(ranges))

    def hash_kv(self, revision: int) -> HashAnswer:
        return HashAnswer(self.revision, 7, self.compacted, revision or self.revision)

    def reclaim(self) -> None:
        self.reclaimed += 1


class Member:
    """A :class:`LocalMember`. Its log holds what was proposed until :meth:`commit`."""

    def __init__(self, stage: Stage, member: int, leader: int) -> None:
        self.stage = stage
        self.member = member
        self.leader = leader
        self.machine = Machine()
        self.failure: Error | None = None
        self.has_quorum_contact = True
        self.term = 1
        self.membership = Membership(voters=frozenset((1, 2, 3)))
        self.log: list[tuple[list[Proposal], Done]] = []
        self.points: list[Callable[[Error | None], None]] = []
        self.refusal: Error | None = None
        self.ages: list[int] = []
        self.lacks_room = False
        self.state_is_damaged = False
        self.repair = ""
        self.told_of_reads: Error | None = None
        self.committed = self.applied = self.last_index = 7

    @property
    def is_leader(self) -> bool:
        return self.leader == self.member

    def log_time_ms(self) -> int:
        return 5

    def propose(self, data: bytes, done: Done, taken: Callable[[int], None] | None = None) -> None:
        if self.refusal is not None:
            done(self.refusal)
            return
        self.log.append((decode_operations(data), done))
        if taken is not None:
            taken(self.term)

    def read(self, done: Callable[[Error | None], None]) -> None:
        self.points.append(done)

    def status(self) -> ReplicaStatus:
        log = SimpleNamespace(commit=self.committed, last_index=self.last_index)
        return cast(
            "ReplicaStatus", SimpleNamespace(raft=log, applied=self.applied, repair=self.repair)
        )

    def reads_take(self, ticks: int, reader: str) -> None:
        self.ages.append(ticks)

    def read_failed(self, error: StorageError) -> Error:
        return error if self.told_of_reads is None else self.told_of_reads

    def commit(self) -> None:
        """Apply all that is in the log, an entry a slice."""
        log, self.log = self.log, []
        for proposals, done in log:
            self.apply(proposals)
            done(b"")

    def apply(self, proposals: Sequence[Proposal], term: int = 0) -> None:
        """Apply an entry, of this member's log or of another leader's."""
        self.machine.applied_term = term or self.term
        answers = [(proposal.id, self.machine.apply(proposal)) for proposal in proposals]
        self.tell(answers)

    def tell(self, answers: Answers) -> None:
        listener = self.stage.service.told_by(cast(LocalMember, self))
        listener.applied(answers, self.machine.revision)

    def confirm(self, refusal: Error | None = None) -> None:
        """Say of every read point that it is reached, or why it isn't."""
        points, self.points = self.points, []
        for done in points:
            done(refusal)


class LaterWork:
    """Does jobs when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Callable[[], None], Callable[[], None]]] = []

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        self.jobs.append((kind, job, then))

    def do(self) -> None:
        jobs, self.jobs = self.jobs, []
        for _, job, then in jobs:
            job()
            then()


class Stage:
    """The service, its member and a way to the leader that notes what it is given."""

    def __init__(
        self,
        *,
        leader: int = 1,
        limits: EtcdLimits | None = None,
        work: Work | None = None,
        model: bool = True,
        replayed: bool = True,
    ) -> None:
        """``replayed``: the member has shown that it holds what it held before."""
        self.now = 100.0
        self.known_level = LEVEL_NUMBERED
        self.passed: list[tuple[int, list[bytes], Callable[[Passed], None]]] = []
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.member = Member(self, 1, leader)
        if not model:
            self.member.machine.level = 0
        self.found: Member | None = self.member
        self.service = EtcdService(
            lambda: cast("LocalMember | None", self.found),
            cluster_id=77,
            member_id=1,
            election_timeout_s=1.0,
            all_know=lambda level: level <= self.known_level,
            now=lambda: self.now,
            soon=self._soon.append,
            later=lambda pause, call: self._later.append((self.now + pause, call)),
            work=work,
            pass_on=self._pass_on,
            draw=lambda size: bytes(range(size)),
            limits=limits,
        )
        self.service.tick()
        if replayed:
            self.member.confirm()
        self.turn()

    def _pass_on(
        self,
        leader: int,
        term: int,
        proposals: Sequence[bytes],
        timeout_s: float,
        done: Callable[[Passed], None],
    ) -> None:
        assert term == self.member.term
        self.passed.append((leader, [*proposals], done))

    def turn(self) -> None:
        """Make the calls that are due, and those that they ask for."""
        due = [call for at, call in self._later if at <= self.now]
        self._later = [(at, call) for at, call in self._later if at > self.now]
        self._soon += due
        while self._soon:
            calls, self._soon[:] = [*self._soon], []
            for call in calls:
                call()

    def wait(self, seconds: float, step_s: float = 0.1) -> None:
        """Let time pass, with a tick each step."""
        until = self.now + seconds
        while self.now < until:
            self.now += step_s
            self.service.tick()
            self.turn()

    def install(self) -> None:
        """A snapshot becomes the state."""
        self.service.told_by(cast(LocalMember, self.member)).installed()

    def put(
        self,
        key: bytes = b"k",
        value: bytes = b"v",
        deadline: float | None = None,
        request: Numbered | None = None,
    ) -> list[Any]:
        """Propose a put; what is returned gets its outcome."""
        outcomes: list[Any] = []
        propose = self.service.propose
        propose(Put(key, value), None, deadline, outcomes.append, request=request)
        return outcomes

    def read(
        self,
        operation: Range | Txn = KEY,
        *,
        serializable: bool = False,
        deadline: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> list[Any]:
        outcomes: list[Any] = []
        self.service.read(operation, serializable, deadline, outcomes.append, gone=gone)
        return outcomes


def reasons(outcomes: list[Any]) -> list[Reason]:
    """Of outcomes that are EtcdErrors all."""
    return [outcome.reason for outcome in outcomes]
