"""From an error of kvstore to a gRPC status, as docs/wire-protocol.md lists them."""

from __future__ import annotations

from typing import NamedTuple

import grpc

from kvstore.api.metadata_keys import (
    ALARM_KEY,
    INTEGRITY_CODE_KEY,
    LEADER_ADDRESS_KEY,
    LEADER_HINT_KEY,
    OUTCOME_KEY,
    OVERLOAD_KEY,
    REFUSAL_KEY,
)
from kvstore.errors import (
    DeadlineExceededError,
    Error,
    ForgottenError,
    InvalidArgumentError,
    NoSpaceError,
    NotLeaderError,
    Outcome,
    OutcomeUnknownError,
    OverloadedError,
    ResourceExhaustedError,
    StorageError,
    UnavailableError,
    UnsupportedError,
)
from kvstore.etcd_errors import EtcdError, Reason

# The names of trailing metadata that an error may come with.
TRAILER_KEYS = (
    LEADER_HINT_KEY,
    LEADER_ADDRESS_KEY,
    INTEGRITY_CODE_KEY,
    REFUSAL_KEY,
    OUTCOME_KEY,
    OVERLOAD_KEY,
    ALARM_KEY,
)
_NOT_APPLIED = ((OUTCOME_KEY, str(Outcome.NOT_APPLIED)),)

# gRPC carries a message in a header; a longer one could exceed a client's limit on headers.
DETAILS_CHARACTERS_MAX = 1024


# Who calls isn't known, or not any more.
_UNKNOWN_CALLER = (Reason.USER_EMPTY, Reason.INVALID_AUTH_TOKEN, Reason.AUTH_OLD_REVISION)


class Failure(NamedTuple):
    """What an RPC ends with."""

    code: grpc.StatusCode
    details: str
    trailer: tuple[tuple[str, str], ...] = ()


def failure_of(error: Error) -> Failure:
    """Return the status that stands for ``error``."""
    details = str(error)[:DETAILS_CHARACTERS_MAX]
    match error:
        case InvalidArgumentError():
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, details)
        case NotLeaderError():
            trailer = [(LEADER_HINT_KEY, str(error.leader))]
            if error.leader_address:
                trailer.append((LEADER_ADDRESS_KEY, error.leader_address))
            return Failure(grpc.StatusCode.FAILED_PRECONDITION, details, tuple(trailer))
        case OutcomeUnknownError():
            return Failure(grpc.StatusCode.UNAVAILABLE, details, _code_of(error))
        case OverloadedError():
            overload = ((OVERLOAD_KEY, "1"),)
            return Failure(grpc.StatusCode.UNAVAILABLE, details, overload + _NOT_APPLIED)
        case UnavailableError():
            return Failure(grpc.StatusCode.UNAVAILABLE, details, _code_of(error) + _NOT_APPLIED)
        case EtcdError(reason=reason):
            # Of users: in etcd's words, so that clients know them by those, wherever they call.
            code = grpc.StatusCode[reason.code]
            if reason in _UNKNOWN_CALLER:
                code = grpc.StatusCode.UNAUTHENTICATED
            return Failure(code, details, _NOT_APPLIED)
        case ForgottenError():
            refusal = ((REFUSAL_KEY, str(error.refusal)),)
            return Failure(grpc.StatusCode.ABORTED, details, refusal + _NOT_APPLIED)
        case NoSpaceError():
            alarm = ((ALARM_KEY, "NOSPACE"),)
            return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, details, alarm + _NOT_APPLIED)
        case ResourceExhaustedError():
            return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, details, _NOT_APPLIED)
        case UnsupportedError():
            return Failure(grpc.StatusCode.UNIMPLEMENTED, details, _NOT_APPLIED)
        case DeadlineExceededError():
            return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, details)
        case StorageError():
            trailer = [(INTEGRITY_CODE_KEY, str(error.code))]
            if error.outcome is Outcome.NOT_APPLIED:
                trailer += _NOT_APPLIED
            return Failure(grpc.StatusCode.DATA_LOSS, details, tuple(trailer))
        case _:
            return Failure(grpc.StatusCode.INTERNAL, details)


def _code_of(error: UnavailableError) -> tuple[tuple[str, str], ...]:
    return () if error.code is None else ((INTEGRITY_CODE_KEY, str(error.code)),)
