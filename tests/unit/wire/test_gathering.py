"""Calls whose results a client gathers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.api.v1 import kv_pb2
from tests.unit.wire import frames
from tests.unit.wire.conversation import PATHS, Conversation, native
from tests.unit.wire.test_answers import END, OK, RawServer

REQUESTS: tuple[Any, ...] = (kv_pb2.PutRequest, kv_pb2.GetRequest, kv_pb2.DeleteRequest)
ANSWERS: tuple[Any, ...] = (kv_pb2.PutResponse, kv_pb2.GetResponse, kv_pb2.DeleteResponse)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)


def gather(
    client: Any, gathering: Any, place: int, key: bytes = b"k", value: bytes = b"v", **more: Any
) -> int:
    stream: int = client.gather(
        gathering,
        place,
        key,
        value,
        more.get("request_id", "r"),
        more.get("metadata", ()),
        more.get("timeout_s"),
        more.get("now", 0.0),
    )
    return stream


@given(st.sampled_from((0, 1, 2)), st.binary(max_size=300), st.binary(max_size=300), TEXT)
@example(0, b"", b"", "")
@example(0, b"k" * 127, b"v" * 128, "r" * 16_384)
@example(0, b"k", b"v" * (1 << 21), "größe")
def test_requests_are_encoded_as_protobuf_encodes_them(
    method: int, key: bytes, value: bytes, request_id: str
) -> None:
    talk = Conversation()
    gathering = native.Gathering("/s/M", method, [None])
    gather(talk.client, gathering, 0, key, value, request_id=request_id)
    message = talk.server_events()[1][2]
    expected = REQUESTS[method](key=key)
    if method == native.PUT:
        expected.value = value
    if method != native.GET:
        expected.request_id = request_id
    assert message == expected.SerializeToString()


def test_results_come_to_their_places_and_one_event_tells_of_all() -> None:
    talk = Conversation()
    results: list[Any] = ["none yet"] * 4
    puts = native.Gathering(PATHS[0], native.PUT, results)
    gets = native.Gathering(PATHS[1], native.GET, results)
    for place, gathering in enumerate((puts, gets, gets, puts)):
        assert gather(talk.client, gathering, place, timeout_s=2.0)
    talk.step()
    assert [(call.key, call.request_id, call.timeout_s) for call in talk.hot] == [
        (b"k", b"r", 2),
        (b"k", b"", 2),
        (b"k", b"", 2),
        (b"k", b"r", 2),
    ]
    native.answer_all(talk.hot, [True, b"value", None, False], set())
    assert talk.client_events() == [(native.GATHERED, puts), (native.GATHERED, gets)]
    assert results == [True, b"value", None, False]
    assert puts.take() == ([0, 3], [])
    assert gets.take() == ([1, 2], [])
    assert puts.take() == ([], [])
    assert talk.client.streams == 0


def test_failed_calls_are_told_apart() -> None:
    talk = Conversation()
    results: list[Any] = ["none"] * 3
    puts = native.Gathering(PATHS[0], native.PUT, results)
    for place in range(3):
        gather(talk.client, puts, place)
    talk.step()
    talk.hot[1].fail(9, "elsewhere", (("kvstore-leader-hint", "2"),))
    talk.hot[0].put_answer(True)
    talk.step()
    assert puts.take() == ([0], [(1, 9, "elsewhere", (("kvstore-leader-hint", "2"),), False)])
    assert talk.client.close("lost") == [(native.GATHERED, puts)]
    assert puts.take() == ([], [(2, 14, "lost", (), False)])
    assert results == [True, "none", "none"]


def test_late_calls_are_ended() -> None:
    talk = Conversation()
    gets = native.Gathering(PATHS[1], native.GET, [None] * 4)
    others = native.Gathering(PATHS[1], native.GET, [None])
    gather(talk.client, gets, 0, timeout_s=1.0, now=10.0)
    gather(talk.client, gets, 1, timeout_s=5.0, now=10.0)
    gather(talk.client, gets, 2, now=10.0)
    gather(talk.client, others, 0, timeout_s=1.0, now=10.0)
    stream = gather(talk.client, gets, 3, timeout_s=1.0, now=10.0)
    talk.client.cancel(stream)
    talk.step()
    talk.client.expire(gets, 11.0)
    talk.step()
    assert gets.take() == ([], [(0, 4, "the deadline has passed", (), False)])
    assert len(native.living(talk.hot)) == 3
    talk.client.expire(gets, math.inf)
    assert [place for place, *_ in gets.take()[1]] == [2, 1]
    assert talk.client.streams == 3
    talk.step()
    assert talk.client.streams == 1


@given(
    st.sampled_from((0, 1, 2)),
    st.one_of(
        st.builds(
            lambda found, value: kv_pb2.GetResponse(found=found, value=value).SerializeToString(),
            st.booleans(),
            st.binary(max_size=200),
        ),
        st.binary(max_size=20),
    ),
)
@example(1, b"\x12\x01v")
@example(0, b"\x08\x05\x08\x00")
@example(0, b"\x08\x80")
@example(1, b"\x12\x02v")
def test_answers_are_decoded_as_protobuf_decodes_them(method: int, data: bytes) -> None:
    server = RawServer()
    results: list[Any] = ["none"]
    gathering = native.Gathering("/s/M", method, results)
    stream = gather(server.session, gathering, 0)
    server.session.send(1 << 20)
    assert server.say(
        frames.headers(stream, OK)
        + frames.frame(frames.DATA, stream, frames.message(data))
        + frames.headers(stream, [("grpc-status", "0")], flags=END)
    ) == [(native.GATHERED, gathering)]
    try:
        answer = ANSWERS[method].FromString(data)
    except Exception:  # noqa: BLE001 - whatever protobuf says of what it can't read
        assert gathering.take()[1] == [(0, 13, "the answer is not a protobuf message", (), False)]
        assert results == ["none"]
        return
    if method == native.GET:
        assert results == [answer.value if answer.found else None]
    else:
        assert results == [answer.overwritten if method == native.PUT else answer.deleted]


def test_call_without_an_answer_fails() -> None:
    server = RawServer()
    gathering = native.Gathering("/s/M", native.PUT, [None])
    stream = gather(server.session, gathering, 0)
    server.session.send(1 << 20)
    server.say(frames.headers(stream, [*OK, ("grpc-status", "0")], flags=END))
    assert gathering.take() == ([], [(0, 13, "no answer in an answered call", (), False)])


def test_bounds_of_gathered_calls() -> None:
    talk = Conversation(client=native.Limits(streams_max=1))
    gathering = native.Gathering(PATHS[0], native.PUT, [None])
    assert gather(talk.client, gathering, 0)
    assert gather(talk.client, gathering, 0) == 0
    for place in (-1, 1):
        with pytest.raises(IndexError):
            gather(talk.client, gathering, place)
    with pytest.raises(ValueError):
        native.Gathering("no path", native.PUT, [])
    with pytest.raises(ValueError):
        native.Gathering("/s/M", 3, [])
    with pytest.raises(UnicodeEncodeError):
        gather(Conversation().client, native.Gathering(PATHS[0], 0, [None]), 0, request_id="\ud800")


def test_results_that_were_taken_away_are_no_trouble() -> None:
    talk = Conversation()
    results: list[Any] = [None]
    gathering = native.Gathering(PATHS[1], native.GET, results)
    gather(talk.client, gathering, 0)
    results.clear()
    talk.step()
    talk.hot[0].get_answer(b"v")
    talk.step()
    assert gathering.take() == ([0], [])
    assert results == []
