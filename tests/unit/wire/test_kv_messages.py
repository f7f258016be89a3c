"""The native messages of KV, held against protobuf's own."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.api.v1 import kv_pb2
from tests.unit.wire.conversation import PATHS, Conversation, native

REQUESTS: tuple[Any, ...] = (kv_pb2.PutRequest, kv_pb2.GetRequest, kv_pb2.DeleteRequest)


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes(encoded) + bytes((number,))


def field(number: int, kind: int, content: bytes) -> bytes:
    tag = varint(number << 3 | kind)
    return tag + (varint(len(content)) if kind == 2 else b"") + content


NUMBERS = st.one_of(st.integers(1, 4), st.integers(0, 2**29))
FIELDS = st.one_of(
    st.builds(
        field,
        NUMBERS,
        st.just(2),
        st.one_of(st.binary(max_size=20), st.text(max_size=9).map(str.encode)),
    ),
    st.builds(field, NUMBERS, st.just(0), st.integers(0, 2**64 - 1).map(varint)),
    st.builds(field, NUMBERS, st.just(1), st.binary(min_size=8, max_size=8)),
    st.builds(field, NUMBERS, st.just(5), st.binary(min_size=4, max_size=4)),
)
GROUPS = st.recursive(
    FIELDS,
    lambda inner: st.builds(
        lambda number, content: field(number, 3, b"".join(content)) + varint(number << 3 | 4),
        st.integers(1, 5),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)
MESSAGES = st.lists(GROUPS, max_size=6).map(b"".join)
CUT = st.builds(lambda data, at: data[: at % (len(data) + 1)], MESSAGES, st.integers(0, 200))
CHANGED = st.builds(
    lambda data, at, byte: data[:at] + bytes((byte,)) + data[at + 1 :],
    MESSAGES,
    st.integers(0, 40),
    st.integers(0, 255),
)


@given(st.sampled_from((0, 1, 2)), st.one_of(MESSAGES, CUT, CHANGED, st.binary(max_size=40)))
@example(0, field(3, 2, b"\xed\xa0\x80"))
@example(0, field(3, 2, b"\xff") + field(3, 2, b"fine"))
@example(0, field(3, 2, b"12345678\xc3"))
@example(1, field(1, 0, varint(5)))
@example(1, b"\x0a\x02x")
@example(1, b"\x12\x02x")
@example(1, b"\x19" + b"x" * 7)
@example(1, b"\x19" + b"x" * 8)
@example(1, b"\x1d" + b"x" * 3)
@example(1, b"\x1d" + b"x" * 4)
@example(1, b"\x18\x80")
@example(1, b"\x0b\x14")
@example(1, b"\x0b\x0c")
@example(1, b"\x0c")
@example(1, b"\x0b" * 99 + b"\x0c" * 99)
@example(1, b"\x0b" * 100 + b"\x0c" * 100)
@example(1, b"\x0b" * 101 + b"\x0c" * 101)
@example(1, b"\x80\x80\x80\x80\x80\x01")
@example(1, b"\x88\x80\x80\x80\x80\x00\x01")
@example(1, b"\x8a\x80\x80\x80\x00\x01x")
@example(1, b"\x0a\x81\x80\x80\x80\x00x")
@example(1, b"\x0a\xff\xff\xff\xff\x07")
@example(1, b"\x18" + b"\xff" * 9 + b"\x7f")
@example(1, b"\x18" + b"\xff" * 10 + b"\x01")
def test_requests_are_decoded_as_protobuf_decodes_them(method: int, data: bytes) -> None:
    talk = Conversation()
    talk.unary(PATHS[method], data)
    try:
        expected = REQUESTS[method].FromString(data)
    except DecodeError:
        assert talk.hot == []
        ((*_, status, _, details, _, _, _),) = talk.client_events()
        assert (status, details) == (3, "the request is not a protobuf message")
        return
    (call,) = talk.hot
    assert call.key == expected.key
    assert call.value == getattr(expected, "value", b"")
    assert call.request_id == getattr(expected, "request_id", "").encode()


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_large_request_in_pieces(piece: int) -> None:
    request = kv_pb2.PutRequest(key=b"k" * 1024, value=b"v" * 3000, request_id="r" * 4096)
    talk = Conversation()
    talk.client.call(PATHS[0], (), None, request.SerializeToString(), True)
    data = talk.client.send(1 << 20)
    for at in range(0, len(data), piece):
        assert talk.server.receive(memoryview(data)[at : at + piece], 0.0) == []
    (call,) = talk.hot
    assert (call.key, call.value) == (b"k" * 1024, b"v" * 3000)
    assert call.request_id == b"r" * 4096


def answer_of(talk: Conversation) -> bytes:
    ((_, _, status, message, *_),) = talk.client_events()
    assert status == 0
    assert isinstance(message, bytes)
    return message


@given(st.one_of(st.none(), st.binary(max_size=300)))
@example(b"x" * 127)
@example(b"x" * 128)
@example(b"x" * 16383)
@example(b"x" * 16384)
@example(b"x" * (1 << 21))
def test_get_answers_are_encoded_as_protobuf_encodes_them(value: bytes | None) -> None:
    talk = Conversation()
    talk.unary(PATHS[1], b"")
    talk.hot[0].get_answer(value)
    expected = kv_pb2.GetResponse(found=value is not None, value=value or b"")
    assert answer_of(talk) == expected.SerializeToString()


@pytest.mark.parametrize("did", [True, False])
def test_other_answers_are_encoded_as_protobuf_encodes_them(did: bool) -> None:
    talk = Conversation()
    talk.unary(PATHS[0], b"")
    talk.hot.pop().put_answer(did)
    assert answer_of(talk) == kv_pb2.PutResponse(overwritten=did).SerializeToString()
    talk.unary(PATHS[2], b"")
    talk.hot.pop().delete_answer(did)
    assert answer_of(talk) == kv_pb2.DeleteResponse(deleted=did).SerializeToString()


def test_a_batch_is_answered_but_for_what_is_no_result() -> None:
    talk = Conversation()
    talk.server.owner = "connection"
    for path in (PATHS[0], PATHS[1], PATHS[1], PATHS[2], PATHS[0], PATHS[1]):
        talk.unary(path, b"")
    calls = list(talk.hot)
    talk.client.cancel(calls[3].stream)
    talk.step()
    error = KeyError()
    owners: set[Any] = set()
    results = [True, b"value", None, False, error, True]
    assert native.answer_all(calls, results, owners) == [4, 5]
    assert owners == {"connection"}
    answers = {event[1]: event[3] for event in talk.client_events()}
    assert answers == {
        calls[0].stream: kv_pb2.PutResponse(overwritten=True).SerializeToString(),
        calls[1].stream: kv_pb2.GetResponse(found=True, value=b"value").SerializeToString(),
        calls[2].stream: b"",
    }
    with pytest.raises(ValueError):
        native.answer_all(calls, [], owners)
    with pytest.raises(TypeError):
        native.answer_all([None], [None], owners)
    with pytest.raises(TypeError):
        native.living([None])
    assert [call.status for call in calls] == [0, 0, 0, -1, -1, -1]
