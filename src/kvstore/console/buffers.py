"""Between a cluster that may be fast and browsers that may be slow: bounded, and told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Final

from kvstore.errors import OverloadedError

__all__ = ["Buffer", "Buffers"]

# Changes that wait for a browser; of more the oldest are dropped, which is told.
CHANGES_MAX: Final = 500
# Live watches of all browsers together.
BUFFERS_MAX: Final = 32


class Buffer:
    """Changes that one browser is to be sent. For one loop."""

    def __init__(self, most: int = CHANGES_MAX) -> None:
        self._changes: deque[str] = deque(maxlen=most)
        self._some = asyncio.Event()
        self._dropped = 0
        self.failure: str | None = None
        """Why no more will come."""

    def add(self, change: str) -> None:
        if len(self._changes) == self._changes.maxlen:
            self._dropped += 1
        self._changes.append(change)
        self._some.set()

    def fail(self, why: str) -> None:
        """Nothing comes any more."""
        self.failure = why
        self._some.set()

    async def take(self) -> tuple[list[str], int]:
        """What has come, and how many were dropped before it; waits for some."""
        await self._some.wait()
        self._some.clear()
        changes, dropped = [*self._changes], self._dropped
        self._changes.clear()
        self._dropped = 0
        return changes, dropped


class Buffers:
    """All of a console."""

    def __init__(self) -> None:
        self._open: set[Buffer] = set()

    @contextlib.contextmanager
    def one(self) -> Iterator[Buffer]:
        """A buffer, for as long as the block lasts. Raises OverloadedError."""
        if len(self._open) >= BUFFERS_MAX:
            raise OverloadedError(f"{BUFFERS_MAX} watches are open already: close one")
        buffer = Buffer()
        self._open.add(buffer)
        try:
            yield buffer
        finally:
            self._open.discard(buffer)

    def end(self, why: str) -> None:
        """End all that are open."""
        for buffer in self._open:
            buffer.fail(why)
