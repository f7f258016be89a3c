"""What a listener of clients tells of itself and of its calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

__all__ = ["CallCounter", "FrontFigures"]

CallCounter = Callable[[str, str, float, int], None]
"""(path of the method, name of the code, seconds, how many): unary calls that ended alike."""


@dataclasses.dataclass(frozen=True, slots=True)
class FrontFigures:
    """Of the native listener of clients, for metrics. ``cut``: connections that it ended, by why;
    budgets in bytes."""

    connections: int
    half_open: int
    calls: int
    received_bytes: int
    received_bytes_max: int
    unsent_bytes: int
    unsent_bytes_max: int
    accepted: int
    refused_connections: int
    refused_calls: int
    unread_answers: int
    slow_requests: int
    cut: Mapping[str, int]
