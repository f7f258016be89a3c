"""The datagram of a pulse, and of its answer.

All numbers are little-endian:

    offset  bytes  what
    0       3      "kvp"
    3       1      version: 1
    4       1      kind: 1 pulse of a leader, 2 answer to one
    5       3      0
    8       8      member that sends it
    16      8      member that it is for
    24      8      term
    32      8      sequence: grows with each datagram from the one to the other
    40      16     the first half of HMAC-SHA256 over the 40 bytes before it

The key is the one that the sender told the receiver in its introduction: nobody else knows it.
"""

from __future__ import annotations

import enum
import hmac
import struct
from typing import NamedTuple

__all__ = ["DATAGRAM_BYTES", "KEY_BYTES", "Kind", "Pulse", "decode", "encode", "is_authentic"]

KEY_BYTES = 32

_FIELDS = struct.Struct("<3sBB3xQQQQ")
_MAGIC = b"kvp"
_VERSION = 1
_MAC_BYTES = 16
DATAGRAM_BYTES = _FIELDS.size + _MAC_BYTES


class Kind(enum.IntEnum):
    """What a datagram says."""

    PULSE = 1
    ANSWER = 2


_KINDS = frozenset(Kind)


class Pulse(NamedTuple):
    """One datagram; who sends it is only said until :func:`is_authentic`."""

    kind: int
    sender: int
    receiver: int
    term: int
    sequence: int


def encode(pulse: Pulse, key: bytes) -> bytes:
    """The datagram."""
    kind, sender, receiver, term, sequence = pulse
    fields = _FIELDS.pack(_MAGIC, _VERSION, kind, sender, receiver, term, sequence)
    return fields + _mac(fields, key)


def decode(datagram: bytes) -> Pulse | None:
    """What a datagram says, whoever sent it; None for one that is no pulse."""
    if len(datagram) != DATAGRAM_BYTES:
        return None
    magic, version, *fields = _FIELDS.unpack_from(datagram)
    pulse = Pulse(*fields)
    if magic != _MAGIC or version != _VERSION or pulse.kind not in _KINDS:
        return None
    return pulse


def is_authentic(datagram: bytes, key: bytes) -> bool:
    """Whether who made ``datagram``, which :func:`decode` took, knows ``key``."""
    fields = datagram[: _FIELDS.size]
    return hmac.compare_digest(datagram[_FIELDS.size :], _mac(fields, key))


def _mac(fields: bytes, key: bytes) -> bytes:
    return hmac.digest(key, fields, "sha256")[:_MAC_BYTES]
