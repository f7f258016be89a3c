"""The time that gateways share, without trusting each other's wall clocks (docs/adr/0006).

Requests are forgotten, and a retry's age is judged, by the pool's clock: a number of milliseconds
in an object of its own, that whichever gateway comes first moves on by what has passed on its own
machine since it last knew the number, :data:`STEP_S` at most. With ``S(t)`` for the number at a
time ``t`` of the world, whatever happens to gateways and messages::

    S(u) <= S(t) + (u - t) + STEP_S          for t <= u

since a number that is written was there ``u - t`` before, and each step is bounded. A gateway knows
``known``, which is S of some time before now, and ``stamp`` = known + what has passed since it was
asked for + 2 * STEP_S. So the stamp of a write, wherever it is done, isn't below ``known`` of any
other gateway ``a`` seconds later, less ``a``: a retry of age ``a`` can tell from ``known - a``
whether its first try may be among those that are forgotten. The clock stands while no gateway
runs; it knows nothing of wall clocks.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from math import inf

from kvstore.beyond.rados.layout import CLOCK_KEY, CLOCK_NAME, decode_clock, encode_clock
from kvstore.beyond.rados.objects import ABSENT, CONFLICTS, Objects, Operation
from kvstore.errors import StorageError

__all__ = ["STEP_S", "PoolClock"]

STEP_S = 2.0
"""So far the clock is moved on at one time, at most; a gateway that heard of it longer ago only
listens."""
ASK_S = 1.0
"""Between two looks at it."""
MOVE_MS = 500
"""What isn't further behind is left to others."""
SILENCE_S = 5.0
"""After which an unanswered look is given up."""


class PoolClock:
    """The clock as one gateway knows it. One thread."""

    def __init__(
        self,
        objects: Objects,
        *,
        now: Callable[[], float],
        failed: Callable[[int], None] = lambda code: None,
    ) -> None:
        """``now``: seconds that pass also while the machine sleeps. ``failed`` hears why a look at
        the clock came to nothing: an errno, negative."""
        self._objects = objects
        self._now = now
        self._failed = failed
        self._under_way: Operation | None = None
        self._asked_at = -1e9
        # The number, as of when it was asked for, and as of when it was heard of.
        self.known_ms = 0
        self._known_from = 0.0
        self._base_ms = 0
        self._base_at: float | None = None
        self.is_damaged = False
        """Whether its object held no number when it was last looked at. What is known of it goes on
        to hold, and stamps are as sound as before: only nothing is forgotten any more."""
        self.is_set = False
        """Whether it is known at all: until then nothing may be written."""

    def stamp_ms(self) -> int:
        """For what is written now."""
        passed = self._now() - self._known_from + 2 * STEP_S
        return self.known_ms + int(passed * 1000) + 1

    def since_ms(self, first_sent_at: float) -> int:
        """Before this nothing can be stamped that was first sent then, by ``now``; 0 at least."""
        return max(0, self.known_ms - int((self._now() - first_sent_at) * 1000) - 1)

    def tick(self) -> None:
        """Look at the clock if that is due. To be called a few times a second."""
        now = self._now()
        if self._under_way is not None:
            if now - self._asked_at > SILENCE_S:
                self._under_way.cancel()
            return
        if now - self._asked_at >= ASK_S:
            self._asked_at = now
            self._under_way = self._objects.read_pairs(CLOCK_NAME, [CLOCK_KEY], self._read)

    def close(self) -> None:
        """Look no more."""
        if self._under_way is not None:
            self._under_way.cancel()

    def _read(self, operation: Operation) -> None:
        self._under_way = None
        if operation.code not in (0, -errno.ENOENT) or not self._objects.is_there():
            self._failed(operation.code or -errno.ENOENT)
            return
        try:
            data = (operation.pairs or {}).get(CLOCK_KEY)
            number = 1 if data is None else decode_clock(data)
        except StorageError:
            # What it was is known to nobody: retries from before are refused by a number above it.
            self.is_damaged = True
            self._failed(-errno.EIO)
            return
        now = self._now()
        self.is_damaged = False
        self.is_set = True
        base_at = self._base_at
        passed = inf if base_at is None else now - base_at
        ahead = self._base_ms + int(passed * 1000) if passed <= STEP_S else 0
        if number >= self.known_ms:
            self.known_ms, self._known_from = number, self._asked_at
        if ahead <= number:
            self._base_ms, self._base_at = number, now
        if data is None or ahead >= number + MOVE_MS:
            target = max(ahead, number)
            guard = operation.version if operation.code == 0 and operation.version else ABSENT
            begun = partial(self._moved, target, now)
            pairs = {CLOCK_KEY: encode_clock(target)}
            self._under_way = self._objects.write(CLOCK_NAME, guard, pairs, None, None, begun)

    def _moved(self, number: int, at: float, operation: Operation) -> None:
        self._under_way = None
        if operation.code == 0:
            self.known_ms, self._known_from = number, at
            self._base_ms, self._base_at = number, self._now()
        elif operation.code not in CONFLICTS:
            self._failed(operation.code)
