"""The longest of many durations, lately: for a maximum that a scrape can read at any time."""

from __future__ import annotations

import time

__all__ = ["WINDOW_S", "Longest"]

WINDOW_S = 60.0


class Longest:
    """Of what was noted in the last one to two times ``WINDOW_S``; one thread alone uses it."""

    __slots__ = ("_before", "_longest", "_window_ends")

    def __init__(self) -> None:
        self._before = 0.0
        self._longest = 0.0
        self._window_ends = time.monotonic() + WINDOW_S

    def note(self, seconds: float, now: float) -> None:
        """It took ``seconds``, until ``now`` on the monotonic clock."""
        if now >= self._window_ends:
            self._begin_window(now)
        if seconds > self._longest:
            self._longest = seconds

    def seconds(self, now: float) -> float:
        """0.0 where nothing was noted."""
        if now >= self._window_ends:
            self._begin_window(now)
        return max(self._before, self._longest)

    def _begin_window(self, now: float) -> None:
        missed = now >= self._window_ends + WINDOW_S
        self._before = 0.0 if missed else self._longest
        self._longest = 0.0
        self._window_ends = now + WINDOW_S
