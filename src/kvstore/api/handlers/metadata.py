"""What a client's metadata says of its call (docs/wire-protocol.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kvstore.api.handlers.etcd.auth_callers import TOKEN_KEYS, identity_of
from kvstore.api.metadata_keys import (
    AGE_KEY,
    ATTEMPT_KEY,
    COMMON_NAME_KEY,
    GRPC_ATTEMPTS_KEY,
    REQUEST_KEY,
    TRACEPARENT_KEY,
)
from kvstore.errors import InvalidArgumentError
from kvstore.service.request_ids import understand_number
from kvstore.state.mvcc.requests import Numbered

__all__ = ["Said", "age_of", "number_of", "passed_on"]

Said = tuple[tuple[str, str | bytes], ...]

_KEYS = (ATTEMPT_KEY, AGE_KEY, GRPC_ATTEMPTS_KEY, TRACEPARENT_KEY, *TOKEN_KEYS)

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


def number_of(metadata: Iterable[Any] | None) -> Numbered | None:
    """The number that a session gave an operation of etcd's API; None for none.

    Raises InvalidArgumentError for an id that no session gives, and for more than one.
    """
    said = [value for key, value in metadata or () if key == REQUEST_KEY]
    if not said:
        return None
    if len(said) > 1:
        raise InvalidArgumentError(f"more than one {REQUEST_KEY}")
    # The fronts know of no encoding.
    data = said[0] if isinstance(said[0], bytes) else said[0].encode("latin-1", "replace")
    number = understand_number(data)
    if isinstance(number, InvalidArgumentError):
        raise number
    return number


def passed_on(
    metadata: Iterable[Any] | None, auth_context: Mapping[str, Iterable[bytes]], peer: str
) -> Said:
    """What a member that passes a call on says of it, too, and of who makes it."""
    pairs = tuple(metadata or ())
    said = tuple((key, value) for key, value in pairs if key in _KEYS)
    name = identity_of(pairs, auth_context, peer).name
    return (*said, (COMMON_NAME_KEY, name.encode())) if name else said
