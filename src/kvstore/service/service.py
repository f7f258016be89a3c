"""The rules of a request: limits, identity, idempotency, leadership, deadlines, errors.

Group commit: one entry of the log, and one read point, is for all that arrived while those before
it were under way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from kvstore.errors import Error
from kvstore.replica.work import AtOnce, Work
from kvstore.service.calls import as_calls
from kvstore.service.desks import Entry, Point, new_desk
from kvstore.service.limits import Limits
from kvstore.service.member import Member, Route
from kvstore.service.operations import Answered, Asked, Done, Operation
from kvstore.service.reading import Reading
from kvstore.state import SESSION_BYTES

__all__ = ["KVService"]

# Entries, and read points, under way at one time: one that is being committed and one behind it, so
# that the disk never waits. With more, entries get smaller and each costs as much as a large one.
ENTRIES_MAX = 2
READ_POINTS_MAX = 2

# Between two entries of a service that has several writes at one time, and between two read points
# of one that has several reads. A loop takes calls in one by one; while it only drives the members
# it takes none, and each call becomes an entry, or a round of heartbeats, of its own.
GATHER_S = 0.002

# With many writes under way entries are further apart, so long for each of those writes, up to a
# bound: an entry costs a cluster its frames and syncs, a millisecond of processor time, whatever
# it holds.
GATHER_A_WRITE_S = 0.0005
GATHER_MAX_S = 0.005


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
        self._reads_are_due = False
        self._writes_are_due = False
        # When an entry was made last, and whether a write has met another one since.
        self._proposed_at = now()
        self._crowded = False
        self._write_pause = GATHER_S
        # The same of read points.
        self._asked_at = now()
        self._reads_crowded = False
        # Who was asked last, how much it has under way, and how often that one has changed.
        self._member: Member | None = None
        self._reign = 0
        self._entries = 0
        self._read_points = 0

    def submit(self, operations: Sequence[Operation], deadline: float, done: Done) -> None:
        """See :class:`kvstore.service.operations.Service`."""
        if not operations:
            done(())
            return
        self.take(*as_calls(operations, deadline, done, partial(self._draw, SESSION_BYTES)))

    def take(self, calls: Sequence[Asked], answered: Answered) -> None:
        """See :class:`kvstore.service.operations.Service`."""
        desk = self._desk
        member = self._ask_route()
        refusal, machine = (member, None) if isinstance(member, Error) else (None, member.machine)
        reads, writes = desk.reads, desk.writes
        desk.take(calls, answered, self._now(), refusal, machine)
        if desk.writes > writes and desk.under_way > 1:
            self._crowded = True
        if desk.reads > reads and self._read_points:
            self._reads_crowded = True
        self._flush_soon()

    def expire(self) -> None:
        """Give up calls whose deadline has passed. To be called every 100 ms or so."""
        self._desk.expire(self._now())
        self._reading.expire()
        # What waits behind a leader that went silent is told so.
        self._flush_soon()

    def _flush_soon(self) -> None:
        desk = self._desk
        if desk.reads and not self._reads_are_due:
            self._reads_are_due = True
            crowded = self._reads_crowded or desk.reads > 1
            earliest = self._asked_at + GATHER_S if crowded else 0.0
            self._flush_at(earliest, self._flush_reads)
        if desk.writes and not self._writes_are_due:
            self._writes_are_due = True
            earliest = self._proposed_at + self._write_pause if self._crowded else 0.0
            self._flush_at(earliest, self._flush_writes)

    def _flush_at(self, earliest: float, flush: Callable[[], None]) -> None:
        """Call ``flush`` soon, but not before ``earliest`` where something can call later."""
        if self._later is not None:
            pause = earliest - self._now()
            if pause > 0:
                self._later(pause, flush)
                return
        self._soon(flush)

    def _ask_route(self) -> Member | Error:
        """The member to ask now, or why there is none; notes when that is another one."""
        member = self._route()
        if member is not self._member and not isinstance(member, Error):
            self._member = member
            self._reign += 1
            self._entries = self._read_points = 0
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
        return member

    def _flush_reads(self) -> None:
        """Ask for a read point for what was gathered, if there is room for one more."""
        self._reads_are_due = False
        member = self._leading()
        if member is None or self._read_points >= READ_POINTS_MAX:
            return
        self._asked_at = self._now()
        point = self._desk.next_point(self._asked_at)
        if point is None:
            return
        self._reads_crowded = len(point) > 1
        self._read_points += 1
        member.read(partial(self._readable, self._reign, member, point))

    def _flush_writes(self) -> None:
        """Propose what was gathered, as far as there is room for more entries."""
        self._writes_are_due = False
        member = self._leading()
        desk = self._desk
        if member is None or not desk.writes or self._entries >= ENTRIES_MAX:
            return
        self._proposed_at = self._now()
        self._crowded = desk.writes > 1
        wanted = GATHER_A_WRITE_S * desk.under_way
        self._write_pause = min(max(wanted, GATHER_S), GATHER_MAX_S) + member.machine.write_delay_s
        time_ms = member.log_time_ms()
        while self._entries < ENTRIES_MAX:
            entry = desk.next_entry(self._proposed_at, time_ms)
            if entry is None:
                break
            self._entries += 1
            member.propose(entry.data, partial(self._proposed, self._reign, entry))

    def _proposed(self, reign: int, entry: Entry, outcome: bytes | Error) -> None:
        """The entry was applied, or it never will be, or nobody knows."""
        if reign == self._reign:
            self._entries -= 1
            self._flush_soon()
        entry.answer(outcome)

    def _readable(self, reign: int, member: Member, point: Point, refusal: Error | None) -> None:
        """``member`` may be read now, unless there is a ``refusal``."""
        if reign == self._reign:
            self._read_points -= 1
            self._flush_soon()
        if refusal is None:
            self._reading.answer(member, point)
        else:
            point.refuse(refusal)
