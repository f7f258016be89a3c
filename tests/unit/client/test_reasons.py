"""Every refusal of etcd's API has an error of ours, which says what became of a write."""

from __future__ import annotations

import grpc
import pytest

from kvstore.client.attempts import Attempts, Endpoints
from kvstore.client.failure import understand
from kvstore.client.options import RetryPolicy
from kvstore.errors import (
    CompactedError,
    ConflictError,
    CorruptionError,
    DeadlineExceededError,
    Error,
    ForgottenError,
    FutureRevisionError,
    InternalError,
    InvalidArgumentError,
    LeaseNotFoundError,
    NoSpaceError,
    NotFoundError,
    NotLeaderError,
    Outcome,
    OutcomeUnknownError,
    OverloadedError,
    PermissionDeniedError,
    RefusedError,
    ResourceExhaustedError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from kvstore.etcd_errors import Reason
from kvstore.wire import RpcError

# Of those that aren't named each error is the one of its code.
BY_CODE: dict[str, type[Error]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "OUT_OF_RANGE": InvalidArgumentError,
    "FAILED_PRECONDITION": RefusedError,
    "UNAVAILABLE": UnavailableError,
    "CANCELLED": UnavailableError,
}
NAMED: dict[Reason, type[Error]] = {
    Reason.KEY_NOT_FOUND: NotFoundError,
    Reason.REQUEST_TOO_LARGE: TooLargeError,
    Reason.USER_EMPTY: UnauthenticatedError,
    Reason.AUTHENTICATION_FAILED: UnauthenticatedError,
    Reason.AUTH_OLD_REVISION: UnauthenticatedError,
    Reason.INVALID_AUTH_TOKEN: UnauthenticatedError,
    Reason.PERMISSION_DENIED: PermissionDeniedError,
    Reason.COMPACTED: CompactedError,
    Reason.FUTURE_REVISION: FutureRevisionError,
    Reason.NO_SPACE: NoSpaceError,
    Reason.TOO_MANY_REQUESTS: OverloadedError,
    Reason.LEASE_NOT_FOUND: LeaseNotFoundError,
    Reason.MEMBER_NOT_FOUND: NotFoundError,
    Reason.USER_NOT_FOUND: NotFoundError,
    Reason.ROLE_NOT_FOUND: NotFoundError,
    Reason.LEASE_EXISTS: ConflictError,
    Reason.MEMBER_EXISTS: ConflictError,
    Reason.PEER_URL_EXISTS: ConflictError,
    Reason.USER_EXISTS: ConflictError,
    Reason.ROLE_EXISTS: ConflictError,
    Reason.NOT_CAPABLE: UnsupportedError,
    Reason.NOT_FOR_LEARNER: UnavailableError,
    Reason.CORRUPT: CorruptionError,
    Reason.DEADLINE: DeadlineExceededError,
    # Of a service that our clients don't ask: their elections are ranges and transactions.
    Reason.NOBODY_ELECTED: RefusedError,
    Reason.SESSION_FORGOTTEN: ForgottenError,
    Reason.SEQUENCE_PASSED: ForgottenError,
}
# After these a write may have been applied, or may yet be.
UNKNOWN = {
    Reason.LEADER_CHANGED,
    Reason.STOPPED,
    Reason.TIMED_OUT,
    Reason.TIMED_OUT_LEADER_FAILED,
    Reason.TIMED_OUT_CONNECTION_LOST,
    Reason.TIMED_OUT_APPLYING,
    Reason.TRANSFER_TIMED_OUT,
    Reason.WATCH_CANCELED,
    Reason.REQUEST_CANCELED,
    Reason.DEADLINE,
}


def told(reason: Reason) -> RpcError:
    return RpcError(grpc.StatusCode[reason.code], reason.text)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_each_reason_is_an_error_that_says_what_became_of_a_write(reason: Reason) -> None:
    failure = understand(told(reason))
    assert type(failure.error) is (NAMED.get(reason) or BY_CODE[reason.code])
    assert str(failure.error) in reason.text or isinstance(
        failure.error, CorruptionError | ForgottenError
    )
    assert failure.not_applied == (reason not in UNKNOWN)
    # Nobody's leader hint, and no defect.
    assert not isinstance(failure.error, NotLeaderError | InternalError)

    attempts = Attempts(Endpoints(["a:1"]), RetryPolicy(), 10.0, writes=True, repeatable=False)
    if reason in UNKNOWN:
        with pytest.raises(OutcomeUnknownError) as unknown:
            attempts.failed(failure)
        assert unknown.value.outcome is Outcome.UNKNOWN
    elif failure.retry:
        assert attempts.failed(failure) >= 0
    else:
        with pytest.raises(type(failure.error)) as refused:
            attempts.failed(failure)
        assert refused.value.outcome is Outcome.NOT_APPLIED


def test_space_is_a_resource() -> None:
    assert issubclass(NoSpaceError, ResourceExhaustedError)


def test_the_text_alone_decides() -> None:
    # As etcd's clients do; some members answer UNKNOWN for a text that has a code.
    failure = understand(RpcError(grpc.StatusCode.UNKNOWN, Reason.DEADLINE.text))
    assert failure.retry
    assert not failure.not_applied


def test_a_status_without_a_text_of_etcds_is_as_ever() -> None:
    failure = understand(RpcError(grpc.StatusCode.FAILED_PRECONDITION, "not the leader"))
    assert isinstance(failure.error, NotLeaderError)
    failure = understand(RpcError(grpc.StatusCode.UNAUTHENTICATED, "who are you?"))
    assert isinstance(failure.error, UnauthenticatedError)
    assert failure.unauthenticated
