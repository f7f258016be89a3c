"""What a peer can make a session hold or do, and the answer when it wants more."""

from __future__ import annotations

import gc
import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvstore.api.v1 import kv_pb2
from tests.unit.wire import frames
from tests.unit.wire.conversation import PATHS, Conversation, native

PUT, GET, _ = PATHS
ENHANCE_YOUR_CALM = 11


class Raw:
    """A server's session and a client that writes frames by hand."""

    def __init__(self, *, received: int = 1 << 30, unsent: int = 1 << 30, **limits: int) -> None:
        self.received, self.unsent = native.Budget(received), native.Budget(unsent)
        self.hot: list[Any] = []
        self.refused: dict[tuple[int, int], int] = {}
        self.session = native.ServerSession(
            native.Limits(**limits), self.received, self.unsent, PATHS, self.hot, self.refused
        )
        self.now = 0.0
        self.say(frames.PREFACE + frames.frame(frames.SETTINGS, 0))

    def say(self, data: bytes) -> list[tuple[Any, ...]]:
        events: list[tuple[Any, ...]] = self.session.receive(data, self.now)
        return events

    def hear(self) -> list[tuple[int, int, int, bytes]]:
        heard = b""
        while data := self.session.send(1 << 20):
            heard += data
        return frames.frames_of(heard)

    def goaway(self) -> tuple[int, bytes]:
        """Code and words of the GOAWAY that it says."""
        (payload,) = [payload for kind, *_, payload in self.hear() if kind == frames.GOAWAY]
        return int.from_bytes(payload[4:8], "big"), payload[8:]


def status_of(client_event: tuple[Any, ...]) -> tuple[int, str]:
    kind = client_event[0]
    return (
        (client_event[2], client_event[4])
        if kind == native.ANSWER
        else (client_event[2], client_event[3])
    )


def test_message_of_too_many_bytes_is_refused_from_its_length() -> None:
    raw = Raw(message_bytes_max=1000)
    raw.say(frames.headers(1, frames.request()))
    raw.say(frames.frame(frames.DATA, 1, frames.message(b"", declared=1001)))
    kinds = [(kind, stream) for kind, stream, *_ in raw.hear() if stream]
    assert kinds == [(frames.HEADERS, 1), (frames.RST_STREAM, 1)]
    assert raw.received.used == 0
    talk = Conversation(server=native.Limits(message_bytes_max=1000))
    talk.unary(GET, b"x" * 1001)
    assert status_of(*talk.client_events()) == (
        8,
        "Received message larger than max (1001 vs. 1000)",
    )


def test_answer_of_too_many_bytes_ends_the_call_at_the_client() -> None:
    talk = Conversation(client=native.Limits(message_bytes_max=1000))
    talk.unary(GET, b"")
    talk.hot[0].get_answer(b"x" * 1001)
    assert status_of(*talk.client_events())[0] == 8
    assert (talk.unsent.used, talk.client_received.used) == (0, 0)
    assert (talk.server.streams, talk.client.streams) == (0, 0)


def test_declared_bytes_take_nothing_of_the_budget_before_they_come() -> None:
    raw = Raw(received=1_000_000)
    raw.say(frames.headers(1, frames.request()))
    before = raw.received.used
    raw.say(frames.frame(frames.DATA, 1, frames.message(b"x", declared=2 << 20)))
    assert 1 < raw.received.used - before < 1000
    for came in range(1, 100_001, 10_000):
        raw.say(frames.frame(frames.DATA, 1, b"x" * 10_000))
        assert came + 10_000 <= raw.received.used - before <= 2 * (came + 10_000) + 200
    assert raw.session.received_bytes == raw.received.used
    raw.say(frames.frame(frames.RST_STREAM, 1, struct.pack(">I", 8)))
    assert raw.received.used == 0


def test_calls_that_declare_much_leave_the_budget_to_who_sends() -> None:
    raw = Raw(received=1_000_000)
    for stream in range(1, 201, 2):
        raw.say(frames.headers(stream, frames.request()))
        raw.say(frames.frame(frames.DATA, stream, frames.message(b"x", declared=2 << 20)))
    assert [kind for kind, stream, *_ in raw.hear() if stream] == []
    raw.say(frames.headers(201, frames.request(PUT)))
    put = frames.message(kv_pb2.PutRequest(value=b"x" * 200_000).SerializeToString())
    for at in range(0, len(put), 16_384):
        raw.say(frames.frame(frames.DATA, 201, put[at : at + 16_384]))
        raw.hear()
    raw.say(frames.frame(frames.DATA, 201, flags=frames.END_STREAM))
    assert [len(call.value) for call in raw.hot] == [200_000]


def test_one_connection_leaves_half_of_the_budget_to_others() -> None:
    raw = Raw(received=1_000_000)
    for stream in range(1, 21, 2):
        raw.say(frames.headers(stream, frames.request()))
        raw.say(frames.frame(frames.DATA, stream, frames.message(b"", declared=64_000)))
        for _ in range(4):
            raw.say(frames.frame(frames.DATA, stream, b"x" * 16_000))
    assert 300_000 < raw.received.used <= 334_000
    refused = [stream for kind, stream, *_ in raw.hear() if kind == frames.RST_STREAM]
    assert refused == [11, 13, 15, 17, 19]


def test_call_beyond_the_budget_is_told_when_to_come_again() -> None:
    talk = Conversation(received=100_000)
    talk.unary(PUT, kv_pb2.PutRequest(value=b"x" * 60_000).SerializeToString())
    (event,) = talk.client_events()
    assert status_of(event) == (8, "too many bytes of requests wait already")
    assert event[5] == (("grpc-retry-pushback-ms", "250"),)
    assert talk.received.used == 0


def test_metadata_that_waits_counts() -> None:
    raw = Raw(received=300_000)
    block = frames.request("/s/M", ("x", "y" * 10_000))
    events = [raw.say(frames.headers(stream, block)) for stream in range(1, 41, 2)]
    accepted = [some for some in events if some]
    assert 5 < len(accepted) < 12
    assert raw.received.used <= 104_000


def test_answers_that_nobody_reads_stop_at_the_budget() -> None:
    raw = Raw(unsent=3_000_000)
    for stream in range(1, 41, 2):
        raw.say(frames.headers(stream, frames.request(), flags=frames.END_HEADERS))
        raw.say(frames.frame(frames.DATA, stream, frames.message(b""), frames.END_STREAM))
    for call in raw.hot:
        call.get_answer(b"x" * 300_000)
    assert [call.status for call in raw.hot] == [0] * 3 + [8] * 17
    assert raw.unsent.used == raw.session.unsent_bytes
    raw.hear()
    # What the peer's windows let out is given back, and no more.
    assert raw.unsent.used == 3 * 300_011 - 65_535
    assert raw.session.undelivered() == [5, 3, 1]
    raw.session.close()
    assert raw.unsent.used == 0


def test_streamed_messages_beyond_the_budget_are_not_queued() -> None:
    talk = Conversation(unsent=30_000)
    stream = talk.client.call("/s/M", (), None, b"", False)
    talk.step()
    assert talk.server.message(stream, b"x" * 14_000)
    assert not talk.server.message(stream, b"x" * 14_000)
    assert not talk.server.writable(stream)
    talk.step()
    assert talk.server.writable(stream)
    assert talk.server.message(stream, b"x" * 14_000)
    assert not talk.server.respond(stream, b"x" * 14_000)
    talk.server.finish(stream, 0, "")
    events = [event[0] for event in talk.client_events()]
    assert events == [native.HEADERS, native.MESSAGE, native.MESSAGE, native.FINISHED]


def test_stream_beyond_the_most_is_refused_until_the_client_knows_how_many() -> None:
    raw = Raw(streams_max=3)
    raw.hear()
    for stream in (1, 3, 5, 7):
        raw.say(frames.headers(stream, frames.request()))
    assert [(stream, payload) for _, stream, _, payload in raw.hear()] == [
        (7, struct.pack(">I", 7))
    ]
    raw.say(frames.frame(frames.SETTINGS, 0, flags=frames.ACK))
    raw.say(frames.headers(9, frames.request()))
    assert raw.goaway()[0] == 1
    assert raw.session.broken == "request HEADERS: max concurrent streams exceeded"


def test_client_holds_back_what_the_server_does_not_allow() -> None:
    talk = Conversation(server=native.Limits(streams_max=2))
    assert talk.client.peer_streams_max == 2
    assert talk.unary(GET, b"")
    assert talk.unary(GET, b"")
    assert talk.client.call(GET, (), None, b"", True) == 0
    talk.hot[0].get_answer(None)
    talk.step()
    assert talk.unary(GET, b"")


def test_metadata_of_too_many_bytes_ends_the_call() -> None:
    talk = Conversation(server=native.Limits(header_bytes_max=1000))
    talk.unary("/s/M", b"", metadata=(("x", "y" * 2000),))
    assert status_of(*talk.client_events())[0] == 8
    assert talk.server_events() == []
    assert talk.unary("/s/M", b"") > 0
    assert talk.server_events()[0][0] == native.CALL


def test_metadata_without_end_breaks_the_connection() -> None:
    raw = Raw(header_bytes_max=1000)
    raw.say(frames.headers(1, frames.request(), flags=0))
    assert raw.session.in_headers
    for _ in range(9):
        more = frames.block([("x", "y" * 1000)])
        raw.say(frames.frame(frames.CONTINUATION, 1, more))
    assert raw.session.broken == "too_many_header_bytes"
    assert raw.goaway() == (ENHANCE_YOUR_CALM, b"too_many_header_bytes")


def test_continuations_without_end_break_the_connection() -> None:
    raw = Raw()
    raw.say(frames.headers(1, frames.request(), flags=0))
    for _ in range(1000):
        raw.say(frames.frame(frames.CONTINUATION, 1, b""))
    raw.hear()
    assert raw.session.broken is not None
    assert raw.session.finished


def pings() -> Iterator[bytes]:
    while True:
        yield frames.frame(frames.PING, 0, bytes(8))


def settings() -> Iterator[bytes]:
    while True:
        yield frames.frame(frames.SETTINGS, 0)


def empty_data() -> Iterator[bytes]:
    yield frames.headers(1, frames.request())
    while True:
        yield frames.frame(frames.DATA, 1)


def priorities() -> Iterator[bytes]:
    while True:
        yield frames.frame(frames.PRIORITY, 1, struct.pack(">IB", 0, 1))


def window_updates() -> Iterator[bytes]:
    yield frames.headers(1, frames.request())
    while True:
        yield frames.frame(frames.WINDOW, 1, struct.pack(">I", 1))


def padding() -> Iterator[bytes]:
    yield frames.headers(1, frames.request())
    while True:
        yield frames.frame(frames.DATA, 1, b"\x03" + bytes(3), frames.PADDED)


def pongs() -> Iterator[bytes]:
    while True:
        yield frames.frame(frames.PING, 0, bytes(8), frames.ACK)


def unknown_frames() -> Iterator[bytes]:
    # ALTSVC, ORIGIN and PRIORITY_UPDATE are unknown to a server that didn't ask for them.
    for kind in itertools.cycle((0x0A, 0x0C, 0x10, 0x42, 0xFF)):
        yield frames.frame(kind, 0, b"grease" * (kind % 3))


def rapid_resets() -> Iterator[bytes]:
    for stream in range(1, 1 << 20, 2):
        yield frames.headers(stream, frames.request())
        yield frames.frame(frames.RST_STREAM, stream, struct.pack(">I", 8))


def refused_streams() -> Iterator[bytes]:
    for stream in range(1, 1 << 20, 2):
        yield frames.headers(stream, frames.request())


def broken_requests() -> Iterator[bytes]:
    """CVE-2025-8671: calls that make the server reset them."""
    for stream in range(1, 1 << 20, 2):
        yield frames.headers(stream, frames.request("/s/M", ("Upper", "case")))


@pytest.mark.parametrize(
    ("flood", "why", "limit"),
    [
        (pings, "too_many_pings", {"pings_max": 20}),
        (settings, "too_many_settings", {"settings_max": 20}),
        (empty_data, "too_many_empty_frames", {"idle_frames_max": 20}),
        (padding, "too_many_empty_frames", {"idle_frames_max": 20}),
        (pongs, "too_many_idle_frames", {"idle_frames_max": 20}),
        (unknown_frames, "too_many_idle_frames", {"idle_frames_max": 20}),
        (priorities, "too_many_idle_frames", {"idle_frames_max": 20}),
        (window_updates, "too_many_idle_frames", {"idle_frames_max": 20}),
        (rapid_resets, "too_many_resets", {"resets_max": 20}),
        (refused_streams, "too_many_resets", {"resets_max": 20, "streams_max": 3}),
        (broken_requests, "too_many_resets", {"resets_max": 20}),
    ],
)
def test_flood_breaks_the_connection(
    flood: Callable[[], Iterator[bytes]], why: str, limit: dict[str, int]
) -> None:
    raw = Raw(**limit)
    raw.hear()
    said = 0
    for data in itertools.islice(flood(), 100):
        raw.now += 0.0001
        said += 1
        raw.say(data)
        raw.hear() if said % 7 == 0 and raw.session.broken is None else None
        if raw.session.broken is not None:
            break
    assert raw.session.broken == why
    assert said < 60
    assert raw.say(data) == []
    assert raw.goaway() == (ENHANCE_YOUR_CALM, why.encode())
    assert raw.session.finished
    raw.session.close()
    assert (raw.received.used, raw.session.streams) == (0, 0)


def test_a_ping_for_each_answer_is_welcome() -> None:
    raw = Raw(pings_max=2)
    for stream in range(1, 2001, 2):
        raw.say(frames.headers(stream, frames.request()))
        raw.say(frames.frame(frames.DATA, stream, frames.message(b""), frames.END_STREAM))
        raw.hot.pop().get_answer(b"v")
        assert frames.DATA in [kind for kind, *_ in raw.hear()]
        raw.say(frames.frame(frames.PING, 0, bytes(8)))
        assert [kind for kind, *_ in raw.hear()] == [frames.PING]
    raw.say(frames.frame(frames.PING, 0, bytes(8)) * 3)
    assert raw.session.broken == "too_many_pings"


def test_a_few_frames_that_nobody_knows_are_left_alone() -> None:
    raw = Raw()
    for kind in range(10, 256):
        for payload in (b"", b"grease"):
            raw.say(frames.frame(kind, 0, payload))
    raw.say(frames.headers(1, frames.request()))
    raw.say(frames.frame(frames.DATA, 1, frames.message(b""), frames.END_STREAM))
    assert raw.session.broken is None
    assert len(raw.hot) == 1


def test_slow_pings_are_welcome() -> None:
    raw = Raw(pings_max=2)
    for second in range(100):
        raw.now = float(second)
        raw.say(frames.frame(frames.PING, 0, bytes(8)) * 2)
        assert len(raw.hear()) >= 2
    assert raw.session.broken is None


def test_many_calls_in_a_row_are_no_flood() -> None:
    talk = Conversation(server=native.Limits(idle_frames_max=20, resets_max=20))
    for _ in range(500):
        talk.unary(GET, b"")
        talk.hot.pop().get_answer(b"x" * 1000)
        talk.step()
    assert talk.server.broken is None
    assert len(talk.client_events()) == 500


def test_client_may_give_up_many_calls() -> None:
    raw = Raw()
    said = rapid_resets()
    for number in range(20_000):
        raw.now = number * 0.001
        raw.say(next(said))
        raw.hear()
    assert raw.session.broken is None


def test_frames_that_are_not_read_break_the_connection() -> None:
    raw = Raw(streams_max=2, resets_max=1_000_000)
    for stream in range(1, 10_001, 2):
        raw.now += 1
        raw.say(frames.headers(stream, frames.request()))
        if raw.session.broken:
            break
    assert raw.session.broken == "too_many_unread_frames"


def test_forgotten_session_gives_the_budgets_back() -> None:
    talk = Conversation()
    talk.unary(GET, b"")
    talk.unary("/s/M", b"ask")
    call = talk.hot[0]
    talk.client.call("/s/M", (), None, b"x" * 5000, False)
    talk.server.message(3, b"x" * 5000)
    budgets = (talk.received, talk.unsent, talk.client_received, talk.client_unsent)
    assert [budget.used > 0 for budget in budgets] == [True, True, False, True]
    talk.server.owner = talk
    talk.client.owner = talk
    del talk
    gc.collect()
    assert [budget.used for budget in budgets] == [0, 0, 0, 0]
    assert call.session is None
    call.get_answer(b"late")


def test_limits_have_limits() -> None:
    for wrong in (
        {"streams_max": 0},
        {"message_bytes_max": 1 << 31},
        {"window_bytes": 1},
        {"pings_max": 0},
        {"header_bytes_max": 0},
    ):
        with pytest.raises(ValueError):
            native.Limits(**wrong)


def test_others_than_sessions_share_a_budget() -> None:
    budget = native.Budget(1000 << 10)
    assert budget.take(400 << 10, 0, 500 << 10)
    assert budget.used == 400 << 10
    # Beyond half of what is left, what one may have, and any sense.
    assert not budget.take(100 << 10, 400 << 10, 1000 << 10)
    assert not budget.take(200 << 10, 0, 100 << 10)
    assert not budget.take(-1, 0, 100)
    assert budget.used == 400 << 10
    assert budget.take(0, 0, 0)
    for wrong in (-1, (400 << 10) + 1):
        with pytest.raises(ValueError):
            budget.give_back(wrong)
    budget.give_back(400 << 10)
    assert budget.used == 0
