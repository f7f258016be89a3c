"""Members that refused a snapshot aren't sent another one at once."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["PAUSE_MAX_S", "PAUSE_S", "HoldOff"]

PAUSE_S = 1.0
PAUSE_MAX_S = 60.0
"""Pauses double up to this: each checkpoint costs its leader a flush, and room of its own."""


class HoldOff:
    """Whom to leave alone for now. ``now``: seconds of a monotonic clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # Until when, and how long that pause is.
        self._pauses: dict[int, tuple[float, float]] = {}

    def refused(self, member: int) -> None:
        """It had no room, or found it damaged: wait, twice as long as the last time."""
        _, before = self._pauses.get(member, (0.0, PAUSE_S / 2))
        pause = min(2 * before, PAUSE_MAX_S)
        self._pauses[member] = (self._now() + pause, pause)

    def may_take(self, member: int) -> None:
        """It says that it could take one now. After another refusal the pause is longer still."""
        until, pause = self._pauses.get(member, (0.0, 0.0))
        if pause:
            self._pauses[member] = (min(until, self._now()), pause)

    def took(self, member: int) -> None:
        """It took a snapshot whole."""
        self._pauses.pop(member, None)

    def holds(self, member: int) -> bool:
        """It isn't to be sent anything yet."""
        until, _ = self._pauses.get(member, (0.0, 0.0))
        return self._now() < until
