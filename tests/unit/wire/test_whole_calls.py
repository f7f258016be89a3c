"""Calls that a server's session takes whole: undecoded, with all that came with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.unit.wire.conversation import PATHS, Conversation, native
from tests.unit.wire.stage import Echo, Server, play

UNARY = "/etcdserverpb.KV/Put"
OTHER = "/etcdserverpb.KV/Txn"
STREAM = "/etcdserverpb.Lease/LeaseKeepAlive"
WHOLE = 3


def conversation(unsent: int = 1 << 30) -> Conversation:
    talk = Conversation()
    talk.server = native.ServerSession(
        native.Limits(),
        talk.received,
        native.Budget(unsent),
        PATHS,
        talk.hot,
        {},
        (UNARY, OTHER),
        (STREAM,),
    )
    talk.client = native.ClientSession(
        native.Limits(), talk.client_received, talk.client_unsent, "server.example:7400", "http"
    )
    talk.at_server.clear()
    talk.at_client.clear()
    talk.step()
    talk.at_server.clear()
    return talk


def answers(talk: Conversation) -> list[tuple[int, Any]]:
    return [(event[2], event[3]) for event in talk.client_events() if event[0] == native.ANSWER]


def test_a_call_comes_with_its_message_and_all_its_metadata() -> None:
    talk = conversation()
    metadata = (("token", "t"), ("other-bin", b"\x00\xff"), ("hasleader", "true"))
    talk.unary(OTHER, b"\xff no protobuf", metadata=metadata, timeout_s=5.0)
    (call,) = talk.hot
    assert (call.method, call.message, call.timeout_s) == (WHOLE + 1, b"\xff no protobuf", 5.0)
    assert set(metadata) <= set(call.metadata)
    assert talk.server_events() == []
    assert call.whole_answer(b"answer")
    assert call.answered
    assert answers(talk) == [(0, b"answer")]


def test_decoded_calls_beside_them_keep_their_numbers_and_fields() -> None:
    talk = conversation()
    talk.unary(PATHS[1], b"\x0a\x01k")
    talk.unary(UNARY, b"")
    decoded, whole = talk.hot
    assert (decoded.method, decoded.key) == (native.GET, b"k")
    assert (whole.method, whole.message, native.WHOLE) == (WHOLE, b"", WHOLE)
    assert native.answer_all([decoded, whole], [None, b""], set()) == []
    assert answers(talk) == [(0, b""), (0, b"")]


def test_an_answer_that_is_no_bytes_is_left() -> None:
    talk = conversation()
    for _ in range(4):
        talk.unary(UNARY, b"")
    results = [True, None, KeyError(), b"x"]
    assert native.answer_all([*talk.hot], results, set()) == [0, 1, 2]


def test_a_large_answer_waits_for_room_and_a_small_one_needs_none() -> None:
    talk = conversation(unsent=64 << 10)
    for _ in range(3):
        talk.unary(UNARY, b"")
    calls = [*talk.hot]
    large = bytes(30 << 10)
    assert native.answer_all(calls, [large, large, b"small"], set()) == [1]
    assert not calls[1].answered
    # The client reads, and there is room again.
    assert sorted(len(answer) for _, answer in answers(talk)) == [5, 30 << 10]
    assert native.answer_all(calls[1:2], [large], set()) == []
    assert [len(answer) for _, answer in answers(talk)] == [30 << 10]


def test_a_call_that_was_reset_tells_the_client_nothing() -> None:
    talk = conversation()
    talk.unary(UNARY, b"")
    talk.hot[0].reset()
    ((status, answer),) = answers(talk)
    assert (status != 0, answer) == (True, None)


def test_two_messages_of_a_call_that_has_one_are_refused() -> None:
    talk = conversation()
    stream = talk.client.call(UNARY, (), None, None, False)
    talk.client.message(stream, b"1")
    talk.client.message(stream, b"2")
    talk.client.half_close(stream)
    events = talk.client_events()
    assert talk.hot == []
    assert [event[2] for event in events if event[0] == native.FINISHED] == [12]


def begin_stream(talk: Conversation, *messages: bytes, ends: bool = True) -> int:
    stream = int(talk.client.call(STREAM, (("k", "v"),), 7.0, None, False))
    for message in messages:
        talk.client.message(stream, message)
    if ends:
        talk.client.half_close(stream)
    return stream


def test_a_stream_of_one_message_that_comes_in_one_piece_is_a_call() -> None:
    talk = conversation()
    stream = begin_stream(talk, b"id")
    assert talk.server_events() == []
    (call,) = talk.hot
    assert (call.method, call.message, call.stream) == (WHOLE + 2, b"id", stream)
    assert ("k", "v") in call.metadata
    assert native.answer_all([call], [b"ttl"], set()) == []
    events = talk.client_events()
    assert (native.MESSAGE, stream, b"ttl") in events
    assert [event[2] for event in events if event[0] == native.FINISHED] == [0]


@pytest.mark.parametrize("messages", [(), (b"1",), (b"1", b"2")])
def test_a_stream_that_stays_open_is_events(messages: tuple[bytes, ...]) -> None:
    talk = conversation()
    stream = begin_stream(talk, *messages, ends=False)
    events = talk.server_events()
    assert talk.hot == []
    assert events[0][:4] == (native.CALL, stream, STREAM, 7.0)
    assert ("k", "v") in events[0][4]
    assert [event[2] for event in events[1:]] == [*messages]
    for message in messages:
        talk.server.consumed(stream, len(message))
    assert talk.server.message(stream, b"answer")
    talk.client.message(stream, b"more")
    talk.client.half_close(stream)
    assert talk.server_events() == [
        (native.MESSAGE, stream, b"more"),
        (native.HALF_CLOSED, stream),
    ]
    talk.server.consumed(stream, 4)
    talk.server.finish(stream, 0, "")
    assert (native.MESSAGE, stream, b"answer") in talk.client_events()
    assert talk.server.received_bytes == 0


@pytest.mark.parametrize("messages", [(), (b"1", b"2"), (b"1", b"2", b"3")])
def test_a_stream_of_none_or_several_messages_is_events(messages: tuple[bytes, ...]) -> None:
    talk = conversation()
    stream = begin_stream(talk, *messages)
    events = talk.server_events()
    assert talk.hot == []
    assert [event[0] for event in events] == [
        native.CALL,
        *[native.MESSAGE] * len(messages),
        native.HALF_CLOSED,
    ]
    assert [event[2] for event in events[1:-1]] == [*messages]
    talk.client.cancel(stream)
    assert [event[0] for event in talk.server_events()] == [native.CLOSED]


def test_a_message_in_pieces_makes_a_stream_events() -> None:
    talk = conversation()
    stream = begin_stream(talk, bytes(100))
    data = talk.client.send(1 << 20)
    first = talk.server.receive(data[:-50], 0.0)
    assert [event[0] for event in first] == [native.CALL]
    rest = talk.server.receive(data[-50:], 0.0)
    assert rest == [(native.MESSAGE, stream, bytes(100)), (native.HALF_CLOSED, stream)]
    assert talk.hot == []


def test_a_stream_that_its_client_cancelled_at_once_is_nothing() -> None:
    talk = conversation()
    stream = begin_stream(talk, b"1", ends=False)
    began = talk.client.send(1 << 20)
    talk.client.cancel(stream)
    assert talk.server.receive(began + talk.client.send(1 << 20), 0.0) == []
    assert talk.hot == []
    assert (talk.server.streams, talk.server.received_bytes) == (0, 0)


def test_both_kinds_are_taken_by_their_own_and_what_streams_is_not_counted() -> None:
    decoded: list[bytes] = []
    whole: list[bytes] = []
    counted: Counter[tuple[str, str]] = Counter()

    async def ask(server: Server, address: str, echo: Echo) -> None:
        def take_decoded(calls: list[Any]) -> None:
            decoded.extend(call.key for call in calls)
            assert front.answer(calls, [b"v"] * len(calls)) == []

        def take_whole(calls: list[Any]) -> None:
            whole.extend(call.message for call in calls)
            assert front.answer(calls, [b"whole"] * len(calls)) == []

        server.counter = lambda method, code, _, count: counted.update({(method, code): count})
        front = server.add_hot_methods(PATHS, take_decoded)
        assert server.add_whole_methods((UNARY,), (STREAM,), take_whole) is front
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.gather(
                channel.unary_unary(PATHS[1])(b"\x0a\x01k"), channel.unary_unary(UNARY)(b"put")
            )
        assert server.calls == 0

    play(ask)
    assert (decoded, whole) == ([b"k"], [b"put"])
    assert counted == {(PATHS[1], "OK"): 1, (UNARY, "OK"): 1}


def test_one_whose_answer_has_no_room_may_be_ended_for_that() -> None:
    async def ask(server: Server, address: str, echo: Echo) -> None:
        def take_whole(calls: list[Any]) -> None:
            for call in calls:
                front.refuse_unread(call)

        front = server.add_whole_methods((UNARY,), (), take_whole)
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(UNARY)(b"put")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "nobody has read" in str(refused.value.details())
        assert ("grpc-retry-pushback-ms", "100") in [*(refused.value.trailing_metadata() or ())]
        assert (server.counters.refused_unread, server.calls) == (1, 0)

    play(ask)
