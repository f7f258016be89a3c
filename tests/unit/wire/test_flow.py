"""Flow control: who may send how much before the other side has read what came."""

from __future__ import annotations

from typing import Any

from tests.unit.wire.conversation import PATHS, Conversation, native

SMALL = {"window_bytes": 65_535, "connection_window_bytes": 65_535}


def received(events: list[tuple[Any, ...]]) -> list[int]:
    return [len(event[2]) for event in events if event[0] == native.MESSAGE]


def test_requests_wait_until_the_ones_before_are_consumed() -> None:
    talk = Conversation(server=native.Limits(**SMALL))
    stream = talk.client.call("/s/M", (), None, None, False)
    for _ in range(40):
        talk.client.message(stream, b"x" * 10_000)
    seen = received(talk.server_events())
    assert 6 <= len(seen) <= 7
    assert not talk.client.writable(stream)
    total = len(seen)
    while total < 40:
        talk.server.consumed(stream, 10_000)
        total += len(received(talk.server_events()))
    assert talk.client.writable(stream)
    assert talk.client_unsent.used == 0


def test_answers_wait_until_the_ones_before_are_consumed() -> None:
    talk = Conversation(client=native.Limits(**SMALL))
    stream = talk.client.call("/s/M", (), None, b"", False)
    talk.step()
    for _ in range(40):
        talk.server.message(stream, b"x" * 10_000)
    total = len(received(talk.client_events()))
    assert 6 <= total <= 7
    # One that always waits doesn't stop those that come after it.
    while total < 40:
        talk.client.consumed(stream, 10_000)
        total += len(received(talk.client_events()))
    assert talk.unsent.used == 0
    assert talk.client.received_bytes > 0


def test_stream_that_nobody_reads_leaves_the_connection_to_others() -> None:
    talk = Conversation(server=native.Limits(**SMALL))
    stuck = talk.client.call("/s/M", (), None, None, False)
    for _ in range(20):
        talk.client.message(stuck, b"x" * 10_000)
    talk.step()
    for _ in range(20):
        talk.unary(PATHS[1], b"\x0a\xff\x3f" + b"k" * 8191)
        talk.hot.pop().get_answer(None)
        talk.step()
    assert len(talk.client_events()) == 20


def test_message_larger_than_every_window_arrives() -> None:
    talk = Conversation(server=native.Limits(**SMALL), client=native.Limits(**SMALL))
    stream = talk.client.call("/s/M", (), None, b"x" * 1_000_000, False)
    assert received(talk.server_events()) == [1_000_000]
    # Though one waits, the next may come, whatever its size, when that is consumed.
    talk.client.message(stream, b"y" * 500_000)
    assert received(talk.server_events()) == []
    talk.server.consumed(stream, 1_000_000)
    assert received(talk.server_events()) == [500_000]
    talk.server.message(stream, b"z" * 700_000)
    assert received(talk.client_events()) == [700_000]


def test_empty_messages_are_bounded_too() -> None:
    talk = Conversation(received=1_000_000)
    stream = talk.client.call("/s/M", (), None, None, False)
    for _ in range(10_000):
        talk.client.message(stream, b"")
    events = talk.server_events()
    assert events[-1][0] == native.CLOSED
    assert 1000 < len(received(events)) < 4000
    assert talk.client_events()[-1][:3] == (native.FINISHED, stream, 8)


def test_consumed_more_than_there_was_does_nothing() -> None:
    talk = Conversation()
    stream = talk.client.call("/s/M", (), None, b"abc", False)
    talk.step()
    for _ in range(5):
        talk.server.consumed(stream, 1 << 30)
    talk.server.consumed(99, 5)
    assert talk.server.received_bytes == talk.received.used >= 0
    assert talk.server.broken is None


def test_send_gives_a_little_at_a_time() -> None:
    talk = Conversation()
    talk.unary(PATHS[1], b"")
    talk.hot[0].get_answer(b"x" * 200_000)
    assert talk.server.send(0) == b""
    pieces = []
    while piece := talk.server.send(1000):
        pieces.append(piece)
    assert talk.server.wants_write is False
    assert max(len(piece) for piece in pieces) <= 1000 + 16_384 + 9
    for piece in pieces:
        talk.at_client += talk.client.receive(piece, 0.0)
    assert len(talk.client_events()) == 1
