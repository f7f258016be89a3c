"""Which calls of a disk a sweep lets fail: all, or as many as there is time for."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

__all__ = ["ALL", "CALLS_MAX", "places", "takes_long"]

ALL = os.environ.get("KVSTORE_DISK_SWEEP") == "all"
CALLS_MAX = 500
"""Of one kind."""

takes_long = pytest.mark.timeout(7200 if ALL else 300)
"""For the modules of a sweep."""


def places(calls: int, taken: int) -> Sequence[int]:
    """The numbers, from 1 on, of those calls out of ``calls`` that fail one after the other.

    All up to the 500th in a whole sweep, else about ``taken``, the first and the last among them.
    """
    last = min(calls, CALLS_MAX)
    if ALL or last <= taken:
        return range(1, last + 1)
    return sorted({1 + round(number * (last - 1) / (taken - 1)) for number in range(taken)})
