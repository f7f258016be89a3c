from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import CorruptionError
from kvstore.raft.messages import Entry, EntryKind, Message, MessageKind
from kvstore.replica.packets import SnapshotProgress, encode_packet
from kvstore.server.peers.frames import join, split

GOOD = [
    Message(MessageKind.HEARTBEAT, 2, 1, 3, commit=7, entries=[]),
    Message(
        MessageKind.APPEND, 2, 1, 3, log_index=4, entries=[Entry(3, 5, EntryKind.COMMAND, b"x" * 9)]
    ),
    SnapshotProgress(1, 2, 3, 4, 5),
]
FRAME = join([encode_packet(packet) for packet in GOOD])


def test_messages_come_out_as_they_went_in() -> None:
    assert split(FRAME) == GOOD
    assert split(b"") == []


def test_no_cut_of_a_frame_is_taken_for_whole() -> None:
    whole = {len(join([encode_packet(packet) for packet in GOOD[:count]])) for count in range(3)}
    for end in set(range(len(FRAME))) - whole:
        with pytest.raises(CorruptionError):
            split(FRAME[:end])


def test_no_flipped_bit_goes_unnoticed() -> None:
    for bit in range(len(FRAME) * 8):
        bad = bytearray(FRAME)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError):
            split(bytes(bad))


@given(st.binary(max_size=200))
def test_bytes_of_a_stranger_give_nothing_but_a_corruption_error(frame: bytes) -> None:
    with contextlib.suppress(CorruptionError):
        split(frame)


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
            assert all(packet in GOOD for packet in split(bytes(bad)))
