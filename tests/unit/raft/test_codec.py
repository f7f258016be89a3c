"""The bytes of messages and records: there and back, and damaged ones refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    SnapshotMeta,
)
from kvstore.raft.codec import (
    decode_entry,
    decode_hard_state,
    decode_membership,
    decode_message,
    decode_snapshot_meta,
    encode_entry,
    encode_hard_state,
    encode_membership,
    encode_message,
    encode_snapshot_meta,
)

NUMBERS = st.integers(0, (1 << 63) - 1)
POSITIVE = st.integers(1, (1 << 62) - 1)
IDS = st.frozensets(POSITIVE, max_size=9)
KINDS = st.sampled_from(EntryKind)


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    contexts = draw(st.dictionaries(POSITIVE, st.binary(max_size=40), max_size=5))
    return Membership(draw(IDS), draw(IDS), draw(IDS), tuple(sorted(contexts.items())))


MARKS = st.builds(SnapshotMeta, NUMBERS, NUMBERS, memberships())
ENTRIES = st.builds(Entry, POSITIVE, POSITIVE, KINDS, st.binary(max_size=60))
HARD_STATES = st.builds(HardState, NUMBERS, NUMBERS, NUMBERS, st.booleans())


@st.composite
def messages(draw: st.DrawFn) -> Message:
    first = draw(POSITIVE)
    terms = sorted(draw(st.lists(st.integers(1, 1 << 40), max_size=5)))
    entries = [
        Entry(term, first + i, draw(KINDS), draw(st.binary(max_size=30)))
        for i, term in enumerate(terms)
    ]
    return Message(
        draw(st.sampled_from(MessageKind)),
        *(draw(NUMBERS) for _ in range(8)),
        entries,
        draw(st.none() | MARKS),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
    )


CODECS: list[tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]] = [
    (messages(), encode_message, decode_message),
    (ENTRIES, encode_entry, decode_entry),
    (HARD_STATES, encode_hard_state, decode_hard_state),
    (memberships(), encode_membership, decode_membership),
    (MARKS, encode_snapshot_meta, decode_snapshot_meta),
]
NAMES = ["message", "entry", "hard state", "membership", "snapshot mark"]
each_codec = pytest.mark.parametrize(("values", "encode", "decode"), CODECS, ids=NAMES)


@each_codec
@settings(max_examples=60)
@given(data=st.data())
def test_value_comes_back_equal(
    data: st.DataObject, values: Any, encode: Callable[[Any], bytes], decode: Any
) -> None:
    value = data.draw(values)
    back = decode(encode(value))
    if isinstance(value, Message):
        assert (back.kind, back.entries, back.snapshot) == (
            value.kind,
            value.entries,
            value.snapshot,
        )
    assert back == value


@each_codec
@settings(max_examples=60)
@given(data=st.data())
def test_every_truncation_and_extension_is_refused(
    data: st.DataObject, values: Any, encode: Callable[[Any], bytes], decode: Any
) -> None:
    payload = encode(data.draw(values))
    for size in range(len(payload)):
        with pytest.raises(CorruptionError):
            decode(payload[:size])
    with pytest.raises(CorruptionError):
        decode(payload + b"\0")


@each_codec
@settings(max_examples=150)
@given(data=st.data())
def test_mutated_bytes_give_an_error_or_a_value_that_encodes_to_them(
    data: st.DataObject, values: Any, encode: Callable[[Any], bytes], decode: Any
) -> None:
    payload = bytearray(encode(data.draw(values)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = decode(bytes(payload))
    except CorruptionError:
        return
    assert encode(value) == bytes(payload)


@each_codec
@settings(max_examples=100)
@given(noise=st.binary(max_size=200))
def test_random_bytes_give_an_error_or_a_value_that_encodes_to_them(
    noise: bytes, values: Any, encode: Callable[[Any], bytes], decode: Any
) -> None:
    try:
        value = decode(noise)
    except CorruptionError:
        return
    assert encode(value) == noise


@settings(max_examples=200)
@given(message=messages(), data=st.data())
def test_message_with_a_forged_checksum_is_bounded(message: Message, data: st.DataObject) -> None:
    """Whoever can compute a checksum still can't make us take more than is there."""
    body = bytearray(encode_message(message)[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    payload = crc32(body).to_bytes(4, "little") + bytes(body)
    try:
        value = decode_message(payload)
    except CorruptionError:
        return
    assert encode_message(value) == payload


@given(messages(), st.data())
def test_one_flipped_bit_in_a_message_is_a_checksum_mismatch(
    message: Message, data: st.DataObject
) -> None:
    payload = bytearray(encode_message(message))
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptionError) as caught:
        decode_message(bytes(payload))
    assert caught.value.code is IntegrityCode.CHECKSUM_MISMATCH


def test_message_of_a_newer_version_is_named_so() -> None:
    body = bytearray(encode_message(Message(MessageKind.APPEND, 1, 2, 3))[4:])
    body[0] = 2
    with pytest.raises(CorruptionError) as caught:
        decode_message(crc32(body).to_bytes(4, "little") + bytes(body))
    assert caught.value.code is IntegrityCode.UNSUPPORTED_VERSION


def test_entries_cost_their_data_and_twelve_bytes() -> None:
    entries = [Entry(3, 10 + i, EntryKind.COMMAND, b"x" * 100) for i in range(256)]
    message = Message(MessageKind.APPEND, 1, 2, 3, entries=entries)
    assert len(encode_message(message)) == 75 + 8 + 256 * 112
