"""What a call's metadata says of its write."""

from __future__ import annotations

import pytest

from kvstore.api.handlers.metadata import AGE_UNKNOWN_S, age_of, number_of, passed_on
from kvstore.errors import InvalidArgumentError
from kvstore.state.mvcc.requests import Numbered

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


def test_what_concerns_retries_traces_and_the_caller_is_passed_on_and_nothing_else() -> None:
    said = (
        *(("kvstore-attempt", "2"), ("kvstore-age-ms", "7")),
        *(("traceparent", "00-1-2-01"), ("authorization", "secret")),
    )
    assert passed_on([("user-agent", "x"), *said, ("cookie", "secret")], {}, "ipv4:1:2") == said


@pytest.mark.parametrize(
    ("metadata", "peer", "name"),
    [
        ([], "ipv4:1:2", b"ann"),
        ([("token", "t")], "ipv4:1:2", None),
        ([("kvstore-common-name-bin", b"root")], "ipv4:1:2", b"ann"),
        ([("grpcgateway-accept", "*")], "ipv4:1:2", None),
        ([], "unix:", b"root"),
    ],
)
def test_a_certificates_name_is_passed_on_where_it_counts(
    metadata: Metadata, peer: str, name: bytes | None
) -> None:
    said = dict(passed_on(metadata, {"x509_common_name": [b"ann"]}, peer))
    assert said.get("kvstore-common-name-bin") == name


def test_a_number_is_one_that_a_session_gives() -> None:
    session = "0123456789abcdef" * 2
    metadata = [("kvstore-attempt", "2"), ("kvstore-request-id", f"kvs1/{session}/300/45")]
    assert number_of(metadata) == Numbered(bytes.fromhex(session), 300, 45)
    assert number_of([]) is None
    assert number_of(None) is None


@pytest.mark.parametrize(
    "said",
    [
        "",
        "mine",
        "kvs1/0123456789ABCDEF0123456789ABCDEF/1/1",
        f"kvs1/{'0' * 32}/01/1",
        f"kvs1/{'0' * 32}/1/1/1",
        f"kvs1/{'0' * 32}/256/0",
        f"kvs1/{'0' * 32}/257/1",
        f"kvs1/{'0' * 32}/1/2",
        "\u2713",
        b"\xff",
    ],
)
def test_any_other_is_refused(said: str | bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        number_of([("kvstore-request-id", said)])


def test_two_of_them_are_refused_though_they_are_alike() -> None:
    one = ("kvstore-request-id", f"kvs1/{'0' * 32}/1/1")
    assert number_of([one]) is not None
    with pytest.raises(InvalidArgumentError, match="more than one kvstore-request-id"):
        number_of([one, ("other", "x"), one])
