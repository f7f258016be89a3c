"""The background threads of open databases, and what exit and fork do to them.

A thread holds its database only while it works, so that one that nobody uses any more goes away.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

from kvstore._engine.primitives.native import forget_other_threads


class Store(Protocol):
    """An open database, as its threads see it."""

    def close(self) -> None: ...

    def _after_fork(self) -> None: ...


OPEN_STORES: weakref.WeakSet[Store] = weakref.WeakSet()


class EventCount:
    """Wakes threads that wait, also one that is only about to sleep: nobody polls."""

    def __init__(self) -> None:
        self.count = 0
        self.condition = threading.Condition()

    def advance(self) -> None:
        """Let everybody look for work."""
        with self.condition:
            self.count += 1
            self.condition.notify_all()

    def wait(self, seen: int, seconds: float) -> None:
        """Until it has advanced beyond ``seen``, at most ``seconds``."""
        with self.condition:
            if self.count == seen:
                self.condition.wait(
                    None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX)
                )


def start_threads(
    store: Store,
    step: Callable[[Store, str], float | None],
    work: EventCount,
    jobs: Sequence[str],
    threads: list[threading.Thread],
) -> None:
    """Into ``threads``, also where not all can be started.

    ``step`` does one piece of a job; it gives the seconds until the next look, infinity where that
    waits for an advance of ``work``, None at the end. It raises nothing.
    """
    for number, job in enumerate(jobs):
        thread = threading.Thread(
            target=_run,
            args=(weakref.ref(store), step, work, job),
            name=f"kvstore-{job}-{number}",
            daemon=True,
        )
        threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            # It was never there: nobody is to wait for it.
            threads.pop()
            raise


def _run(
    reference: weakref.ref[Store],
    step: Callable[[Store, str], float | None],
    work: EventCount,
    job: str,
) -> None:
    # A database that goes away closes itself, and that advances the count.
    while True:
        seen = work.count
        store = reference()
        if store is None:
            return
        seconds = step(store, job)
        del store
        if seconds is None:
            return
        if seconds:
            work.wait(seen, seconds)


def _close_all() -> None:
    """At interpreter exit: background threads end while they still can."""
    trouble = None
    for store in list(OPEN_STORES):
        try:
            store.close()
        except OSError as error:  # StorageError is one
            trouble = trouble or error
    if trouble is not None:
        raise trouble


def _mark_forked() -> None:
    forget_other_threads()
    for store in list(OPEN_STORES):
        store._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_mark_forked)
