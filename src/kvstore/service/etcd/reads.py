"""Reads: behind a read point where they must be linearizable, and beside the loop where they ask
the disk.

Any member serves them: one that doesn't lead asks its leader for the read point. A point that
isn't confirmed is asked for anew, with an id of its own, for as long as its callers wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kvstore.errors import ClosedError, Error, StorageError, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import Work
from kvstore.service.etcd.limits import EtcdLimits
from kvstore.service.etcd.member import LocalMember, Model
from kvstore.service.etcd.read_calls import ReadCall
from kvstore.service.etcd.read_jobs import LATER, Job, Lane
from kvstore.service.pace import Pace
from kvstore.service.reading import COLD_JOBS_MAX
from kvstore.state import COLD

__all__ = ["Reads"]

SLICE_S: Final = 0.005
"""So long memory is asked in one go."""

READER: Final = "etcd"
"""By which members know its reads from those of v1."""

RANGE_JOBS_MAX: Final = 4
"""Side by side, beside those of single keys: a range may take long."""

LONG_S: Final = 0.05
"""A range that takes longer is parted from those that don't: they don't wait for it."""

LONG_JOBS_MAX: Final = 2
"""Of such ranges, side by side, beside the others. More of them than can be done in time are
refused as soon as it is known how long they take, not when their time has passed."""


class Reads:
    """Those that wait for a read point, and those that are under way. One thread."""

    def __init__(
        self,
        limits: EtcdLimits,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        work: Work,
    ) -> None:
        """As for :class:`kvstore.service.etcd.service.EtcdService`."""
        self._limits = limits
        self._now = now
        self._soon = soon
        self._work = work
        self._member: LocalMember | None = None
        self._reign = 0
        self._pace = Pace(now())
        self._count = 0
        self._waiting: list[ReadCall] = []
        self._flush_is_due = False
        # Those that may be read: their point is reached, or they need none.
        self._ready: deque[ReadCall] = deque()
        self._slice_is_due = False
        self._keys = Lane("key", COLD_JOBS_MAX)
        self._ranges = Lane("range", RANGE_JOBS_MAX)
        # One by one: no two wait for each other without need.
        self._long = Lane("range", LONG_JOBS_MAX, reads_max=1)
        # What one takes, by those that were done lately; 0: not known yet.
        self._long_s = 0.0
        self._number = 0
        self._told: set[LocalMember] = set()

    def follow(self, member: LocalMember | None) -> None:
        """``member`` is read from now on."""
        self._member = member
        self._reign += 1
        self._pace.forget()
        # What the one before holds for certain the other may lack.
        ready = self._take_ready()
        self._ready = deque(call for call in ready if call.is_serializable)
        self._waiting += (call for call in ready if not call.is_serializable)
        self.tick()

    @property
    def count(self) -> int:
        """Reads that are not answered yet."""
        return self._count

    # --- in ------------------------------------------------------------------------------------

    def refusal(self) -> Reason | None:
        """Why there is no room for one more; None if there is."""
        return Reason.TOO_MANY_REQUESTS if self._count >= self._limits.waiting_max else None

    def begin(self, call: ReadCall) -> None:
        """Read what is serializable now, and the rest when that is linearizable."""
        self._count += 1
        call.is_counted = True
        if call.is_serializable:
            self._ready.append(call)
            self._answer_soon()
        else:
            self._waiting.append(call)
            self._flush_soon()

    def tick(self) -> None:
        """To be called as often as members tick: what couldn't be had may be had now."""
        self._drop_unwanted()
        self._flush_soon()
        self._answer_soon()
        if self._member is not None:
            self._start_jobs(self._member)
        self._refuse_hopeless()
        self._tell_ages()

    def expire(self, call: ReadCall) -> None:
        """Its deadline has passed."""
        self._decide(call, EtcdError(Reason.DEADLINE if call.is_own else Reason.TIMED_OUT))

    def close(self) -> None:
        """Nothing is read here any more."""
        calls, self._waiting = self._waiting + self._take_ready(), []
        for call in calls:
            self._decide(call, EtcdError(Reason.STOPPED))

    def _take_ready(self) -> list[ReadCall]:
        """Those that may be read and are in no job."""
        taken: list[ReadCall] = []
        for queue in self._queues:
            taken += queue
            queue.clear()
        return taken

    @property
    def _queues(self) -> tuple[deque[ReadCall], ...]:
        return self._ready, self._keys.calls, self._ranges.calls, self._long.calls

    def _drop_unwanted(self) -> None:
        """Let go of calls whose time has passed or whose caller is gone."""
        self._waiting = [call for call in self._waiting if not self._is_dropped(call)]
        for queue in self._queues:
            kept = [call for call in queue if not self._is_dropped(call)]
            if len(kept) < len(queue):
                queue.clear()
                queue += kept

    def _is_dropped(self, call: ReadCall) -> bool:
        if not call.is_unwanted:
            return False
        self._decide(call, EtcdError(Reason.DEADLINE))  # told to nobody
        return True

    def _decide(self, call: ReadCall, outcome: Any) -> None:
        if not call.is_decided:
            self._count -= call.is_counted
            call.decide(outcome)

    # --- the read point --------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        """Ask for a point for what came in this turn, at its end."""
        if self._waiting and not self._flush_is_due:
            self._flush_is_due = True
            self._soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        member, waiting, pace = self._member, self._waiting, self._pace
        if member is None or not pace.may_go(self._now(), len(waiting), is_full=False):
            return
        self._waiting = []
        pace.goes(self._now())
        pace.begins()
        member.read(partial(self._reached, self._reign, waiting))

    def _reached(self, reign: int, calls: list[ReadCall], refusal: Error | None) -> None:
        """What the member holds may be read, unless there is a ``refusal``."""
        if reign == self._reign:
            self._pace.ended()
        if refusal is not None and not isinstance(refusal, UnavailableError):
            for call in calls:
                self._decide(call, refusal)
        elif refusal is not None or reign != self._reign:
            # Another point, at the next tick.
            self._waiting = calls + self._waiting
            return
        else:
            for call in calls:
                if call.read is None:
                    self._decide(call, None)
                else:
                    self._ready.append(call)
            self._answer_slice()
        self._flush_soon()

    # --- reading ---------------------------------------------------------------------------------

    def _answer_soon(self) -> None:
        if self._ready and not self._slice_is_due:
            self._slice_is_due = True
            self._soon(self._answer_slice)

    def _answer_slice(self) -> None:
        self._slice_is_due = False
        member = self._member
        if member is None or member.state_is_damaged:
            return
        machine, ends = member.machine, self._now() + SLICE_S
        while self._ready and self._now() < ends:
            call = self._ready.popleft()
            if call.is_decided:
                continue
            if call.read_cached is None:
                self._ranges.calls.append(call)
                continue
            outcome = call.outcome(call.read_cached, machine)
            if outcome is COLD:
                self._keys.calls.append(call)
            else:
                self._answer(member, machine, call, outcome)
        self._answer_soon()
        self._start_jobs(member)

    def _start_jobs(self, member: LocalMember) -> None:
        self._part_long()
        if member.state_is_damaged:
            return
        for lane in (self._keys, self._ranges, self._long):
            while lane.calls and lane.has_room:
                self._start_job(member, lane)

    def _part_long(self) -> None:
        """Let no range wait for one that takes long.

        That one gets a place among its like, and goes on. Where these have no place left, and
        others wait for the one that it has, it begins anew when there is one.
        """
        ranges, long = self._ranges, self._long
        for number, job in [*ranges.jobs.items()]:
            if job.age_s < LONG_S:
                continue
            ranges.calls.extendleft(reversed(job.take_back()))
            if long.has_room:
                job.lane = long
                long.jobs[number] = ranges.jobs.pop(number)
            elif len(ranges.calls) > ranges.jobs_max - len(ranges.jobs):
                job.must_end = True

    def _refuse_hopeless(self) -> None:
        """Those long ranges that so many are waiting before that their time will have passed, the
        rest of those under way, and their own.

        The first ones are read whatever the guess is.
        """
        if len(self._long.calls) <= LONG_JOBS_MAX:
            return
        ages = [job.age_s for job in self._long.jobs.values()]
        takes_s = max(self._long_s, min(ages, default=0.0))
        now = self._now()
        for place, call in enumerate([*self._long.calls][LONG_JOBS_MAX:], LONG_JOBS_MAX):
            if now + (place // LONG_JOBS_MAX + 2) * takes_s > call.deadline:
                self._decide(call, EtcdError(Reason.TOO_MANY_REQUESTS))

    def _start_job(self, member: LocalMember, lane: Lane) -> None:
        job = Job(member, lane, lane.next_calls(), self._now)
        self._number = number = self._number + 1
        lane.jobs[number] = job
        self._work.run(lane.kind, job.run, partial(self._job_ended, number, job))

    def _job_ended(self, number: int, job: Job) -> None:
        del job.lane.jobs[number]
        member = job.member
        if job.lane is self._long and job.took_s:
            self._long_s = (self._long_s + job.took_s) / 2 if self._long_s else job.took_s
        for call, outcome in job.outcomes:
            if outcome is LATER:
                self._read_later(member, call, self._long.calls)
            else:
                self._answer(member, job.machine, call, outcome)
        for call in job.take_back():
            self._read_later(member, call, self._ready)
        self._answer_slice()
        self._flush_soon()

    def _read_later(self, member: LocalMember, call: ReadCall, queue: deque[ReadCall]) -> None:
        """What a job of ``member`` didn't read."""
        if self._is_dropped(call):
            return
        # The point that was reached was that member's.
        if call.is_serializable or member is self._member:
            queue.append(call)
        else:
            self._waiting.append(call)

    def _answer(self, member: LocalMember, machine: Model, call: ReadCall, outcome: Any) -> None:
        if member.state_is_damaged and member.machine is machine:
            # Nobody is to have what it says: the state that takes its place holds more.
            self._read_later(member, call, self._ready)
            return
        if isinstance(outcome, ClosedError):
            if member.machine is machine:
                self._decide(call, EtcdError(Reason.STOPPED))
            elif not call.is_decided:
                # A snapshot took its place, which holds more.
                self._ready.append(call)
            return
        if isinstance(outcome, StorageError) and member.machine is machine:
            is_damage = not outcome.retryable
            outcome = member.read_failed(outcome)
            if is_damage and isinstance(outcome, UnavailableError) and not call.is_decided:
                # Others have the data: another member is read, or this one when it is repaired.
                self._waiting.append(call)
                return
        elif call.permitted is not None and call.permitted is not machine.auth:
            if not call.is_decided:
                self._ready.append(call)
            return
        self._decide(call, outcome)

    def _tell_ages(self) -> None:
        """Let members know for how long a read of their disk has been under way: of a key, since
        what a range takes says nothing about the disk."""
        ages: dict[LocalMember, int] = dict.fromkeys(self._told, 0)
        for job in self._keys.jobs.values():
            job.progress.tick()
            ages[job.member] = max(ages.get(job.member, 0), job.progress.ticks)
        for member, age in ages.items():
            member.reads_take(age, READER)
        self._told = {job.member for job in self._keys.jobs.values()}
