"""Many packets in one frame, and out again.

A frame is a ``MessageFrame`` of ``raft.proto``. Its one field has, for each packet, a u32 length
(little-endian) and the packet as ``kvstore.replica.packets`` writes it. Each packet carries a
checksum of its own. What protobuf puts around it, a tag and a length, is put and taken away here:
a megabyte isn't copied for that.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from kvstore.api.v1 import raft_pb2
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.replica.packets import Packet, decode_packet

__all__ = ["FRAME_BYTES", "FRAME_BYTES_MAX", "Parts", "join", "packets_in"]

# Where a frame is closed. One packet that is larger still goes, alone.
FRAME_BYTES = 1 << 20

# What a receiver takes at most: the largest proposal, and what the core adds to small ones.
FRAME_BYTES_MAX = 32 << 20

Parts = tuple[bytes, ...]
"""What the bytes of a packet are put together of (``packets.Encoder``)."""

_LENGTH = struct.Struct("<I")

# Of the field ``messages``, bytes.
_TAG = bytes((1 << 3 | 2,))


def join(packets: Sequence[Parts]) -> bytes:
    """A frame of these packets."""
    parts: list[bytes] = [b""]
    size = 0
    for packet in packets:
        length = sum(map(len, packet))
        parts.append(_LENGTH.pack(length))
        parts += packet
        size += _LENGTH.size + length
    if size:
        parts[0] = _TAG + _varint(size)
    return b"".join(parts)


def packets_in(frame: bytes) -> Sequence[Packet]:
    """The packets in a frame, in order. Raises CorruptionError; none is given then."""
    return _split(_messages(frame))


def _messages(frame: bytes) -> memoryview:
    """The field of a MessageFrame."""
    if frame[:1] == _TAG:
        size, at = 0, 1
        for shift in range(0, 35, 7):
            byte = frame[at] if at < len(frame) else 0
            size |= (byte & 127) << shift
            at += 1
            if byte < 128:
                break
        if at + size == len(frame):
            return memoryview(frame)[at:]
    # Some other writer of protobuf, or none.
    try:
        return memoryview(raft_pb2.MessageFrame.FromString(frame).messages)
    except DecodeError as error:
        raise CorruptionError(
            f"frame is no MessageFrame: {error}", code=IntegrityCode.INVALID_RECORD
        ) from error


def _split(messages: memoryview) -> list[Packet]:
    packets = []
    at, end = 0, len(messages)
    while at < end:
        if at + _LENGTH.size > end:
            raise _short(at)
        (length,) = _LENGTH.unpack_from(messages, at)
        at += _LENGTH.size
        if at + length > end:
            raise _short(at)
        packets.append(decode_packet(messages[at : at + length]))
        at += length
    return packets


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _short(at: int) -> CorruptionError:
    return CorruptionError("frame ends early", code=IntegrityCode.TRUNCATED_RECORD, offset=at)
