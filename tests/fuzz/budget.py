"""How long a fuzz test goes on: its own number of rounds, or the seconds that ``make fuzz`` gives.

``KVSTORE_FUZZ_SECONDS`` has the seconds for one test; a test that asks :func:`rounds` for its
numbers, and draws what it does from the number alone, joins ``make fuzz`` by itself.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

__all__ = ["VARIABLE", "rounds", "seconds"]

VARIABLE = "KVSTORE_FUZZ_SECONDS"
FRESH = "KVSTORE_FUZZ_SEED"
"""Numbers begin at so many millions under ``make fuzz``, which gives another each time."""


def seconds() -> float | None:
    """What one test may take; None where it is run as any other test."""
    given = os.environ.get(VARIABLE)
    return None if given is None else float(given)


def rounds(usual: int) -> Iterator[int]:
    """0, 1, 2, and on: ``usual`` of them, or until the time is over."""
    limit = seconds()
    if limit is None:
        yield from range(usual)
        return
    end = time.monotonic() + limit
    for number in itertools.count(int(os.environ.get(FRESH, "0")) * 1_000_000):
        yield number
        if time.monotonic() > end:
            return
