"""When what was gathered goes on to the member: as an entry, or to a read point of its own.

Each of the two costs a cluster the same whatever it holds, frames and syncs or a round of
heartbeats, so that they had better hold much. Gathering is natural where calls come in batches:
what came while the one before was under way goes on when that is done. A front that takes calls one
by one needs time for it: while its loop drives the members it takes none, and each call would go on
alone. docs/performance.md has the figures.
"""

from __future__ import annotations

__all__ = ["GATHER_MAX_S", "GATHER_S", "PATIENCE_S", "UNDER_WAY_MAX", "Pace"]

UNDER_WAY_MAX = 2
"""At one time: so that the disk has the next one at hand, or a second one is under way while the
first takes long. With more each would hold less."""

PATIENCE_S = 0.005
"""So long the one that is under way is waited for, unless what was gathered fills an entry."""

GATHER_S = 0.002
"""Between two of them, at least, while calls come one by one and meet each other."""

GATHER_A_WRITE_S = 0.0005
GATHER_MAX_S = 0.005
"""For each write under way that came one by one they are further apart, up to a bound."""


class Pace:
    """Of the entries, or of the read points. Times in seconds of the service's clock."""

    def __init__(self, now: float) -> None:
        self._under_way = 0
        self._went_at = now
        # Of what is gathered, how many calls came one by one, and whether such a one met another.
        self._singles = 0
        self._crowded = False
        self._pause = GATHER_S
        self._hold_back_s = 0.0

    def came_singly(self, count: int, gathered: int) -> None:
        """So many calls of those gathered have come from a front that takes them one by one."""
        self._singles += count
        if self._under_way or gathered > 1:
            self._crowded = True

    def earliest(self, gathered: int) -> float:
        """Before this time nothing should go on; 0 for any time."""
        if self._gathers_singles(gathered):
            return self._went_at + self._pause + self._hold_back_s
        return self._went_at + self._hold_back_s if self._hold_back_s else 0.0

    def may_go(self, now: float, gathered: int, *, is_full: bool) -> bool:
        """Whether there is room for one more, and it is time for it."""
        if self._under_way >= UNDER_WAY_MAX:
            return False
        return (
            not self._under_way
            or is_full
            or self._gathers_singles(gathered)
            or now - self._went_at >= PATIENCE_S
        )

    def _gathers_singles(self, gathered: int) -> bool:
        return self._crowded and 2 * self._singles > gathered

    def goes(self, now: float, calls_under_way: int = 0, hold_back_s: float = 0.0) -> None:
        """What was gathered goes on; the next not before ``hold_back_s``."""
        self._went_at = now
        self._crowded = self._singles > 1
        self._singles = 0
        self._pause = min(max(GATHER_A_WRITE_S * calls_under_way, GATHER_S), GATHER_MAX_S)
        self._hold_back_s = hold_back_s

    @property
    def has_room(self) -> bool:
        """For one more, at all."""
        return self._under_way < UNDER_WAY_MAX

    def begins(self) -> None:
        """One more is under way."""
        self._under_way += 1

    def ended(self) -> None:
        """One is not under way any more."""
        self._under_way -= 1

    def forget(self) -> None:
        """Those that are under way may never end."""
        self._under_way = 0
