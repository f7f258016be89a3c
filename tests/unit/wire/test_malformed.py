"""Requests that break gRPC's or HTTP/2's rules: each ends with a clean answer."""

from __future__ import annotations

import pytest

from kvstore.api.v1 import kv_pb2
from tests.unit.wire import frames
from tests.unit.wire.conversation import PATHS, Conversation, native
from tests.unit.wire.test_bounds import Raw

GET = PATHS[1]
END = frames.END_HEADERS | frames.END_STREAM


class Listener:
    """A client's session on stream 1, which decodes what a raw request is answered with."""

    def __init__(self) -> None:
        self.raw = Raw()
        self.client = native.ClientSession(
            native.Limits(), native.Budget(1 << 20), native.Budget(1 << 20), "a", "http"
        )
        assert self.client.call("/s/M", (), None, b"", False) == 1
        while self.client.send(1 << 20):
            pass

    def answer(self, data: bytes) -> tuple[int, str]:
        """Status and details of stream 1 after a raw request."""
        self.raw.say(data)
        events = []
        while heard := self.raw.session.send(1 << 20):
            events += self.client.receive(heard, 0.0)
        (finished,) = [event for event in events if event[0] == native.FINISHED]
        assert self.raw.session.streams == 0
        assert self.raw.received.used == 0
        assert self.raw.session.broken is None
        return finished[2], finished[3]


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        (frames.request(GET, (":method", "GET")), (2, "HTTP status 405")),
        (frames.request(GET, ("content-type", "text/html")), (2, "HTTP status 415")),
        (frames.request(GET, ("content-type", "application/grpcx")), (2, "HTTP status 415")),
        (frames.request(GET, without="content-type"), (2, "HTTP status 415")),
        *(
            (
                frames.request(GET, ("grpc-timeout", wrong)),
                (3, "grpc-timeout or a binary value of metadata is malformed"),
            )
            for wrong in ("", "S", "5", "5X", "-5S", "1.5S", "123456789S", "5 S")
        ),
        *(
            (
                frames.request(path, ("x-bin", wrong)),
                (3, "grpc-timeout or a binary value of metadata is malformed"),
            )
            for path in (GET, "/s/M")
            for wrong in ("a?b", "AAAAA")
        ),
    ],
)
def test_malformed_headers(fields: list[frames.Field], answer: tuple[int, str]) -> None:
    assert Listener().answer(frames.headers(1, fields, flags=END)) == answer


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", (12, "no message in a call that has one")),
        (b"\0\0\0", (3, "a message ends too early")),
        (frames.message(b"abc", declared=4), (3, "a message ends too early")),
        (frames.message(b"", flag=1), (13, "compressed messages are not understood")),
        (frames.message(b"", flag=2), (13, "a message begins with an unknown flag")),
        (frames.message(b"\xff"), (3, "the request is not a protobuf message")),
        (frames.message(b"") * 2, (12, "more than one message in a call that has one")),
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_malformed_body_of_a_hot_call(body: bytes, answer: tuple[int, str], piece: int) -> None:
    data = frames.headers(1, frames.request(GET))
    for at in range(0, len(body), piece):
        data += frames.frame(frames.DATA, 1, body[at : at + piece])
    data += frames.frame(frames.DATA, 1, flags=frames.END_STREAM)
    listener = Listener()
    assert listener.answer(data) == answer
    assert listener.raw.hot == []


@pytest.mark.parametrize(
    ("fields", "body", "status"),
    [
        (frames.request(GET, ("grpc-timeout", "x")), b"", 3),
        (frames.request(GET, *[("x", "y" * 40)] * 300), b"", 8),
        (frames.request(GET), frames.message(b"\xff"), 3),
        (frames.request(GET), b"", 12),
        (frames.request("/s/M", ("grpc-timeout", "x")), b"", None),
        (frames.request(GET), frames.message(b""), None),
    ],
)
def test_hot_calls_that_are_refused_are_counted(
    fields: list[frames.Field], body: bytes, status: int | None
) -> None:
    raw = Raw()
    for stream in (1, 3):
        raw.say(frames.headers(stream, fields))
        raw.say(frames.frame(frames.DATA, stream, body, frames.END_STREAM))
    assert raw.refused == ({} if status is None else {(native.GET, status): 2})


def test_request_that_never_ends_is_counted_as_what_it_was_answered() -> None:
    raw = Raw()
    for _ in range(2):
        raw.say(frames.headers(1, frames.request(GET)))
        raw.session.finish(1, 8, "slow")
    raw.say(frames.headers(3, frames.request(GET)))
    raw.say(frames.frame(frames.DATA, 3, frames.message(b""), frames.END_STREAM))
    raw.hot[0].fail(9, "a handler's answer")
    assert raw.refused == {(native.GET, 8): 1}


def test_compressed_message_is_unimplemented() -> None:
    data = frames.headers(1, frames.request(GET, ("grpc-encoding", "gzip")))
    data += frames.frame(frames.DATA, 1, frames.message(b"", flag=1), frames.END_STREAM)
    assert Listener().answer(data) == (12, "compressed messages are not understood")


def test_message_that_compression_would_not_pay_for_is_taken() -> None:
    raw = Raw()
    fields = frames.request(GET, ("grpc-encoding", "gzip"), ("x-bin", "AAAA"))
    raw.say(frames.headers(1, fields))
    body = frames.message(kv_pb2.GetRequest(key=b"k").SerializeToString())
    raw.say(frames.frame(frames.DATA, 1, body, frames.END_STREAM))
    assert [(call.key, call.metadata) for call in raw.hot] == [(b"k", ())]


def test_refused_message_of_a_call_that_was_told_of() -> None:
    raw = Raw()
    assert [event[0] for event in raw.say(frames.headers(1, frames.request("/s/M")))] == [
        native.CALL
    ]
    assert raw.say(frames.frame(frames.DATA, 1, frames.message(b"", flag=1))) == [
        (native.CLOSED, 1, 0)
    ]
    raw.session.start(1, ())
    assert raw.session.message(1, b"late")
    raw.session.finish(1, 0, "")
    assert [kind for kind, stream, *_ in raw.hear() if stream] == [
        frames.HEADERS,
        frames.RST_STREAM,
    ]


def test_messages_in_any_pieces_are_the_same() -> None:
    messages = [b"", b"a" * 300, b"b", b"", b"c" * 40_000]
    body = b"".join(frames.message(data) for data in messages)
    for piece in (1, 2, 5, 7, 305, 16_384):
        raw = Raw()
        events = raw.say(frames.headers(1, frames.request("/s/M")))
        for at in range(0, len(body), piece):
            data = frames.frame(frames.DATA, 1, body[at : at + piece])
            for cut in (data[:4], data[4:11], data[11:]):
                events += raw.say(cut)
        assert [event[2] for event in events if event[0] == native.MESSAGE] == messages


def test_padding_is_no_message() -> None:
    raw = Raw()
    raw.say(frames.headers(1, frames.request(GET)))
    body = frames.message(kv_pb2.GetRequest(key=b"k").SerializeToString())
    for cut in (body[:3], body[3:]):
        payload = b"\x20" + cut + bytes(0x20)
        raw.say(frames.frame(frames.DATA, 1, payload, frames.PADDED))
    raw.say(frames.frame(frames.DATA, 1, flags=frames.END_STREAM))
    assert [call.key for call in raw.hot] == [b"k"]


def test_trailers_of_a_request_end_it() -> None:
    raw = Raw()
    raw.say(frames.headers(1, frames.request(GET)))
    raw.say(frames.frame(frames.DATA, 1, frames.message(b"")))
    raw.say(frames.headers(1, [("x", "y")], flags=END))
    assert len(raw.hot) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        frames.PREFACE + frames.frame(frames.PING, 0, bytes(8)),
        frames.PREFACE + frames.frame(frames.SETTINGS, 0) + frames.frame(frames.DATA, 0, b"x"),
        frames.PREFACE + frames.frame(frames.SETTINGS, 0) + frames.frame(frames.DATA, 1, b"x"),
        frames.PREFACE + frames.frame(frames.SETTINGS, 0) + b"\xff" * 100,
        frames.PREFACE
        + frames.frame(frames.SETTINGS, 0)
        + frames.frame(frames.HEADERS, 1, b"\xff" * 9, 4),
        frames.PREFACE
        + frames.frame(frames.SETTINGS, 0)
        + frames.frame(frames.PUSH, 1, bytes(9), 4),
        frames.PREFACE
        + frames.frame(frames.SETTINGS, 0)
        + frames.frame(frames.WINDOW, 0, bytes(4)),
    ],
)
def test_what_is_not_http2_breaks_the_connection(data: bytes) -> None:
    session = native.ServerSession(native.Limits(), native.Budget(0), native.Budget(0))
    assert session.receive(data, 0.0) == []
    heard = b""
    while more := session.send(1 << 20):
        heard += more
    assert frames.frames_of(heard)[-1][0] == frames.GOAWAY
    assert session.broken
    assert session.finished
    assert session.receive(data, 1.0) == []


def test_client_ends_its_calls_when_the_server_breaks_the_protocol() -> None:
    talk = Conversation()
    stream = talk.unary(GET, b"")
    talk.client.receive(b"\xff" * 100, 0.0)
    talk.client.send(1 << 20)
    assert talk.client.broken
    assert talk.client.finished
    assert not talk.client.accepting
    assert talk.client.close("connection lost") == [
        (native.ANSWER, stream, 14, None, "connection lost", (), (), False)
    ]
