"""Metadata, details and timeouts on their way."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire import frames
from tests.unit.wire.conversation import Conversation, native
from tests.unit.wire.test_bounds import Raw

NAMES = st.text(string.ascii_lowercase + string.digits + "_.-", min_size=1, max_size=20).map(
    lambda name: f"x-{name}"
)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=50)
PAIRS = st.one_of(
    st.tuples(NAMES.filter(lambda name: not name.endswith("-bin")), TEXTS),
    st.tuples(NAMES.map(lambda name: f"{name}-bin"), st.binary(max_size=50)),
)


def trimmed(pairs: list[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """HTTP knows no spaces around a value."""
    return tuple(
        (name, value.strip(" ") if isinstance(value, str) else value) for name, value in pairs
    )


@given(st.lists(PAIRS, max_size=8), st.lists(PAIRS, max_size=8), st.lists(PAIRS, max_size=8))
def test_metadata_arrives_as_it_was(
    asked: list[Any], initial: list[Any], trailer: list[Any]
) -> None:
    talk = Conversation()
    stream = talk.unary("/s/M", b"", metadata=asked)
    (_, _, _, _, metadata), *_ = talk.server_events()
    assert metadata[1:] == trimmed(asked)
    talk.server.respond(stream, b"", trailer, initial)
    assert talk.client_events() == [
        (native.ANSWER, stream, 0, b"", "", trimmed(trailer), trimmed(initial), False)
    ]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_details_arrive_as_they_were(details: str) -> None:
    encoded = native.percent_encoded(details)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert native.percent_decoded(encoded) == details
    talk = Conversation()
    stream = talk.unary("/s/M", b"")
    talk.server.finish(stream, 13, details)
    (event,) = talk.client_events()
    assert event[4] == details


def test_long_details_are_cut_between_characters() -> None:
    for start in range(3):
        encoded = native.percent_encoded("x" * start + "ö" * 5000)
        assert 4090 <= len(encoded) <= 4096
        assert set(native.percent_decoded(encoded)[start:]) == {"ö"}
    assert native.percent_encoded("x" + " " * 5000 + "x") == b"x"


def test_surrogates_in_details_are_replaced() -> None:
    assert native.percent_encoded("a\ud800b") == b"a?b"


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"%", "%"), (b"%4", "%4"), (b"%zz", "%zz"), (b"%41%", "A%"), (b"%ff", "\ufffd"), (b"", "")],
)
def test_what_is_not_percent_encoding_stays(data: bytes, text: str) -> None:
    assert native.percent_decoded(data) == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4m", 0.004),
        ("5u", 0.000005),
        ("99999999n", 0.099999999),
        ("0n", 0),
    ],
)
def test_timeout_of_a_call(value: str, seconds: float) -> None:
    raw = Raw()
    (event,) = raw.say(frames.headers(1, frames.request("/s/M", ("grpc-timeout", value))))
    assert event[3] == pytest.approx(seconds)


@given(st.floats(0, 1e12))
def test_timeout_is_never_shorter_and_hardly_longer(seconds: float) -> None:
    talk = Conversation()
    talk.unary("/s/M", b"", timeout_s=seconds)
    got = talk.server_events()[0][3]
    assert min(seconds, 3e11) <= got * (1 + 1e-9) + 1e-12
    assert got <= max(seconds * 1.0001, seconds + 1e-9) or got <= 99999999 * 3600


def test_strange_timeouts_are_none() -> None:
    talk = Conversation()
    for strange in (-1.0, float("nan"), 0.0):
        talk.unary("/s/M", b"", timeout_s=strange)
        assert talk.server_events()[0][3] == 0
    talk.unary("/s/M", b"", timeout_s=float("inf"))
    assert talk.server_events()[0][3] > 1e11


def test_binary_metadata_with_padding_and_commas() -> None:
    raw = Raw()
    fields = frames.request(
        "/s/M", ("a-bin", "AAE="), ("b-bin", "AAE"), ("c-bin", "AA==,,AAEC"), ("d-bin", "")
    )
    (event,) = raw.say(frames.headers(1, fields))
    assert event[4] == (
        ("a-bin", b"\0\1"),
        ("b-bin", b"\0\1"),
        ("c-bin", b"\0"),
        ("c-bin", b""),
        ("c-bin", b"\0\1\2"),
        ("d-bin", b""),
    )


def test_hot_call_keeps_what_says_that_it_is_a_retry() -> None:
    raw = Raw()
    fields = frames.request(
        "/kvstore.v1.KV/Put",
        ("user-agent", "x"),
        ("kvstore-age-ms", "5"),
        ("grpc-previous-rpc-attempts", "2"),
        ("other", "y"),
        ("grpc-timeout", "300S"),
    )
    raw.now = 100.0
    raw.say(frames.headers(1, fields))
    raw.say(frames.frame(frames.DATA, 1, frames.message(b""), frames.END_STREAM))
    (call,) = raw.hot
    assert call.metadata == (("kvstore-age-ms", "5"), ("grpc-previous-rpc-attempts", "2"))
    assert (call.received_at, call.timeout_s, call.deadline, call.age_s) == (100, 300, 400, None)
    call.age_s = 0.005
    call.deadline = 101.0
    assert (call.deadline, call.age_s) == (101, 0.005)


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x-other"]), TEXTS)))
def test_hot_call_keeps_what_says_that_it_is_traced_whatever_it_says(said: list[Any]) -> None:
    raw = Raw()
    raw.say(frames.headers(1, frames.request("/kvstore.v1.KV/Put", *said)))
    raw.say(frames.frame(frames.DATA, 1, frames.message(b""), frames.END_STREAM))
    (call,) = raw.hot
    assert call.metadata == trimmed([pair for pair in said if pair[0] == "traceparent"])


def test_a_traceparent_counts_for_the_bound_of_metadata() -> None:
    raw = Raw()
    said = ("traceparent", "0" * native.Limits().header_bytes_max)
    raw.say(frames.headers(1, frames.request("/kvstore.v1.KV/Put", said)))
    raw.say(frames.frame(frames.DATA, 1, frames.message(b""), frames.END_STREAM))
    assert raw.hot == []
