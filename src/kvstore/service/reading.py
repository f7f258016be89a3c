"""Values for reads that are confirmed: memory answers in slices, the disk beside the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from kvstore.errors import ClosedError, Error, InternalError, StorageError, UnavailableError
from kvstore.replica.work import Progress, Work
from kvstore.service.calls import Call
from kvstore.service.member import Machine, Member
from kvstore.service.operations import Result
from kvstore.state import COLD

__all__ = ["COLD_JOBS_MAX", "Read", "Reading"]

SLICE_S = 0.005
"""So long reads are answered in one go, however many there are."""
SLICE_READS = 64
"""Between two looks at the clock."""
COLD_JOBS_MAX = 8
"""Reads of the disk side by side."""
COLD_KEPT_MAX = 1024
"""Reads that wait for a job, from which on expired ones are looked for among them all."""
COLD_READS_MAX = 64
"""In one job, one after the other."""

Read = tuple[bytes, Call, int]
"""A key, and which operation of which call wants its value."""


class Reading:
    """Reads members whose state is fresh enough. One thread, which it never lets wait.

    What is read later than it might have been is only fresher: it is answered later, too.
    """

    def __init__(
        self,
        decide: Callable[[Call, int, Result], None],
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        work: Work,
    ) -> None:
        """``decide`` takes the results; ``work`` asks the disk."""
        self._decide = decide
        self._now = now
        self._soon = soon
        self._work = work
        # What no slice has come to yet: at most the calls that a service lets wait.
        self._waiting: deque[tuple[Member, Read]] = deque()
        self._slice_is_due = False
        self._cold: deque[tuple[Member, Read]] = deque()
        self._jobs = 0
        self._starting = False
        # Of each job: whom it reads, and how far it is.
        self._under_way: dict[int, tuple[Member, Progress]] = {}
        self._number = 0
        self._told: set[Member] = set()

    def answer(self, member: Member, reads: Sequence[Read]) -> None:
        """The state of ``member`` holds all that these reads must see."""
        if not self._waiting and len(reads) <= SLICE_READS:
            get = member.machine.get_cached
            for read in reads:
                self._answer_one(member, get, read)
        else:
            self._waiting.extend((member, read) for read in reads)
            if not self._slice_is_due:
                self._answer_slice()
        if self._cold:
            self._start_jobs()

    def _answer_slice(self) -> None:
        self._slice_is_due = False
        waiting = self._waiting
        ends = self._now() + SLICE_S
        while waiting:
            for _ in range(min(SLICE_READS, len(waiting))):
                member, read = waiting.popleft()
                self._answer_one(member, member.machine.get_cached, read)
            if waiting and self._now() >= ends:
                self._slice_is_due = True
                self._soon(self._answer_slice)
                break
        if self._cold:
            self._start_jobs()

    def _answer_one(
        self, member: Member, get: Callable[[bytes], Result | object], read: Read
    ) -> None:
        key, call, place = read
        result: Result
        try:
            found = get(key)
        except StorageError as damage:
            # Others have what is damaged here.
            self._decide(call, place, member.read_failed(damage))
            return
        if found is COLD:
            self._cold.append((member, read))
        else:
            result = found  # type: ignore[assignment]
            self._decide(call, place, result)

    def expire(self) -> None:
        """Forget reads of calls that have expired: behind a disk that hangs they would gather.

        To be called whenever members tick.
        """
        cold = self._cold
        while cold and cold[0][1][1].finished:
            cold.popleft()
        if len(cold) > COLD_KEPT_MAX:
            self._cold = deque(waiting for waiting in cold if not waiting[1][1].finished)
        self._tell_ages()

    def _tell_ages(self) -> None:
        """Let members know for how long a read of their disk has been under way."""
        if not self._under_way and not self._told:
            return
        ages: dict[Member, int] = dict.fromkeys(self._told, 0)
        for member, progress in self._under_way.values():
            progress.tick()
            ages[member] = max(ages.get(member, 0), progress.ticks)
        for member, age in ages.items():
            member.reads_take(age)
        self._told = {member for member, _ in self._under_way.values()}

    # --- from the disk -------------------------------------------------------------------------

    def _start_jobs(self) -> None:
        if self._starting:
            return
        self._starting = True
        while self._cold and self._jobs < COLD_JOBS_MAX:
            self._start_job()
        self._starting = False

    def _start_job(self) -> None:
        """As many reads as leave work for the other jobs."""
        member = self._cold[0][0]
        machine = member.machine
        reads: list[Read] = []
        most = min(COLD_READS_MAX, 1 + len(self._cold) // COLD_JOBS_MAX)
        while self._cold and self._cold[0][0] is member and len(reads) < most:
            _, read = self._cold.popleft()
            # Nobody waits any more for those whose deadline has passed.
            if not read[1].finished:
                reads.append(read)
        if not reads:
            return
        results: list[Result] = []
        progress = Progress()

        def job() -> None:
            for key, _, _ in progress.each(reads):
                results.append(_read(machine.get, key))
            progress.end()

        self._jobs += 1
        self._number += 1
        self._under_way[self._number] = member, progress
        ended = partial(self._job_ended, self._number, member, machine, reads, results)
        self._work.run("read", job, ended)

    def _job_ended(
        self,
        number: int,
        member: Member,
        machine: Machine,
        reads: Sequence[Read],
        results: Sequence[Result],
    ) -> None:
        self._jobs -= 1
        del self._under_way[number]
        for (_, call, place), result in zip(reads, results, strict=True):
            if isinstance(result, StorageError):
                # Of a state that was replaced the files are being removed.
                is_present = member.machine is machine
                result = member.read_failed(result) if is_present else _replaced()
            self._decide(call, place, result)
        self._start_jobs()


def _read(get: Callable[[bytes], bytes | None], key: bytes) -> Result:
    try:
        return get(key)
    except ClosedError:
        return _replaced()
    except Error as error:
        return error
    except Exception as error:  # noqa: BLE001 - told to the one who asked
        return InternalError(f"reading: {type(error).__name__}: {error}")


def _replaced() -> UnavailableError:
    return UnavailableError("the member's state was replaced; try again")
