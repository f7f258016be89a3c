"""Writes that would have to wait, of callers who must not: a thread makes them, in order.

The thread is there only while there are some.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from errno import EAGAIN

from kvstore._engine.primitives.threads import is_refused
from kvstore.errors import ClosedError, OverloadedError, StorageError

HELD_BYTES_MAX = 64 << 20
"""What may wait, unless it is a single write."""
ITEM_BYTES = 1024
"""Of each of them, beside its keys and values: what is called, its future and what tells it."""

Make = Callable[[], object]
Done = Callable[[object, BaseException | None], None]


class HeldWrites:
    """The line of them. ``emptied`` is called, under its lock, when none is left."""

    def __init__(self, emptied: Callable[[], object]) -> None:
        self._emptied = emptied
        # Entered by itself: in C a signal's handler finds no gap, as it does in Condition's Python.
        self._lock = threading.RLock()
        self._moved = threading.Condition(self._lock)
        self._line: deque[tuple[Make, int, Done]] = deque()
        self.bytes = 0
        """What they take."""
        self._made = 0
        self._ended = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> bool:
        """There are some, or one is being made."""
        return bool(self._line)

    def add(self, make: Make, size: int, done: Done) -> None:
        """Have ``make`` called once all before it were; ``done`` gets its result, or its error.

        Raises OverloadedError where too much waits, ClosedError after :meth:`end`, StorageError
        where there is no thread for it: it isn't called then.
        """
        size += ITEM_BYTES
        with self._lock:
            if self._ended:
                raise ClosedError("the database is closed")
            if self._line and self.bytes + size > HELD_BYTES_MAX:
                raise OverloadedError(
                    f"{self.bytes} bytes of writes wait already until the database takes them"
                )
            # Up to the last step a signal's handler may end this, and nothing is added.
            if self._thread is None:
                self._start()
            self.bytes += size
            self._line.append((make, size, done))

    def wait_behind(self) -> None:
        """Until all that wait now are made. Those made by the thread itself pass."""
        with self._lock:
            if self._thread is threading.current_thread():
                return
            last = self._made + len(self._line)
            while self._made < last:
                self._moved.wait()

    def end(self) -> None:
        """Take no more, and wait until those that wait are made, or had the error why not."""
        with self._lock:
            self._ended = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="kvstore-held", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not is_refused(error):
                raise
            raise StorageError(
                f"no thread can be started for a write that has to wait ({error})", errno=EAGAIN
            ) from error
        # One that was started, but not to the end of this, ends at once.
        self._thread = thread

    def _run(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        """Make the first; False: there is none."""
        with self._lock:
            if self._thread is not threading.current_thread():
                return False
            if not self._line:
                self.bytes = 0
                self._thread = None
                self._emptied()
                return False
            make, size, done = self._line[0]
        try:
            _make(make, done)
        except BaseException:  # noqa: BLE001
            # Whoever comes behind it must not wait for ever.
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
        with self._lock:
            # Not before: what comes after it by then must come behind it.
            self._line.popleft()
            self.bytes -= size
            self._made += 1
            self._moved.notify_all()
        return True


def _make(make: Make, done: Done) -> None:
    try:
        made = make()
    except BaseException as error:  # noqa: BLE001
        done(None, error)
    else:
        done(made, None)
