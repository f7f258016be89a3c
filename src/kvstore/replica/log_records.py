"""The records of a member's log that are no entries: their kinds, and whose log it is."""

from __future__ import annotations

import struct
from typing import NamedTuple

from kvstore.errors import CorruptionError, IntegrityCode

__all__ = [
    "HARD_STATE",
    "IDENTITY",
    "MARK",
    "SAID_ONCE",
    "VOID",
    "Identity",
    "decode_identity",
    "decode_index",
    "encode_identity",
    "encode_index",
]

HARD_STATE, MARK, IDENTITY, VOID = 8, 9, 10, 11
"""Their kinds; the table is in storage.py."""

SAID_ONCE = {
    HARD_STATE: "the hard state (term and vote)",
    MARK: "the snapshot mark",
    IDENTITY: "the member's identity",
    VOID: "the note of the last snapshot",
}
_INDEX = struct.Struct("<Q")
_IDENTITY_HEAD = struct.Struct("<BQ")
_IDENTITY_VERSION = 1


class Identity(NamedTuple):
    """Whose records these are: a log is never read as another member's or another cluster's."""

    cluster: str
    member: int


def encode_index(index: int) -> bytes:
    """The payload of a record of kind ``VOID``."""
    return _INDEX.pack(index)


def decode_index(payload: bytes) -> int:
    """What one says. Raises CorruptionError."""
    if len(payload) != _INDEX.size:
        raise CorruptionError("an index of another size", code=IntegrityCode.TRUNCATED_RECORD)
    (index,) = _INDEX.unpack(payload)
    return int(index)


def encode_identity(identity: Identity) -> bytes:
    """The payload of a record of kind ``IDENTITY``."""
    return _IDENTITY_HEAD.pack(_IDENTITY_VERSION, identity.member) + identity.cluster.encode()


def decode_identity(payload: bytes) -> Identity:
    """What one says. Raises CorruptionError."""
    if len(payload) < _IDENTITY_HEAD.size:
        raise CorruptionError("identity cut short", code=IntegrityCode.TRUNCATED_RECORD)
    version, member = _IDENTITY_HEAD.unpack_from(payload)
    if version != _IDENTITY_VERSION:
        raise CorruptionError(
            f"identity of version {version}", code=IntegrityCode.UNSUPPORTED_VERSION
        )
    return Identity(payload[_IDENTITY_HEAD.size :].decode(), member)
