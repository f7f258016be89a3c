"""The status of each error, as the contract has it."""

from __future__ import annotations

import grpc
import pytest

from kvstore.api.handlers.failures import (
    DETAILS_CHARACTERS_MAX,
    TRAILER_KEYS,
    Failure,
    failure_of,
)
from kvstore.client.failure import understand
from kvstore.errors import (
    CorruptionError,
    DeadlineExceededError,
    Error,
    ForgottenError,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
    NoSpaceError,
    NotLeaderError,
    OutcomeUnknownError,
    Refusal,
    ResourceExhaustedError,
    StorageError,
    UnavailableError,
    UnsupportedError,
)
from kvstore.state.mvcc.alarms import Refused
from kvstore.state.results import refused_by_alarm


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgumentError("key is empty"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotLeaderError(3), grpc.StatusCode.FAILED_PRECONDITION),
        (UnavailableError("no leader"), grpc.StatusCode.UNAVAILABLE),
        (UnsupportedError("a gateway has none"), grpc.StatusCode.UNIMPLEMENTED),
        (OutcomeUnknownError("leadership lost"), grpc.StatusCode.UNAVAILABLE),
        (DeadlineExceededError("not committed"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (StorageError("disk"), grpc.StatusCode.DATA_LOSS),
        (CorruptionError("x", code=IntegrityCode.INVALID_MAGIC), grpc.StatusCode.DATA_LOSS),
        (ForgottenError(Refusal.SESSION_EXPIRED), grpc.StatusCode.ABORTED),
        (ResourceExhaustedError("sessions"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (NoSpaceError("quota"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (InternalError("defect"), grpc.StatusCode.INTERNAL),
        (Error("what else"), grpc.StatusCode.INTERNAL),
    ],
)
def test_each_error_has_its_status_and_keeps_its_words(error: Error, code: grpc.StatusCode) -> None:
    failure = failure_of(error)
    assert failure.code is code
    assert failure.details == str(error)


def test_the_leader_is_named_for_people_and_for_machines() -> None:
    failure = failure_of(NotLeaderError(3, "10.0.0.3:50051"))
    assert "leader_hint=3" in failure.details
    assert dict(failure.trailer) == {
        "kvstore-leader-hint": "3",
        "kvstore-leader-address": "10.0.0.3:50051",
    }


def test_an_unknown_leader_is_hinted_as_zero() -> None:
    failure = failure_of(NotLeaderError(0))
    assert "leader_hint=0" in failure.details
    assert dict(failure.trailer) == {"kvstore-leader-hint": "0"}


@pytest.mark.parametrize("code", IntegrityCode)
def test_damage_carries_its_code_for_people_and_for_machines(code: IntegrityCode) -> None:
    failure = failure_of(CorruptionError("block", code=code, path="000007.sst", offset=4096))
    assert failure.details == f"{code}: block in 000007.sst at byte 4096"
    assert dict(failure.trailer) == {"kvstore-integrity-code": str(code)}


def test_a_members_own_disk_is_no_data_loss_and_its_trouble_is_named() -> None:
    trouble = UnavailableError("its disk failed", code=IntegrityCode.CHECKSUM_MISMATCH)
    failure = failure_of(trouble)
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert dict(failure.trailer) == {
        "kvstore-integrity-code": "CHECKSUM_MISMATCH",
        "kvstore-outcome": "not-applied",
    }
    unknown = failure_of(OutcomeUnknownError("its disk failed", code=IntegrityCode.IO_ERROR))
    assert unknown.code is grpc.StatusCode.UNAVAILABLE
    assert dict(unknown.trailer) == {"kvstore-integrity-code": "IO_ERROR"}


def test_a_message_that_would_not_fit_a_header_is_cut() -> None:
    failure = failure_of(InternalError("x" * 100_000))
    assert len(failure.details) == DETAILS_CHARACTERS_MAX


def test_each_trailer_of_an_error_is_passed_on_by_a_forwarding_member() -> None:
    errors: list[Error] = [NotLeaderError(2, "h:1"), StorageError("x"), UnavailableError("x")]
    errors += map(ForgottenError, Refusal)
    for error in errors:
        trailer = failure_of(error).trailer
        assert trailer
        assert {key for key, _ in trailer} <= set(TRAILER_KEYS)


@pytest.mark.parametrize("refusal", Refusal)
def test_a_refusal_says_why_and_that_this_call_did_nothing(refusal: Refusal) -> None:
    assert dict(failure_of(ForgottenError(refusal)).trailer) == {
        "kvstore-refusal": str(refusal),
        "kvstore-outcome": "not-applied",
    }


def test_only_what_was_never_proposed_is_said_to_be_not_applied() -> None:
    not_applied = {"kvstore-outcome": "not-applied"}
    assert dict(failure_of(UnavailableError("no leader")).trailer) == not_applied
    assert dict(failure_of(ResourceExhaustedError("sessions")).trailer) == not_applied
    assert dict(failure_of(OutcomeUnknownError("leadership lost")).trailer) == {}
    assert dict(failure_of(DeadlineExceededError("late")).trailer) == {}


class _Failed(grpc.RpcError):
    """What a client is told of a failure."""

    def __init__(self, failure: Failure) -> None:
        self.code = lambda: failure.code
        self.details = lambda: failure.details
        self.trailing_metadata = lambda: failure.trailer


def test_a_client_knows_a_full_store_from_a_busy_one() -> None:
    failure = failure_of(refused_by_alarm(Refused.PUTS))
    assert dict(failure.trailer) == {"kvstore-alarm": "NOSPACE", "kvstore-outcome": "not-applied"}
    understood = understand(_Failed(failure))
    assert isinstance(understood.error, NoSpaceError)
    assert str(understood.error) == failure.details
    assert understood.not_applied
    assert not understood.retry
    assert not understood.overloaded


def test_a_client_knows_that_a_corrupt_cluster_did_nothing() -> None:
    failure = failure_of(refused_by_alarm(Refused.WRITES))
    assert failure.code is grpc.StatusCode.DATA_LOSS
    understood = understand(_Failed(failure))
    assert isinstance(understood.error, CorruptionError)
    assert understood.error.code is IntegrityCode.CHECKSUM_MISMATCH
    assert understood.not_applied
    assert not understood.retry
