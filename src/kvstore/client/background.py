"""One thread with an event loop, shared by all blocking clients of a process.

Threads hand their calls over in a queue; the first one that finds the loop asleep wakes it, and
what the others add until it looks costs no further wake-up. The thread starts with the first call
and ends with the last client. It is a daemon, and :mod:`atexit` ends it: calls of a program that is
ending fail with ClosedError.

A child of ``fork`` has no such thread: it starts one of its own. What belonged to the parent's is
never touched there, nor freed, as both share its descriptors.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar

from kvstore.errors import ClosedError, Outcome, UnavailableError

try:
    import uvloop as loops
except ModuleNotFoundError:  # not for each system, and not in the extra `client`
    loops = asyncio  # type: ignore[misc]

__all__ = ["Background", "Runner", "abandon", "drawn", "lease", "lock", "release"]

T = TypeVar("T")

# Calls of closed clients end at once, and say what is known of their writes.
CLOSED_S = 1.0

# Likewise those of a thread that was interrupted: a lock that it waited for is given up.
CANCELLED_S = 1.0

_ENDED = "the client was closed, or the program is ending"


class Runner(Protocol):
    """Does work on a client's loop, and waits for its outcome."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T: ...


def drawn(run: Runner, items: AsyncGenerator[T, None]) -> Iterator[T]:
    """What a generator yields on the loop, in this thread. None is nothing that it may yield."""
    try:
        while (item := run(_next(items))) is not None:
            yield item
    finally:
        with contextlib.suppress(ClosedError):
            run(items.aclose())


async def _next(items: AsyncGenerator[T, None]) -> T | None:
    """The next one; None after the last."""
    return await anext(items, None)


class _Call(Generic[T]):
    """What a thread waits for."""

    __slots__ = ("abandoned", "context", "done", "error", "result", "task", "work")

    def __init__(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> None:
        self.work = work
        self.context = context
        self.task: asyncio.Task[None] | None = None
        self.abandoned = False
        self.result: T | None = None
        self.error: BaseException | None = None
        # Held until there is an outcome. The cheapest thing that a thread can wait for.
        self.done = threading.Lock()
        self.done.acquire()

    async def carry(self) -> None:
        try:
            self.result = await self.work
        except asyncio.CancelledError:
            self.error = ClosedError(_ENDED)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self.error = error
        finally:
            self.done.release()

    def refuse(self) -> None:
        self.work.close()
        self.error = ClosedError(_ENDED)
        self.done.release()

    def cancel(self) -> None:
        self.abandoned = True
        if self.task is not None:
            self.task.cancel()


class Background:
    """The thread and its loop. :meth:`run` may be called from any other thread."""

    def __init__(self) -> None:
        self._loop = loops.new_event_loop()
        self._calls: deque[_Call[Any]] = deque()
        self._woken = False
        self._stopped = False
        self._grace_s = 0.0
        self.wake_ups = 0
        """How often the loop took calls from the queue."""
        self._thread = threading.Thread(target=self._main, name="kvstore-client", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise

    @property
    def waiting(self) -> int:
        """Calls that the loop hasn't taken yet."""
        return len(self._calls)

    def run(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> T:
        """The outcome of ``work``, which is done on the loop, in ``context`` if that matters.

        Raises ClosedError when the loop ends before. What a signal's handler raises meanwhile, as
        Ctrl-C does, is raised here, and ``work`` cancelled, which has a second to leave nothing
        behind.
        """
        call = _Call(work, context)
        try:
            self._calls.append(call)
            if not self._woken:
                self._woken = True
                self._loop_soon(self._take)
            if self._stopped:
                # Whoever finds it in the queue refuses it: the loop's end, or this thread.
                self._refuse_all()
            call.done.acquire()
        except BaseException:
            self._loop_soon(call.cancel)
            # It may have come just before the loop was woken, as everybody believes that it was.
            self._loop_soon(self._take)
            call.done.acquire(timeout=CANCELLED_S)
            raise
        error = call.error
        if error is None:
            return call.result  # type: ignore[return-value]
        try:
            raise error
        finally:
            del error, call  # which its traceback leads back to

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` on the loop, without waiting for it."""
        self._calls.append(_Call(work))
        self._loop_soon(self._take)
        if self._stopped:
            self._refuse_all()

    def stop(self, grace_s: float = 0.0) -> None:
        """End the loop and, as a rule, wait until it has.

        Calls under way have ``grace_s`` seconds to end by themselves; then they are cancelled.
        """
        self._grace_s = grace_s
        self._loop_soon(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _loop_soon(self, callback: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            self._stopped = True  # it is closed

    def _take(self) -> None:
        """Begin all that waits. What is added from now on wakes the loop again."""
        self._woken = False
        self.wake_ups += 1
        if self._stopped:
            self._refuse_all()  # a task that is made now is in nobody's list, and never ends
            return
        while self._calls:
            call = self._calls.popleft()
            if call.abandoned:
                call.refuse()
            else:
                call.task = self._loop.create_task(call.carry(), context=call.context)

    def _main(self) -> None:
        # They are for the threads that wait: one that this thread got would wake none of those.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            if tasks and self._grace_s:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=self._grace_s))
            self._stopped = True
            self._refuse_all()
            # Of a task that is cancelled before its first step nothing runs: its call would wait.
            self._loop.run_until_complete(asyncio.sleep(0))
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _refuse_all(self) -> None:
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                return
            call.refuse()


class _Shared:
    """The thread of this process, and how many clients use it."""

    def __init__(self) -> None:
        # Of one thread more than once: the collector may end a client at any moment.
        self.lock = threading.RLock()
        self.running: Background | None = None
        self.users = 0


_shared = _Shared()


def lock() -> threading.RLock:
    """Held while clients begin and end their work; never for long. A child of fork has its own."""
    return _shared.lock


def lease() -> Background:
    """The thread of this process, which runs until as many have called :func:`release`.

    Raises UnavailableError where the system has no thread or descriptor left for it.
    """
    with _shared.lock:
        if _shared.running is None:
            _shared.running = _begun()
        _shared.users += 1
        return _shared.running


def _begun() -> Background:
    try:
        return Background()
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        failure = UnavailableError(f"this process, or machine, has no room for a client: {why}")
        failure.outcome = Outcome.NOT_APPLIED
        raise failure from error


def release(background: Background) -> None:
    """One user less."""
    with _shared.lock:
        if background is not _shared.running:
            return  # it is at its end already, or the parent's
        _shared.users -= 1
        if _shared.users:
            return
        _shared.running = None
    background.stop(CLOSED_S)


def abandon(parents: object) -> None:
    """Never free what the parent of this process uses: that would end it there too."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(parents))


def _end() -> None:
    with _shared.lock:
        background, _shared.running = _shared.running, None
    if background is not None:
        background.stop()


def _forked() -> None:
    global _shared
    abandon(_shared)
    _shared = _Shared()


atexit.register(_end)
os.register_at_fork(after_in_child=_forked)
