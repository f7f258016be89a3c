"""The bytes of a batch of operations."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.mvcc.operations import (
    TXN_DEPTH_MAX,
    decode_operations,
    decode_operations_time,
    encode_operations,
    encode_proposal,
    fingerprint_of,
    is_operations,
    is_whole_operations,
    join_proposals,
    operation_bytes,
)
from kvstore.state.mvcc.requests import (
    Authenticated,
    Compare,
    CompareTarget,
    LeaseGrant,
    Numbered,
    Proposal,
    Put,
    Txn,
)
from tests.unit.state.mvcc.strategies import proposals

ID = bytes(range(16))
batches = st.lists(proposals, max_size=4)


def test_an_entry_is_laid_out_as_documented() -> None:
    data = encode_operations([Proposal(ID, Put(b"key", b"v", -1, prev_kv=True))], 7)
    head = b"\x03" + (7).to_bytes(8, "little") + (1).to_bytes(4, "little")
    assert data == head + ID + b"\0" + b"\x02" + b"\x03key" + b"\x01v" + b"\x01" + b"\x01"
    assert [is_operations(some) for some in (data, b"", b"\x02")] == [True, False, False]
    assert operation_bytes(Put(b"key", b"v", -1, prev_kv=True)) == 9


def test_a_number_stands_before_the_operation() -> None:
    proposal = Proposal(ID, Put(b"k"), None, Numbered(bytes(16), 300, 45))
    assert encode_proposal(proposal)[16:36] == b"\x02" + bytes(16) + b"\xac\x02" + b"\x2d"
    who = Authenticated("me", 1)
    both = encode_proposal(proposal._replace(who=who))
    assert both[16:41] == b"\x03\x02me\x01" + bytes(16) + b"\xac\x02" + b"\x2d" + b"\x02"


def test_a_fingerprint_is_of_all_that_an_operation_says() -> None:
    operations = [Put(b"k"), Put(b"k", b"\0"), Put(b"k", prev_kv=True), Txn((), (Put(b"k"),))]
    assert len({fingerprint_of(operation) for operation in operations}) == len(operations)
    assert fingerprint_of(Put(b"k")) == fingerprint_of(Put(b"k"))


@given(batches, st.integers(0, 2**60))
def test_what_was_encoded_is_decoded(batch: list[Proposal], time_ms: int) -> None:
    data = encode_operations(batch, time_ms)
    assert decode_operations(data) == batch
    assert decode_operations_time(data) == min(time_ms, 2**48 - 1)
    assert join_proposals([encode_proposal(proposal) for proposal in batch], time_ms) == data
    assert is_whole_operations(data)
    for proposal in batch:
        whole = len(encode_proposal(proposal._replace(who=None, request=None)))
        assert operation_bytes(proposal.operation) == whole - 17


@given(batches, st.data())
def test_damaged_bytes_are_refused_or_say_just_what_they_encode(
    batch: list[Proposal], data: st.DataObject
) -> None:
    whole = bytearray(encode_operations(batch, 1))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        bit = data.draw(st.integers(8, 8 * len(whole) - 1))
        whole[bit // 8] ^= 1 << bit % 8
    damaged = bytes(whole)
    with contextlib.suppress(CorruptionError):
        decoded = decode_operations(damaged)
        assert encode_operations(decoded, decode_operations_time(damaged)) == damaged


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_say_just_what_they_encode(tail: bytes) -> None:
    count = min(len(tail), 2)
    data = b"\x03" + bytes(8) + count.to_bytes(4, "little") + bytes(17) + tail
    try:
        decoded = decode_operations(data)
    except CorruptionError:
        assert not is_whole_operations(data)
    else:
        assert encode_operations(decoded, decode_operations_time(data)) == data


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"", IntegrityCode.UNSUPPORTED_VERSION, 0),
        (b"\x02" + bytes(12), IntegrityCode.UNSUPPORTED_VERSION, 0),
        (b"\x03" + bytes(11), IntegrityCode.TRUNCATED_RECORD, 0),
        (b"\x03" + bytes(7) + b"\x01" + bytes(4), IntegrityCode.INVALID_RECORD, 1),
        (b"\x03" + bytes(8) + b"\x01\0\0\0", IntegrityCode.TRUNCATED_RECORD, 9),
        (b"\x03" + bytes(12) + b"x", IntegrityCode.INVALID_RECORD, 13),
        (b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\0\x7f", IntegrityCode.INVALID_OPERATION, 30),
        (b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\0\x01", IntegrityCode.INVALID_OPERATION, 30),
        (b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\x04\x0a", IntegrityCode.INVALID_RECORD, 29),
        (
            b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\x01\x01\xff\0\x0a",
            IntegrityCode.INVALID_RECORD,
            30,
        ),
        (
            b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\0\x05\x80\0",
            IntegrityCode.INVALID_RECORD,
            31,
        ),
        *[
            (
                b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\x02" + ID + number + b"\x0a",
                IntegrityCode.INVALID_RECORD,
                30,
            )
            for number in (b"\x01\0", b"\0\0", b"\x01\x02", b"\x81\x02\x01")
        ],
        (
            b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\0\x16\x04",
            IntegrityCode.UNSUPPORTED_VERSION,
            31,
        ),
    ],
)
def test_corruption_says_what_and_where(data: bytes, code: IntegrityCode, offset: int) -> None:
    with pytest.raises(CorruptionError) as caught:
        decode_operations(data)
    assert (caught.value.code, caught.value.offset) == (code, offset)


def _nested(depth: int) -> Txn:
    txn = Txn()
    for _ in range(depth - 1):
        txn = Txn(success=(txn,))
    return txn


def test_txns_nest_as_deeply_as_the_budget_of_operations_allows() -> None:
    batch = [Proposal(ID, _nested(TXN_DEPTH_MAX))]
    assert decode_operations(encode_operations(batch)) == batch
    with pytest.raises(ValueError, match="too deeply"):
        encode_operations([Proposal(ID, _nested(TXN_DEPTH_MAX + 1))])


def test_a_txn_nested_too_deeply_is_corrupt() -> None:
    inner = b"\x04\0\0\0"
    for _ in range(5_000):
        inner = b"\x04\0\x01" + inner + b"\0"
    data = b"\x03" + bytes(8) + b"\x01\0\0\0" + ID + b"\0" + inner
    with pytest.raises(CorruptionError, match="too deeply"):
        decode_operations(data)


@pytest.mark.parametrize(
    "proposal",
    [
        Proposal(b"short", Put(b"k")),
        Proposal(ID, Put(b"k", lease=2**63)),
        Proposal(ID, LeaseGrant(-(2**63) - 1, 1)),
        Proposal(ID, Txn((Compare(b"k", CompareTarget.VALUE, 0, 1),))),
        Proposal(ID, Txn((Compare(b"k", CompareTarget.MOD, 0, b"x"),))),
        Proposal(ID, object()),  # type: ignore[arg-type]
    ],
)
def test_what_no_entry_can_carry_is_not_encoded(proposal: Proposal) -> None:
    with pytest.raises(ValueError):
        encode_operations([proposal])
