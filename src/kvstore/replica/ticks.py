"""Times in ticks. How long a tick is, whoever drives a member says (``ReplicaOptions.tick_s``)."""

from __future__ import annotations

__all__ = ["TICK_S", "ticks_of"]

TICK_S = 0.05


def ticks_of(seconds: float, tick_s: float) -> int:
    """As many ticks as come nearest to ``seconds``, at least one."""
    return max(1, round(seconds / tick_s))
