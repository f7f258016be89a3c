"""Values for reads that are confirmed: memory answers in slices, the disk beside the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from kvstore.errors import ClosedError, Error, InternalError, StorageError, UnavailableError
from kvstore.replica.work import Progress, Work
from kvstore.service.desks import Desk, Point, Read
from kvstore.service.member import Machine, Member
from kvstore.service.operations import Result
from kvstore.state import USERS_CHANGED

__all__ = ["COLD_JOBS_MAX", "Reading"]

SLICE_S = 0.005
"""So long reads are answered in one go, however many there are."""
SLICE_READS = 64
"""Between two looks at the clock."""
COLD_JOBS_MAX = 8
"""Reads of the disk side by side."""
COLD_READS_MAX = 64
"""In one job, one after the other."""


class Reading:
    """Reads members whose state is fresh enough. One thread, which it never lets wait.

    What is read later than it might have been is only fresher: it is answered later, too.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        work: Work,
    ) -> None:
        """``desk`` has the reads, and takes the results; ``work`` asks the disk."""
        self._desk = desk
        self._now = now
        self._soon = soon
        self._work = work
        # Of which no slice has come to the end yet: at most the calls that a service lets wait.
        # Each with the revision of the users as of which its reads were let in, 0 if nobody asked.
        self._waiting: deque[tuple[Member, int, Point]] = deque()
        self._slice_is_due = False
        # No more either: those that have expired are taken out.
        self._cold: deque[tuple[Member, int, Read]] = deque()
        self._jobs = 0
        self._starting = False
        # Of each job: whom it reads, what, and how far it is.
        self._under_way: dict[int, tuple[Member, Sequence[Read], Progress]] = {}
        self._number = 0
        self._told: set[Member] = set()

    def answer(self, member: Member, point: Point, guard: int) -> None:
        """The state of ``member`` holds all that the reads of ``point`` must see.

        ``guard``: the revision of the users as of which they were let in. As of another one, or
        none, nothing is read: it may be what their users may read no more.
        """
        self._waiting.append((member, guard, point))
        if not self._slice_is_due:
            self._answer_slice()

    def _answer_slice(self) -> None:
        self._slice_is_due = False
        waiting = self._waiting
        ends = self._now() + SLICE_S
        while waiting:
            member, guard, point = waiting[0]
            if member.machine.guard != guard:
                waiting.popleft()
                point.refuse(UnavailableError(USERS_CHANGED))
                continue
            try:
                reads = point.read(member.machine, member.read_failed, SLICE_READS)
            except ClosedError:
                waiting.popleft()
                point.refuse(_replaced())
                continue
            self._cold.extend((member, guard, read) for read in reads)
            if not len(point):
                waiting.popleft()
            if waiting and self._now() >= ends:
                self._slice_is_due = True
                self._soon(self._answer_slice)
                break
        if self._cold:
            self._start_jobs()

    def expire(self) -> None:
        """Give up reads of the disk whose deadline has passed.

        To be called whenever members tick.
        """
        if self._cold or self._under_way:
            now = self._now()
            for _, reads, _ in self._under_way.values():
                self._desk.expire_reads(reads, now)  # type: ignore[arg-type]
            late = [read for _, _, read in self._cold]
            self._desk.expire_reads(late, now)  # type: ignore[arg-type]
            self._cold = deque(waiting for waiting in self._cold if not waiting[2].decided)
        self._tell_ages()

    def _tell_ages(self) -> None:
        """Let members know for how long a read of their disk has been under way."""
        if not self._under_way and not self._told:
            return
        ages: dict[Member, int] = dict.fromkeys(self._told, 0)
        for member, _, progress in self._under_way.values():
            progress.tick()
            ages[member] = max(ages.get(member, 0), progress.ticks)
        for member, age in ages.items():
            member.reads_take(age)
        self._told = {member for member, _, _ in self._under_way.values()}

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
        member, guard, _ = self._cold[0]
        machine = member.machine
        reads: list[Read] = []
        most = min(COLD_READS_MAX, 1 + len(self._cold) // COLD_JOBS_MAX)
        while self._cold and self._cold[0][:2] == (member, guard) and len(reads) < most:
            reads.append(self._cold.popleft()[2])
        results: list[Result] = []
        progress = Progress()

        def job() -> None:
            for read in progress.each(reads):
                results.append(_read(machine.get, read.key))
            progress.end()

        self._jobs += 1
        self._number += 1
        self._under_way[self._number] = member, reads, progress
        ended = partial(self._job_ended, self._number, member, machine, guard, reads, results)
        self._work.run("read", job, ended)

    def _job_ended(
        self,
        number: int,
        member: Member,
        machine: Machine,
        guard: int,
        reads: Sequence[Read],
        results: list[Result],
    ) -> None:
        self._jobs -= 1
        del self._under_way[number]
        if member.machine.guard != guard:
            results[:] = [UnavailableError(USERS_CHANGED)] * len(results)
        for place, result in enumerate(results):
            if isinstance(result, StorageError):
                # Of a state that was replaced the files are being removed.
                is_present = member.machine is machine
                results[place] = member.read_failed(result) if is_present else _replaced()
        self._desk.decide(reads, results)  # type: ignore[arg-type]
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
