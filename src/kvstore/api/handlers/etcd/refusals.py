"""From an error to the status that a client of etcd's API goes by (specification of etcd, §3, §7).

Nothing ends with UNKNOWN: clients give up for good on that.
"""

from __future__ import annotations

import grpc

from kvstore.api.handlers.failures import DETAILS_CHARACTERS_MAX, Failure
from kvstore.errors import (
    DeadlineExceededError,
    Error,
    InvalidArgumentError,
    NotLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    ResourceExhaustedError,
    StorageError,
    UnavailableError,
)
from kvstore.etcd_errors import EtcdError, Reason

__all__ = ["reason_of", "refusal_of"]


def reason_of(error: Error) -> Reason | None:
    """etcd's reason that stands for an error of kvstore's; None where it has none.

    What is waited for in vain has its reason from whoever waited (``kvstore.service.etcd``), who
    knows more; this is for errors that come up elsewhere.
    """
    match error:
        case EtcdError():
            return error.reason
        case DeadlineExceededError():
            return Reason.DEADLINE
        case NotLeaderError():
            return Reason.LEADER_CHANGED
        case OutcomeUnknownError():
            return Reason.TIMED_OUT_LEADER_FAILED
        case OverloadedError() | ResourceExhaustedError():
            return Reason.TOO_MANY_REQUESTS
        case UnavailableError():
            return Reason.TIMED_OUT
        case StorageError():
            # A lack of room or descriptors passes; damage that no other member makes good doesn't.
            return Reason.TIMED_OUT if error.retryable else Reason.CORRUPT
        case _:
            return None


def refusal_of(error: Error) -> Failure:
    """What a call ends with."""
    reason = reason_of(error)
    if reason is not None:
        return Failure(grpc.StatusCode[reason.code], reason.text)
    details = str(error)[:DETAILS_CHARACTERS_MAX]
    if isinstance(error, InvalidArgumentError):
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, details)
    return Failure(grpc.StatusCode.INTERNAL, details)
