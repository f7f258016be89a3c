"""What members send each other: the core's messages, and the parts of snapshots.

On a wire a packet is one byte that says which, and its bytes: a message as kvstore.raft.codec has
it, a part or a progress as below. Little-endian::

    part      u32 CRC-32C of all that follows, u64 sender, to, term, total, offset,
              u32 size of the mark, the mark (codec), the data
    progress  u32 CRC-32C of all that follows, u64 sender, to, term, index, next
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kvstore._engine.primitives.native import crc32c
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import Entry, Message, SnapshotMeta
from kvstore.raft.codec import (
    decode_message,
    decode_snapshot_meta,
    encode_entries,
    encode_message_parts,
    encode_snapshot_meta,
)

__all__ = [
    "HAS_ROOM",
    "NO_ROOM",
    "REFUSED",
    "WANTED",
    "Encoder",
    "Packet",
    "SnapshotPart",
    "SnapshotProgress",
    "Transport",
    "decode_packet",
    "encode_packet",
]

REFUSED = (1 << 64) - 1
"""As ``next`` of a progress: what arrived is damaged and was thrown away."""
NO_ROOM = REFUSED - 1
"""As ``next`` of a progress: the receiver's disk has no room; what arrived was thrown away."""
HAS_ROOM = REFUSED - 2
"""As ``next`` of a progress: there is room by now for the snapshot that found none."""
WANTED = REFUSED - 3
"""As ``next`` of a progress: no answer but a question. Its sender's state is damaged, and it asks
its leader for a snapshot of ``index`` or later. Members that don't know it take no notice."""

_MESSAGE, _PART, _PROGRESS = 1, 2, 3
_MESSAGE_KIND = bytes((_MESSAGE,))
_PART_HEAD = struct.Struct("<QQQQQI")
_PROGRESS_HEAD = struct.Struct("<QQQQQ")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """``data`` is what stands at ``offset`` of the snapshot's ``total`` bytes (snapshots.py)."""

    sender: int
    to: int
    term: int
    meta: SnapshotMeta
    total: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """The receiver of the snapshot ``index`` has everything below ``next``.

    ``next == total`` says that it arrived whole, ``REFUSED`` that it is damaged, ``NO_ROOM`` that
    the receiver's disk is too full for it, ``HAS_ROOM`` that it isn't any more, ``WANTED`` that it
    needs one.
    """

    sender: int
    to: int
    term: int
    index: int
    next: int


Packet = Message | SnapshotPart | SnapshotProgress


class Transport(Protocol):
    """Carries packets to their ``to``. May lose, delay, double and reorder them; never raises."""

    def send(self, packets: Sequence[Packet]) -> None:
        """Take the packets and return at once; drop rather than queue without bound."""


class Encoder:
    """Encodes packets of one moment; entries that go to several members are encoded once."""

    def __init__(self) -> None:
        self._entries: Sequence[Entry] = ()
        self._encoded = b""

    def parts(self, packet: Packet) -> tuple[bytes, ...]:
        """What the bytes of ``packet`` are put together of."""
        if not isinstance(packet, Message):
            return (_encode_of_snapshot(packet),)
        if packet.entries is not self._entries:
            self._encoded = encode_entries(packet.entries)
            self._entries = packet.entries
        return _MESSAGE_KIND, *encode_message_parts(packet, self._encoded)


def encode_packet(packet: Packet) -> bytes:
    """The bytes of a packet."""
    return b"".join(Encoder().parts(packet))


def _encode_of_snapshot(packet: SnapshotPart | SnapshotProgress) -> bytes:
    if isinstance(packet, SnapshotPart):
        mark = encode_snapshot_meta(packet.meta)
        body = (
            _PART_HEAD.pack(
                packet.sender, packet.to, packet.term, packet.total, packet.offset, len(mark)
            )
            + mark
            + packet.data
        )
        return bytes((_PART,)) + _CHECKSUM.pack(crc32c(body)) + body
    body = _PROGRESS_HEAD.pack(packet.sender, packet.to, packet.term, packet.index, packet.next)
    return bytes((_PROGRESS,)) + _CHECKSUM.pack(crc32c(body)) + body


def decode_packet(data: bytes | memoryview) -> Packet:
    """The packet in ``data``, all of it. Raises CorruptionError."""
    if not data:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "empty packet")
    if data[0] == _MESSAGE:
        return decode_message(data[1:])
    if data[0] not in (_PART, _PROGRESS):
        raise _bad(IntegrityCode.INVALID_OPERATION, f"packet of kind {data[0]}")
    if len(data) < 1 + _CHECKSUM.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "packet cut short")
    body = bytes(data[1 + _CHECKSUM.size :])
    if crc32c(body) != _CHECKSUM.unpack_from(data, 1)[0]:
        raise _bad(IntegrityCode.CHECKSUM_MISMATCH, "packet checksum")
    return _decode_part(body) if data[0] == _PART else _decode_progress(body)


def _decode_part(body: bytes) -> SnapshotPart:
    if len(body) < _PART_HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "snapshot part cut short")
    sender, to, term, total, offset, mark_size = _PART_HEAD.unpack_from(body)
    at = _PART_HEAD.size + mark_size
    if at > len(body):
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "snapshot part cut short")
    meta = decode_snapshot_meta(body[_PART_HEAD.size : at])
    data = body[at:]
    if offset + len(data) > total:
        raise _bad(IntegrityCode.INVALID_RECORD, "snapshot part beyond the snapshot's end")
    return SnapshotPart(sender, to, term, meta, total, offset, data)


def _decode_progress(body: bytes) -> SnapshotProgress:
    if len(body) != _PROGRESS_HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "snapshot progress of another size")
    return SnapshotProgress(*_PROGRESS_HEAD.unpack(body))


def _bad(code: IntegrityCode, message: str) -> CorruptionError:
    return CorruptionError(message, code=code, path="a peer's packet")
