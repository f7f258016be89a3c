"""What a change feed gives: one operation that was written."""

from __future__ import annotations

import enum
from typing import NamedTuple


class ChangeKind(enum.Enum):
    """What was done."""

    PUT = "put"
    DELETE = "delete"
    DELETE_RANGE = "delete-range"


class Change(NamedTuple):
    """One operation as it was written; keys as the feed shows them, without a view's prefix."""

    sequence: int
    """Its place in the order of all writes."""
    kind: ChangeKind
    key: bytes
    """Of a deleted range its start, or the feed's lower bound if that is above it."""
    value: bytes | None
    """What was put; None of deletes."""
    stop: bytes | None
    """Of a deleted range where it ends, not included: at the feed's upper bound at most; None where
    the feed's range has no end. None of others."""
    batch: int
    """The sequence of the last operation of the batch that it was written in: changes with the same
    one were written together."""
