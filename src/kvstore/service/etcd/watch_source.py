"""Where watches get their events from, and reading it beside the loop, one page at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from kvstore.errors import Error, InternalError
from kvstore.replica.work import Progress, Work
from kvstore.state import Cold
from kvstore.state.mvcc.answers import EventPage

__all__ = ["Reader", "Source", "Wanted"]

Wanted = Callable[[bytes], bool]
"""Whether events of a key are of any use: those of others need not be read."""


class Source(Protocol):
    """A state machine, under the model of etcd."""

    @property
    def revision(self) -> int:
        """Of what it has applied."""

    @property
    def compacted(self) -> int:
        """Events before this revision are gone; -1 while none are."""

    def events(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool = False,
        wanted: Wanted | None = None,
        sub: int = 0,
    ) -> EventPage:
        """The events of ``first`` to ``last``, from its event number ``sub`` on. Any thread.

        Ends with the revision with which ``bytes_max`` is reached, if not before; a revision that
        is more by itself is cut. ``previous``: with what keys were before. Raises EtcdError where
        ``first`` is compacted, or is by the end; and StorageError, ClosedError.
        """

    def events_cached(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool = False,
        wanted: Wanted | None = None,
    ) -> EventPage | Cold:
        """The same from memory alone, of whole revisions; ``COLD`` where that can't tell.

        What a key was before is left out where only the disk knows it.
        """


PageRead = Callable[[EventPage | Error], None]


class Reader:
    """Reads pages, one at a time, beside the thread that drives it all."""

    def __init__(self, kind: str, work: Work) -> None:
        self._kind = kind
        self._work = work
        self._progress: Progress | None = None
        self._number = 0

    @property
    def busy(self) -> bool:
        """A page is being read."""
        return self._progress is not None

    @property
    def ticks(self) -> int:
        """For how long it has been at one event; 0 when none is read."""
        return 0 if self._progress is None else self._progress.ticks

    def tick(self) -> None:
        """A tick has passed."""
        if self._progress is not None:
            self._progress.tick()

    def read(
        self,
        read: Callable[[Wanted], EventPage],
        done: PageRead,
        wanted: Wanted | None = None,
    ) -> None:
        """Have ``read`` done, which reads the events that are ``wanted``, and all without it.

        ``done`` gets the page or the error. Not while it is busy.
        """
        assert self._progress is None, "one page at a time"
        self._number += 1
        progress = self._progress = Progress()
        outcomes: list[EventPage | Error] = []

        def counted(key: bytes) -> bool:
            progress.step()  # each event may cost reads of the disk
            return wanted is None or wanted(key)

        def job() -> None:
            try:
                outcomes.append(read(counted))
            except Error as error:
                outcomes.append(error)
            except Exception as error:  # noqa: BLE001 - told to the one who asked
                outcomes.append(InternalError(f"{self._kind}: {type(error).__name__}: {error}"))
            progress.end()

        self._work.run(self._kind, job, partial(self._ended, self._number, outcomes, done))

    def forget(self) -> None:
        """What is being read is of no use any more: nobody is told of it."""
        self._number += 1
        self._progress = None

    def _ended(self, number: int, outcomes: list[EventPage | Error], done: PageRead) -> None:
        if number == self._number:
            self._progress = None
            done(outcomes[0])
