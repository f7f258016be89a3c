"""Work that takes long, beside the thread that drives the members.

Whoever drives a member decides how its :class:`Jobs` are done: by threads (:class:`WorkerThreads`),
at some later moment of virtual time (the simulator), or at once (:class:`AtOnce`). The outcome is
always taken in the member's own turn, so that nothing of a member but its engine and its files is
ever touched by two threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from kvstore.errors import Error, InternalError, StorageError

__all__ = ["AtOnce", "Jobs", "Work", "WorkerThreads", "raise_unless_passing"]

CLOSE_S = 1.0
"""What the end waits at most for jobs under way: a disk may hang for ever."""

Outcome = TypeVar("Outcome")


class Work(Protocol):
    """Where jobs are done."""

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Do ``job``, on any thread, and call ``then`` on the one that drives the members.

        ``kind`` says what it is, to people.

        ``job`` raises nothing. ``then`` may be called before this returns; once the driving has
        ended it isn't.
        """


class AtOnce:
    """Does each job when it is asked to."""

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        """See :meth:`Work.run`."""
        job()
        then()


class WorkerThreads:
    """As many threads as there are jobs under way, kept for the next ones.

    Whoever has jobs bounds their number (:class:`Jobs`: one of each kind). No job waits for another
    one to end, however long that takes, unless the system has no more threads.
    """

    def __init__(self, post: Callable[[Callable[[], None]], object]) -> None:
        """``post``, from any thread, has a call made on the thread that drives the members."""
        self._post = post
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Callable[[], None], Callable[[], None]]] = deque()
        self._idle = 0
        self._threads = 0
        self._closed = False

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        """See :meth:`Work.run`."""
        with self._changed:
            if self._closed:
                return
            self._waiting.append((kind, job, then))
            if self._idle >= len(self._waiting):
                self._changed.notify()
                return
        try:
            self._start_thread()
        except RuntimeError:
            self._do_without()

    def _start_thread(self) -> None:
        # A daemon: a hanging disk must not keep the process from ending.
        thread = threading.Thread(target=self._serve, name="kvstore-work", daemon=True)
        self._count(1)
        try:
            thread.start()
        except RuntimeError:
            self._count(-1)
            raise

    def _do_without(self) -> None:
        """The system has no more threads: one that is there does it next, or else this one."""
        with self._changed:
            if self._threads or not self._waiting:
                return
            _, job, then = self._waiting.popleft()
        job()
        then()

    def _count(self, threads: int) -> None:
        with self._changed:
            self._threads += threads
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.notify_all()
                while not self._waiting and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if self._closed:
                    break
                kind, job, then = self._waiting.popleft()
            threading.current_thread().name = f"kvstore-work-{kind}"
            job()
            self._post(then)
            del job, then
        self._count(-1)

    def close(self, wait_s: float = CLOSE_S) -> bool:
        """Begin no job any more; False when after ``wait_s`` one is still under way."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._threads == 0, wait_s)


class Jobs:
    """The jobs of one member: at most one of each kind is under way."""

    def __init__(self, work: Work, wake: Callable[[], None]) -> None:
        """``wake`` asks for a turn of the member, which calls :meth:`take`."""
        self._work = work
        self._wake = wake
        self._busy: set[str] = set()
        self._ended: deque[tuple[str, Callable[[], None]]] = deque()
        self._closed = False

    def start(
        self, kind: str, job: Callable[[], Outcome], done: Callable[[Outcome | Error], None]
    ) -> bool:
        """Have ``job`` done; False, and nothing happens, while one of its kind is under way.

        ``job`` runs on any thread and touches nothing but what allows that. ``done`` gets what it
        returned, or the Error that it raised, in :meth:`take`; by then the member may have another
        term, role or state machine.
        """
        if kind in self._busy or self._closed:
            return False
        self._busy.add(kind)
        outcomes: list[Outcome | Error] = []

        def run() -> None:
            try:
                outcomes.append(job())
            except Error as error:
                outcomes.append(error)
            except Exception as error:  # noqa: BLE001 - told where the job was asked for
                outcomes.append(InternalError(f"{kind}: {type(error).__name__}: {error}"))

        def then() -> None:
            if not self._closed:
                self._ended.append((kind, lambda: done(outcomes[0])))
                self._wake()

        self._work.run(kind, run, then)
        return True

    def is_busy(self, kind: str) -> bool:
        """A job of this kind is under way, or has ended and wasn't taken yet."""
        return kind in self._busy

    def take(self) -> None:
        """Tell of the jobs that have ended."""
        while self._ended:
            kind, done = self._ended.popleft()
            self._busy.discard(kind)
            done()

    def close(self) -> None:
        """Tell of none any more."""
        self._closed = True
        self._ended.clear()


def raise_unless_passing(error: Error) -> None:
    """Raise ``error`` but for a lack of room or descriptors, which goes away by itself."""
    if not (isinstance(error, StorageError) and error.retryable):
        raise error
