"""The bytes of commands: what one Raft entry carries.

An entry holds a batch of commands, all little-endian::

    0   u8   version (1)
    1   u32  number of commands
    5   ...  commands, one after the other:
             0   u8   kind (1 put, 2 delete)
             1   16   digest of the request id
             17  16   fingerprint of kind, key and value
             33  u16  key size, 1 to 1,024
             35  u32  value size, 0 to 1,048,576; 0 for a delete
             39  ...  key, value

The digest stands for the request id from here on: 128 bits of BLAKE2b, so that remembering an id of
4,096 bytes costs no more than one of 16. The log record around the entry has the checksum.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from kvstore.errors import CorruptionError, IntegrityCode

__all__ = [
    "DIGEST_BYTES",
    "KEY_BYTES_MAX",
    "VALUE_BYTES_MAX",
    "Command",
    "CommandKind",
    "check_commands",
    "command_bytes",
    "decode_commands",
    "delete_command",
    "encode_commands",
    "put_command",
    "request_digest",
]

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1_048_576
DIGEST_BYTES = 16

_VERSION = 1
_HEAD = struct.Struct("<BI")
_COMMAND = struct.Struct("<B16s16sHI")


class CommandKind(enum.IntEnum):
    """What a command does."""

    PUT = 1
    DELETE = 2


_PUT = int(CommandKind.PUT)
_DELETE = int(CommandKind.DELETE)


class Command(NamedTuple):
    """One write. ``kind`` is a CommandKind's number; ``request`` and ``fingerprint`` digests."""

    kind: int
    request: bytes
    fingerprint: bytes
    key: bytes
    value: bytes


def request_digest(request_id: bytes) -> bytes:
    """The 16 bytes that stand for a request id."""
    return blake2b(request_id, digest_size=DIGEST_BYTES).digest()


def put_command(request: bytes, key: bytes, value: bytes) -> Command:
    """Store ``value`` under ``key`` for the request with the digest ``request``."""
    # The key's size keeps (key, value) and (key + part of value, rest) apart.
    digest = blake2b(b"\x01%d:" % len(key), digest_size=DIGEST_BYTES)
    digest.update(key)
    digest.update(value)
    return Command(_PUT, request, digest.digest(), key, value)


def delete_command(request: bytes, key: bytes) -> Command:
    """Remove ``key`` for the request with the digest ``request``."""
    fingerprint = blake2b(b"\x02" + key, digest_size=DIGEST_BYTES).digest()
    return Command(_DELETE, request, fingerprint, key, b"")


def command_bytes(command: Command) -> int:
    """What ``command`` takes in an entry."""
    return _COMMAND.size + len(command.key) + len(command.value)


def encode_commands(commands: Sequence[Command]) -> bytes:
    """The data of one entry."""
    parts = [_HEAD.pack(_VERSION, len(commands))]
    pack = _COMMAND.pack
    for kind, request, fingerprint, key, value in commands:
        parts.append(pack(kind, request, fingerprint, len(key), len(value)))
        parts.append(key)
        parts.append(value)
    return b"".join(parts)


def decode_commands(data: bytes) -> list[Command]:
    """The commands of an entry; raises CorruptionError for anything that encoding can't give."""
    end = len(data)
    if end < _HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "batch of commands cut short", 0)
    version, count = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise _bad(IntegrityCode.UNSUPPORTED_VERSION, f"batch of commands of version {version}", 0)
    if count > (end - _HEAD.size) // _COMMAND.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, f"{count} commands don't fit", 1)
    at = _HEAD.size
    commands = []
    for _ in range(count):
        start = at
        if at + _COMMAND.size > end:
            raise _bad(IntegrityCode.TRUNCATED_RECORD, "command cut short", start)
        kind, request, fingerprint, key_bytes, value_bytes = _COMMAND.unpack_from(data, at)
        if kind != _PUT and kind != _DELETE:
            raise _bad(IntegrityCode.INVALID_OPERATION, f"command of kind {kind}", start)
        if not 0 < key_bytes <= KEY_BYTES_MAX or value_bytes > VALUE_BYTES_MAX:
            raise _bad(IntegrityCode.INVALID_RECORD, "command beyond its limits", start)
        if kind == _DELETE and value_bytes:
            raise _bad(IntegrityCode.INVALID_RECORD, "delete with a value", start)
        at += _COMMAND.size
        key_end = at + key_bytes
        value_end = key_end + value_bytes
        if value_end > end:
            raise _bad(IntegrityCode.TRUNCATED_RECORD, "command cut short", start)
        commands.append(
            Command(kind, request, fingerprint, data[at:key_end], data[key_end:value_end])
        )
        at = value_end
    if at != end:
        raise _bad(IntegrityCode.INVALID_RECORD, "bytes after the last command", at)
    return commands


def check_commands(data: bytes) -> None:
    """Raise CorruptionError where :func:`decode_commands` would; makes nothing of them."""
    end = len(data)
    if end < _HEAD.size:
        decode_commands(data)
    version, count = _HEAD.unpack_from(data)
    at, size = _HEAD.size, _COMMAND.size
    if version == _VERSION and count <= (end - at) // size:
        unpack = _COMMAND.unpack_from
        for _ in range(count):
            if at + size > end:
                break
            kind, _, _, key_bytes, value_bytes = unpack(data, at)
            if not (
                0 < key_bytes <= KEY_BYTES_MAX
                and (
                    (kind == _PUT and value_bytes <= VALUE_BYTES_MAX)
                    or (kind == _DELETE and not value_bytes)
                )
            ):
                break
            at += size + key_bytes + value_bytes
        else:
            if at == end:
                return
    decode_commands(data)  # says what is wrong, and where


def _bad(code: IntegrityCode, message: str, offset: int) -> CorruptionError:
    return CorruptionError(message, code=code, path="a log entry", offset=offset)
