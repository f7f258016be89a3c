"""The rules of a request: limits, identity, idempotency, leadership, deadlines, errors.

Group commit: one entry of the log, and one read point, is for all that arrived while the one before
it was under way (:mod:`kvstore.service.pace`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from kvstore.errors import Error, UnavailableError
from kvstore.replica.work import AtOnce, Work
from kvstore.service.calls import as_calls
from kvstore.service.desks import Entry, Point, new_desk
from kvstore.service.limits import Limits
from kvstore.service.member import Member, Route
from kvstore.service.operations import Answered, Asked, Done, Operation
from kvstore.service.pace import Pace
from kvstore.service.reading import Reading
from kvstore.state import SESSION_BYTES, USERS_CHANGED

__all__ = ["KVService"]


class KVService:
    """Takes operations from fronts to the member that leads. One thread; knows no event loop.

    What is decided once for a batch is decided here. What is done for each operation of it, its
    desk does.
    """

    def __init__(
        self,
        route: Route,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object] | None = None,
        draw: Callable[[int], bytes] = os.urandom,
        limits: Limits | None = None,
        work: Work | None = None,
        plain: bool = False,
    ) -> None:
        """``now`` is the monotonic clock in seconds. ``soon`` calls back once, after this turn, and
        ``later`` after so many seconds; without it nothing is gathered for longer than a turn.
        ``draw`` gives random bytes, for the ids of sessions. ``work`` reads what lies on the disk,
        at once if it isn't given. ``plain``: work by :mod:`kvstore.service.plain`.
        """
        self._route = route
        self._now = now
        self._soon = soon
        self._later = later
        self._draw = draw
        self._desk = desk = new_desk(limits or Limits(), plain=plain)
        self._reading = Reading(desk, now=now, soon=soon, work=AtOnce() if work is None else work)
        self._entries = Pace(now())
        self._read_points = Pace(now())
        # When they go on next, as far as that is settled.
        self._reads_due_at = self._writes_due_at = inf
        # Who was asked last, and how often that one has changed.
        self._member: Member | None = None
        self._reign = 0
        # As of which revision of the users those were let in that are gathered, 0 if nobody asked.
        self._guard = 0

    @property
    def waiting(self) -> int:
        """Calls that are not answered yet."""
        return self._desk.waiting

    def submit(self, operations: Sequence[Operation], deadline: float, done: Done) -> None:
        """See :class:`kvstore.service.operations.Service`."""
        if not operations:
            done(())
            return
        desk = self._desk
        reads, writes = desk.reads, desk.writes
        self._gather(*as_calls(operations, deadline, done, partial(self._draw, SESSION_BYTES)))
        if desk.writes > writes:
            self._entries.came_singly(desk.writes - writes, desk.writes)
        if desk.reads > reads:
            self._read_points.came_singly(desk.reads - reads, desk.reads)
        self._flush_soon()

    def take(self, calls: Sequence[Asked], answered: Answered) -> None:
        """See :class:`kvstore.service.operations.Service`."""
        self._gather(calls, answered)
        # At once: a batch is all that there is for now, and a pass of the loop costs a poll.
        desk, now = self._desk, self._now()
        if desk.reads and self._read_points.earliest(desk.reads) <= now:
            self._ask_read_point()
        elif desk.reads:
            self._flush_soon()
        if desk.writes and self._entries.earliest(desk.writes) <= now:
            self._propose()
        elif desk.writes:
            self._flush_soon()

    def _gather(self, calls: Sequence[Asked], answered: Answered) -> None:
        member = self._ask_route()
        if not isinstance(member, Error):
            self._refuse_let_in_before(member)
        refusal, machine = (member, None) if isinstance(member, Error) else (None, member.machine)
        self._desk.take(calls, answered, self._now(), refusal, machine)

    def expire(self) -> None:
        """Give up calls whose deadline has passed. To be called every 100 ms or so."""
        self._desk.expire(self._now())
        self._reading.expire()
        # What waits behind a leader that went silent is told so.
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Have what was gathered go on, unless that is due as soon already."""
        desk = self._desk
        if desk.reads:
            earliest = self._read_points.earliest(desk.reads)
            if earliest < self._reads_due_at:
                self._reads_due_at = earliest
                self._flush_at(earliest, self._flush_reads)
        if desk.writes:
            earliest = self._entries.earliest(desk.writes)
            if earliest < self._writes_due_at:
                self._writes_due_at = earliest
                self._flush_at(earliest, self._flush_writes)

    def _flush_at(self, earliest: float, flush: Callable[[], None]) -> None:
        """Call ``flush`` soon, but not before ``earliest`` where something can call later."""
        if self._later is not None and earliest:
            pause = earliest - self._now()
            if pause > 0:
                self._later(pause, flush)
                return
        self._soon(flush)

    def _flush_reads(self) -> None:
        self._reads_due_at = inf
        self._ask_read_point()

    def _flush_writes(self) -> None:
        self._writes_due_at = inf
        self._propose()

    def _ask_route(self) -> Member | Error:
        """The member to ask now, or why there is none; notes when that is another one."""
        member = self._route()
        if member is not self._member and not isinstance(member, Error):
            self._member = member
            self._reign += 1
            self._entries.forget()
            self._read_points.forget()
            # The one before may never answer: a retry is proposed anew, and the log sees to it that
            # it is done once.
            self._desk.new_reign()
        return member

    def _leading(self) -> Member | None:
        """The member to ask now; None when there is none, and all that was gathered is refused."""
        member = self._ask_route()
        if isinstance(member, Error):
            self._desk.refuse(member)
            return None
        self._refuse_let_in_before(member)
        return member

    def _refuse_let_in_before(self, member: Member) -> None:
        """Refuse what was gathered if users, or what they may do, have changed since.

        Whoever hands calls in has just looked whether their users may do that, as of now; the log
        has the last word, and it goes by entries.
        """
        guard = member.machine.guard
        if guard != self._guard:
            self._guard = guard
            self._desk.refuse(UnavailableError(USERS_CHANGED))

    def _ask_read_point(self) -> None:
        """Ask for a read point for what was gathered, if it is time."""
        member = self._leading()
        now, pace = self._now(), self._read_points
        if member is None or not pace.may_go(now, self._desk.reads, is_full=False):
            return
        point = self._desk.next_point(now)
        if point is None:
            return
        pace.goes(now)
        pace.begins()
        member.read(partial(self._readable, self._reign, self._guard, member, point))

    def _propose(self) -> None:
        """Propose what was gathered, as far as there is room, if it is time."""
        member = self._leading()
        desk, now, pace = self._desk, self._now(), self._entries
        if member is None or not desk.writes:
            return
        if not pace.may_go(now, desk.writes, is_full=desk.fills_entry):
            return
        pace.goes(now, desk.under_way, member.machine.write_delay_s)
        time_ms = member.log_time_ms()
        while pace.has_room:
            entry = desk.next_entry(now, time_ms, self._guard)
            if entry is None:
                break
            pace.begins()
            member.propose(entry.data, partial(self._proposed, self._reign, entry))

    def _proposed(self, reign: int, entry: Entry, outcome: bytes | Error) -> None:
        """The entry was applied, or it never will be, or nobody knows."""
        if reign == self._reign:
            self._entries.ended()
            self._flush_soon()
        entry.answer(outcome)

    def _readable(
        self, reign: int, guard: int, member: Member, point: Point, refusal: Error | None
    ) -> None:
        """``member`` may be read now by those who were let in as of ``guard``, unless there is a
        ``refusal``."""
        if reign == self._reign:
            self._read_points.ended()
            self._flush_soon()
        if refusal is None:
            self._reading.answer(member, point, guard)
        else:
            point.refuse(refusal)
