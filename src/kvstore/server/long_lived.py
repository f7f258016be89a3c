"""Tasks that live as long as the member: one that ends by itself is the member's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

import structlog

from kvstore.errors import Error, InternalError

__all__ = ["long_lived"]

log = structlog.get_logger("kvstore.server")


def long_lived(
    coroutine: Coroutine[None, None, None], name: str, fail: Callable[[Error], None]
) -> asyncio.Task[None]:
    """A task for ``coroutine``; should it raise, ``fail`` is called with what.

    A member that goes on without it would be mute to a peer, say, or keep certificates that have
    ended, and nobody would know.
    """
    task = asyncio.create_task(coroutine, name=name)
    task.add_done_callback(partial(_ended, fail))
    return task


def _ended(fail: Callable[[Error], None], task: asyncio.Task[None]) -> None:
    if task.cancelled():
        return
    raised = task.exception()
    if raised is None:
        return
    log.error("a task failed", task=task.get_name(), exc_info=raised)
    if isinstance(raised, Error):
        fail(raised)
    else:
        error = InternalError(f"{task.get_name()}: {type(raised).__name__}: {raised}")
        error.__cause__ = raised
        fail(error)
