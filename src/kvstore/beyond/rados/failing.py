"""From what librados ends operations with to kvstore's errors."""

from __future__ import annotations

import errno
import os

from kvstore.errors import (
    Error,
    NoSpaceError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)

__all__ = [
    "NO_ROOM",
    "POOL_GONE",
    "in_doubt",
    "is_final",
    "is_full",
    "read_failure",
    "write_failure",
]

POOL_GONE = "the pool is gone"
NO_ROOM = "the pool is full, or has reached its quota: puts are taken once there is room"

_MAY_BE = "the write may be applied, and a retry with the same request_id is safe"

_FULL = (-errno.ENOSPC, -errno.EDQUOT)
_DENIED = (-errno.EPERM, -errno.EACCES)


def is_final(code: int) -> bool:
    """Nothing will be done any more through this client: it was fenced off by the cluster."""
    return code == -errno.ESHUTDOWN


def is_full(code: int) -> bool:
    """The pool takes no more."""
    return code in _FULL


def read_failure(code: int) -> Error:
    """Why something wasn't read; nothing was written."""
    if code == -errno.EIO:
        return StorageError("the pool has no sound copy of what was asked for", errno=errno.EIO)
    return UnavailableError(_words(code))


def write_failure(code: int) -> Error:
    """Why it isn't known that something was written, or that it wasn't be."""
    if is_full(code):
        return NoSpaceError(NO_ROOM)
    # Also where it was denied: a try of librados's before may have been done, under other rights.
    return OutcomeUnknownError(f"{_words(code)}; {_MAY_BE}")


def in_doubt(failure: Error) -> OutcomeUnknownError:
    """The same where the write may have been done before it."""
    return OutcomeUnknownError(f"{failure}; {_MAY_BE}")


def _words(code: int) -> str:
    if code == -errno.ENOENT:
        return POOL_GONE
    if code in _DENIED:
        return "the key of this gateway may not do that in the pool"
    if is_final(code):
        return "the cluster has fenced this gateway off"
    if code in (-errno.ETIMEDOUT, -errno.ECANCELED):
        return "the pool did not answer in time"
    return f"the pool answered with an error: {os.strerror(-code)}"
