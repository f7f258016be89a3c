"""What a client makes of what servers say, and of connections that end."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.unit.wire import frames
from tests.unit.wire.conversation import PATHS, Conversation, native

END = frames.END_HEADERS | frames.END_STREAM
OK: list[frames.Field] = [(":status", "200"), ("content-type", "application/grpc")]


class RawServer:
    """A client's session and a server that writes frames by hand."""

    def __init__(self, **limits: int) -> None:
        self.session = native.ClientSession(
            native.Limits(**limits), native.Budget(1 << 20), native.Budget(1 << 20), "a", "http"
        )
        self.session.receive(frames.frame(frames.SETTINGS, 0), 0.0)

    def call(self, *, unary: bool = True) -> int:
        stream: int = self.session.call("/s/M", (), None, b"ask", unary)
        while self.session.send(1 << 20):
            pass
        return stream

    def say(self, data: bytes) -> list[tuple[Any, ...]]:
        events: list[tuple[Any, ...]] = self.session.receive(data, 0.0)
        return events


@pytest.mark.parametrize(
    ("fields", "status", "details"),
    [
        ([*OK, ("grpc-status", "5"), ("grpc-message", "a%20b%")], 5, "a b%"),
        ([*OK, ("grpc-status", "0")], 13, "no answer in an answered call"),
        ([*OK, ("grpc-status", "17")], 2, ""),
        ([*OK, ("grpc-status", "x")], 2, ""),
        ([*OK, ("grpc-status", "9999999999")], 2, ""),
        (OK, 2, "the answer has no status"),
        ([(":status", "400")], 13, "HTTP status 400"),
        ([(":status", "401")], 16, "HTTP status 401"),
        ([(":status", "403")], 7, "HTTP status 403"),
        ([(":status", "404")], 12, "HTTP status 404"),
        ([(":status", "429")], 14, "HTTP status 429"),
        ([(":status", "502")], 14, "HTTP status 502"),
        ([(":status", "503")], 14, "HTTP status 503"),
        ([(":status", "504")], 14, "HTTP status 504"),
        ([(":status", "500")], 2, "HTTP status 500"),
        ([(":status", "500"), ("grpc-status", "9")], 9, ""),
    ],
)
def test_answer_of_one_header_block(fields: list[frames.Field], status: int, details: str) -> None:
    server = RawServer()
    stream = server.call()
    assert server.say(frames.headers(stream, fields, flags=END)) == [
        (native.ANSWER, stream, status, None, details, (), (), False)
    ]
    server.session.send(1 << 20)
    assert server.session.streams == 0


def test_proxy_that_answers_with_a_page() -> None:
    server = RawServer()
    stream = server.call(unary=False)
    page = [(":status", "503"), ("content-type", "text/html")]
    assert server.say(
        frames.headers(stream, page) + frames.frame(frames.DATA, stream, b"<html>" * 9)
    ) == [(native.FINISHED, stream, 14, "HTTP status 503", (), False)]
    assert frames.RST_STREAM in [kind for kind, *_ in frames.frames_of(server.session.send(9999))]
    assert server.session.streams == 0


def test_page_with_status_200_is_no_answer() -> None:
    server = RawServer()
    stream = server.call()
    page: list[frames.Field] = [(":status", "200"), ("content-type", "text/html")]
    (event,) = server.say(frames.headers(stream, page))
    assert event[2:5] == (2, None, "the answer is none of gRPC")


@pytest.mark.parametrize(
    ("code", "status", "unprocessed"),
    [
        (0, 13, False),
        (1, 13, False),
        (2, 13, False),
        (7, 14, True),
        (8, 1, False),
        (11, 8, False),
        (12, 7, False),
        (99, 13, False),
    ],
)
def test_reset_by_the_server(code: int, status: int, unprocessed: bool) -> None:
    server = RawServer()
    stream = server.call(unary=False)
    (event,) = server.say(frames.frame(frames.RST_STREAM, stream, struct.pack(">I", code)))
    assert event[:3] == (native.FINISHED, stream, status)
    assert event[3].startswith("the call was reset: ")
    assert event[-1] is unprocessed
    assert server.session.streams == 0


def test_informational_answers_come_before_the_real_one() -> None:
    server = RawServer()
    stream = server.call(unary=False)
    assert server.say(frames.headers(stream, [(":status", "103"), ("x", "y")])) == []
    assert server.say(frames.headers(stream, [*OK, ("i", "1")])) == [
        (native.HEADERS, stream, (("i", "1"),))
    ]


def test_second_answer_of_a_unary_call_is_an_error() -> None:
    server = RawServer()
    stream = server.call()
    (event,) = server.say(
        frames.headers(stream, OK)
        + frames.frame(frames.DATA, stream, frames.message(b"a") * 2)
        + frames.headers(stream, [("grpc-status", "0")], flags=END)
    )
    assert event[2:5] == (13, None, "more than one answer to a call")


def test_answer_that_ends_early_is_an_error() -> None:
    server = RawServer()
    stream = server.call()
    (event,) = server.say(
        frames.headers(stream, OK)
        + frames.frame(frames.DATA, stream, frames.message(b"a", declared=2))
        + frames.headers(stream, [("grpc-status", "0")], flags=END)
    )
    assert event[2:5] == (13, None, "an answer ends too early")


def test_compressed_answer_is_an_error() -> None:
    server = RawServer()
    stream = server.call()
    (event,) = server.say(
        frames.headers(stream, OK) + frames.frame(frames.DATA, stream, frames.message(b"a", flag=1))
    )
    assert event[2] == 13


def test_calls_beyond_a_goaway_were_not_processed() -> None:
    server = RawServer()
    first, second = server.call(), server.call(unary=False)
    third = server.session.call("/s/M", (), None, b"", True)
    events = server.say(
        frames.frame(frames.GOAWAY, 0, struct.pack(">II", first, 11) + b"too_many_pings")
    )
    assert events[0] == (native.GOAWAY, first, 11, b"too_many_pings")
    assert sorted(event[1] for event in events[1:]) == [second, third]
    assert all(event[-1] is True and event[2] == 14 for event in events[1:])
    assert not server.session.accepting
    sent = frames.frames_of(server.session.send(1 << 20))
    assert frames.HEADERS not in [kind for kind, *_ in sent]
    assert server.session.streams == 1
    assert server.session.close("lost") == [(native.ANSWER, first, 14, None, "lost", (), (), False)]
    assert server.session.finished


def test_notice_of_a_shutdown_ends_what_was_not_sent_yet() -> None:
    server = RawServer()
    sent = server.call()
    unsent = server.session.call("/s/M", (), None, b"", True)
    events = server.say(frames.frame(frames.GOAWAY, 0, struct.pack(">II", 2**31 - 1, 0)))
    assert [(event[1], event[-1]) for event in events[1:]] == [(unsent, True)]
    while server.session.send(1 << 20):
        pass
    trailers = [*OK, ("grpc-status", "5")]
    (event,) = server.say(frames.headers(sent, trailers, flags=END))
    assert event[:3] == (native.ANSWER, sent, 5)
    assert server.session.finished


def test_lost_connection_ends_calls_in_order() -> None:
    server = RawServer()
    first = server.call()
    second = server.session.call("/s/M", (), None, b"", True)
    assert [(event[1], event[-1]) for event in server.session.close("lost")] == [
        (first, False),
        (second, True),
    ]
    assert server.session.close("lost") == []
    assert server.session.call("/s/M", (), None, b"", True) == 0
    assert server.session.receive(b"x", 0.0) == []
    assert server.session.send(100) == b""


def test_cancelled_before_it_was_sent() -> None:
    talk = Conversation()
    stream = talk.client.call("/s/M", (), None, b"x", True)
    talk.client.cancel(stream)
    talk.client.cancel(stream)
    assert talk.server_events() == []
    assert talk.client_events() == []
    assert (talk.client.streams, talk.client_unsent.used) == (0, 0)
    assert talk.unary(PATHS[1], b"")


def test_server_that_ends_the_call_early_stops_the_request() -> None:
    server = RawServer()
    stream = server.session.call("/s/M", (), None, b"x" * 300_000, True)
    while server.session.send(1 << 20):
        pass
    assert server.session.unsent_bytes > 200_000
    trailers = [*OK, ("grpc-status", "8")]
    (event,) = server.say(frames.headers(stream, trailers, flags=END))
    assert event[2] == 8
    while server.session.send(1 << 20):
        pass
    assert (server.session.unsent_bytes, server.session.streams) == (0, 0)


def test_too_much_metadata_in_an_answer() -> None:
    server = RawServer(header_bytes_max=1000)
    stream = server.call()
    (event,) = server.say(frames.headers(stream, [*OK, ("x", "y" * 1000)]))
    assert event[2] == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ("no/slash", (), None, b"", True),
        ("/a\nb", (), None, b"", True),
        ("/a b", (), None, b"", True),
        ("/" + "x" * 5000, (), None, b"", True),
        ("/s/M", (("Upper", "x"),), None, b"", True),
        ("/s/M", ((":path", "x"),), None, b"", True),
        ("/s/M", (("grpc-status", "0"),), None, b"", True),
        ("/s/M", (("te", "x"),), None, b"", True),
        ("/s/M", (("x", "a\r\nb"),), None, b"", True),
        ("/s/M", (("x", "größe"),), None, b"", True),
        ("/s/M", (("x-bin", "text"),), None, b"", True),
        ("/s/M", (("x", "y" * 20_000),), None, b"", True),
        ("/s/M", (("x", ""),) * 200, None, b"", True),
    ],
)
def test_call_that_can_not_travel_is_refused(arguments: tuple[Any, ...]) -> None:
    talk = Conversation()
    with pytest.raises(ValueError):
        talk.client.call(*arguments)
    assert (talk.client.streams, talk.client_unsent.used) == (0, 0)


def test_request_beyond_the_unsent_budget_is_not_begun() -> None:
    talk = Conversation(client=native.Limits(unsent_bytes_max=1000))
    assert talk.client.call("/s/M", (), None, b"x" * 1000, True) == 0
    assert talk.client.call("/s/M", (), None, b"x" * 995, True) > 0
    talk.step()
    assert talk.client_unsent.used == 0
