"""A member's worker threads in virtual time: they get to a job when they like, stand still in the
middle of it, as on a slow disk, and tell of its end later.

A job that is to stand still runs on a thread of its own, but never beside anything else: it is
given the turn, and gives it back at a call of the disk. What the loop and other jobs do meanwhile,
and how the disk looks if power is lost then, is what it has to live with. Were it to keep a lock
that the loop waits for, the run would end there.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from kvstore._engine.files.native import MemoryFileSystem
from tests.simulator.agenda import MILLISECOND, SECOND, Agenda
from tests.simulator.trace import Violation

__all__ = ["Later", "Workers"]

LONG_JOBS = 0.05
"""How many of the steps of a job beside the member's thread take up to two seconds."""
STANDING = 0.25
"""How many jobs stand still now and then."""
STANDSTILLS = (0.02, 0.2)
"""How often such a job does, of its calls of the disk: one of these."""
STANDSTILLS_MAX = 8
WAIT_S = 60.0
"""In real time: a job that doesn't give the turn back for so long waits for another one."""

WITH_LOCKS = ("checkpoint", "flush", "manifest", "replace", "room", "scrub", "verify")
"""Kinds of jobs that call the disk with a lock of the engine that others of them wait for: those
are done in one go."""

BEGINS_SEGMENT = "segment"
"""Likewise: whoever syncs the log waits for it, and here that is the member itself."""

UNDER_LOCK = ("MANIFEST-", "CURRENT", "END")
"""Files that are written with such a lock by jobs that otherwise have none, as when history is let
go of: no job stands still at one."""


class Later(Protocol):
    """Does something if the same program still runs then."""

    def __call__(self, delay_us: int, work: Callable[[], None], /) -> None: ...


class _Job:
    """A job on a thread of its own, which runs only between :meth:`go` and its return."""

    def __init__(self, job: Callable[[], None], standstills: float) -> None:
        self.standstills = standstills
        self.left = STANDSTILLS_MAX
        self._job = job
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="simulated-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        self._job()
        self._ended = True
        self._back.release()

    def go(self) -> bool:
        """Let it run until it stands still, or ends: True then."""
        self._go.release()
        if not self._back.acquire(timeout=WAIT_S):
            raise Violation("a job waits for a lock that one that stands still keeps")
        if self._ended:
            self._thread.join()
        return self._ended

    def stand_still(self) -> None:
        """On its own thread: return when it is given the turn again."""
        self._back.release()
        self._go.acquire()


class Workers:
    """The workers of one process at a time; :meth:`end` goes with it."""

    def __init__(self, later: Later, agenda: Agenda, rng: random.Random) -> None:
        self.long_jobs = LONG_JOBS
        """How many of the steps of jobs take long."""
        self.jobs_until = 0
        """When the last of the jobs under way will have been done."""
        self.stood_still = 0
        """How often one has."""
        self._later = later
        self._agenda = agenda
        self._rng = rng
        self._standing: list[_Job] = []
        self._running: _Job | None = None
        self._ending = False
        self._disk: MemoryFileSystem | None = None

    def watch(self, disk: MemoryFileSystem) -> None:
        """The disk that the next jobs call."""
        disk.on_operation = self._called
        self._disk = disk

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        """See :meth:`kvstore.replica.Work.run`."""
        self._later(self._step_us(), partial(self._begin, kind, job, then))

    def _begin(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        in_one_go = kind.startswith(WITH_LOCKS) or kind == BEGINS_SEGMENT
        if in_one_go or self._rng.random() >= STANDING:
            job()
            self._later(self._step_us(), then)
            return
        started = _Job(job, self._rng.choice(STANDSTILLS))
        self._standing.append(started)
        self._go_on(started, then)

    def _go_on(self, job: _Job, then: Callable[[], None]) -> None:
        if self._go(job):
            self._standing.remove(job)
            self._later(self._step_us(), then)
        else:
            # Not as long as an election each time: that would be a disk that hangs.
            self._later(self._rng.randint(0, 20 * MILLISECOND), partial(self._go_on, job, then))

    def _go(self, job: _Job) -> bool:
        self._running = job
        try:
            return job.go()
        except Violation:
            self._standing.remove(job)  # no turn will end it
            raise
        finally:
            self._running = None

    def _called(self, operation: str, path: str) -> None:
        job = self._running
        if job is None:
            return
        may_stand = not path.rpartition("/")[2].startswith(UNDER_LOCK)
        if not self._ending and job.left and may_stand and self._rng.random() < job.standstills:
            job.left -= 1
            self.stood_still += 1
            job.stand_still()
        if self._ending:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def end(self) -> None:
        """The process has ended: what its jobs still do nobody sees, and the disk refuses it."""
        self._ending = True
        while self._standing:
            while not self._go(self._standing[-1]):
                pass
            self._standing.pop()
        self._ending = False
        if self._disk is not None:
            # What was held open is closed when the collector comes to it, whatever is left then.
            self._disk.on_operation = None

    def _step_us(self) -> int:
        """Mostly a moment, now and then as long as an election."""
        most = 2 * SECOND if self._rng.random() < self.long_jobs else 20 * MILLISECOND
        drawn = self._rng.randint(0, most)
        self.jobs_until = max(self.jobs_until, self._agenda.now + drawn)
        return drawn
