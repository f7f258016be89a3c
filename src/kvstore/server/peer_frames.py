"""Many of the core's messages in one frame, and out again.

A frame is, for each message, a u32 length (little-endian) and the message as
``kvstore.raft.codec`` writes it. Each message carries a checksum of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft.codec import decode_message
from kvstore.raft.messages import Message

# Where a frame is closed. One message that is larger still goes, alone.
FRAME_BYTES = 1 << 20

# What a receiver takes at most: the largest proposal, and what the core adds to small ones.
FRAME_BYTES_MAX = 32 << 20

_LENGTH = struct.Struct("<I")


def join(payloads: Sequence[bytes]) -> bytes:
    """One frame of these encoded messages."""
    parts: list[bytes] = []
    for payload in payloads:
        parts += (_LENGTH.pack(len(payload)), payload)
    return b"".join(parts)


def split(frame: bytes) -> list[Message]:
    """The messages in a frame, in order. Raises CorruptionError; none is given then."""
    messages = []
    at, end = 0, len(frame)
    while at < end:
        if at + _LENGTH.size > end:
            raise _short(at)
        (length,) = _LENGTH.unpack_from(frame, at)
        at += _LENGTH.size
        if at + length > end:
            raise _short(at)
        messages.append(decode_message(frame[at : at + length]))
        at += length
    return messages


def _short(at: int) -> CorruptionError:
    return CorruptionError("frame ends early", code=IntegrityCode.TRUNCATED_RECORD, offset=at)
