"""What members send each other: the core's messages, and the parts of snapshots.

On a wire a packet is one byte that says which, and its bytes: a message as kvstore.raft.codec has
it, a part or a progress as below. Little-endian::

    part      u32 CRC-32C of all that follows, u64 sender, to, term, total, offset,
              u32 size of the mark, the mark (codec), the data
    progress  u32 CRC-32C of all that follows, u64 sender, to, term, index, next
    probe     u32 CRC-32C of all that follows, continued from 4, u64 sender, to, term, round,
              index, u32 bytes, u8 verdict, the first key
    report    u32 CRC-32C of all that follows, continued from 5, u64 sender, to, term, round,
              index, revision, u32 state hash, u32 rows, u32 their hash, u8 told (1 the state,
              2 the rows, 4 there is a next key), the next key
    wish      u32 CRC-32C of all that follows, continued from 6, u64 sender, to, index, revision,
              i64 compacted, u64 keep_from, u32 size of start, start, stop
    loan      u32 CRC-32C of all that follows, continued from 7, the same up to size of start,
              u32 size of stop, u8 given (1) or not (0), start, stop, the part

Probes and reports (comparing.py), and wishes and loans (range_repair.py), are for members that are
known to understand them.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping, Sequence
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
from kvstore.state import Moment, RowsHash

__all__ = [
    "HAS_ROOM",
    "NO_ROOM",
    "REFUSED",
    "WANTED",
    "Encoder",
    "Packet",
    "RangeLoan",
    "RangeWish",
    "SnapshotPart",
    "SnapshotProgress",
    "StateProbe",
    "StateReport",
    "Transport",
    "Verdict",
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

_MESSAGE, _PART, _PROGRESS, _PROBE, _REPORT, _WISH, _LOAN = 1, 2, 3, 4, 5, 6, 7
_MESSAGE_KIND = bytes((_MESSAGE,))
_PART_HEAD = struct.Struct("<QQQQQI")
_PROGRESS_HEAD = struct.Struct("<QQQQQ")
_PROBE_HEAD = struct.Struct("<QQQQQIB")
_REPORT_HEAD = struct.Struct("<QQQQQQIIIB")
_WISH_HEAD = struct.Struct("<QQQQqQI")
_LOAN_HEAD = struct.Struct("<QQQQqQIIB")
# What the checksum begins with: of the later kinds it says which they are.
_SEEDS = {_PART: 0, _PROGRESS: 0, **{kind: kind for kind in (_PROBE, _REPORT, _WISH, _LOAN)}}
_TOLD_STATE, _TOLD_ROWS, _TOLD_NEXT = 1, 2, 4
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


class Verdict(enum.IntEnum):
    """What the leader found of a member's state when it last compared it."""

    UNKNOWN = 0
    AGREES = 1
    DIFFERS = 2
    """From that of a majority."""


@dataclass(frozen=True, slots=True)
class StateProbe:
    """A leader asks for the state after the entry ``index``, and for the hash of the rows from user
    key ``start`` on, of about ``bytes_max`` (0: none). ``round``: each question has a number."""

    sender: int
    to: int
    term: int
    round: int
    index: int
    bytes_max: int
    verdict: Verdict
    start: bytes


@dataclass(frozen=True, slots=True)
class StateReport:
    """The answer. ``state``: hash and revision, None where the state had gone on already; ``rows``:
    None where they were not asked for, or couldn't be read."""

    sender: int
    to: int
    term: int
    round: int
    index: int
    state: tuple[int, int] | None
    rows: RowsHash | None


@dataclass(frozen=True, slots=True)
class RangeWish:
    """A member whose table is damaged wants the rows of [start, stop), or the first part of them,
    of the ``moment`` that it stands at."""

    sender: int
    to: int
    moment: Moment
    start: bytes
    stop: bytes


@dataclass(frozen=True, slots=True)
class RangeLoan:
    """The answer: ``part`` (the engine's range_export.pyx) is all that there is in [start, stop) at
    the moment. Not ``given``: this member can't give any of it."""

    sender: int
    to: int
    moment: Moment
    given: bool
    start: bytes
    stop: bytes
    part: bytes


Packet = (
    Message | SnapshotPart | SnapshotProgress | StateProbe | StateReport | RangeWish | RangeLoan
)


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
            return (_encode_checked(packet),)
        if packet.entries is not self._entries:
            self._encoded = encode_entries(packet.entries)
            self._entries = packet.entries
        return _MESSAGE_KIND, *encode_message_parts(packet, self._encoded)


def encode_packet(packet: Packet) -> bytes:
    """The bytes of a packet."""
    return b"".join(Encoder().parts(packet))


def _encode_checked(
    packet: SnapshotPart | SnapshotProgress | StateProbe | StateReport | RangeWish | RangeLoan,
) -> bytes:
    match packet:
        case SnapshotPart(sender, to, term, meta, total, offset, data):
            mark = encode_snapshot_meta(meta)
            body = _PART_HEAD.pack(sender, to, term, total, offset, len(mark)) + mark + data
            kind = _PART
        case SnapshotProgress(sender, to, term, index, upto):
            body = _PROGRESS_HEAD.pack(sender, to, term, index, upto)
            kind = _PROGRESS
        case StateProbe(sender, to, term, number, index, bytes_max, verdict, start):
            body = _PROBE_HEAD.pack(sender, to, term, number, index, bytes_max, verdict) + start
            kind = _PROBE
        case StateReport():
            body = _encode_report(packet)
            kind = _REPORT
        case RangeWish(sender, to, moment, start, stop):
            body = _WISH_HEAD.pack(sender, to, *moment, len(start)) + start + stop
            kind = _WISH
        case RangeLoan(sender, to, moment, given, start, stop, part):
            body = _LOAN_HEAD.pack(sender, to, *moment, len(start), len(stop), given)
            body += start + stop + part
            kind = _LOAN
    return bytes((kind,)) + _CHECKSUM.pack(crc32c(body, _SEEDS[kind])) + body


def _encode_report(report: StateReport) -> bytes:
    state_hash, revision = report.state or (0, 0)
    rows, crc, next_key = report.rows or (0, 0, None)
    told = (
        _TOLD_STATE * (report.state is not None)
        | _TOLD_ROWS * (report.rows is not None)
        | _TOLD_NEXT * (next_key is not None)
    )
    head = _REPORT_HEAD.pack(
        report.sender,
        report.to,
        report.term,
        report.round,
        report.index,
        revision,
        state_hash,
        rows,
        crc,
        told,
    )
    return head + (next_key or b"")


def decode_packet(data: bytes | memoryview) -> Packet:
    """The packet in ``data``, all of it. Raises CorruptionError."""
    if not data:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "empty packet")
    if data[0] == _MESSAGE:
        return decode_message(data[1:])
    decode = _DECODERS.get(data[0])
    if decode is None:
        raise _bad(IntegrityCode.INVALID_OPERATION, f"packet of kind {data[0]}")
    if len(data) < 1 + _CHECKSUM.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "packet cut short")
    body = bytes(data[1 + _CHECKSUM.size :])
    if crc32c(body, _SEEDS[data[0]]) != _CHECKSUM.unpack_from(data, 1)[0]:
        raise _bad(IntegrityCode.CHECKSUM_MISMATCH, "packet checksum")
    return decode(body)


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


def _decode_probe(body: bytes) -> StateProbe:
    if len(body) < _PROBE_HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "probe of a state cut short")
    sender, to, term, number, index, bytes_max, verdict = _PROBE_HEAD.unpack_from(body)
    if verdict > Verdict.DIFFERS:
        raise _bad(IntegrityCode.INVALID_RECORD, f"probe of a state with verdict {verdict}")
    start = body[_PROBE_HEAD.size :]
    return StateProbe(sender, to, term, number, index, bytes_max, Verdict(verdict), start)


def _decode_report(body: bytes) -> StateReport:
    if len(body) < _REPORT_HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "report of a state cut short")
    head = _REPORT_HEAD.unpack_from(body)
    sender, to, term, number, index, revision, state_hash, rows, crc, told = head
    next_key = body[_REPORT_HEAD.size :]
    if told > _TOLD_STATE | _TOLD_ROWS | _TOLD_NEXT or (next_key and not told & _TOLD_NEXT):
        raise _bad(IntegrityCode.INVALID_RECORD, f"report of a state that tells {told}")
    return StateReport(
        sender,
        to,
        term,
        number,
        index,
        (state_hash, revision) if told & _TOLD_STATE else None,
        RowsHash(rows, crc, next_key if told & _TOLD_NEXT else None) if told & _TOLD_ROWS else None,
    )


def _decode_wish(body: bytes) -> RangeWish:
    if len(body) < _WISH_HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "wish for a range cut short")
    sender, to, *moment, size = _WISH_HEAD.unpack_from(body)
    stop_at = _WISH_HEAD.size + size
    if stop_at > len(body):
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "wish for a range cut short")
    start, stop = body[_WISH_HEAD.size : stop_at], body[stop_at:]
    if not start < stop:
        raise _bad(IntegrityCode.INVALID_RECORD, "wish for an empty range")
    return RangeWish(sender, to, Moment(*moment), start, stop)


def _decode_loan(body: bytes) -> RangeLoan:
    if len(body) < _LOAN_HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "loan of a range cut short")
    sender, to, *moment, start_size, stop_size, given = _LOAN_HEAD.unpack_from(body)
    stop_at = _LOAN_HEAD.size + start_size
    part_at = stop_at + stop_size
    if part_at > len(body):
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "loan of a range cut short")
    start, stop = body[_LOAN_HEAD.size : stop_at], body[stop_at:part_at]
    if given > 1 or not start < stop:
        raise _bad(IntegrityCode.INVALID_RECORD, "loan of no range")
    return RangeLoan(sender, to, Moment(*moment), bool(given), start, stop, body[part_at:])


_DECODERS: Mapping[int, Callable[[bytes], Packet]] = {
    _PART: _decode_part,
    _PROGRESS: _decode_progress,
    _PROBE: _decode_probe,
    _REPORT: _decode_report,
    _WISH: _decode_wish,
    _LOAN: _decode_loan,
}


def _bad(code: IntegrityCode, message: str) -> CorruptionError:
    return CorruptionError(message, code=code, path="a peer's packet")
