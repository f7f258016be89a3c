"""What was begun and isn't over: how much of it is slow, which leaves room for what isn't.

A placement group that is inactive answers nothing, while all others do. What waits for it would
soon be all that is under way, if it counted like the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["SLOW_S", "UnderWay"]

T = TypeVar("T", bound=Hashable)

SLOW_S = 1.0
"""So long a busy pool takes now and then; what takes longer waits for something that hangs."""


class UnderWay(Generic[T]):
    """Things under way, each of some size. One thread. ``size``: of them all."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # Oldest first: since when, and how large. The slow ones are those from before.
        self._fresh: dict[T, tuple[float, int]] = {}
        self._slow: dict[T, int] = {}
        self._fresh_size = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._slow)

    def add(self, what: T, size: int = 1) -> None:
        """It begins. Not twice."""
        assert what not in self._fresh
        assert what not in self._slow
        self._fresh[what] = (self._now(), size)
        self._fresh_size += size
        self.size += size

    def discard(self, what: T) -> None:
        """It is over, if it was under way."""
        fresh = self._fresh.pop(what, None)
        if fresh is not None:
            self._fresh_size -= fresh[1]
            self.size -= fresh[1]
        else:
            self.size -= self._slow.pop(what, 0)

    def size_of(self, what: T) -> int:
        """0 if it isn't under way."""
        fresh = self._fresh.get(what)
        return self._slow.get(what, 0) if fresh is None else fresh[1]

    def fresh_size(self) -> int:
        """Of those that began within :data:`SLOW_S`."""
        due = self._now() - SLOW_S
        while self._fresh:
            what = next(iter(self._fresh))
            since, size = self._fresh[what]
            if since > due:
                break
            del self._fresh[what]
            self._slow[what] = size
            self._fresh_size -= size
        return self._fresh_size
