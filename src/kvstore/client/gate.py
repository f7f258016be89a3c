"""How much a client asks of servers at a time: what is more waits, in order, and fails nobody."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["BYTES_MAX", "TRIES_MAX", "Gate"]

TRIES_MAX = 1024
"""Four times what a kvd answers at a time on one connection."""

BYTES_MAX = 32 << 20
"""Of requests: half of what the native wire lets wait. One that is larger goes alone."""


class Gate:
    """Lets so many tries, of so many bytes, be under way. For one event loop."""

    __slots__ = ("_bytes", "_bytes_max", "_tries", "_tries_max", "_waiting")

    def __init__(self, tries_max: int = TRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._tries_max = tries_max
        self._bytes_max = bytes_max
        self._tries = 0
        self._bytes = 0
        # Those that gave up stay until their turn comes.
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def try_enter(self, size: int) -> bool:
        """Whether a try of ``size`` bytes may begin: then :meth:`leave` must follow."""
        if self._waiting or not self._fits(size):
            return False
        self._tries += 1
        self._bytes += size
        return True

    async def enter(self, size: int, seconds: float) -> None:
        """Wait for it. Raises TimeoutError after ``seconds``."""
        if self.try_enter(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave(size)  # it came at the very moment
            raise

    def leave(self, size: int) -> None:
        """A try of ``size`` bytes has ended."""
        self._tries -= 1
        self._bytes -= size
        while self._waiting:
            turn, next_size = self._waiting[0]
            if not turn.done():
                if not self._fits(next_size):
                    return
                self._tries += 1
                self._bytes += next_size
                turn.set_result(None)
            self._waiting.popleft()

    def _fits(self, size: int) -> bool:
        if not self._tries:
            return True
        return self._tries < self._tries_max and self._bytes + size <= self._bytes_max
