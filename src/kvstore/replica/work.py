"""Work that takes long, beside the thread that drives the members.

Whoever drives a member decides how its :class:`Jobs` are done: by threads (:class:`WorkerThreads`),
at some later moment of virtual time (the simulator), or at once (:class:`AtOnce`). The outcome is
always taken in the member's own turn, so that nothing of a member but its engine and its files is
ever touched by two threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NoReturn, Protocol, TypeVar

from kvstore.errors import Error, InternalError, StorageError

__all__ = ["AtOnce", "Jobs", "Progress", "Work", "WorkerThreads", "raise_unless_passing"]

CLOSE_S = 1.0
"""What the end waits at most for jobs under way: a disk may hang for ever."""

Outcome = TypeVar("Outcome")
Item = TypeVar("Item")


class Work(Protocol):
    """Where jobs are done."""

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Do ``job``, on any thread, and call ``then`` on the one that drives the members.

        ``kind`` says what it is, to people.

        ``job`` raises nothing; one of threads that does has a defect, which is raised where
        ``then`` would be called. ``then`` may be called before this returns; once the driving has
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
        """``post``, from any thread, has a call made on the thread that drives the members.

        What such a call raises ends them: nobody else would hear of a job that failed, and who
        waits for its outcome would wait for ever.
        """
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
            kind, job, then = self._waiting.popleft()
        self._do(kind, job, then)

    def _do(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as raised:  # noqa: BLE001 - raised on the thread that drives it all
            then = partial(_raise_defect, kind, raised)
        self._post(then)

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
            self._do(kind, job, then)
            del job, then
        self._count(-1)

    def close(self, wait_s: float = CLOSE_S) -> bool:
        """Begin no job any more; False when after ``wait_s`` one is still under way."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._threads == 0, wait_s)


def _raise_defect(kind: str, raised: BaseException) -> NoReturn:
    raise InternalError(f"{kind}: {type(raised).__name__}: {raised}") from raised


class Progress:
    """For how long a job has been at one step, in ticks of the thread that drives the members.

    A tick that comes late is one tick: a thread that was held up doesn't take its own absence for
    that of the disk.
    """

    def __init__(self, patience: int = 1) -> None:
        """With ``patience`` so many ticks count as one: for steps that write megabytes."""
        self._patience = patience
        self._ticks = 0
        self._step = 0
        self._seen = -1
        self._ended = False

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """``items``, each of them a step of the job. On the worker."""
        for item in items:
            self._step += 1
            yield item

    def step(self) -> None:
        """A step is done; for a job that has no :meth:`each`."""
        self._step += 1

    def end(self) -> None:
        """The job is done, though nobody took its outcome yet. On the worker."""
        self._ended = True

    def tick(self) -> None:
        """One tick has passed."""
        step = self._step
        self._ticks = self._ticks + 1 if step == self._seen and not self._ended else 0
        self._seen = step

    @property
    def ticks(self) -> int:
        """Since its present step began; 0 once it is done."""
        return self._ticks // self._patience


class Jobs:
    """The jobs of one member: at most one of each kind is under way."""

    def __init__(self, work: Work, wake: Callable[[], None]) -> None:
        """``wake`` asks for a turn of the member, which calls :meth:`take`."""
        self._work = work
        self._wake = wake
        self._busy: set[str] = set()
        # Of those whose steps a disk that is well does at once.
        self._watched: dict[str, Progress] = {}
        self._ended: deque[tuple[str, Callable[[], None]]] = deque()
        self._closed = False

    def start(
        self,
        kind: str,
        job: Callable[[], Outcome],
        done: Callable[[Outcome | Error], None],
        progress: Progress | None = None,
    ) -> bool:
        """Have ``job`` done; False, and nothing happens, while one of its kind is under way.

        ``job`` runs on any thread and touches nothing but what allows that. ``done`` gets what it
        returned, or the Error that it raised, in :meth:`take`; by then the member may have another
        term, role or state machine. With ``progress``, of a job whose steps a disk that is well
        does at once, it counts for :attr:`oldest_ticks`; one that reads or writes gigabytes has
        none.
        """
        if kind in self._busy or self._closed:
            return False
        self._busy.add(kind)
        if progress is not None:
            self._watched[kind] = progress
        outcomes: list[Outcome | Error] = []

        def run() -> None:
            try:
                outcomes.append(job())
            except Error as error:
                outcomes.append(error)
            except Exception as error:  # noqa: BLE001 - told where the job was asked for
                outcomes.append(InternalError(f"{kind}: {type(error).__name__}: {error}"))
            if progress is not None:
                progress.end()

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
            self._watched.pop(kind, None)
            done()

    def tick(self) -> None:
        """One tick has passed, for :attr:`oldest_ticks`."""
        for progress in self._watched.values():
            progress.tick()

    @property
    def oldest_ticks(self) -> int:
        """For how long a job with progress has been at one step; 0 when none is under way."""
        return max((progress.ticks for progress in self._watched.values()), default=0)

    def close(self) -> None:
        """Tell of none any more."""
        self._closed = True
        self._ended.clear()


def raise_unless_passing(error: Error) -> None:
    """Raise ``error`` but for a lack of room or descriptors, which goes away by itself."""
    if not (isinstance(error, StorageError) and error.retryable):
        raise error
