"""Many packets in one frame, and out again.

A frame is, for each packet, a u32 length (little-endian) and the packet as
``kvstore.replica.packets`` writes it. Each packet carries a checksum of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.replica.packets import Packet, decode_packet

# Where a frame is closed. One packet that is larger still goes, alone.
FRAME_BYTES = 1 << 20

# What a receiver takes at most: the largest proposal, and what the core adds to small ones.
FRAME_BYTES_MAX = 32 << 20

_LENGTH = struct.Struct("<I")


def join(payloads: Sequence[bytes]) -> bytes:
    """One frame of these encoded packets."""
    parts: list[bytes] = []
    for payload in payloads:
        parts += (_LENGTH.pack(len(payload)), payload)
    return b"".join(parts)


def split(frame: bytes) -> list[Packet]:
    """The packets in a frame, in order. Raises CorruptionError; none is given then."""
    packets = []
    at, end = 0, len(frame)
    while at < end:
        if at + _LENGTH.size > end:
            raise _short(at)
        (length,) = _LENGTH.unpack_from(frame, at)
        at += _LENGTH.size
        if at + length > end:
            raise _short(at)
        packets.append(decode_packet(frame[at : at + length]))
        at += length
    return packets


def _short(at: int) -> CorruptionError:
    return CorruptionError("frame ends early", code=IntegrityCode.TRUNCATED_RECORD, offset=at)
