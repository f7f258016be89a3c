"""Waiting, in a task, until what a peer says of itself is noted durably."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kvstore.errors import Error
from kvstore.server.peers.registry import NotNotedYetError, PeerRegistry

__all__ = ["judged"]

Verdict = TypeVar("Verdict")


async def judged(registry: PeerRegistry, judge: Callable[[], Verdict]) -> Verdict:
    """What ``judge`` says, once all that it notes is durable.

    Raises what ``judge`` raises but for NotNotedYetError, and StorageError.
    """
    while True:
        try:
            return judge()
        except NotNotedYetError:
            noted: asyncio.Future[Error | None] = asyncio.get_running_loop().create_future()

            def told(error: Error | None, noted: asyncio.Future[Error | None] = noted) -> None:
                if not noted.done():
                    noted.set_result(error)

            registry.wait(told)
            try:
                error = await noted
            finally:
                registry.forget_waiting(told)
            if error is not None:
                raise error from None
