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


class Store(Protocol):
    """An open database, as its threads see it."""

    def close(self) -> None: ...

    def _after_fork(self) -> None: ...


OPEN_STORES: weakref.WeakSet[Store] = weakref.WeakSet()


class Bell:
    """Wakes background threads, also one that is only about to sleep."""

    def __init__(self) -> None:
        self.rings = 0
        self.condition = threading.Condition()

    def ring(self) -> None:
        with self.condition:
            self.rings += 1
            self.condition.notify_all()

    def wait(self, heard: int, seconds: float) -> None:
        """Until it has rung again since `heard` rings, at most `seconds`."""
        with self.condition:
            if self.rings == heard:
                self.condition.wait(seconds)


def start_threads(
    store: Store, step: Callable[[Store, str], bool | None], bell: Bell, jobs: Sequence[str]
) -> list[threading.Thread]:
    """``step`` does one piece of a job; False if there is none, None at the end."""
    threads = []
    for number, job in enumerate(jobs):
        thread = threading.Thread(
            target=_run,
            args=(weakref.ref(store), step, bell, job),
            name=f"kvstore-{job}-{number}",
            daemon=True,
        )
        threads.append(thread)
        thread.start()
    return threads


def _run(
    reference: weakref.ref[Store], step: Callable[[Store, str], bool | None], bell: Bell, job: str
) -> None:
    while True:
        heard = bell.rings
        store = reference()
        if store is None:
            return
        try:
            done = step(store, job)
        except Exception:  # noqa: BLE001
            # The store keeps it as `failure`, and every write raises it.
            done = False
        del store
        if done is None:
            return
        if not done:
            bell.wait(heard, 0.5)


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
    for store in list(OPEN_STORES):
        store._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_mark_forked)
