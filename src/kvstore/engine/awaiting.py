"""Writes that a coroutine awaits: made when they are called for, done when they are durable.

The log's writer thread syncs once for all that were made meanwhile, and wakes each event loop
through a descriptor of its own; the loop completes their futures together. A write that would have
to wait before it can be made is left to a thread (``HeldWrites``), with all that come after it.

asyncio is imported with the first call: whoever has an event loop has it, nobody else needs it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kvstore._engine.database import native
from kvstore.errors import ClosedError, Error, InvalidArgumentError, StorageError

if TYPE_CHECKING:
    import asyncio

    from kvstore.engine.database import DB

__all__ = ["Awaiting"]

Made = tuple[int, bool, Any]
"""A ticket, 0 for none, whether all up to it is to be durable or only in the file, the result."""

Waiting = deque[tuple[int, "asyncio.Future[Any]", object]]
"""Tickets in their order, what is to be told of each, and with which result."""


class Tickets:
    """What the coroutines of one event loop await of one database.

    For the loop's thread alone, but :meth:`held_is_made` and :meth:`end`.
    """

    def __init__(self, db: DB, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._event = -1
        self._db = weakref.ref(db)
        self._name = db.name
        self._log = native.log_of(db)
        self._to_sync: Waiting = deque()
        self._to_write: Waiting = deque()
        self._asked = False
        if self._log is None:
            return
        self._event = native.new_event(db)
        self._log.tell(self._event)
        try:
            loop.add_reader(self._event, self._told)
        except BaseException as error:
            self._log.forget(self._event)
            if isinstance(error, OSError):
                raise StorageError(
                    f"the event loop can't wait for {self._name} ({error})", errno=error.errno
                ) from error
            raise

    def __del__(self) -> None:
        # The log doesn't know it any more: see forget() and end().
        if self._event >= 0:
            os.close(self._event)

    def forget(self) -> None:
        """The loop is closed: nothing can be awaited in it."""
        if self._log is not None:
            self._log.forget(self._event)

    def end(self) -> None:
        """The log is closed, and its writer has ended. From any thread."""
        self._on_loop(self._finish)

    def future(self, made: Made) -> asyncio.Future[Any]:
        """Has the result of what was made once its ticket is durable."""
        ticket, durably, result = made
        future: asyncio.Future[Any] = self.loop.create_future()
        if not ticket:
            future.set_result(result)
            return future
        (self._to_sync if durably else self._to_write).append((ticket, future, result))
        if not self._asked:
            # Once for all that is written in this turn of the loop.
            self._asked = True
            self.loop.call_soon(self._ask)
        return future

    def held_is_made(
        self, future: asyncio.Future[Any], made: Made | None, error: BaseException | None
    ) -> None:
        """The same of what a thread had to make, on that thread."""
        if made is None or not made[0]:
            self._on_loop(_answer, future, made and made[2], error)
            return
        ticket, durably, result = made
        (self._to_sync if durably else self._to_write).append((ticket, future, result))
        if not self._submit():
            self._on_loop(self._settle)

    def _on_loop(self, call: Callable[..., object], *given: object) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(call, *given)

    def _ask(self) -> None:
        self._asked = False
        if not self._submit():
            self._settle()

    def _submit(self) -> bool:
        """Have all be synced, or handed over, that was made so far; False: the log has failed."""
        assert self._log is not None
        try:
            if self._to_sync:
                self._log.submit()
            elif self._to_write:
                self._log.hand_over()
        except ClosedError:
            pass  # its last sync is for these as well, and end() comes after it
        except StorageError:
            return False
        return True

    def _told(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        self._settle()

    def _finish(self) -> None:
        if self._log is None:
            return
        self.loop.remove_reader(self._event)
        self._settle()
        for waiting in (self._to_sync, self._to_write):
            while waiting:
                _, future, _ = waiting.popleft()
                error = ClosedError(f"the database {self._name} was closed before it was durable")
                _answer(future, None, error)

    def _settle(self) -> None:
        assert self._log is not None
        db = self._db()
        durable, written = self._log.synced_ticket, self._log.written_ticket
        if db is not None:
            native.note_durable(db)
        for waiting, reached in ((self._to_sync, durable), (self._to_write, written)):
            while waiting and waiting[0][0] <= reached:
                _, future, result = waiting.popleft()
                if not future.done():
                    future.set_result(result)
            while waiting:
                try:
                    _ = self._log.durable_ticket
                except StorageError as error:
                    # One for each: raising it adds to its traceback.
                    _, future, _ = waiting.popleft()
                    _answer(future, None, error.with_traceback(None))
                else:
                    break


def _answer(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Awaiting:
    """The awaitable writes of one database, from any number of event loops."""

    def __init__(self) -> None:
        from asyncio import get_running_loop

        self._running_loop = get_running_loop
        # A handler of signals may close the database under it.
        self._lock = threading.RLock()
        self._all: list[Tickets] = []
        self._last: Tickets | None = None
        self._ended = False

    def write(
        self,
        db: DB,
        sync: bool,
        at_once: Callable[..., Made | None],
        hold: Callable[..., None],
        *given: object,
    ) -> asyncio.Future[Any]:
        """What ``at_once`` makes, or else ``hold`` has made; see the calls of DB."""
        try:
            loop = self._running_loop()
        except RuntimeError:
            # None runs in the child of a fork, which is to hear of that first.
            native.check_open(db)
            raise
        try:
            tickets = self._last
            if tickets is None or tickets.loop is not loop:
                tickets = self._tickets(db, loop)
            made = at_once(db, sync, *given)
            if made is not None:
                return tickets.future(made)
            future: asyncio.Future[Any] = loop.create_future()
            hold(db, sync, partial(tickets.held_is_made, future), *given)
            return future
        except InvalidArgumentError:
            raise
        except (Error, MemoryError) as error:
            failed: asyncio.Future[Any] = loop.create_future()
            failed.set_exception(error)
            return failed

    def _tickets(self, db: DB, loop: asyncio.AbstractEventLoop) -> Tickets:
        # In the child of a fork, where another thread of the parent's may have had the lock.
        native.check_open(db)
        with self._lock:
            if self._ended:
                raise ClosedError(f"the database {db.name} is closed")
            kept = []
            for tickets in self._all:
                if tickets.loop.is_closed():
                    tickets.forget()
                else:
                    kept.append(tickets)
            self._all = kept
            for tickets in kept:
                if tickets.loop is loop:
                    break
            else:
                tickets = Tickets(db, loop)
                kept.append(tickets)
            self._last = tickets
            return tickets

    def end(self) -> None:
        """The database was closed: whoever awaits is told how it stands."""
        with self._lock:
            self._ended = True
            self._last = None
        while self._all:
            self._all[-1].end()
            self._all.pop()
