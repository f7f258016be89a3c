"""How fast all that a member holds is read to be checked."""

from __future__ import annotations

from typing import Final

__all__ = ["BYTES_PER_S_MAX", "BYTES_PER_S_MIN", "bytes_per_s"]

BYTES_PER_S_MIN: Final = 64 << 10
"""However little there is: a small store is seen more often, and nobody feels it."""
BYTES_PER_S_MAX: Final = 16 << 20
"""However much there is: what is served has the disk. The round then takes longer."""


def bytes_per_s(held_bytes: int, round_s: float) -> float:
    """The rate at which ``held_bytes`` are read once in ``round_s``, within bounds."""
    return min(max(held_bytes / round_s, BYTES_PER_S_MIN), BYTES_PER_S_MAX)
