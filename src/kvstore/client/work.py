"""What a blocking client has in one process, and its loan to what the client gives."""

from __future__ import annotations

import warnings
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from kvstore.client import background, forks
from kvstore.client.asynchronous import AsyncClient
from kvstore.client.background import Background
from kvstore.errors import ClosedError

__all__ = ["Kept", "Work"]

T = TypeVar("T")


class Work:
    """What a client has in this process once it was used."""

    __slots__ = ("_owner", "background", "client", "process")

    def __init__(self, client: AsyncClient, owner: str) -> None:
        """``owner``: whose it is, in words."""
        self._owner = owner
        self.client = client
        client.warns = False  # :meth:`drop` does
        self.process = forks.process
        self.background: Background = background.lease()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        context = copy_context() if self.client.calls.carries_context else None
        return self.background.run(work, context)

    def drop(self) -> None:
        """Of a client that nobody uses any more, and nobody closed."""
        if self.process == forks.process:
            warnings.warn(f"unclosed {self._owner}", ResourceWarning, stacklevel=2)
            self.background.begin(self.client.close())
            background.release(self.background)


class Kept:
    """Does work of what a client has given, which keeps the client in use."""

    __slots__ = ("_client", "_work")

    def __init__(self, client: object, work: Work) -> None:
        self._client = client
        self._work = work

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        if self._work.process != forks.process:
            work.close()
            raise ClosedError("it belongs to the process that this one was forked from")
        return self._work.run(work)
