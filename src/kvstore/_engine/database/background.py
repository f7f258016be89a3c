"""The background threads of open databases, and what exit and fork do to them.

A thread holds its database only while it works, so that one that nobody uses any more goes away.
"""

from __future__ import annotations

import atexit
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


class Work(Protocol):
    """An `EventCount`, as the threads see it."""

    count: int

    def wait(self, seen: int, seconds: float) -> None: ...


def start_threads(
    store: Store,
    step: Callable[[Store, str], float | None],
    work: Work,
    jobs: Sequence[str],
    running: int,
    threads: list[threading.Thread],
) -> None:
    """Those of ``jobs`` but for the first ``running``, into ``threads``, also where not all can be.

    ``step`` does one piece of a job; it gives the seconds until the next look, infinity where that
    waits for an advance of ``work``, None at the end. It raises nothing.
    """
    for number, job in enumerate(jobs[running:], running):
        thread = threading.Thread(
            target=_run,
            args=(weakref.ref(store), step, work, job),
            name=f"kvstore-{job}-{number}",
            daemon=True,
        )
        try:
            # A signal's handler may raise from here on.
            threads.append(thread)
            thread.start()
        except BaseException:
            if thread.ident is None and thread in threads:
                # It was never there: nobody is to wait for it.
                threads.remove(thread)
            raise


def _run(
    reference: weakref.ref[Store],
    step: Callable[[Store, str], float | None],
    work: Work,
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
