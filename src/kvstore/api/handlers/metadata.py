"""Names of metadata, and what a client's says of its call (docs/wire-protocol.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["AGE_KEY", "ATTEMPT_KEY", "age_of", "passed_on"]

# Which try of this write this is, from 1 on; tries that surely came to nothing don't count.
ATTEMPT_KEY = "kvstore-attempt"
# How long ago the first of them was sent, in milliseconds.
AGE_KEY = "kvstore-age-ms"
# gRPC's own retries say the same, counted from 0.
GRPC_ATTEMPTS_KEY = "grpc-previous-rpc-attempts"

_KEYS = (ATTEMPT_KEY, AGE_KEY, GRPC_ATTEMPTS_KEY)

# Of a retry that doesn't say how old it is: older than anything.
AGE_UNKNOWN_S = 1e12


def age_of(metadata: Iterable[Any] | None) -> float | None:
    """How long ago a call's write was first sent, in seconds; None for a first try."""
    attempt = age = previous = None
    for key, value in metadata or ():
        if key == ATTEMPT_KEY:
            attempt = value
        elif key == AGE_KEY:
            age = value
        elif key == GRPC_ATTEMPTS_KEY:
            previous = value
    if attempt in (None, "1") and previous in (None, "0"):
        return None
    if previous in (None, "0") and isinstance(age, str) and age.isdecimal() and len(age) < 15:
        return int(age) / 1000
    return AGE_UNKNOWN_S


def passed_on(metadata: Iterable[Any] | None) -> tuple[tuple[str, str], ...]:
    """What a member that passes a call on says of it, too."""
    return tuple((key, value) for key, value in metadata or () if key in _KEYS)
