"""Proposals of this process: from the caller into an entry of the log, and back from its apply.

What comes while an entry is under way makes the next one. A member that doesn't lead has the leader
propose what it gathered. Either way the answer comes from this member's own apply, so that who
asked it next finds what was written, and the header says who it was.

A proposal is made again only where it is certain that it isn't, and won't be, applied: nobody has
put it into a log; or this member has applied an entry of a later term than the one in whose log
alone it may be, since entries are applied in the log's order and terms only rise in it. A leader
therefore takes what is passed on in the term that the sender says, or not at all. After a snapshot,
in which it may have been applied unseen, nobody can tell, and its caller is told that.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from kvstore._state.native import names_single_keys
from kvstore.errors import Error, NotLeaderError, OutcomeUnknownError, UnavailableError
from kvstore.etcd_errors import Reason
from kvstore.service.etcd.calls import Call
from kvstore.service.etcd.limits import EtcdLimits
from kvstore.service.etcd.member import Answers, LocalMember, Passed, PassOn
from kvstore.service.pace import Pace
from kvstore.state.mvcc.answers import Answer
from kvstore.state.mvcc.checks import REQUEST_BYTES_MAX
from kvstore.state.mvcc.operations import decode_operations, encode_proposal, join_proposals
from kvstore.state.mvcc.requests import (
    Authenticated,
    AuthOperation,
    Compact,
    EnableModel,
    Numbered,
    Operation,
    Proposal,
    RaiseLevel,
)

__all__ = ["ProposalCall", "Proposals"]

ID_DRAWN_BYTES: Final = 16
_HALVES = struct.Struct(">QQ")
_U64 = (1 << 64) - 1

Done = Callable[[Answer | Error], None]


class ProposalCall(Call[Answer]):
    """A proposal of this process.

    ``flight``: with what it is under way, None while it waits. ``term``: the one in whose log it
    may be, 0 while it is in none. ``is_alone``: it shares an entry with nothing. ``enables``: it is
    what all others wait for. ``is_later``: it is nothing for members that know the model alone.
    """

    __slots__ = (
        "enables",
        "encoded",
        "flight",
        "id",
        "is_alone",
        "is_later",
        "is_lost",
        "size",
        "stays_here",
        "term",
    )

    def __init__(
        self,
        id: bytes,
        encoded: bytes,
        deadline: float,
        is_own: bool,
        done: Done,
        proposal: Proposal | None = None,
        stays_here: bool = False,
    ) -> None:
        """``encoded``: the proposal of this id; ``proposal``: the same, where it isn't just a Put
        or a Txn of nobody's. ``stays_here``: for the local member to propose, or nobody."""
        super().__init__(deadline, is_own, done)
        operation = None if proposal is None else proposal.operation
        self.id = id
        self.encoded: Sequence[bytes] = (encoded,)
        self.size = len(encoded)
        """In bytes of the log."""
        self.is_alone = isinstance(operation, Compact)
        self.enables = isinstance(operation, EnableModel | RaiseLevel)
        self.is_later = isinstance(operation, AuthOperation) or (
            proposal is not None and proposal.request is not None
        )
        self.stays_here = stays_here
        self.flight: _Flight | None = None
        self.term = 0
        self.is_lost = False

    def decide(self, outcome: Answer | Error) -> None:
        super().decide(outcome)
        # Lists of deadlines keep the call for seconds yet.
        self.encoded = ()


class _Foreign:
    """Another member's proposals, which this one is to propose in ``term``, or not at all.

    ``done``: see ``Proposals.take``. ``is_alone``: one of them is to share an entry with nothing.
    """

    __slots__ = ("done", "encoded", "is_alone", "size", "term")

    def __init__(self, term: int, encoded: Sequence[bytes], done: Callable[[Passed], None]) -> None:
        """Raises CorruptionError for what no member sends."""
        self.term = term
        data = join_proposals(encoded)
        self.is_alone = not names_single_keys(data) and any(
            isinstance(each.operation, Compact) for each in decode_operations(data)
        )
        self.encoded = encoded
        self.size = sum(map(len, encoded))
        self.done = done


_Waiting = ProposalCall | _Foreign


class _Flight:
    """An entry that is under way to the log, of this member or of the leader's.

    ``reign``: in which it began; ``is_in_log``: it has come there.
    """

    __slots__ = ("calls", "foreign", "is_in_log", "reign")

    def __init__(self, reign: int, waiting: Iterable[_Waiting]) -> None:
        self.reign = reign
        self.calls: list[ProposalCall] = []
        self.foreign: list[_Foreign] = []
        self.is_in_log = False
        for one in waiting:
            if isinstance(one, ProposalCall):
                one.flight = self
                self.calls.append(one)
            else:
                self.foreign.append(one)

    def present(self) -> list[ProposalCall]:
        """Its calls, but for those that have gone on their way anew."""
        return [call for call in self.calls if call.flight is self]


class Proposals:
    """Those that wait, and those that are under way. One thread."""

    def __init__(
        self,
        limits: EtcdLimits,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
        draw: Callable[[int], bytes],
        pass_on: PassOn | None,
    ) -> None:
        """As for :class:`kvstore.service.etcd.service.EtcdService`."""
        self._limits = limits
        self._now = now
        self._soon = soon
        self._later = later
        self._pass_on = pass_on
        self._first, self._process = _HALVES.unpack(draw(ID_DRAWN_BYTES))
        self._count = 0
        self._member: LocalMember | None = None
        self._reign = 0
        self._pace = Pace(now())
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        # For the next tick: who refused them would refuse them at once again.
        self._put_off: list[ProposalCall] = []
        # All of this process's that are undecided, by id.
        self._undecided: dict[bytes, ProposalCall] = {}
        # The highest term of an entry that was applied.
        self._applied_term = 0
        self._flush_is_due = False
        # Since when this member, which leads, takes nothing for want of room.
        self._full_since: float | None = None

    def follow(self, member: LocalMember | None) -> None:
        """``member`` takes them from now on; what the one before had under way is lost sight of."""
        self._lose_sight(Reason.TIMED_OUT_LEADER_FAILED)
        self._member = member
        self._renew()

    def installed(self) -> None:
        """A snapshot became the state: what is under way may have been applied in it."""
        self._lose_sight(Reason.TIMED_OUT_APPLYING)

    def _lose_sight(self, reason: Reason) -> None:
        for call in [*self._undecided.values()]:
            if call.flight is not None:
                self._decide(call, reason)

    @property
    def count(self) -> int:
        """Proposals of this process that are undecided."""
        return len(self._undecided)

    # --- in ------------------------------------------------------------------------------------

    def make(
        self,
        operation: Operation,
        who: Authenticated | None,
        deadline: float,
        is_own: bool,
        done: Done,
        *,
        request: Numbered | None = None,
        stays_here: bool = False,
    ) -> ProposalCall:
        """A call for ``operation``, to be :meth:`begin`-ned."""
        unique = self.new_id()
        proposal = Proposal(unique, operation, who, request)
        encoded = encode_proposal(proposal)
        return ProposalCall(unique, encoded, deadline, is_own, done, proposal, stays_here)

    def new_id(self) -> bytes:
        """For a proposal of this process."""
        # Both halves differ between processes, and the first one between calls.
        self._count += 1
        return _HALVES.pack((self._first + self._count) & _U64, self._process)

    def refusal(self, call: ProposalCall) -> Reason | None:
        """Why there is no room for it; None if there is."""
        if call.size > REQUEST_BYTES_MAX:
            return Reason.REQUEST_TOO_LARGE
        limits = self._limits
        if (
            len(self._undecided) >= limits.waiting_max
            or self._queued_bytes + call.size > limits.waiting_bytes_max
        ):
            return Reason.TOO_MANY_REQUESTS
        return None

    def begin(self, call: ProposalCall) -> None:
        """Have it proposed with whatever else comes in this turn."""
        self._undecided[call.id] = call
        self._put(call)
        self.flush_soon()

    def take(self, term: int, encoded: Sequence[bytes], done: Callable[[Passed], None]) -> None:
        """Propose what a follower gathered for the leader of ``term``.

        ``done`` once it is in the log, or is refused. Raises CorruptionError for what no follower
        sends.
        """
        foreign = _Foreign(term, encoded, done)
        if (
            self._leads_in() != term
            or self._queued_bytes + foreign.size > 2 * self._limits.waiting_bytes_max
        ):
            done(Passed.REFUSED)
            return
        self._put(foreign)
        self.flush_soon()

    def _leads_in(self) -> int:
        """The term in which this member leads; 0 if it doesn't."""
        member = self._member
        return member.term if member is not None and member.is_leader else 0

    def _put(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._queued_bytes += waiting.size

    def _put_back(self, calls: list[ProposalCall]) -> None:
        """Nobody has them: they come first again, at the next tick."""
        for call in calls:
            call.flight = None
            call.term = 0
        self._put_off += calls

    # --- on ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """To be called as often as members tick: what nobody took may be taken now."""
        if self._member is None or not self._member.lacks_room:
            self._full_since = None
        put_off, self._put_off = self._put_off, []
        queued = [*put_off, *self._queue]
        kept = [one for one in queued if isinstance(one, _Foreign) or not one.is_decided]
        if put_off or len(kept) < len(queued):
            self._queue = deque(kept)
            self._queued_bytes = sum(one.size for one in kept)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Have what was gathered go on at the end of this turn."""
        if self._queue and not self._flush_is_due:
            self._flush_is_due = True
            pause = self._pace.earliest(len(self._queue)) - self._now()
            if pause > 0:
                self._later(pause, self._flush)
            else:
                self._soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        member = self._member
        if member is None or not member.has_quorum_contact:
            return
        if not member.is_leader:
            self._refuse_what_stays()
            if self._pass_on is not None and member.leader:
                self._send(member, self._pass_on)
            return
        while self._queue and self._may_go():
            waiting = self._next_entry()
            if waiting:
                self._pace.goes(self._now(), hold_back_s=member.machine.write_delay_s)
                self._propose(member, waiting)

    def _may_go(self) -> bool:
        is_full = (
            len(self._queue) >= self._limits.entry_operations_max
            or self._queued_bytes >= self._limits.entry_bytes_max
        )
        return self._pace.may_go(self._now(), len(self._queue), is_full=is_full)

    def _next_entry(self) -> list[_Waiting]:
        """The first that wait and may share an entry. A compaction has one for itself: watches
        then get everything before it is done."""
        taken: list[_Waiting] = []
        count = size = 0
        queue, limits = self._queue, self._limits
        while queue and count < limits.entry_operations_max:
            waiting = queue[0]
            if taken and (waiting.is_alone or size + waiting.size > limits.entry_bytes_max):
                break
            queue.popleft()
            self._queued_bytes -= waiting.size
            if isinstance(waiting, ProposalCall):
                if waiting.is_decided:
                    continue
            elif waiting.term != self._leads_in():
                waiting.done(Passed.REFUSED)
                continue
            taken.append(waiting)
            size += waiting.size
            count += len(waiting.encoded)
            if waiting.is_alone:
                break
        return taken

    def _propose(self, member: LocalMember, waiting: list[_Waiting]) -> None:
        """On the leader."""
        self._pace.begins()
        flight = _Flight(self._reign, waiting)
        encoded = [each for one in waiting for each in one.encoded]
        data = join_proposals(encoded, member.log_time_ms())
        member.propose(data, partial(self._ended, member, flight), partial(self._in_log, flight))

    def _in_log(self, flight: _Flight, term: int) -> None:
        flight.is_in_log = True
        self._full_since = None
        for call in flight.present():
            call.term = term
        for foreign in flight.foreign:
            foreign.done(Passed.TAKEN)

    def _ended(self, member: LocalMember, flight: _Flight, outcome: bytes | Error) -> None:
        """The entry was applied, or it never will be, or nobody knows."""
        if flight.reign == self._reign:
            self._pace.ended()
        if not isinstance(outcome, Error):
            self.flush_soon()
        elif member.failure is not None:
            self._end(flight, Reason.STOPPED)
        elif flight.is_in_log or isinstance(outcome, OutcomeUnknownError):
            pass  # what this member applies will tell
        elif isinstance(outcome, NotLeaderError | UnavailableError):
            if self._has_been_full(member):
                self._end(flight, Reason.NO_SPACE)
            else:
                self._put_back(flight.present())
                self._end_foreign(flight, Passed.REFUSED)
        else:
            self._end(flight, Reason.REQUEST_TOO_LARGE)

    def _has_been_full(self, member: LocalMember) -> bool:
        """Its disk takes nothing, and for so long that another one would lead by now, if it could:
        there is no room before somebody makes some."""
        if not (member.is_leader and member.lacks_room):
            self._full_since = None
            return False
        if self._full_since is None:
            self._full_since = self._now()
        return self._now() - self._full_since >= self._limits.full_patience_s

    def _end(self, flight: _Flight, reason: Reason) -> None:
        for call in flight.present():
            self._decide(call, reason)
        lacks_room = reason is Reason.NO_SPACE
        self._end_foreign(flight, Passed.NO_ROOM if lacks_room else Passed.REFUSED)

    def _end_foreign(self, flight: _Flight, passed: Passed) -> None:
        if not flight.is_in_log:
            for foreign in flight.foreign:
                foreign.done(passed)

    # --- to the leader ---------------------------------------------------------------------------

    def _refuse_what_stays(self) -> None:
        """This member doesn't lead: what only a leader may propose, and what others passed on."""
        for waiting in [*self._queue]:
            if isinstance(waiting, _Foreign):
                self._remove(waiting)
                waiting.done(Passed.REFUSED)
            elif waiting.stays_here:
                self._remove(waiting)
                self._decide(waiting, Reason.NOT_LEADER)

    def _remove(self, waiting: _Waiting) -> None:
        self._queue.remove(waiting)
        self._queued_bytes -= waiting.size

    def _send(self, member: LocalMember, pass_on: PassOn) -> None:
        while self._queue and self._may_go():
            flight = _Flight(self._reign, self._next_entry())
            calls = flight.calls
            if not calls:
                continue
            self._pace.goes(self._now())
            self._pace.begins()
            for call in calls:
                call.term = member.term
            timeout_s = max(call.deadline for call in calls) - self._now()
            encoded = [call.encoded[0] for call in calls]
            sent = partial(self._sent, flight)
            pass_on(member.leader, member.term, encoded, timeout_s, sent)

    def _sent(self, flight: _Flight, outcome: Passed) -> None:
        if flight.reign == self._reign:
            self._pace.ended()
        if outcome is Passed.REFUSED:
            self._put_back([call for call in flight.present() if not call.is_decided])
            return
        if outcome is Passed.NO_ROOM:
            for call in flight.present():
                self._decide(call, Reason.NO_SPACE)
        if outcome is Passed.LOST:
            for call in flight.present():
                call.is_lost = True
        self.flush_soon()

    # --- out -----------------------------------------------------------------------------------

    def applied(self, answers: Answers, term: int) -> None:
        """A slice was applied whose last entry is of ``term``."""
        undecided = self._undecided
        if undecided:
            for unique, answer in answers:
                call = undecided.pop(unique, None)
                if call is not None:
                    call.decide(answer)
        if term > self._applied_term:
            self._applied_term = term
            for call in undecided.values():
                if 0 < call.term < term:
                    # It is in no log that will ever be applied.
                    call.flight = None
                    call.term = 0
                    call.is_lost = False
                    self._put(call)
            self._renew()

    def expire(self, call: ProposalCall) -> None:
        """Its deadline has passed."""
        if call.is_own:
            reason = Reason.DEADLINE
        elif not call.term:
            reason = Reason.TIMED_OUT
        elif call.is_lost:
            reason = Reason.TIMED_OUT_CONNECTION_LOST
        elif self._member is None or self._member.term != call.term:
            reason = Reason.TIMED_OUT_LEADER_FAILED
        else:
            reason = Reason.TIMED_OUT
        self._decide(call, reason)

    def close(self) -> None:
        """Nothing is applied here any more."""
        for call in [*self._undecided.values()]:
            self._decide(call, Reason.STOPPED)

    def _decide(self, call: ProposalCall, reason: Reason) -> None:
        self._undecided.pop(call.id, None)
        call.refuse(reason)

    def _renew(self) -> None:
        """Another leader, or another member: those under way may never end."""
        self._reign += 1
        self._pace.forget()
        self.flush_soon()
