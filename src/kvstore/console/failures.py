"""Guessing slowed down: how often logins failed lately, from where, and as whom."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from kvstore.errors import OverloadedError

__all__ = ["Failures"]

WINDOW_S: Final = 60.0
# In that time: as one user from one place, and from there as anybody. Nobody else is kept out.
OF_USER_MAX: Final = 20
OF_PLACE_MAX: Final = 100

# Places, and users at them, that are remembered; of more the oldest are forgotten.
KEYS_MAX: Final = 1024


class Failures:
    """Those of one console."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[tuple[str, int], deque[float]] = {}

    def check(self, place: str, user: str) -> None:
        """Raises OverloadedError where there were too many."""
        since = self._clock() - WINDOW_S
        for key, most in _keys(place, user):
            times = self._times.get(key)
            if times is not None and len(times) == most and times[0] > since:
                raise OverloadedError("too many failed logins: wait a minute")

    def add(self, place: str, user: str) -> None:
        for key, most in _keys(place, user):
            times = self._times.pop(key, None) or deque(maxlen=most)
            times.append(self._clock())
            # Last again, so that the first is the one that failed longest ago.
            self._times[key] = times
        while len(self._times) > KEYS_MAX:
            del self._times[next(iter(self._times))]


def _keys(place: str, user: str) -> tuple[tuple[tuple[str, int], int], ...]:
    """A name is what a stranger makes it: its hash is as good, and small."""
    return ((place, hash(user)), OF_USER_MAX), ((place, 0), OF_PLACE_MAX)
