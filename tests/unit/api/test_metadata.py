"""What a call's metadata says of its write."""

from __future__ import annotations

import pytest

from kvstore.api.handlers.metadata import AGE_UNKNOWN_S, age_of, passed_on

Metadata = list[tuple[str, str | bytes]]


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("user-agent", "x")],
        [("kvstore-attempt", "1")],
        [("kvstore-attempt", "1"), ("kvstore-age-ms", "500")],
        [("grpc-previous-rpc-attempts", "0")],
    ],
)
def test_a_first_try_has_no_age(metadata: Metadata) -> None:
    assert age_of(metadata) is None


@pytest.mark.parametrize(
    ("metadata", "age_s"),
    [
        ([("kvstore-attempt", "2"), ("kvstore-age-ms", "1500")], 1.5),
        ([("kvstore-age-ms", "0"), ("kvstore-attempt", "9")], 0.0),
        ([("kvstore-attempt", "2")], AGE_UNKNOWN_S),
        ([("kvstore-attempt", "2"), ("kvstore-age-ms", "-1")], AGE_UNKNOWN_S),
        ([("kvstore-attempt", "2"), ("kvstore-age-ms", "9" * 20)], AGE_UNKNOWN_S),
        ([("kvstore-attempt", "often")], AGE_UNKNOWN_S),
        ([("kvstore-attempt", "0")], AGE_UNKNOWN_S),
        ([("grpc-previous-rpc-attempts", "1")], AGE_UNKNOWN_S),
        (
            [("kvstore-attempt", "1"), ("grpc-previous-rpc-attempts", "1")],
            AGE_UNKNOWN_S,
        ),
    ],
)
def test_a_retry_that_does_not_say_how_old_it_is_is_older_than_anything(
    metadata: Metadata, age_s: float
) -> None:
    assert age_of(metadata) == age_s


def test_what_concerns_retries_is_passed_on_and_nothing_else() -> None:
    said = (("kvstore-attempt", "2"), ("kvstore-age-ms", "7"))
    assert passed_on([("user-agent", "x"), *said, ("authorization", "secret")]) == said
