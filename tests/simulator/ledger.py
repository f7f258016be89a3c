"""What clients of etcd's API were told, held against the one history.

Every answer says at which revision it is true, and every operation of the log has its place there.
So nothing has to be searched for: what an operation came to must be what the oracle says of it in
the log's order, what was read must be the keyspace of the revision that the answer names, and both
must be in the order of real time. What was answered before a call began comes before it. That is
strict serializability of all of it, transactions and leases included (Herlihy and Wing, TOPLAS
1990; the order of revisions is the witness).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.errors import Error, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.lessor import TimeToLive
from kvstore.state.mvcc.answers import (
    Answer,
    LeaseGrantAnswer,
    LeaseRevokeAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.requests import Compact, LeaseRevoke, Operation, Proposal, Range, Txn
from tests.simulator.agenda import MILLISECOND, SECOND, Agenda
from tests.simulator.oracle import Model, Operated, plain
from tests.simulator.trace import Violation
from tests.unit.state.mvcc.oracle import Oracle as Keyspace
from tests.unit.state.mvcc.oracle import check

__all__ = ["Asked", "Ledger", "Tenancy"]

UNKNOWN = frozenset(
    (
        Reason.TIMED_OUT,
        Reason.TIMED_OUT_LEADER_FAILED,
        Reason.TIMED_OUT_CONNECTION_LOST,
        Reason.TIMED_OUT_APPLYING,
        Reason.DEADLINE,
        Reason.STOPPED,
    )
)
"""Of a write that ends with one of these nobody knows what became of it."""

ROUNDING_US = MILLISECOND


class Asked(NamedTuple):
    """What had been told to anybody when a call began: all of that comes before it.

    ``place``: in the log; ``at``: this moment.
    """

    place: int
    revision: int
    compacted: int
    at: int


@dataclass(slots=True)
class Tenancy:
    """A lease from its grant to its end, by the moments when some member first applied them.

    ``promised_until``: it may not run out before, as far as anybody was told.
    """

    id: int
    ttl: int
    began: int
    ended: int | None = None
    ran_out: bool = False
    promised_until: int = 0

    def overlaps(self, since: int) -> bool:
        """It was there at some time since then."""
        return self.ended is None or self.ended >= since


@dataclass(slots=True)
class Ledger:
    """Of one run. Every method raises Violation."""

    agenda: Agenda
    model: Model
    fastest_clock: float
    tenancies: dict[int, list[Tenancy]] = field(default_factory=dict)
    """Of each id, the newest last."""
    expired: int = 0
    """Leases that ran out."""
    _told: Asked = field(default_factory=lambda: Asked(0, 0, -1, 0))
    # Proposals that were said not to have been done.
    _refused: dict[bytes, Operation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model.on_operated = self._operated

    def asks(self) -> Asked:
        """A call begins."""
        return self._told._replace(at=self.agenda.now)

    def _tell(self, place: int, revision: int, compacted: int = -1) -> None:
        told = self._told
        self._told = Asked(
            max(told.place, place),
            max(told.revision, revision),
            max(told.compacted, compacted),
            told.at,
        )

    # --- writes ----------------------------------------------------------------------------------

    def wrote(
        self, asked: Asked, operation: Operation, proposal_id: bytes, outcome: Answer | Error
    ) -> None:
        """A call for ``operation`` was answered; it was proposed as ``proposal_id``."""
        if isinstance(outcome, EtcdError):
            self._refuse(asked, operation, proposal_id, outcome)
            return
        if isinstance(outcome, Error):
            raise Violation(f"{operation} got {outcome!r}")
        known = self.model.operated.get(proposal_id)
        if known is None:
            raise Violation(f"{operation} was answered {outcome}, but isn't committed")
        self._check_order(asked, known, outcome)
        if outcome.revision < asked.revision:
            raise Violation(
                f"{operation} was answered at revision {outcome.revision}, after {asked.revision}"
            )
        compacted = operation.revision if isinstance(operation, Compact) else -1
        self._tell(known.place, outcome.revision, compacted)
        if isinstance(outcome, LeaseGrantAnswer):
            self._promise(outcome.id, outcome.ttl, asked.at)

    def _check_order(self, asked: Asked, known: Operated, outcome: Answer | EtcdError) -> None:
        if plain(outcome) != plain(known.answer):
            raise Violation(
                f"{known.proposal.operation} was answered {outcome!r}, expected {known.answer!r}"
            )
        if known.place <= asked.place:
            raise Violation(
                f"{known.proposal.operation} has place {known.place} in the log, but "
                f"{asked.place} was answered before it was asked for"
            )

    def _refuse(
        self, asked: Asked, operation: Operation, proposal_id: bytes, error: EtcdError
    ) -> None:
        if not proposal_id:
            try:
                check(operation)
            except EtcdError as expected:
                if expected.reason is error.reason:
                    return
            raise Violation(f"{operation} was refused by its looks: {error}")
        if error.reason in UNKNOWN:
            return
        known = self.model.operated.get(proposal_id)
        if known is None:
            self._refused[proposal_id] = operation
            return
        self._check_order(asked, known, error)
        self._tell(known.place, 0)

    def check_refused(self) -> None:
        """At the end: nothing was done that was said not to have been."""
        for proposal_id, operation in self._refused.items():
            if proposal_id in self.model.operated:
                raise Violation(f"{operation} was refused, and done")

    # --- reads -----------------------------------------------------------------------------------

    def read(
        self,
        asked: Asked,
        operation: Range | Txn,
        serializable: bool,
        applied: int,
        answer: RangeAnswer | TxnAnswer,
    ) -> None:
        """A call that reads was answered by a member that was at revision ``applied`` when it
        came there."""
        revision = answer.revision
        newest = self.model.keyspace.revision
        if revision > newest:
            raise Violation(f"{operation} was read at {revision}, but only {newest} is committed")
        if revision < asked.revision and not serializable:
            raise Violation(
                f"{operation} was read at revision {revision}, though {asked.revision} was "
                "told of before: it is stale"
            )
        if revision < applied:
            raise Violation(f"{operation} was read at {revision} of a member that had {applied}")
        past = operation.revision if isinstance(operation, Range) else 0
        if 0 < past < asked.compacted and not serializable:
            raise Violation(f"{operation} was answered, compacted to {asked.compacted}")
        keyspace = self._as_of(revision)
        expected: object
        try:
            if isinstance(operation, Range):
                expected = keyspace.read(operation)
            else:
                expected = keyspace.apply(Proposal(b"", operation), 0)
        except EtcdError as error:
            expected = error
        if answer != expected:
            raise Violation(f"{operation} was answered {answer}, expected {expected}")
        # Whatever anybody has seen is committed, and so before all that is asked for from now on.
        self._tell(0, revision)

    def _as_of(self, revision: int) -> Keyspace:
        """The keyspace of then, of which nothing is compacted."""
        now = self.model.keyspace
        then = Keyspace()
        then.revision, then.states = revision, now.states
        return then

    def read_refused(
        self, asked: Asked, operation: Range | Txn, serializable: bool, error: Error
    ) -> None:
        """A call that reads has got an error."""
        if isinstance(error, UnavailableError):
            return  # what its member found on the disk ends the member, as for reads of v1
        if not isinstance(error, EtcdError):
            raise Violation(f"{operation} got {error!r}")
        if not isinstance(operation, Range):
            return
        revision = operation.revision
        lags = serializable or revision > asked.revision
        if error.reason is Reason.FUTURE_REVISION and not lags:
            raise Violation(f"{operation} got {error}, though {asked.revision} was told of before")
        if error.reason is Reason.COMPACTED and revision >= self.model.keyspace.compacted:
            raise Violation(
                f"{operation} got {error}, compacted to {self.model.keyspace.compacted}"
            )

    # --- leases ----------------------------------------------------------------------------------

    def _operated(self, operated: Operated) -> None:
        """Some member is the first to apply an operation."""
        answer, now = operated.answer, self.agenda.now
        if isinstance(answer, LeaseGrantAnswer):
            tenancy = Tenancy(answer.id, answer.ttl, now)
            self.tenancies.setdefault(answer.id, []).append(tenancy)
        elif isinstance(answer, LeaseRevokeAnswer):
            operation = operated.proposal.operation
            assert isinstance(operation, LeaseRevoke)
            tenancy = self.tenancies[answer.id][-1]
            tenancy.ended, tenancy.ran_out = now, operation.term != 0
            self.expired += tenancy.ran_out
            self._check_promise(tenancy)

    def _check_promise(self, tenancy: Tenancy) -> None:
        ended = tenancy.ended
        if ended is not None and tenancy.ran_out and ended < tenancy.promised_until - ROUNDING_US:
            raise Violation(
                f"{tenancy} ran out {(tenancy.promised_until - ended) // MILLISECOND} ms before "
                "its time"
            )

    def _promise(self, id: int, ttl: int, since: int) -> None:
        """Somebody counts on lease ``id`` for ``ttl`` seconds from then on."""
        lives = [each for each in self.tenancies.get(id, ()) if each.overlaps(since)]
        if len(lives) != 1:
            return  # nobody can say which of them was meant
        (tenancy,) = lives
        # By the clock of a leader that was as fast as any.
        until = since + int(ttl * SECOND / self.fastest_clock)
        tenancy.promised_until = max(tenancy.promised_until, until)
        self._check_promise(tenancy)

    def renewed(self, asked: Asked, id: int, ttl: int) -> None:
        """A renewal was answered; ``ttl`` of 0: there is no such lease."""
        self._check_lives(asked, id, ttl if ttl > 0 else None, "renewal")
        if ttl > 0:
            self._promise(id, ttl, asked.at)

    def looked(self, asked: Asked, id: int, lives: TimeToLive) -> None:
        """A question for the time to live was answered."""
        self._check_lives(asked, id, lives.granted if lives.ttl >= 0 else None, "question")
        if lives.ttl > lives.granted:
            raise Violation(f"lease {id} of {lives.granted} s has {lives.ttl} s left")

    def _check_lives(self, asked: Asked, id: int, granted: int | None, what: str) -> None:
        """``granted``: the TTL that was told; None where the lease was said not to be there."""
        lives = [each for each in self.tenancies.get(id, ()) if each.overlaps(asked.at)]
        if granted is None:
            if any(each.began < asked.at and each.ended is None for each in lives):
                raise Violation(f"a {what} of lease {id} finds none, but {lives} is there")
        elif granted not in [each.ttl for each in lives]:
            raise Violation(
                f"a {what} of lease {id} finds one of {granted} s, of {self.tenancies.get(id)}"
            )
