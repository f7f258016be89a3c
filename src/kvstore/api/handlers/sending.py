"""Sends a backup to whoever reads it, and gives up one who doesn't."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from kvstore.errors import Error

__all__ = ["BYTES_PER_S_MIN", "GIVEN_UP", "STALL_S", "SlowReaderError", "send_backup"]

STALL_S = 30.0
BYTES_PER_S_MIN: Final = 100 << 10
"""A reader that is :data:`STALL_S` behind this is given up: its backup holds old tables, and others
wait for theirs."""

GIVEN_UP: Final = "backup given up: its reader is too slow"
"""In the log."""


class SlowReaderError(Error):
    """The reader was given up after ``sent`` bytes."""

    def __init__(self, sent: int) -> None:
        super().__init__(
            f"the reader took less than {BYTES_PER_S_MIN >> 10} KiB/s: others wait for their "
            "backups, and old tables for their removal"
        )
        self.sent = sent


async def send_backup(
    pieces: AsyncGenerator[bytes, None],
    send: Callable[[bytes], Awaitable[None]],
) -> None:
    """Give ``send`` one piece after the other; the backup is closed however this ends.

    Sent and not handed out, so that one who doesn't read can be given up. Raises SlowReaderError,
    and what ``pieces`` raises.
    """
    began = asyncio.get_running_loop().time()
    sent = 0
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            limit = asyncio.timeout_at(began + STALL_S + sent / BYTES_PER_S_MIN)
            try:
                async with limit:
                    await send(piece)
            except TimeoutError:
                if limit.expired():
                    raise SlowReaderError(sent) from None
                raise
            sent += len(piece)
