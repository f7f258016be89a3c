"""The keys and bytes of the model's records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import CorruptionError
from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.records import (
    EventRecord,
    LeaseRecord,
    alarm_key,
    attachment_key,
    attachment_prefix,
    decode_alarm_key,
    decode_attachment_key,
    decode_event,
    decode_event_key,
    decode_key,
    decode_lease,
    decode_lease_key,
    encode_event,
    encode_key,
    encode_lease,
    event_key,
    events_prefix,
    lease_key,
)
from kvstore.state.mvcc.requests import FOR_EVER
from tests.unit.state.mvcc.strategies import I64, U64

SEQUENCES = st.integers(1, 2**56 - 1)


@given(st.data(), SEQUENCES, I64, st.binary(max_size=30))
def test_a_key_is_what_was_encoded(
    data: st.DataObject, sequence: int, lease: int, value: bytes
) -> None:
    create = data.draw(st.integers(1, sequence))
    version = data.draw(st.integers(1, 2**63 - 1))
    record = encode_key(create, version, lease, value)
    expected = KeyValue(b"k", create, sequence, version, value, lease)
    assert decode_key(b"k", record, sequence, 0) == expected
    assert encode_key(1, 1, 0, b"v") == b"\x01\x01\0v"


def test_a_record_as_old_as_the_model_is_all_value() -> None:
    assert decode_key(b"k", b"\x80", 5, 5) == KeyValue(b"k", 5, 5, 1, b"\x80", 0)
    with pytest.raises(CorruptionError):
        decode_key(b"k", b"\x80", 6, 5)


@given(I64, I64)
def test_leases_are_stored_in_the_order_of_their_ids(one: int, other: int) -> None:
    assert decode_lease_key(lease_key(one)) == one
    assert (one < other) == (lease_key(one) < lease_key(other))
    assert decode_attachment_key(attachment_key(one, b"\0k")) == (one, b"\0k")
    assert attachment_key(one, b"k") == attachment_prefix(one) + b"k"


@given(SEQUENCES, st.integers(0, 2**32 - 1), st.booleans(), st.binary(min_size=1, max_size=30))
def test_an_event_is_what_was_encoded(
    sequence: int, place: int, is_delete: bool, key: bytes
) -> None:
    assert decode_event_key(event_key(sequence, place)) == (sequence, place)
    assert events_prefix(sequence) <= event_key(sequence, place) < events_prefix(sequence + 1)
    previous = sequence - 1 or 1
    record = encode_event(is_delete, key, previous)
    assert decode_event(record) == EventRecord(is_delete, key, previous)


@given(st.integers(1, 9_000_000_000), st.integers(FOR_EVER, 9_000_000_000), U64, st.integers(0, 9))
def test_leases_and_alarms_are_what_was_encoded(
    ttl: int, rest: int, member: int, kind: int
) -> None:
    lease = LeaseRecord(ttl, rest, member)
    assert decode_lease(encode_lease(lease)) == lease
    assert decode_alarm_key(alarm_key(member, kind)) == (member, kind)


@pytest.mark.parametrize(
    ("decode", "whole"),
    [
        (decode_event_key, event_key(1, 2)),
        (decode_lease_key, lease_key(1)),
        (lambda key: decode_attachment_key(key[:10]), attachment_key(1, b"k")),
        (decode_alarm_key, alarm_key(1, 1)),
        (decode_lease, encode_lease(LeaseRecord(1, FOR_EVER, 5))),
        (lambda record: decode_event(record[:4]), encode_event(True, b"k", 300)),
        (lambda record: decode_key(b"k", record, 9, 0), encode_key(3, 2, 0, b"")),
    ],
)
def test_records_that_were_cut_are_corrupt(decode: Callable[[bytes], object], whole: bytes) -> None:
    decode(whole)
    for size in range(len(whole)):
        with pytest.raises(CorruptionError):
            decode(whole[:size])


@given(st.binary(max_size=30))
def test_arbitrary_records_are_decoded_or_corrupt(record: bytes) -> None:
    decoders: tuple[Callable[[bytes], object], ...] = (
        decode_event,
        decode_event_key,
        decode_lease,
        decode_lease_key,
        decode_attachment_key,
        decode_alarm_key,
        lambda stored: decode_key(b"k", stored, 3, 0),
    )
    for decode in decoders:
        with contextlib.suppress(CorruptionError):
            decode(record)
