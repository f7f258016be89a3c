"""Proposals of this process: from the caller into an entry of the log, and back from its apply.

What comes while an entry is under way makes the next one. A member that doesn't lead has the leader
propose what it gathered. Either way the answer comes from this member's own apply, so that who
asked it next finds what was written, and the header says who it was.

A proposal is sent once, unless it is certain that it is in nobody's log. What is under way and was
not applied when an entry of a later term is will never be: its caller is told at once.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from kvstore.errors import Error, NotLeaderError, OutcomeUnknownError, UnavailableError
from kvstore.etcd_errors import Reason
from kvstore.service.etcd.calls import Call
from kvstore.service.etcd.limits import EtcdLimits
from kvstore.service.etcd.member import Answers, LocalMember, Passed, PassedOn, PassOn
from kvstore.service.pace import Pace
from kvstore.state.mvcc.answers import Answer
from kvstore.state.mvcc.checks import REQUEST_BYTES_MAX
from kvstore.state.mvcc.operations import decode_operations, encode_proposal, join_proposals
from kvstore.state.mvcc.requests import Authenticated, Compact, EnableModel, Operation, Proposal

__all__ = ["ProposalCall", "Proposals"]

ID_DRAWN_BYTES: Final = 16
_HALVES = struct.Struct(">QQ")
_U64 = (1 << 64) - 1

Done = Callable[[Answer | Error], None]


class ProposalCall(Call[Answer]):
    """A proposal of this process.

    ``term``: of the leader that has it, 0 while nobody does. ``is_alone``: it shares an entry with
    nothing. ``enables``: it is what all others wait for.
    """

    __slots__ = ("enables", "encoded", "id", "is_alone", "is_lost", "stays_here", "term")

    def __init__(
        self, proposal: Proposal, deadline: float, is_own: bool, stays_here: bool, done: Done
    ) -> None:
        """``stays_here``: for the local member to propose, or nobody."""
        super().__init__(deadline, is_own, done)
        self.id = proposal.id
        self.encoded = (encode_proposal(proposal),)
        self.is_alone = isinstance(proposal.operation, Compact)
        self.enables = isinstance(proposal.operation, EnableModel)
        self.stays_here = stays_here
        self.term = 0
        self.is_lost = False

    @property
    def size(self) -> int:
        """In bytes of the log."""
        return len(self.encoded[0])


class _Foreign:
    """Another member's proposals, which this one is to propose. ``done``: see ``Proposals.take``.

    ``is_alone``: one of them is to share an entry with nothing.
    """

    __slots__ = ("done", "encoded", "is_alone", "size")

    def __init__(self, encoded: Sequence[bytes], done: Callable[[PassedOn], None]) -> None:
        """Raises CorruptionError for what no member sends."""
        proposals = decode_operations(join_proposals(encoded))
        self.is_alone = any(isinstance(each.operation, Compact) for each in proposals)
        self.encoded = encoded
        self.size = sum(map(len, encoded))
        self.done = done


_Waiting = ProposalCall | _Foreign


class _Entry:
    """Of the log, under way. ``reign``: in which it was proposed."""

    __slots__ = ("is_in_log", "reign", "waiting")

    def __init__(self, reign: int, waiting: list[_Waiting]) -> None:
        self.reign = reign
        self.waiting = waiting
        self.is_in_log = False


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

    def follow(self, member: LocalMember | None) -> None:
        """``member`` takes them from now on; what the one before had under way is lost sight of."""
        if self._member is not None:
            for call in self._under_way():
                self._decide(call, Reason.TIMED_OUT_LEADER_FAILED)
        self._member = member
        self._renew()

    # --- in ------------------------------------------------------------------------------------

    def make(
        self,
        operation: Operation,
        who: Authenticated | None,
        deadline: float,
        is_own: bool,
        done: Done,
        *,
        stays_here: bool = False,
    ) -> ProposalCall:
        """A call for ``operation``, to be :meth:`begin`-ned."""
        # Both halves differ between processes, and the first one between calls.
        self._count += 1
        unique = _HALVES.pack((self._first + self._count) & _U64, self._process)
        return ProposalCall(Proposal(unique, operation, who), deadline, is_own, stays_here, done)

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

    def take(self, encoded: Sequence[bytes], done: Callable[[PassedOn], None]) -> None:
        """Propose what a follower gathered; ``done`` once it is in the log, or is refused.

        Raises CorruptionError for what no follower sends.
        """
        foreign = _Foreign(encoded, done)
        member = self._member
        if (
            member is None
            or not member.is_leader
            or self._queued_bytes + foreign.size > 2 * self._limits.waiting_bytes_max
        ):
            done(PassedOn(Passed.REFUSED))
            return
        self._put(foreign)
        self.flush_soon()

    def _put(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._queued_bytes += waiting.size

    def _put_back(self, calls: list[ProposalCall]) -> None:
        """Nobody has them: they come first again, at the next tick."""
        for call in calls:
            call.term = 0
        self._put_off += calls

    # --- on ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """To be called as often as members tick: what nobody took may be taken now."""
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
        pace = self._pace
        while self._queue and self._may_go():
            entry = self._next_entry()
            if entry:
                pace.goes(self._now(), hold_back_s=member.machine.write_delay_s)
                self._propose(member, entry)

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
            if isinstance(waiting, ProposalCall) and waiting.is_decided:
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
        for one in waiting:
            if isinstance(one, ProposalCall):
                one.term = member.term
        entry = _Entry(self._reign, waiting)
        data = _entry_data(waiting, member.log_time_ms())
        member.propose(data, partial(self._ended, member, entry), partial(self._in_log, entry))

    def _in_log(self, entry: _Entry, term: int) -> None:
        entry.is_in_log = True
        for waiting in entry.waiting:
            if isinstance(waiting, ProposalCall):
                waiting.term = term
            else:
                waiting.done(PassedOn(Passed.TAKEN, term))

    def _ended(self, member: LocalMember, entry: _Entry, outcome: bytes | Error) -> None:
        """The entry was applied, or it never will be, or nobody knows."""
        if entry.reign == self._reign:
            self._pace.ended()
        waiting = entry.waiting
        if not isinstance(outcome, Error):
            self.flush_soon()
        elif member.failure is not None:
            self._end(waiting, Reason.STOPPED)
        elif entry.is_in_log or isinstance(outcome, OutcomeUnknownError):
            pass  # what this member applies will tell
        elif isinstance(outcome, NotLeaderError | UnavailableError):
            # In nobody's log: again at the next tick, by then perhaps through another leader.
            self._end([one for one in waiting if isinstance(one, _Foreign)], Reason.LEADER_CHANGED)
            self._put_back([one for one in waiting if isinstance(one, ProposalCall)])
        else:
            self._end(waiting, Reason.REQUEST_TOO_LARGE)

    def _end(self, entry: Iterable[_Waiting], reason: Reason) -> None:
        for waiting in entry:
            if isinstance(waiting, ProposalCall):
                self._decide(waiting, reason)
            else:
                waiting.done(PassedOn(Passed.REFUSED))

    # --- to the leader ---------------------------------------------------------------------------

    def _refuse_what_stays(self) -> None:
        """This member doesn't lead: what only a leader may propose, and what others passed on."""
        for waiting in [*self._queue]:
            if isinstance(waiting, _Foreign):
                self._remove(waiting)
                waiting.done(PassedOn(Passed.REFUSED))
            elif waiting.stays_here:
                self._remove(waiting)
                self._decide(waiting, Reason.NOT_LEADER)

    def _remove(self, waiting: _Waiting) -> None:
        self._queue.remove(waiting)
        self._queued_bytes -= waiting.size

    def _send(self, member: LocalMember, pass_on: PassOn) -> None:
        while self._queue and self._may_go():
            entry = [one for one in self._next_entry() if isinstance(one, ProposalCall)]
            if not entry:
                continue
            self._pace.goes(self._now())
            self._pace.begins()
            for call in entry:
                call.term = member.term
            timeout_s = max(call.deadline for call in entry) - self._now()
            encoded = [call.encoded[0] for call in entry]
            pass_on(member.leader, encoded, timeout_s, partial(self._sent, self._reign, entry))

    def _sent(self, reign: int, entry: list[ProposalCall], outcome: PassedOn) -> None:
        if reign == self._reign:
            self._pace.ended()
        if outcome.passed is Passed.REFUSED:
            self._put_back(entry)
            return
        for call in entry:
            if outcome.passed is Passed.LOST:
                call.is_lost = True
            else:
                call.term = outcome.term
                if call.term < self._applied_term:
                    self._decide(call, Reason.TIMED_OUT_LEADER_FAILED)
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
            for call in self._under_way():
                if call.term < term:
                    self._decide(call, Reason.TIMED_OUT_LEADER_FAILED)
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

    def _under_way(self) -> list[ProposalCall]:
        return [call for call in self._undecided.values() if call.term]

    def _decide(self, call: ProposalCall, reason: Reason) -> None:
        self._undecided.pop(call.id, None)
        call.refuse(reason)

    def _renew(self) -> None:
        """Another leader, or another member: those under way may never end."""
        self._reign += 1
        self._pace.forget()
        self.flush_soon()


def _entry_data(waiting: Iterable[_Waiting], time_ms: int) -> bytes:
    return join_proposals([each for one in waiting for each in one.encoded], time_ms)
