"""What a client makes of a status that says nothing by itself."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from kvstore.client.failure import understand
from kvstore.errors import (
    Error,
    InternalError,
    OverloadedError,
    ResourceExhaustedError,
    TooLargeError,
)


class Told(grpc.RpcError):
    def __init__(self, details: str, *trailer: tuple[str, str]) -> None:
        super().__init__(details)
        self._details = details
        self._trailer = trailer
        self.status = grpc.StatusCode.RESOURCE_EXHAUSTED

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailer


@pytest.mark.parametrize(
    ("details", "trailer", "kind", "retry", "not_applied"),
    [
        # In gRPC's own words: of a message beyond the bound, and of one call too many.
        (
            "SERVER: Received message larger than max (9 vs. 8)",
            (),
            TooLargeError,
            False,
            True,
        ),
        ("too many", (("grpc-retry-pushback-ms", "100"),), OverloadedError, True, True),
        # Or of a stream that somebody reset, whatever had become of the call by then.
        ("Concurrent RPC limit exceeded!", (), OverloadedError, True, False),
        ("the call was reset: ENHANCE_YOUR_CALM", (), OverloadedError, True, False),
        ("full", (("kvstore-outcome", "not-applied"),), ResourceExhaustedError, False, True),
    ],
)
def test_a_request_too_large_is_no_overload(
    details: str,
    trailer: tuple[tuple[str, str], ...],
    kind: type[Error],
    retry: bool,
    not_applied: bool,
) -> None:
    failure = understand(Told(details, *trailer))
    assert type(failure.error) is kind
    assert failure.retry == retry
    assert failure.not_applied == not_applied


def test_a_status_that_no_server_of_ours_gives_is_a_defect() -> None:
    told = Told("what?")
    told.status = grpc.StatusCode.OUT_OF_RANGE
    failure = understand(told)
    assert isinstance(failure.error, InternalError)
    assert str(failure.error) == "OUT_OF_RANGE: what?"
    assert not failure.retry
