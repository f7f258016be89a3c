"""The lessor: which leases live on and which have run out, by the clock of the member that leads.

The leases themselves, with their keys, are state: granted, revoked and noted by entries of the log,
which know no clock. Deadlines are known here alone, where a member of this process leads, and are
made anew with each term. The rule is that a lease lives at least its TTL from the moment on that
its last renewal is told, or its grant applied; all else gives way to it:

- A leader begins its reign with a read that a quorum has confirmed, which it can't have before it
  has applied an entry of its own term, and so all that was committed before. It then gives every
  lease its whole TTL, or what was noted of it, and one election timeout more.
- A renewal is told only after a quorum has confirmed, in a round of heartbeats that began after the
  renewal had come and took no longer than an election timeout, that this member leads: the next
  leader's reign, and with it those deadlines, then begin after that round did.
- What has run out is revoked by an entry of this very term, through this member alone, never passed
  on to another leader (etcd #15247, #12528). The entry names the term, and is void in another.
- A process that stood still asks a quorum again before it revokes anything, and leaves a moment for
  renewals that have waited for it in its sockets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from math import ceil
from typing import Final, NamedTuple, Protocol

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.lessor_checkpoints import Checkpoints
from kvstore.service.etcd.lessor_deadlines import Deadlines, Tenure
from kvstore.service.etcd.lessor_expiry import Expiry, Outcome, Propose
from kvstore.state.mvcc.alarms import Refused, refused_by
from kvstore.state.mvcc.answers import (
    Answer,
    LeaseCheckpointAnswer,
    LeaseGrantAnswer,
    LeaseRevokeAnswer,
)
from kvstore.state.mvcc.requests import FOR_EVER, Operation

__all__ = [
    "ENDING",
    "Lessor",
    "LessorFigures",
    "Lives",
    "Machine",
    "Member",
    "Renewed",
    "TimeToLive",
    "ttl_min_s",
]

GATHERED_MAX = 100_000
"""Renewals and questions that wait for a round."""
ROUND_MAX = 2000
"""Of them that one round is for: what is told in one turn of the loop."""
LOOKS_MAX = 5000
"""Leases that a tick looks at, having passed what was their deadline once."""


class Lease(Protocol):
    """As :meth:`Machine.leases` has it."""

    @property
    def ttl(self) -> int: ...

    @property
    def rest(self) -> int: ...

    @property
    def birth(self) -> int: ...


class Machine(Protocol):
    """The state of a member."""

    def leases(self) -> Mapping[int, Lease]:
        """All leases by their ids; always the present ones, from memory."""

    @property
    def alarms(self) -> Collection[tuple[int, int]]:
        """``(member, kind)`` of those that stand."""


class Member(Protocol):
    """A replica."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def term(self) -> int: ...

    @property
    def machine(self) -> Machine: ...

    def read(self, done: Callable[[Error | None], None]) -> None:
        """Call ``done`` with None once what :attr:`machine` holds may be read linearizably."""


class TimeToLive(NamedTuple):
    """Whole seconds: those left, -1 of a lease that isn't there, and those granted."""

    ttl: int
    granted: int


Renewed = Callable[[int | EtcdError], None]
"""Gets the TTL that a renewed lease has again; 0 for one that is gone, ENDING for one that will be;
or why nobody knows."""

ENDING: Final = -1
"""The lease has run out, and its revocation is under way: it isn't renewed any more, but before it
is gone nobody should be told so."""

Lives = Callable[[TimeToLive | EtcdError], None]


@dataclasses.dataclass(slots=True)
class LessorFigures:
    """Since the start of the process. ``expired``: leases that were revoked here, having run out;
    ``renewed``: renewals told; ``rounds``: asked of a quorum; ``stalls``: of this process."""

    expired: int = 0
    renewed: int = 0
    rounds: int = 0
    stalls: int = 0


class _Question(NamedTuple):
    id: int
    renewed: Renewed | None
    lives: Lives | None

    def refuse(self, reason: Reason) -> None:
        told: Renewed | Lives | None = self.renewed or self.lives
        assert told is not None
        told(EtcdError(reason))


class _Round(NamedTuple):
    """A quorum is asked whether ``member`` leads."""

    member: Member
    term: int
    began: float
    questions: Sequence[_Question]


@dataclasses.dataclass(slots=True)
class _Reign:
    """What is known while a member leads; dropped with its term."""

    member: Member
    term: int
    deadlines: Deadlines
    expiry: Expiry
    checkpoints: Checkpoints


@dataclasses.dataclass(slots=True)
class _Hold:
    """After a stall that was noticed at ``since`` nothing runs out before ``until``, nor before a
    round that began after it has confirmed that the member still leads."""

    since: float
    until: float
    is_confirmed: bool = False


class Lessor:
    """Of a process, for whichever of its members leads. One thread; knows no event loop."""

    def __init__(
        self,
        leading: Callable[[], Member | None],
        propose: Propose,
        *,
        election_timeout_s: float,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """``leading``: the member of this process that leads, as far as it knows. ``propose`` has
        operations proposed through that one and by nobody else. ``now``: seconds, monotonic.
        ``soon`` calls back once, after this turn.
        """
        self._leading = leading
        self._propose = propose
        self._grace_s = election_timeout_s
        self._stall_s = election_timeout_s / 2
        self._now = now
        self._soon = soon
        self.figures = LessorFigures()
        self._reign: _Reign | None = None
        self._round: _Round | None = None
        self._gathered: list[_Question] = []
        self._asking = False
        self._ticked_at = now()
        self._hold: _Hold | None = None

    # --- what it is asked ------------------------------------------------------------------------

    def renew(self, id: int, renewed: Renewed) -> None:
        """Give lease ``id`` its whole TTL again.

        NOT_PRIMARY_LESSOR and LEADER_CHANGED: ask again, whoever leads then. TOO_MANY_REQUESTS.
        """
        self._gather(_Question(id, renewed, None))

    def time_to_live(self, id: int, lives: Lives) -> None:
        """Tell how long lease ``id`` still lives. Errors as for :meth:`renew`."""
        self._gather(_Question(id, None, lives))

    def by_expiry(self) -> Callable[[], list[int]] | None:
        """What tells, on any thread, the ids of all leases of this moment, those first that run out
        first; None where none of this process' members is known to lead."""
        reign = self._present_reign()
        return None if reign is None else partial(_ids_by_deadline, reign.deadlines.all())

    @property
    def ending(self) -> int:
        """How many leases wait for their revocation, as far as it is begun for."""
        reign = self._reign
        return 0 if reign is None else reign.expiry.waiting

    @property
    def is_behind(self) -> bool:
        """Whether leases have run out that aren't gone, or it isn't known yet which there are."""
        reign = self._reign
        now = self._now()
        return reign is None or any(one.deadline <= now for one in reign.deadlines.all())

    def applied(self, member: Member, answers: Sequence[tuple[bytes, Answer | EtcdError]]) -> None:
        """``member`` has applied operations with these outcomes, in this order."""
        reign = self._reign
        if reign is None or member is not reign.member:
            return
        for _, answer in answers:
            kind = type(answer)
            if kind is LeaseGrantAnswer:
                self._granted(reign, answer.id)  # type: ignore[union-attr]
            elif kind is LeaseRevokeAnswer:
                reign.deadlines.end(answer.id)  # type: ignore[union-attr]

    def tick(self) -> None:
        """To be called every 100 ms or so: what has run out is revoked from here."""
        now = self._now()
        hold = self._hold
        if hold is not None and hold.is_confirmed and now >= hold.until:
            # However late this tick is, or else a busy process would never end a lease.
            self._hold = None
        else:
            self._notice_stall(now)
        self._ticked_at = now
        reign = self._present_reign()
        if reign is None or (self._hold is not None and not self._hold.is_confirmed):
            self._ask_soon()
        elif self._hold is None:
            # Else revocations would be refused, again and again, until the alarm is over.
            if refused_by(reign.member.machine.alarms) is not Refused.WRITES:
                reign.expiry.add(reign.deadlines.due(now, reign.expiry.room, LOOKS_MAX))
                reign.expiry.tick(now)
            reign.checkpoints.tick(now)

    # --- whether it may --------------------------------------------------------------------------

    def _notice_stall(self, now: float) -> None:
        """The process stood still, or its loop did: another member may lead since."""
        if self._hold is None and now - self._ticked_at > self._stall_s:
            self.figures.stalls += 1
            self._hold = _Hold(now, now + self._grace_s)

    def _leads(self, member: Member, term: int) -> bool:
        """``member`` leads now, and has done so since that term began."""
        return self._leading() is member and member.is_leader and member.term == term

    def _present_reign(self) -> _Reign | None:
        """That of the member that leads now; those of others end."""
        reign = self._reign
        if reign is None:
            return None
        if self._leads(reign.member, reign.term):
            return reign
        self._reign = None
        return None

    # --- rounds ----------------------------------------------------------------------------------

    def _gather(self, question: _Question) -> None:
        if len(self._gathered) >= GATHERED_MAX:
            question.refuse(Reason.TOO_MANY_REQUESTS)
            return
        self._gathered.append(question)
        self._ask_soon()

    def _ask_soon(self) -> None:
        """Begin a round after this turn, for all that comes in it, unless one is under way."""
        round_ = self._round
        if round_ is not None and not self._leads(round_.member, round_.term):
            round_ = None  # it may take its time to fail
        if not self._asking and round_ is None:
            self._asking = True
            self._soon(self._ask)

    def _ask(self) -> None:
        self._asking = False
        member = self._leading()
        if member is None or not member.is_leader:
            questions, self._gathered = self._gathered, []
            self._refuse(questions, Reason.NOT_PRIMARY_LESSOR)
            return
        questions = self._gathered[:ROUND_MAX]
        del self._gathered[:ROUND_MAX]
        self.figures.rounds += 1
        self._round = round_ = _Round(member, member.term, self._now(), questions)
        member.read(partial(self._confirmed, round_))

    def _confirmed(self, round_: _Round, refusal: Error | None) -> None:
        """``round_.member`` led after the round began, or else there is a ``refusal``."""
        if self._round is round_:
            self._round = None
        if refusal is None and self._leads(round_.member, round_.term):
            self._reign_goes_on(round_)
        else:
            self._refuse(round_.questions, Reason.NOT_PRIMARY_LESSOR)
        if self._gathered:
            self._ask_soon()

    def _reign_goes_on(self, round_: _Round) -> None:
        now = self._now()
        self._notice_stall(now)
        if self._hold is not None and round_.began >= self._hold.since:
            self._hold.is_confirmed = True
        reign = self._present_reign() or self._begin_reign(round_, now)
        renewals: list[tuple[Tenure, Renewed]] = []
        for question in round_.questions:
            tenure = self._find(reign, question.id)
            if question.lives is not None:
                question.lives(_time_to_live(tenure, now))
            elif question.renewed is not None:
                self._renew(tenure, question.renewed, now, renewals)
        self._tell_renewed(reign, renewals, now, round_.began)

    def _begin_reign(self, round_: _Round, now: float) -> _Reign:
        member, term = round_.member, round_.term
        propose = partial(self._propose_in, term)
        deadlines = Deadlines()
        reign = self._reign = _Reign(
            member,
            term,
            deadlines,
            Expiry(term, propose, self._expired, now),
            Checkpoints(term, deadlines, propose, now),
        )
        for id, lease in member.machine.leases().items():
            left = lease.ttl if lease.rest == FOR_EVER else lease.rest
            deadline = now + left + self._grace_s
            deadlines.begin(Tenure(id, lease.birth, lease.ttl, lease.rest, deadline))
        return reign

    def _propose_in(self, term: int, operation: Operation, done: Callable[[Outcome], None]) -> None:
        """Propose while that term goes on; what becomes of it afterwards isn't known here."""

        def told(outcome: Outcome) -> None:
            done(outcome if self._reigns_in(term) else EtcdError(Reason.NOT_PRIMARY_LESSOR))

        if self._reigns_in(term):
            self._propose(operation, told)
        else:
            done(EtcdError(Reason.NOT_PRIMARY_LESSOR))

    def _reigns_in(self, term: int) -> bool:
        reign = self._present_reign()
        return reign is not None and reign.term == term

    def _refuse(self, questions: Sequence[_Question], reason: Reason) -> None:
        for question in questions:
            question.refuse(reason)

    # --- leases ----------------------------------------------------------------------------------

    def _expired(self, tenure: Tenure) -> None:
        """It had run out and was revoked, by a client's wish if not by this lessor's."""
        self.figures.expired += 1
        reign = self._reign
        if reign is not None and reign.deadlines.get(tenure.id) is tenure:
            reign.deadlines.end(tenure.id)

    def _granted(self, reign: _Reign, id: int) -> None:
        """Begin its time, unless it was revoked in the same breath."""
        lease = reign.member.machine.leases().get(id)
        if lease is not None:
            deadline = self._now() + lease.ttl
            reign.deadlines.begin(Tenure(id, lease.birth, lease.ttl, lease.rest, deadline))

    def _find(self, reign: _Reign, id: int) -> Tenure | None:
        """The lease as of what was applied, of which :meth:`applied` may still have to tell."""
        tenure = reign.deadlines.get(id)
        lease = reign.member.machine.leases().get(id)
        if lease is None:
            reign.deadlines.end(id)
            return None
        if tenure is None or tenure.birth != lease.birth:
            self._granted(reign, id)
            tenure = reign.deadlines.get(id)
        return tenure

    def _renew(
        self,
        tenure: Tenure | None,
        renewed: Renewed,
        now: float,
        renewals: list[tuple[Tenure, Renewed]],
    ) -> None:
        if tenure is None:
            renewed(0)
        elif tenure.is_ending or (tenure.deadline <= now and self._hold is None):
            # Never revived: others may know already that it has ended.
            renewed(ENDING)
        else:
            tenure.deadline = max(tenure.deadline, now + tenure.ttl)
            renewals.append((tenure, renewed))

    def _tell_renewed(
        self,
        reign: _Reign,
        renewals: Sequence[tuple[Tenure, Renewed]],
        now: float,
        led_at: float,
    ) -> None:
        """Tell of renewals that hold here. This member has led at some time since ``led_at``."""
        for tenure, renewed in renewals:
            if tenure.gone:
                renewed(0)
            elif now - led_at > self._grace_s:
                # Another leader's deadlines may have begun too long ago to promise a whole TTL.
                renewed(EtcdError(Reason.NOT_PRIMARY_LESSOR))
            elif tenure.rest != FOR_EVER:
                self._clear(reign, tenure, renewed, now)
            else:
                tenure.deadline = max(tenure.deadline, now + tenure.ttl)
                self.figures.renewed += 1
                renewed(tenure.ttl)

    def _clear(self, reign: _Reign, tenure: Tenure, renewed: Renewed, now: float) -> None:
        """Have the log say no more how little was left of a lease, before its renewal is told.

        This member leads at some time after ``now`` if that comes to something.
        """

        def cleared(outcome: Outcome) -> None:
            if isinstance(outcome, LeaseCheckpointAnswer):
                self._tell_renewed(reign, [(tenure, renewed)], self._now(), now)
            else:
                renewed(EtcdError(Reason.NOT_PRIMARY_LESSOR))

        reign.checkpoints.clear(tenure, cleared)


def _time_to_live(tenure: Tenure | None, now: float) -> TimeToLive:
    if tenure is None:
        return TimeToLive(-1, 0)
    return TimeToLive(min(tenure.ttl, max(0, int(tenure.deadline - now))), tenure.ttl)


def ttl_min_s(election_timeout_s: float) -> int:
    """The least TTL that is granted: a change of leader must not end leases by itself."""
    return max(2, ceil(1.5 * election_timeout_s))


def _ids_by_deadline(tenures: list[Tenure]) -> list[int]:
    return [tenure.id for tenure in sorted(tenures, key=lambda tenure: tenure.deadline)]
