"""Virtual time: what is to happen when. Nothing here knows a real clock."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

__all__ = ["MILLISECOND", "SECOND", "Agenda"]

MILLISECOND = 1_000
SECOND = 1_000_000


class Agenda:
    """Events in the order of their time; those of one moment in the order they were asked for."""

    def __init__(self) -> None:
        self.now = 0
        """Microseconds since the beginning."""
        self.steps = 0
        """Events that have happened."""
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._asked = 0

    def after(self, delay_us: int, event: Callable[[], None]) -> None:
        """Let ``event`` happen ``delay_us`` from now."""
        self._asked += 1
        heappush(self._events, (self.now + max(delay_us, 0), self._asked, event))

    def step(self) -> bool:
        """Let the next event happen; False when there is none."""
        if not self._events:
            return False
        self.now, _, event = heappop(self._events)
        self.steps += 1
        event()
        return True
