"""The bytes of entries, memberships, hard state and messages.

All integers are little-endian. Every length is checked against what is there before anything is
taken, counts against their bounds; trailing bytes are an error. What came over a network or from
a disk thus gives a value or a CorruptionError, never anything else.

Entry (in a message, and in the log as the replica writes it)::

    0   u64  index
    8   u64  term
    16  u8   kind
    17  u32  length of data
    21  ...  data

Membership::

    0   u8   version (2)
    1   u8 voters, u8 outgoing, u8 learners, u8 contexts, u16 removed    (counts)
    7   u64 ids of each set in turn, ascending, those removed last;
        then per context: u64 id, u16 length, bytes

Hard state::

    0   u64  term
    8   u64  vote
    16  u64  commit
    24  u8   flags (1 damaged)

Snapshot mark::

    0   u64  index
    8   u64  term
    16  ...  membership

Message::

    0   u32  crc32 of all that follows
    4   u8   version (1)
    5   u8   kind
    6   u8   flags (1 reject, 2 forced, 4 damaged, 8 a snapshot follows, 16 ailing)
    7   u64  to, sender, term, log_index, log_term, commit, hint_index, context
    71  u32  number of entries
    75  ...  snapshot mark with u32 length in front, if flagged; then for the entries
             u64 index of the first, and each as: u32 data length with the kind in the top
             two bits, u64 term, data
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from zlib import crc32

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft.membership import CONTEXT_BYTES_MAX, MEMBERS_MAX, REMOVED_MAX
from kvstore.raft.messages import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    SnapshotMeta,
)

__all__ = [
    "ENTRIES_MAX",
    "MESSAGE_BYTES_MAX",
    "decode_entry",
    "decode_hard_state",
    "decode_membership",
    "decode_message",
    "decode_snapshot_meta",
    "encode_entries",
    "encode_entry",
    "encode_hard_state",
    "encode_membership",
    "encode_message",
    "encode_message_parts",
    "encode_snapshot_meta",
]

VERSION = 1
MEMBERSHIP_VERSION = 2
ENTRIES_MAX = 1 << 20
MESSAGE_BYTES_MAX = 64 << 20

_ENTRY = struct.Struct("<QQBI")
_HARD_STATE = struct.Struct("<QQQB")
_MARK = struct.Struct("<QQ")
_COUNTS = struct.Struct("<BBBBBH")
_CONTEXT = struct.Struct("<QH")
_HEAD = struct.Struct("<BBBQQQQQQQQI")
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_FIRST = struct.Struct("<Q")
_MEMBER = struct.Struct("<IQ")

_REJECT, _FORCED, _DAMAGED, _SNAPSHOT, _AILING = 1, 2, 4, 8, 16
_DATA_BITS = 30
_DATA_MASK = (1 << _DATA_BITS) - 1
_KINDS = {int(kind): kind for kind in EntryKind}
_MESSAGE_KINDS = {int(kind): kind for kind in MessageKind}


def _bad(what: str, code: IntegrityCode = IntegrityCode.INVALID_RECORD) -> CorruptionError:
    return CorruptionError(what, code=code)


def _short(what: str) -> CorruptionError:
    return CorruptionError(f"{what} ends early", code=IntegrityCode.TRUNCATED_RECORD)


def encode_entry(entry: Entry) -> bytes:
    """One entry as the bytes above."""
    term, index, kind, data = entry
    return _ENTRY.pack(index, term, kind, len(data)) + data


def decode_entry(payload: bytes) -> Entry:
    """The entry in ``payload``, all of it. Raises CorruptionError."""
    if len(payload) < _ENTRY.size:
        raise _short("entry")
    index, term, kind, length = _ENTRY.unpack_from(payload)
    if kind not in _KINDS:
        raise _bad(f"entry {index} has the unknown kind {kind}")
    if len(payload) != _ENTRY.size + length:
        raise (
            _short(f"entry {index}")
            if len(payload) < _ENTRY.size + length
            else _bad(f"bytes follow entry {index}")
        )
    if not 0 < index < 1 << 63 or not 0 < term < 1 << 63:
        raise _bad(f"entry has index {index} and term {term}")
    return Entry(term, index, _KINDS[kind], bytes(payload[_ENTRY.size :]))


def encode_hard_state(state: HardState) -> bytes:
    """A hard state as the bytes above."""
    return _HARD_STATE.pack(state.term, state.vote, state.commit, _REJECT * state.damaged)


def decode_hard_state(payload: bytes) -> HardState:
    """The hard state in ``payload``. Raises CorruptionError."""
    if len(payload) != _HARD_STATE.size:
        raise (
            _short("hard state")
            if len(payload) < _HARD_STATE.size
            else _bad("bytes follow the hard state")
        )
    term, vote, commit, flags = _HARD_STATE.unpack(payload)
    if flags > 1 or max(term, vote, commit) >= 1 << 63:
        raise _bad("hard state out of range")
    return HardState(term, vote, commit, bool(flags))


def encode_membership(membership: Membership) -> bytes:
    """A membership as the bytes above; equal ones with the same removed give equal bytes."""
    sets = (membership.voters, membership.outgoing, membership.learners)
    removed = membership.removed
    parts = [
        _COUNTS.pack(MEMBERSHIP_VERSION, *map(len, sets), len(membership.contexts), len(removed))
    ]
    for ids in (*sets, removed):
        parts.append(struct.pack(f"<{len(ids)}Q", *sorted(ids)))
    for member, context in membership.contexts:
        parts.append(_CONTEXT.pack(member, len(context)) + context)
    return b"".join(parts)


def decode_membership(payload: bytes) -> Membership:
    """The membership in ``payload``. Raises CorruptionError."""
    if len(payload) < _COUNTS.size:
        raise _short("membership")
    version, *counts, contexts_count, removed_count = _COUNTS.unpack_from(payload)
    if version != MEMBERSHIP_VERSION:
        raise _bad(
            f"membership has version {version}, this program reads {MEMBERSHIP_VERSION}",
            IntegrityCode.UNSUPPORTED_VERSION,
        )
    if max(*counts, contexts_count) > MEMBERS_MAX or removed_count > REMOVED_MAX:
        raise _bad("membership with too many members")
    counts.append(removed_count)
    at = _COUNTS.size
    if len(payload) < at + 8 * sum(counts):
        raise _short("membership")
    sets: list[frozenset[int]] = []
    for count in counts:
        ids = struct.unpack_from(f"<{count}Q", payload, at)
        at += 8 * count
        if not _ascending(ids):
            raise _bad("membership ids are not ascending")
        sets.append(frozenset(ids))
    contexts: list[tuple[int, bytes]] = []
    for _ in range(contexts_count):
        if len(payload) < at + _CONTEXT.size:
            raise _short("membership")
        member, length = _CONTEXT.unpack_from(payload, at)
        at += _CONTEXT.size
        if length > CONTEXT_BYTES_MAX or len(payload) < at + length:
            raise _short("membership")
        contexts.append((member, bytes(payload[at : at + length])))
        at += length
    if at != len(payload):
        raise _bad("bytes follow the membership")
    if not _ascending([member for member, _ in contexts]):
        raise _bad("membership contexts are not ascending")
    return Membership(sets[0], sets[1], sets[2], tuple(contexts), sets[3])


def _ascending(ids: Iterable[int]) -> bool:
    last = 0
    for member in ids:
        if not last < member < 1 << 63:
            return False
        last = member
    return True


def encode_snapshot_meta(snapshot: SnapshotMeta) -> bytes:
    """A snapshot mark as the bytes above."""
    return _MARK.pack(snapshot.index, snapshot.term) + encode_membership(snapshot.membership)


def decode_snapshot_meta(payload: bytes) -> SnapshotMeta:
    """The snapshot mark in ``payload``. Raises CorruptionError."""
    if len(payload) < _MARK.size:
        raise _short("snapshot mark")
    index, term = _MARK.unpack_from(payload)
    if max(index, term) >= 1 << 63:
        raise _bad("snapshot mark out of range")
    return SnapshotMeta(index, term, decode_membership(payload[_MARK.size :]))


def encode_message(message: Message) -> bytes:
    """A message as the bytes above, checksum included."""
    return b"".join(encode_message_parts(message, encode_entries(message.entries)))


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """The end of a message with these entries: the same for all whom they are sent to."""
    if not entries:
        return b""
    parts = [_FIRST.pack(entries[0].index)]
    pack = _MEMBER.pack
    for term, _, kind, data in entries:
        parts.append(pack(kind << _DATA_BITS | len(data), term))
        parts.append(data)
    return b"".join(parts)


def encode_message_parts(message: Message, entries: bytes) -> tuple[bytes, ...]:
    """What a message is put together of. ``entries``: its own, encoded."""
    flags = (
        _REJECT * message.reject
        | _FORCED * message.forced
        | _DAMAGED * message.damaged
        | _SNAPSHOT * (message.snapshot is not None)
        | _AILING * message.ailing
    )
    head = _HEAD.pack(
        VERSION,
        message.kind,
        flags,
        message.to,
        message.sender,
        message.term,
        message.log_index,
        message.log_term,
        message.commit,
        message.hint_index,
        message.context,
        len(message.entries),
    )
    if message.snapshot is not None:
        mark = encode_snapshot_meta(message.snapshot)
        head += _LENGTH.pack(len(mark)) + mark
    return _CHECKSUM.pack(crc32(entries, crc32(head))), head, entries


def decode_message(payload: bytes | memoryview) -> Message:
    """The message in ``payload``, all of it. Raises CorruptionError."""
    size = len(payload)
    if size < _CHECKSUM.size + _HEAD.size:
        raise _short("message")
    if size > MESSAGE_BYTES_MAX:
        raise _bad(f"message of {size} bytes")
    if crc32(memoryview(payload)[_CHECKSUM.size :]) != _CHECKSUM.unpack_from(payload)[0]:
        raise _bad("message", IntegrityCode.CHECKSUM_MISMATCH)
    version, kind, flags, *numbers, count = _HEAD.unpack_from(payload, _CHECKSUM.size)
    if version != VERSION:
        raise _bad(f"message has version {version}", IntegrityCode.UNSUPPORTED_VERSION)
    if kind not in _MESSAGE_KINDS or flags > 31:
        raise _bad(f"message of kind {kind} with flags {flags}", IntegrityCode.INVALID_OPERATION)
    if max(numbers) >= 1 << 63 or count > ENTRIES_MAX:
        raise _bad("message out of range")
    at = _CHECKSUM.size + _HEAD.size
    snapshot = None
    if flags & _SNAPSHOT:
        if size < at + _LENGTH.size:
            raise _short("message")
        length = _LENGTH.unpack_from(payload, at)[0]
        at += _LENGTH.size
        if size < at + length:
            raise _short("message")
        snapshot = decode_snapshot_meta(bytes(payload[at : at + length]))
        at += length
    entries: list[Entry] = []
    if count:
        entries, at = _decode_entries(payload, at, count)
    if at != size:
        raise _bad("bytes follow the message")
    to, sender, term, log_index, log_term, commit, hint_index, context = numbers
    return Message(
        _MESSAGE_KINDS[kind],
        to,
        sender,
        term,
        log_index,
        log_term,
        commit,
        hint_index,
        context,
        entries,
        snapshot,
        bool(flags & _REJECT),
        bool(flags & _FORCED),
        bool(flags & _DAMAGED),
        bool(flags & _AILING),
    )


def _decode_entries(payload: bytes | memoryview, at: int, count: int) -> tuple[list[Entry], int]:
    size = len(payload)
    if size < at + _FIRST.size + count * _MEMBER.size:
        raise _short("message")
    first = _FIRST.unpack_from(payload, at)[0]
    if not 0 < first < (1 << 63) - count:
        raise _bad("entries out of range")
    at += _FIRST.size
    entries: list[Entry] = []
    last_term = 1
    unpack = _MEMBER.unpack_from
    for index in range(first, first + count):
        if size < at + _MEMBER.size:
            raise _short("message")
        word, term = unpack(payload, at)
        kind = _KINDS.get(word >> _DATA_BITS)
        length = word & _DATA_MASK
        at += _MEMBER.size
        if kind is None or not last_term <= term < 1 << 63:
            raise _bad(f"entry {index} with kind {word >> _DATA_BITS} and term {term}")
        if size < at + length:
            raise _short("message")
        last_term = term
        entries.append(Entry(term, index, kind, bytes(payload[at : at + length])))
        at += length
    return entries, at
