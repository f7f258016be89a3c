"""Who hears of calls whose client traces them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["TraceSink"]


class TraceSink(Protocol):
    """See :class:`kvstore.server.traces.spans.ServerSpans`."""

    def note(
        self,
        path: str,
        code: str,
        began: float,
        ended: float,
        metadata: Iterable[Any],
        request_bytes: int,
    ) -> None:
        """A unary call of ``path`` came at ``began`` and ended at ``ended``, of the monotonic
        clock, with ``code``; its ``metadata`` says whether it is traced."""
