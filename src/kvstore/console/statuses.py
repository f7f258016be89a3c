"""The HTTP status that tells of each kind of error."""

from __future__ import annotations

from kvstore.errors import (
    ConflictError,
    DeadlineExceededError,
    Error,
    InvalidArgumentError,
    NotFoundError,
    NotLeaderError,
    OverloadedError,
    PermissionDeniedError,
    RefusedError,
    UnauthenticatedError,
    UnavailableError,
)

__all__ = ["status_of"]

_STATUS: tuple[tuple[type[Error], int], ...] = (
    (UnauthenticatedError, 401),
    (PermissionDeniedError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (RefusedError, 409),
    (InvalidArgumentError, 400),
    (OverloadedError, 503),
    (UnavailableError, 503),
    (NotLeaderError, 503),
    (DeadlineExceededError, 504),
)


def status_of(error: Error) -> int:
    """502 for what the cluster should not have answered."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 502)
