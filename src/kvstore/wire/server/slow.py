"""Who hears of calls that took long."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SlowSink"]


class SlowSink(Protocol):
    """See :class:`kvstore.server.slow_calls.SlowCalls`."""

    @property
    def slow_s(self) -> float:
        """From how many seconds on a call is slow."""

    def note(
        self, path: str, code: str, began: float, ended: float, calls: int, request_bytes: int
    ) -> None:
        """So many calls of ``path`` came at ``began`` and ended at ``ended``, of the monotonic
        clock, with ``code``."""
