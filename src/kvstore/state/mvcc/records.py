"""What the model's records are called in the engine, and their bytes.

| key | value |
|---|---|
| 01 + user key | varint create revision, varint version, zigzag lease, the value |
| 02 + revision u64 BE + place u32 BE | u8 kind, varint previous revision, user key |
| 03 + lease id | u64 BE birth, varint TTL granted, zigzag rest, both in seconds |
| 04 + lease id + user key | nothing: the key is on the lease |
| 05 ... | users and roles |
| 06 + member u64 BE + kind u8 | nothing: the alarm stands |
| 07 ... | members |

A key's mod revision is its record's sequence in the engine. At or below the revision at which the
model was enabled (``model_from``) a record is one of v1: it has no header, the whole of it is the
value. A lease id is stored big-endian with its sign bit turned, so that ids are in the order of
numbers, negative ones too.

An event's kind is 0 for a put, 1 for a delete. Its previous revision is that of the change before
it to the same key, 0 where the key was absent. Its place counts a revision's events from 0.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.varints import (
    I64_MAX,
    append_signed,
    append_varint,
    read_signed,
    read_varint,
)
from kvstore.state.stored import USER

__all__ = [
    "ALARMS",
    "ATTACHMENTS",
    "EVENTS",
    "LEASES",
    "MEMBERS",
    "USER",
    "USERS",
    "EventRecord",
    "LeaseRecord",
    "alarm_key",
    "attachment_key",
    "attachment_prefix",
    "decode_alarm_key",
    "decode_attachment_key",
    "decode_event",
    "decode_event_key",
    "decode_key",
    "decode_lease",
    "decode_lease_key",
    "encode_event",
    "encode_key",
    "encode_lease",
    "event_key",
    "events_prefix",
    "lease_key",
]

EVENTS: Final = b"\x02"
LEASES: Final = b"\x03"
ATTACHMENTS: Final = b"\x04"
USERS: Final = b"\x05"
ALARMS: Final = b"\x06"
MEMBERS: Final = b"\x07"

_EVENT_KEY = struct.Struct(">cQI")
_ID = struct.Struct(">cQ")
_ALARM_KEY = struct.Struct(">cQB")
_BIRTH = struct.Struct(">Q")
_SIGN = 1 << 63
_DELETE = 1


class EventRecord(NamedTuple):
    """One change of one key, without what it became or was."""

    is_delete: bool
    key: bytes
    previous_revision: int


class LeaseRecord(NamedTuple):
    """``ttl``: granted. ``rest``: as last checkpointed, else FOR_EVER. Both in seconds.

    ``birth`` tells it from those that had its id before: see LeaseCheckpoint.
    """

    ttl: int
    rest: int
    birth: int


def encode_key(create_revision: int, version: int, lease: int, value: bytes) -> bytes:
    """The record of a key, to be written at its mod revision."""
    record = bytearray()
    append_varint(record, create_revision)
    append_varint(record, version)
    append_signed(record, lease)
    record += value
    return bytes(record)


def decode_key(key: bytes, record: bytes, sequence: int, model_from: int) -> KeyValue:
    """The user key ``key`` by its record of ``sequence``; raises CorruptionError."""
    if sequence <= model_from:
        return KeyValue(key, sequence, sequence, 1, record, 0)
    create_revision, at = read_varint(record, 0)
    version, at = read_varint(record, at)
    lease, at = read_signed(record, at)
    if not 0 < create_revision <= sequence or not 0 < version <= I64_MAX:
        raise _invalid(f"record at revision {sequence}, created at {create_revision}")
    return KeyValue(key, create_revision, sequence, version, record[at:], lease)


def event_key(revision: int, place: int) -> bytes:
    """The key of an event."""
    return _EVENT_KEY.pack(EVENTS, revision, place)


def events_prefix(revision: int) -> bytes:
    """What the keys of a revision's events begin with: a bound for all at or after it."""
    return _ID.pack(EVENTS, revision)


def decode_event_key(key: bytes) -> tuple[int, int]:
    """Revision and place; raises CorruptionError."""
    if len(key) != _EVENT_KEY.size or key[:1] != EVENTS:
        raise _invalid(f"event's key of {len(key)} bytes")
    _, revision, place = _EVENT_KEY.unpack(key)
    return revision, place


def encode_event(is_delete: bool, key: bytes, previous_revision: int) -> bytes:
    """The record of an event."""
    record = bytearray((is_delete,))
    append_varint(record, previous_revision)
    record += key
    return bytes(record)


def decode_event(record: bytes) -> EventRecord:
    """The event; raises CorruptionError."""
    if not record or record[0] > _DELETE:
        raise _invalid("event of an unknown kind")
    previous_revision, at = read_varint(record, 1)
    if at == len(record) or (record[0] and not previous_revision):
        raise _invalid("event of no key")
    return EventRecord(record[0] == _DELETE, record[at:], previous_revision)


def lease_key(lease: int) -> bytes:
    """The key of a lease's record."""
    return _ID.pack(LEASES, lease + _SIGN)


def decode_lease_key(key: bytes) -> int:
    """The id of the lease; raises CorruptionError."""
    if len(key) != _ID.size or key[:1] != LEASES:
        raise _invalid(f"lease's key of {len(key)} bytes")
    number: int = _ID.unpack(key)[1]
    return number - _SIGN


def encode_lease(lease: LeaseRecord) -> bytes:
    """The record of a lease."""
    record = bytearray(_BIRTH.pack(lease.birth))
    append_varint(record, lease.ttl)
    append_signed(record, lease.rest)
    return bytes(record)


def decode_lease(record: bytes) -> LeaseRecord:
    """The lease; raises CorruptionError."""
    if len(record) < _BIRTH.size:
        raise _invalid("lease cut short")
    ttl, at = read_varint(record, _BIRTH.size)
    rest, at = read_signed(record, at)
    if at != len(record):
        raise _invalid("bytes after a lease")
    return LeaseRecord(ttl, rest, _BIRTH.unpack_from(record)[0])


def attachment_prefix(lease: int) -> bytes:
    """What the keys of a lease's attachments begin with; the rest is the user key."""
    return _ID.pack(ATTACHMENTS, lease + _SIGN)


def attachment_key(lease: int, key: bytes) -> bytes:
    """The key that says that the user key ``key`` is on the lease."""
    return _ID.pack(ATTACHMENTS, lease + _SIGN) + key


def decode_attachment_key(stored_key: bytes) -> tuple[int, bytes]:
    """The id of the lease and the user key; raises CorruptionError."""
    if len(stored_key) <= _ID.size or stored_key[:1] != ATTACHMENTS:
        raise _invalid(f"attachment's key of {len(stored_key)} bytes")
    number: int = _ID.unpack_from(stored_key)[1]
    return number - _SIGN, stored_key[_ID.size :]


def alarm_key(member: int, kind: int) -> bytes:
    """The key that says that an alarm stands."""
    return _ALARM_KEY.pack(ALARMS, member, kind)


def decode_alarm_key(key: bytes) -> tuple[int, int]:
    """Member and kind; raises CorruptionError."""
    if len(key) != _ALARM_KEY.size or key[:1] != ALARMS:
        raise _invalid(f"alarm's key of {len(key)} bytes")
    _, member, kind = _ALARM_KEY.unpack(key)
    return member, kind


def _invalid(message: str) -> CorruptionError:
    return CorruptionError(message, code=IntegrityCode.INVALID_RECORD)
