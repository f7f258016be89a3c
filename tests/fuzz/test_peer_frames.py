from __future__ import annotations

import contextlib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.v1 import raft_pb2
from kvstore.errors import CorruptionError
from kvstore.raft.messages import Entry, EntryKind, Message, MessageKind
from kvstore.replica.packets import Encoder, SnapshotProgress
from kvstore.server.peers.frames import join, packets_in

GOOD = [
    Message(MessageKind.HEARTBEAT, 2, 1, 3, commit=7, entries=[]),
    Message(
        MessageKind.APPEND, 2, 1, 3, log_index=4, entries=[Entry(3, 5, EntryKind.COMMAND, b"x" * 9)]
    ),
    SnapshotProgress(1, 2, 3, 4, 5),
]
FRAME = join([Encoder().parts(packet) for packet in GOOD])


def test_messages_come_out_as_they_went_in() -> None:
    assert packets_in(FRAME) == GOOD
    assert packets_in(b"") == []


def test_no_cut_of_a_frame_is_taken_for_whole() -> None:
    for end in range(1, len(FRAME)):
        with pytest.raises(CorruptionError):
            packets_in(FRAME[:end])


def test_packets_are_not_taken_from_a_field_that_is_cut() -> None:
    messages = raft_pb2.MessageFrame.FromString(FRAME).messages
    lengths = [len(b"".join(Encoder().parts(packet))) + 4 for packet in GOOD]
    whole = {0, *itertools.accumulate(lengths)}
    for end in range(len(messages) + 1):
        frame = raft_pb2.MessageFrame(messages=messages[:end]).SerializeToString()
        if end in whole:
            assert len(packets_in(frame)) == sorted(whole).index(end)
        else:
            with pytest.raises(CorruptionError):
                packets_in(frame)


@pytest.mark.parametrize("size", [0, 1, 50, 127, 128, 16_383, 16_384, 3 << 20])
def test_a_frame_is_what_protobuf_makes_of_it(size: int) -> None:
    packet = bytes(size)
    messages = len(packet).to_bytes(4, "little") + packet
    frame = raft_pb2.MessageFrame(messages=messages).SerializeToString()
    assert join([(packet[: size // 2], packet[size // 2 :])]) == frame


def test_another_writers_protobuf_is_read_as_well() -> None:
    messages = raft_pb2.MessageFrame.FromString(FRAME).messages
    unknown = b"\x78\x01"  # field 15, a number
    twice = raft_pb2.MessageFrame(messages=b"former").SerializeToString() + FRAME
    long_length = b"\x0a" + bytes((len(messages) & 127 | 128, len(messages) >> 7 | 128, 0))
    for frame in (FRAME + unknown, unknown + FRAME, twice, long_length + messages):
        assert packets_in(frame) == GOOD


def test_no_flipped_bit_goes_unnoticed() -> None:
    envelope = len(FRAME) - len(raft_pb2.MessageFrame.FromString(FRAME).messages)
    for bit in range(len(FRAME) * 8):
        bad = bytearray(FRAME)
        bad[bit // 8] ^= 1 << bit % 8
        if bit < 8 * envelope:
            # Protobuf may take it for a field that nobody knows: then nothing has come.
            with contextlib.suppress(CorruptionError):
                assert packets_in(bytes(bad)) == []
            continue
        with pytest.raises(CorruptionError):
            packets_in(bytes(bad))


@given(st.binary(max_size=200))
def test_bytes_of_a_stranger_give_nothing_but_a_corruption_error(frame: bytes) -> None:
    with contextlib.suppress(CorruptionError):
        packets_in(frame)


def test_mutated_frames_give_an_error_or_the_messages() -> None:
    chance = random.Random(5)
    for _ in range(2000):
        bad = bytearray(FRAME)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(bad))
            match chance.randrange(3):
                case 0:
                    bad[at] = chance.randrange(256)
                case 1:
                    del bad[at : at + chance.randint(1, 8)]
                case _:
                    bad[at:at] = chance.randbytes(chance.randint(1, 8))
            if not bad:
                break
        with contextlib.suppress(CorruptionError):
            assert all(packet in GOOD for packet in packets_in(bytes(bad)))
