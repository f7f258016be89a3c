"""What members send each other, as bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import CorruptionError
from kvstore.raft import Entry, EntryKind, Membership, Message, MessageKind, SnapshotMeta
from kvstore.replica import (
    SnapshotPart,
    SnapshotProgress,
    StateProbe,
    StateReport,
    decode_packet,
    encode_packet,
)
from kvstore.replica.packets import RangeLoan, RangeWish, Verdict
from kvstore.state import Moment, RowsHash

MOMENT = Moment(7, 6, -1, 5)
META = SnapshotMeta(7, 3, Membership(voters=frozenset({1, 2, 3})))
PACKETS = [
    Message(MessageKind.APPEND, 2, 1, 3, entries=[Entry(3, 8, EntryKind.COMMAND, b"data")]),
    Message(MessageKind.SNAPSHOT, 2, 1, 3, snapshot=META, entries=[]),
    SnapshotPart(1, 2, 3, META, 1000, 200, b"some bytes"),
    SnapshotPart(1, 2, 3, META, 0, 0, b""),
    SnapshotProgress(2, 1, 3, 7, 210),
    StateProbe(2, 1, 3, 4, 7, 4096, Verdict.AGREES, b"key"),
    StateProbe(2, 1, 3, 4, 7, 0, Verdict.UNKNOWN, b""),
    StateReport(1, 2, 3, 4, 7, (5, 6), RowsHash(7, 8, b"key")),
    StateReport(1, 2, 3, 4, 7, (5, 6), RowsHash(7, 8, b"")),
    StateReport(1, 2, 3, 4, 7, (5, 6), RowsHash(7, 8, None)),
    StateReport(1, 2, 3, 4, 7, (0, 0), None),
    StateReport(1, 2, 3, 4, 7, None, None),
    RangeWish(2, 1, MOMENT, b"from", b"to"),
    RangeWish(2, 1, MOMENT, b"", b"to"),
    RangeLoan(1, 2, MOMENT, True, b"from", b"to", b"some rows"),
    RangeLoan(1, 2, MOMENT._replace(compacted=3), False, b"", b"to", b""),
]


@pytest.mark.parametrize("packet", PACKETS)
def test_a_packet_is_read_back(packet):
    assert decode_packet(encode_packet(packet)) == packet


@pytest.mark.parametrize("packet", PACKETS)
def test_every_changed_bit_is_found(packet):
    data = encode_packet(packet)
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(CorruptionError):
                decode_packet(bytes(changed))


@pytest.mark.parametrize("packet", PACKETS)
def test_every_truncation_is_found(packet):
    data = encode_packet(packet)
    for size in range(len(data)):
        with pytest.raises(CorruptionError):
            decode_packet(data[:size])


@given(st.binary(max_size=300))
def test_any_bytes_give_a_packet_or_a_corruption_error(data):
    with contextlib.suppress(CorruptionError):
        decode_packet(data)
