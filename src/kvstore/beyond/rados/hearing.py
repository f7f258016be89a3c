"""When the pool last answered anything.

A part of a pool may stand still: placement groups that are inactive. That the others answer is seen
by what calls ask for; while nothing is heard, objects all over the pool are asked for as well.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf

from kvstore.beyond.rados.failing import is_final
from kvstore.beyond.rados.layout import BUCKET_BITS, HEAD_KEY, bucket_name
from kvstore.beyond.rados.objects import Objects, Operation

__all__ = ["Hearing"]

ASK_S = 1.0
"""Of silence before something is asked for, and between two questions."""
ASKED_MAX = 5
"""Questions without an answer; for one more the oldest is given up."""

_SAID_BY_LIBRADOS = (-errno.ECANCELED, -errno.ETIMEDOUT)


class Hearing:
    """What one gateway hears. One thread."""

    def __init__(
        self, objects: Objects, *, now: Callable[[], float], draw: Callable[[int], bytes]
    ) -> None:
        """``now``: seconds that pass also while the machine sleeps."""
        self._objects = objects
        self._now = now
        self._draw = draw
        # Oldest first.
        self._asked: dict[Operation, None] = {}
        self._asked_at = -inf
        self._heard_at = -inf

    def silent_s(self) -> float:
        """For how long nothing has been heard; without end if nothing ever was."""
        return max(0.0, self._now() - self._heard_at)

    def heard(self, operation: Operation) -> None:
        """It is finished: by the pool, unless librados ended it."""
        code = operation.code
        if code not in _SAID_BY_LIBRADOS and not is_final(code):
            self._heard_at = self._now()

    def tick(self) -> None:
        """Ask for something if nothing has been heard for long. A few times a second."""
        now = self._now()
        if self.silent_s() < ASK_S or now - self._asked_at < ASK_S:
            return
        self._asked_at = now
        if len(self._asked) >= ASKED_MAX:
            next(iter(self._asked)).cancel()
        bucket = int.from_bytes(self._draw(4), "little") >> (32 - BUCKET_BITS)
        asked = self._objects.read_pairs(bucket_name(bucket), [HEAD_KEY], self._answered)
        self._asked[asked] = None

    def close(self) -> None:
        """Ask no more."""
        for operation in self._asked:
            operation.cancel()

    def _answered(self, operation: Operation) -> None:
        self._asked.pop(operation, None)
