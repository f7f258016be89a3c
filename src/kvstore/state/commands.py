"""The bytes of commands: what one Raft entry carries.

An entry holds a batch of commands, all little-endian::

    0   u8   version (2)
    1   u64  time of the log's clock, in milliseconds, below 2^48 (docs/adr/0006)
    9   u32  number of commands
    13  ...  commands, one after the other:
             0   u8   kind (1 put, 2 delete, 3 open a session)
             1   u8   form (0 plain id, 1 plain id that was sent before, 2 session)
             2   16   digest of the request id; of form 2 and kind 3 the session's id
             18  8    fingerprint of kind, key and value; zero for kind 3
             26  u16  key size, 1 to 1,024; 0 for kind 3
             28  u32  value size, 0 to 1,048,576; 0 for all but a put
             32  ...  form 1: u64 time of the log before which it can't have been applied
                      form 2: u64 sequence, u64 floor, 1 to sequence, less than 256 below it
             ..  ...  key, value

While users are asked for, version 4 takes the place of version 2, and between the number of
commands and the first of them stands::

    13  u64  revision of the users, as of which the commands were let in; not 0

The digest stands for the request id from here on: 128 bits of BLAKE2b, so that remembering an id of
4,096 bytes costs no more than one of 16. The log record around the entry has the checksum.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from kvstore._state.native import is_whole
from kvstore.errors import CorruptionError, IntegrityCode

__all__ = [
    "DIGEST_BYTES",
    "KEY_BYTES_MAX",
    "SEQUENCE_MAX",
    "SESSION_BYTES",
    "SESSION_WINDOW",
    "VALUE_BYTES_MAX",
    "Command",
    "CommandKind",
    "check_commands",
    "command_bytes",
    "decode_commands",
    "decode_guard",
    "decode_time",
    "delete_command",
    "encode_commands",
    "open_command",
    "put_command",
    "request_digest",
]

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1_048_576
DIGEST_BYTES = 16
SESSION_BYTES = 16
FINGERPRINT_BYTES = 8
TIME_MAX_MS = (1 << 48) - 1

SESSION_WINDOW = 256
"""A session's sequences from its floor on that may be under way, or remembered, at one time."""

SEQUENCE_MAX = (1 << 63) - 1

_VERSION = 2
_HEAD = struct.Struct("<BQI")
# While users are asked for.
_GUARDED_VERSION = 4
_GUARDED_HEAD = struct.Struct("<BQIQ")
_COMMAND = struct.Struct("<BB16s8sHI")
_SINCE = struct.Struct("<Q")
_SEQUENCE = struct.Struct("<QQ")
_PLAIN, _SENT_BEFORE, _SESSION = range(3)
_NO_FINGERPRINT = bytes(FINGERPRINT_BYTES)


class CommandKind(enum.IntEnum):
    """What a command does."""

    PUT = 1
    DELETE = 2
    OPEN_SESSION = 3


_PUT = int(CommandKind.PUT)
_DELETE = int(CommandKind.DELETE)
_OPEN = int(CommandKind.OPEN_SESSION)


class Command(NamedTuple):
    """One write. ``kind`` is a CommandKind's number; ``fingerprint`` says what it is, in 8 bytes.

    ``request`` is the digest of its id, or with a ``sequence`` its session. ``since``: a retry,
    of a request that can't have been applied before that time of the log's clock; None for a first
    try.
    """

    kind: int
    request: bytes
    fingerprint: bytes
    key: bytes
    value: bytes
    sequence: int = 0
    floor: int = 0
    since: int | None = None


def request_digest(request_id: bytes) -> bytes:
    """The 16 bytes that stand for a request id."""
    return blake2b(request_id, digest_size=DIGEST_BYTES).digest()


def put_command(
    request: bytes, key: bytes, value: bytes, sequence: int = 0, floor: int = 0
) -> Command:
    """Store ``value`` under ``key`` for the request with the digest ``request``."""
    # The key's size keeps (key, value) and (key + part of value, rest) apart.
    digest = blake2b(b"\x01%d:" % len(key), digest_size=FINGERPRINT_BYTES)
    digest.update(key)
    digest.update(value)
    return Command(_PUT, request, digest.digest(), key, value, sequence, floor)


def delete_command(request: bytes, key: bytes, sequence: int = 0, floor: int = 0) -> Command:
    """Remove ``key`` for the request with the digest ``request``."""
    fingerprint = blake2b(b"\x02" + key, digest_size=FINGERPRINT_BYTES).digest()
    return Command(_DELETE, request, fingerprint, key, b"", sequence, floor)


def open_command(session: bytes) -> Command:
    """Open a session under an id that never was one: random bytes of the proposer's."""
    return Command(_OPEN, session, _NO_FINGERPRINT, b"", b"")


def command_bytes(command: Command) -> int:
    """What ``command`` takes in an entry, at most."""
    return _COMMAND.size + _SEQUENCE.size + len(command.key) + len(command.value)


def encode_commands(commands: Sequence[Command], time_ms: int = 0, guard: int = 0) -> bytes:
    """The data of one entry. ``time_ms`` of 0: the log's clock stands.

    ``guard``: the revision of the users as of which all of them were let in, 0 while users aren't
    asked for.
    """
    time_ms = min(time_ms, TIME_MAX_MS)
    if guard:
        parts = [_GUARDED_HEAD.pack(_GUARDED_VERSION, time_ms, len(commands), guard)]
    else:
        parts = [_HEAD.pack(_VERSION, time_ms, len(commands))]
    pack = _COMMAND.pack
    for kind, request, fingerprint, key, value, sequence, floor, since in commands:
        form = _SESSION if sequence else _PLAIN if since is None else _SENT_BEFORE
        parts.append(pack(kind, form, request, fingerprint, len(key), len(value)))
        if sequence:
            parts.append(_SEQUENCE.pack(sequence, floor))
        elif since is not None:
            parts.append(_SINCE.pack(since))
        parts.append(key)
        parts.append(value)
    return b"".join(parts)


def decode_time(data: bytes) -> int:
    """The time of an entry that :func:`decode_commands` takes."""
    time_ms: int = _HEAD.unpack_from(data)[1]
    return time_ms


def decode_guard(data: bytes) -> int:
    """As of which revision of the users an entry's commands were let in; 0 if nobody asked."""
    if data[0] != _GUARDED_VERSION:
        return 0
    guard: int = _GUARDED_HEAD.unpack_from(data)[3]
    return guard


def decode_commands(data: bytes) -> list[Command]:
    """The commands of an entry; raises CorruptionError for anything that encoding can't give."""
    end = len(data)
    if data and data[0] not in (_VERSION, _GUARDED_VERSION):
        raise _bad(IntegrityCode.UNSUPPORTED_VERSION, f"batch of commands of version {data[0]}", 0)
    at = _GUARDED_HEAD.size if data[:1] == bytes([_GUARDED_VERSION]) else _HEAD.size
    if end < at:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "batch of commands cut short", 0)
    _, time_ms, count = _HEAD.unpack_from(data)
    if time_ms > TIME_MAX_MS:
        raise _bad(IntegrityCode.INVALID_RECORD, f"batch of commands of the time {time_ms}", 1)
    if at == _GUARDED_HEAD.size and not decode_guard(data):
        raise _bad(IntegrityCode.INVALID_RECORD, "batch of commands let in as of nothing", 13)
    if count > (end - at) // _COMMAND.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, f"{count} commands don't fit", 9)
    commands = []
    for _ in range(count):
        start = at
        if at + _COMMAND.size > end:
            raise _bad(IntegrityCode.TRUNCATED_RECORD, "command cut short", start)
        kind, form, request, fingerprint, key_bytes, value_bytes = _COMMAND.unpack_from(data, at)
        at += _COMMAND.size
        sequence = floor = 0
        since = None
        if form:
            sequence, floor, since, at = _decode_form(data, form, at, start)
        key_end = at + key_bytes
        value_end = key_end + value_bytes
        if kind in (_PUT, _DELETE):
            if not 0 < key_bytes <= KEY_BYTES_MAX or value_bytes > VALUE_BYTES_MAX:
                raise _bad(IntegrityCode.INVALID_RECORD, "command beyond its limits", start)
            if kind == _DELETE and value_bytes:
                raise _bad(IntegrityCode.INVALID_RECORD, "delete with a value", start)
        elif kind != _OPEN:
            raise _bad(IntegrityCode.INVALID_OPERATION, f"command of kind {kind}", start)
        elif form or key_bytes or value_bytes or fingerprint != _NO_FINGERPRINT:
            raise _bad(IntegrityCode.INVALID_RECORD, "a session opened with more to it", start)
        if value_end > end:
            raise _bad(IntegrityCode.TRUNCATED_RECORD, "command cut short", start)
        commands.append(
            Command(
                kind,
                request,
                fingerprint,
                data[at:key_end],
                data[key_end:value_end],
                sequence,
                floor,
                since,
            )
        )
        at = value_end
    if at != end:
        raise _bad(IntegrityCode.INVALID_RECORD, "bytes after the last command", at)
    return commands


def check_commands(data: bytes) -> None:
    """Raise CorruptionError where :func:`decode_commands` would; makes nothing of them."""
    if not is_whole(data):
        decode_commands(data)  # says what is wrong, and where


def _decode_form(data: bytes, form: int, at: int, start: int) -> tuple[int, int, int | None, int]:
    """Sequence, floor, since, and where the key begins, of a command that isn't of form 0."""
    shape = _SINCE if form == _SENT_BEFORE else _SEQUENCE
    if form not in (_SENT_BEFORE, _SESSION):
        raise _bad(IntegrityCode.INVALID_OPERATION, f"command of form {form}", start)
    if at + shape.size > len(data):
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "command cut short", start)
    if form == _SENT_BEFORE:
        (since,) = _SINCE.unpack_from(data, at)
        return 0, 0, since, at + shape.size
    sequence, floor = _SEQUENCE.unpack_from(data, at)
    if not 0 < floor <= sequence < min(floor + SESSION_WINDOW, SEQUENCE_MAX + 1):
        raise _bad(IntegrityCode.INVALID_RECORD, f"sequence {sequence} of floor {floor}", start)
    return sequence, floor, None, at + shape.size


def _bad(code: IntegrityCode, message: str, offset: int) -> CorruptionError:
    return CorruptionError(message, code=code, path="a log entry", offset=offset)
