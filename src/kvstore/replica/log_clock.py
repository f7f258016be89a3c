"""The time that a leader puts into the entries it proposes (docs/adr/0006)."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["LogClock"]


class LogClock:
    """From what the state has, on by what passes on this member's monotonic clock.

    Begun anew in each term: between two terms of one leader another one may have counted less.
    Never runs faster than ``now``, so what is younger than an age here is younger in the world.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """``now``: seconds, monotonic."""
        self._now = now
        self._term = -1
        self._base_ms = 0
        self._base_s = 0.0

    def read_ms(self, term: int, applied_ms: int) -> int:
        """The time for an entry of the leader's ``term``; the state is at ``applied_ms``."""
        now = self._now()
        time_ms = self._base_ms + int((now - self._base_s) * 1000)
        if term != self._term or applied_ms > time_ms:
            self._term = term
            self._base_ms = time_ms = applied_ms
            self._base_s = now
        return time_ms
