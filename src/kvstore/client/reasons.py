"""What a refusal of etcd's API means: its text alone says it, whatever its status.

The texts are etcd's (:mod:`kvstore.etcd_errors`), so this goes for real etcd as well.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.errors import (
    CompactedError,
    ConflictError,
    CorruptionError,
    DeadlineExceededError,
    Error,
    ForgottenError,
    FutureRevisionError,
    IntegrityCode,
    InvalidArgumentError,
    LeaseNotFoundError,
    NoSpaceError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    Refusal,
    RefusedError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from kvstore.etcd_errors import Reason

__all__ = ["Meaning", "meaning_of"]


class Meaning(NamedTuple):
    """``passing``: another try, elsewhere or later, may do better. ``not_applied``: the call
    changed nothing and never will. ``overloaded``, ``unauthenticated``: why it was refused."""

    error: Error
    passing: bool = False
    not_applied: bool = True
    overloaded: bool = False
    unauthenticated: bool = False


# Of these nobody knows whether a write came through.
_UNKNOWN = frozenset(
    {
        Reason.LEADER_CHANGED,
        Reason.STOPPED,
        Reason.TIMED_OUT,
        Reason.TIMED_OUT_LEADER_FAILED,
        Reason.TIMED_OUT_CONNECTION_LOST,
        Reason.TIMED_OUT_APPLYING,
        Reason.TRANSFER_TIMED_OUT,
        Reason.REQUEST_CANCELED,
        Reason.WATCH_CANCELED,
        Reason.DEADLINE,
    }
)

_PASSING = _UNKNOWN | {
    Reason.NO_LEADER,
    Reason.UNHEALTHY,
    Reason.NOT_PRIMARY_LESSOR,
    Reason.NOT_FOR_LEARNER,
    Reason.NOT_CAPABLE,
    Reason.TOO_MANY_REQUESTS,
}

# A token is missing, has expired, or was given before users were changed.
_STALE_TOKENS = frozenset({Reason.INVALID_AUTH_TOKEN, Reason.AUTH_OLD_REVISION, Reason.USER_EMPTY})

_NOT_FOUND = frozenset(
    {Reason.MEMBER_NOT_FOUND, Reason.USER_NOT_FOUND, Reason.ROLE_NOT_FOUND, Reason.KEY_NOT_FOUND}
)

_THERE_ALREADY = frozenset(
    {
        Reason.LEASE_EXISTS,
        Reason.MEMBER_EXISTS,
        Reason.PEER_URL_EXISTS,
        Reason.USER_EXISTS,
        Reason.ROLE_EXISTS,
    }
)

_BY_TEXT = {reason.text: reason for reason in Reason}


def meaning_of(text: str) -> Meaning | None:
    """What a server says with ``text``; None for one that isn't etcd's."""
    reason = _BY_TEXT.get(text)
    if reason is None:
        return None
    return Meaning(
        _error(reason),
        reason in _PASSING,
        reason not in _UNKNOWN,
        reason is Reason.TOO_MANY_REQUESTS,
        reason in _STALE_TOKENS,
    )


def _error(reason: Reason) -> Error:
    text = reason.text.removeprefix("etcdserver: ").removeprefix("mvcc: ")
    if reason in _STALE_TOKENS or reason is Reason.AUTHENTICATION_FAILED:
        return UnauthenticatedError(text)
    if reason in _NOT_FOUND:
        return NotFoundError(text)
    if reason in _THERE_ALREADY:
        return ConflictError(text)
    match reason:
        case Reason.COMPACTED:
            return CompactedError(text)
        case Reason.FUTURE_REVISION:
            return FutureRevisionError(text)
        case Reason.LEASE_NOT_FOUND:
            return LeaseNotFoundError(text)
        case Reason.REQUEST_TOO_LARGE:
            return TooLargeError(text)
        case Reason.NO_SPACE:
            return NoSpaceError(text)
        case Reason.TOO_MANY_REQUESTS:
            return OverloadedError(text)
        case Reason.NOT_CAPABLE:
            return UnsupportedError(text)
        case Reason.CORRUPT:
            return CorruptionError(text, code=IntegrityCode.CHECKSUM_MISMATCH)
        case Reason.DEADLINE:
            return DeadlineExceededError(text)
        case Reason.SESSION_FORGOTTEN:
            return ForgottenError(Refusal.SESSION_EXPIRED)
        case Reason.SEQUENCE_PASSED:
            return ForgottenError(Refusal.SEQUENCE_PASSED)
        case Reason.PERMISSION_DENIED:
            return PermissionDeniedError(text)
        case Reason(code="INVALID_ARGUMENT" | "OUT_OF_RANGE"):
            return InvalidArgumentError(text)
        case _ if reason in _PASSING:
            return UnavailableError(text)
        case _:
            return RefusedError(text)
