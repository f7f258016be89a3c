"""The room for a snapshot that a member needs and its disk didn't have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.errors import Error
from kvstore.replica.hold_off import PAUSE_MAX_S
from kvstore.replica.ticks import ticks_of
from kvstore.replica.work import Jobs

__all__ = ["LOOK_S", "WANTED_S", "RoomWanted"]

LOOK_S = 1.0
"""Between two looks at what the disk has left."""
WANTED_S = 2 * PAUSE_MAX_S
"""Longer than a leader waits before it offers the snapshot again: who isn't needs none."""


class RoomWanted:
    """Says whether a snapshot waits for room, and when there is some.

    It waits no more once a part of one is kept, once the entries up to it came from the log after
    all, or once it wasn't offered for longer than leaders wait.
    """

    def __init__(
        self,
        free_bytes: Callable[[], int],
        jobs: Jobs,
        came: Callable[[int], None],
        tick_s: float,
    ) -> None:
        """``free_bytes``, on any thread, says what the disk has left; ``came`` is told the index of
        the snapshot once that was too little and is enough, and again at each look from then on."""
        self._free_bytes = free_bytes
        self._jobs = jobs
        self._came = came
        self._look_ticks = ticks_of(LOOK_S, tick_s)
        self._wanted_ticks = ticks_of(WANTED_S, tick_s)
        self._index = 0
        self._total = 0
        self._ticks = 0
        # The disk said that it has too little: else it is no help to ask it when it has enough.
        self._short = False

    @property
    def lack(self) -> str:
        """A snapshot found no room, and is needed still as far as is known; empty if there is none.

        What the disk had to have free for it is told: it lies beside the state until it is whole.
        """
        if not self._index:
            return ""
        return f"its disk has no room for a snapshot of {-(-self._total >> 20)} MiB that it needs"

    def want(self, index: int, total: int) -> None:
        """The snapshot of ``index``, of ``total`` bytes, found no room."""
        self._index, self._total = index, total
        self._ticks = 0
        self._short = False
        self._look()

    def found(self) -> None:
        """A part of a snapshot found room; the first one does so where there is room for all."""
        self._index = 0

    def tick(self, commit: int) -> None:
        """One tick has passed; the log is known to be committed up to ``commit``."""
        if not self._index:
            return
        self._ticks += 1
        if commit >= self._index or self._ticks >= self._wanted_ticks:
            self._index = 0
        elif self._ticks % self._look_ticks == 0:
            self._look()

    def _look(self) -> None:
        self._jobs.start("free room", self._free_bytes, partial(self._looked, self._index))

    def _looked(self, index: int, free: int | Error) -> None:
        if isinstance(free, Error):
            raise free
        if index != self._index:
            return
        if free < self._total:
            self._short = True
        elif self._short:
            self._came(index)
