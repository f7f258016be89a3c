"""Reads beside the loop: jobs for workers, each of some reads one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from kvstore.errors import InternalError
from kvstore.replica.work import Progress
from kvstore.service.etcd.member import LocalMember
from kvstore.service.etcd.read_calls import ReadCall, UnwantedError
from kvstore.service.reading import COLD_READS_MAX

__all__ = ["JOB_BYTES_MAX", "LATER", "Job", "Lane"]

JOB_BYTES_MAX: Final = 4 << 20
"""Of what a job has rendered: then the others of its calls wait for another one."""

LATER: Final = object()
"""The outcome of a read that wasn't done: nobody wants it, or it is to begin anew when there is
room for what takes long."""


class Lane:
    """Reads of one kind that wait for a worker, and the jobs that do them."""

    def __init__(self, kind: str, jobs_max: int, reads_max: int = COLD_READS_MAX) -> None:
        """``reads_max``: of one job."""
        self.kind = kind
        self.jobs_max = jobs_max
        self._reads_max = reads_max
        self.calls: deque[ReadCall] = deque()
        self.jobs: dict[int, Job] = {}

    @property
    def has_room(self) -> bool:
        """For one more job."""
        return len(self.jobs) < self.jobs_max

    def next_calls(self) -> list[ReadCall]:
        """For one job: as many as leave work for the others."""
        most = min(self._reads_max, 1 + len(self.calls) // self.jobs_max)
        return [self.calls.popleft() for _ in range(min(most, len(self.calls)))]


class Job:
    """``calls``, one after the other. A worker runs it while the loop looks at how far it is."""

    def __init__(
        self, member: LocalMember, lane: Lane, calls: Iterable[ReadCall], now: Callable[[], float]
    ) -> None:
        self.member = member
        self.machine = member.machine
        self.lane = lane
        self.progress = Progress()
        self.outcomes: list[tuple[ReadCall, Any]] = []
        """What was read, in order, or LATER. Not before the job's end."""
        self.must_end = False
        """Set by the loop: what is being read is to begin anew later."""
        self.took_s = 0.0
        """What the last read took that was done. Not before the job's end."""
        self._now = now
        self._calls = deque(calls)
        self._reading: ReadCall | None = None
        self._began = now()

    @property
    def age_s(self) -> float:
        """For how long it has been at one read; 0 where it is at none."""
        return 0.0 if self._reading is None else self._now() - self._began

    def take_back(self) -> list[ReadCall]:
        """The calls that weren't begun: it doesn't do them any more."""
        taken: list[ReadCall] = []
        while (call := self._next()) is not None:
            taken.append(call)
        return taken

    def _next(self) -> ReadCall | None:
        try:
            return self._calls.popleft()
        except IndexError:
            return None

    def run(self) -> None:
        """All of it, until its answers are too many. On the worker; raises nothing."""
        size = 0
        while size <= JOB_BYTES_MAX and (call := self._next()) is not None:
            self._began = self._now()
            self._reading = call
            outcome = self._read(call)
            self._reading = None
            if outcome is not LATER:
                self.took_s = self._now() - self._began
            self.outcomes.append((call, outcome))
            size += len(outcome) if isinstance(outcome, bytes) else 0
            self.progress.step()
        self.progress.end()

    def _read(self, call: ReadCall) -> Any:
        read = call.read
        try:
            if read is None or call.is_unwanted:
                return LATER
            return call.outcome(lambda machine: read(machine, self._step), self.machine)
        except UnwantedError:
            return LATER
        except Exception as error:  # noqa: BLE001 - told to the one who asked
            return InternalError(f"reading: {type(error).__name__}: {error}")

    def _step(self) -> None:
        self.progress.step()
        if self.must_end or (self._reading is not None and self._reading.is_unwanted):
            raise UnwantedError
