"""Rows that one member lends another one, whose table is damaged.

What users stored, and the events of it, lie in the engine at sequences that are used once: so the
rows of a moment gone by are still there, at a member that has applied more, for as long as nothing
was merged since. All other records are written at one sequence again and again, and can't be had of
an earlier moment.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kvstore.state.mvcc.records import EVENTS, USER

__all__ = ["Moment", "can_be_lent"]

_STOP: Final = bytes([EVENTS[0] + 1])


class Moment(NamedTuple):
    """Where a member stands: it has applied all up to index ``applied``, which brought it to
    ``revision``; history is given up below ``compacted``. Nobody reads its rows at a revision below
    ``keep_from``."""

    applied: int
    revision: int
    compacted: int
    keep_from: int


def can_be_lent(low: bytes, high: bytes) -> bool:
    """Whether all keys of the engine in [low, high) are of such rows."""
    return low >= USER and high <= _STOP
