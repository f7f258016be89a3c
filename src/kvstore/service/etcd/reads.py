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

from kvstore.errors import ClosedError, Error, InternalError, StorageError, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import Progress, Work
from kvstore.service.etcd.calls import Call
from kvstore.service.etcd.limits import EtcdLimits
from kvstore.service.etcd.member import LocalMember, Model
from kvstore.service.pace import Pace
from kvstore.service.reading import COLD_JOBS_MAX, COLD_READS_MAX
from kvstore.state import COLD, Cold
from kvstore.state.mvcc.answers import GatheredAnswer, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.ranges import MakeGathered
from kvstore.state.mvcc.requests import Range, Txn

__all__ = ["Permit", "Read", "ReadCall", "Reads", "Render", "reading"]

Read = Callable[[Model], Any]
"""Any thread; may ask the disk. Raises EtcdError, StorageError, ClosedError."""

Render = Callable[[Any], Any]
"""What the caller makes of a RangeAnswer, GatheredAnswer or TxnAnswer; on the thread that has
read it."""

SLICE_S: Final = 0.005
"""So long memory is asked in one go."""

READER: Final = "etcd"
"""By which members know its reads from those of v1."""

RANGE_JOBS_MAX: Final = 4
"""Side by side, beside those of single keys: a range may take long."""

JOB_BYTES_MAX: Final = 4 << 20
"""Of what a job has rendered: then the others of its calls wait for another one."""


Permit = Callable[[Auth], None]
"""Raises EtcdError where whoever reads may not, among these users. Any thread."""


class ReadCall(Call[Any]):
    """``read``: what to read of the state; None where the caller only waits for a read point.

    ``read_cached``: the same of a single key, from memory alone; COLD where the disk has to be
    asked. What has none is read beside the loop. ``permit`` is asked right before it is read;
    ``permitted``: by which users it was. Should others have taken their place by the time that the
    answer is there it is read again, since what was read may be newer than the permission.
    """

    __slots__ = ("is_serializable", "permit", "permitted", "read", "read_cached")

    def __init__(
        self,
        read: Read | None,
        is_serializable: bool,
        deadline: float,
        is_own: bool,
        done: Callable[[Any], None],
        read_cached: Read | None = None,
        permit: Permit | None = None,
    ) -> None:
        super().__init__(deadline, is_own, done)
        self.permit = permit
        self.permitted: Auth | None = None
        self.read = read
        self.read_cached = read_cached
        self.is_serializable = is_serializable


def reading(
    operation: Range | Txn, render: Render | None, make: MakeGathered | None
) -> tuple[Read, Read | None]:
    """``read`` and ``read_cached`` of a :class:`ReadCall` for ``operation``, which only reads.

    With ``make`` a Range's ``render`` may be given a GatheredAnswer.
    """

    def rendered(answer: RangeAnswer | GatheredAnswer | TxnAnswer | Cold) -> Any:
        return answer if render is None or isinstance(answer, Cold) else render(answer)

    def read(machine: Model) -> Any:
        if isinstance(operation, Txn):
            return rendered(machine.read_txn(operation))
        if make is not None:
            return rendered(machine.gather_range(operation, make))
        return rendered(machine.read_range(operation))

    def read_cached(machine: Model) -> Any:
        assert isinstance(operation, Range)
        return rendered(machine.read_range_cached(operation))

    is_of_a_key = isinstance(operation, Range) and not operation.range_end
    return read, read_cached if is_of_a_key else None


class _Lane:
    """Reads for the workers, and the jobs that do them."""

    def __init__(self, kind: str, jobs_max: int) -> None:
        self.kind = kind
        self.jobs_max = jobs_max
        self.calls: deque[ReadCall] = deque()
        self.jobs: dict[int, tuple[LocalMember, Progress]] = {}

    def next_calls(self) -> list[ReadCall]:
        """For one job: as many as leave work for the others."""
        most = min(COLD_READS_MAX, 1 + len(self.calls) // self.jobs_max)
        return [self.calls.popleft() for _ in range(min(most, len(self.calls)))]


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
        self._keys = _Lane("key", COLD_JOBS_MAX)
        self._ranges = _Lane("range", RANGE_JOBS_MAX)
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

    # --- in ------------------------------------------------------------------------------------

    def refusal(self) -> Reason | None:
        """Why there is no room for one more; None if there is."""
        return Reason.TOO_MANY_REQUESTS if self._count >= self._limits.waiting_max else None

    def begin(self, call: ReadCall) -> None:
        """Read what is serializable now, and the rest when that is linearizable."""
        self._count += 1
        if call.is_serializable:
            self._ready.append(call)
            self._answer_soon()
        else:
            self._waiting.append(call)
            self._flush_soon()

    def tick(self) -> None:
        """To be called as often as members tick: what couldn't be had may be had now."""
        self._waiting = [call for call in self._waiting if not call.is_decided]
        self._flush_soon()
        self._answer_soon()
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
        for queue in (self._ready, self._keys.calls, self._ranges.calls):
            taken += queue
            queue.clear()
        return taken

    def _decide(self, call: ReadCall, outcome: Any) -> None:
        if not call.is_decided:
            self._count -= 1
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
        if member is None:
            return
        machine, ends = member.machine, self._now() + SLICE_S
        while self._ready and self._now() < ends:
            call = self._ready.popleft()
            if call.is_decided:
                continue
            if call.read_cached is None:
                self._ranges.calls.append(call)
                continue
            outcome = _outcome(call, call.read_cached, machine)
            if outcome is COLD:
                self._keys.calls.append(call)
            else:
                self._answer(member, machine, call, outcome)
        self._answer_soon()
        for lane in (self._keys, self._ranges):
            while lane.calls and len(lane.jobs) < lane.jobs_max:
                self._start_job(member, lane)

    def _start_job(self, member: LocalMember, lane: _Lane) -> None:
        calls = lane.next_calls()
        machine = member.machine
        outcomes: list[Any] = []
        progress = Progress()

        def job() -> None:
            size = 0
            for call in progress.each(calls):
                # Nobody waits for it any more.
                read = None if call.is_decided else call.read
                outcome = None if read is None else _outcome(call, read, machine)
                outcomes.append(outcome)
                size += len(outcome) if isinstance(outcome, bytes) else 0
                if size > JOB_BYTES_MAX:
                    break
            progress.end()

        def ended() -> None:
            del lane.jobs[number]
            for call, outcome in zip(calls, outcomes, strict=False):
                self._answer(member, machine, call, outcome)
            for call in calls[len(outcomes) :]:
                # The point that was reached was this member's.
                may_be_read = call.is_serializable or member is self._member
                (self._ready if may_be_read else self._waiting).append(call)
            self._answer_slice()
            self._flush_soon()

        self._number = number = self._number + 1
        lane.jobs[number] = member, progress
        self._work.run(lane.kind, job, ended)

    def _answer(self, member: LocalMember, machine: Model, call: ReadCall, outcome: Any) -> None:
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
        for member, progress in self._keys.jobs.values():
            progress.tick()
            ages[member] = max(ages.get(member, 0), progress.ticks)
        for member, age in ages.items():
            member.reads_take(age, READER)
        self._told = {member for member, _ in self._keys.jobs.values()}


def _outcome(call: ReadCall, read: Read, machine: Model) -> Any:
    try:
        if call.permit is not None:
            auth = call.permitted = machine.auth
            call.permit(auth)
        return read(machine)
    except Error as error:
        return error
    except Exception as error:  # noqa: BLE001 - told to the one who asked
        return InternalError(f"reading: {type(error).__name__}: {error}")
