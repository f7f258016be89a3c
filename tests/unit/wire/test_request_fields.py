"""HTTP/2's rules for the fields of a request, which this wire keeps by itself."""

from __future__ import annotations

import pytest

from tests.unit.wire import frames
from tests.unit.wire.conversation import PATHS, native
from tests.unit.wire.test_bounds import Raw

GET = PATHS[1]
PROTOCOL_ERROR = 1


def resets(raw: Raw) -> list[int]:
    """The codes of the RST_STREAMs that the session sends."""
    said = raw.hear()
    return [int.from_bytes(code, "big") for kind, *_, code in said if kind == frames.RST_STREAM]


@pytest.mark.parametrize(
    "authority", ["127.0.0.1:2379", "http://127.0.0.1:2379", "#initially=[a;b]", "", "a b"]
)
def test_any_authority_will_do(authority: str) -> None:
    raw = Raw()
    events = raw.say(frames.headers(1, frames.request("/s/M", (":authority", authority))))
    assert [event[0] for event in events] == [native.CALL]
    assert resets(raw) == []


@pytest.mark.parametrize(
    "fields",
    [
        frames.request(GET, without=":method"),
        frames.request(GET, without=":scheme"),
        frames.request(GET, without=":path"),
        [*frames.request(GET), (":path", "/s/M")],
        [*frames.request(GET), (":unknown", "x")],
        [(":path", GET), *frames.request(GET)],
        [("x", "y"), *frames.request(GET)],
        frames.request("", (":authority", "a")),
        frames.request(GET, (":authority", "a\n")),
        frames.request(GET, ("Upper", "case")),
        frames.request(GET, ("", "nameless")),
        frames.request(GET, ("te", "gzip")),
        *(
            frames.request(GET, (name, "x"))
            for name in (
                "connection",
                "keep-alive",
                "proxy-connection",
                "transfer-encoding",
                "upgrade",
            )
        ),
    ],
)
@pytest.mark.parametrize("end", [frames.END_HEADERS, frames.END_HEADERS | frames.END_STREAM])
def test_a_request_that_breaks_them_is_reset_and_the_next_one_taken(
    fields: list[frames.Field], end: int
) -> None:
    raw = Raw()
    events = raw.say(frames.headers(1, fields, flags=end))
    assert resets(raw) == [PROTOCOL_ERROR]
    assert (events, raw.hot, raw.session.streams) == ([], [], 0)
    assert raw.received.used == 0
    events = raw.say(frames.headers(3, frames.request("/s/M")))
    assert [event[0] for event in events] == [native.CALL]
    assert raw.session.broken is None


@pytest.mark.parametrize("field", [("na me", "x"), ("name", "x\r"), ("x\x7f", "y")])
def test_a_field_that_is_none_is_left_out(field: frames.Field) -> None:
    raw = Raw()
    events = raw.say(frames.headers(1, frames.request("/s/M", field, ("kept", "1"))))
    ((kind, *_, metadata),) = events
    assert (kind, metadata) == (native.CALL, (("kept", "1"),))


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ([("x", "y")], frames.END_HEADERS),
        ([(":path", "/s/M")], frames.END_HEADERS | frames.END_STREAM),
        ([("Upper", "y")], frames.END_HEADERS | frames.END_STREAM),
    ],
)
def test_what_follows_a_requests_messages_ends_it_and_has_no_pseudo_fields(
    fields: list[frames.Field], flags: int
) -> None:
    raw = Raw()
    raw.say(frames.headers(1, frames.request("/s/M")))
    raw.say(frames.headers(1, fields, flags=flags))
    assert resets(raw) == [PROTOCOL_ERROR]
    assert raw.session.streams == 0


def test_broken_requests_cost_as_much_as_resets() -> None:
    raw = Raw(resets_max=20)
    for number in range(200):
        if raw.session.broken is not None:
            break
        raw.say(frames.headers(2 * number + 1, frames.request(GET, without=":path")))
    assert raw.session.broken == "too_many_resets"
