"""The bytes of operations: what one Raft entry of the model carries.

An entry holds a batch of proposals, its head little-endian::

    0   u8   version (3)
    1   u64  time of the log's clock, in milliseconds, below 2^48 (docs/adr/0006)
    9   u32  number of proposals
    13  ...  proposals, one after the other:
             16 bytes  id
             u8        bits: 1 where it says who asked, 2 where a session numbered it
             of who    the user's name, varint revision of the users
             of the    16 bytes of the session, varint sequence, varint floor, 1 to sequence, less
             session   than 256 below it
             u8        kind of the operation
             ...       its fields

Fields stand in the order of the tuples of :mod:`kvstore.state.mvcc.requests`: numbers as zigzag
varints (terms, births, members' ids and revisions of users as plain ones), bytes with a varint of
their size before them, names as the bytes of their UTF-8, an operation's booleans as bits of one
byte at its end, the first the lowest. A list has a varint of its length before it; the operations
of a Txn have their kinds. An operand is bytes where the target is VALUE, else a number.

The log record around the entry has the checksum. Only what encoding gives is read.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.commands import SEQUENCE_MAX, SESSION_BYTES, SESSION_WINDOW
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    LEVEL_MODEL,
    Alarm,
    AuthDisable,
    AuthEnable,
    Authenticated,
    AuthOperation,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Numbered,
    Operation,
    Permission,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    Txn,
    TxnOperation,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)
from kvstore.state.mvcc.varints import append_signed, append_varint, read_signed, read_varint

__all__ = [
    "PROPOSAL_ID_BYTES",
    "TXN_DEPTH_MAX",
    "decode_operations",
    "decode_operations_time",
    "encode_operations",
    "encode_proposal",
    "fingerprint_of",
    "is_operations",
    "is_whole_operations",
    "join_proposals",
    "operation_bytes",
]

PROPOSAL_ID_BYTES: Final = 16

TXN_DEPTH_MAX: Final = 129
"""Of Txns in each other: the budget of 128 operations falls by one or more with each of them."""

_VERSION = 3
_FIRST_BYTE = bytes([_VERSION])
_HEAD = struct.Struct("<BQI")
_TIME_MAX_MS = (1 << 48) - 1
_PROPOSAL_BYTES_MIN = PROPOSAL_ID_BYTES + 2
_VALUE = int(CompareTarget.VALUE)
_WHO, _NUMBERED = 1, 2


class _Kind(enum.IntEnum):
    RANGE = 1
    PUT = 2
    DELETE_RANGE = 3
    TXN = 4
    COMPACT = 5
    LEASE_GRANT = 6
    LEASE_REVOKE = 7
    LEASE_CHECKPOINT = 8
    ALARM = 9
    ENABLE_MODEL = 10
    AUTH_ENABLE = 11
    AUTH_DISABLE = 12
    USER_ADD = 13
    USER_DELETE = 14
    USER_CHANGE_PASSWORD = 15
    USER_GRANT_ROLE = 16
    USER_REVOKE_ROLE = 17
    ROLE_ADD = 18
    ROLE_DELETE = 19
    ROLE_GRANT_PERMISSION = 20
    ROLE_REVOKE_PERMISSION = 21
    RAISE_LEVEL = 22


_RANGE, _PUT, _DELETE_RANGE, _TXN = (
    int(kind) for kind in (_Kind.RANGE, _Kind.PUT, _Kind.DELETE_RANGE, _Kind.TXN)
)

# What changes users and roles, and the types of its fields.
_AUTH: Final[tuple[tuple[_Kind, Any, tuple[type, ...]], ...]] = (
    (_Kind.AUTH_ENABLE, AuthEnable, (bytes,)),
    (_Kind.AUTH_DISABLE, AuthDisable, ()),
    (_Kind.USER_ADD, UserAdd, (str, bytes)),
    (_Kind.USER_DELETE, UserDelete, (str,)),
    (_Kind.USER_CHANGE_PASSWORD, UserChangePassword, (str, bytes)),
    (_Kind.USER_GRANT_ROLE, UserGrantRole, (str, str)),
    (_Kind.USER_REVOKE_ROLE, UserRevokeRole, (str, str)),
    (_Kind.ROLE_ADD, RoleAdd, (str,)),
    (_Kind.ROLE_DELETE, RoleDelete, (str,)),
    (_Kind.ROLE_GRANT_PERMISSION, RoleGrantPermission, (str, Permission)),
    (_Kind.ROLE_REVOKE_PERMISSION, RoleRevokePermission, (str, bytes, bytes)),
)
_AUTH_KINDS: Final = {made: kind for kind, made, _ in _AUTH}
_AUTH_FIELDS: Final = {kind: (made, fields) for kind, made, fields in _AUTH}


def is_operations(data: bytes) -> bool:
    """Whether an entry's data is, or pretends to be, of operations rather than v1's commands."""
    return data[:1] == _FIRST_BYTE


def is_whole_operations(data: bytes) -> bool:
    """Whether :func:`decode_operations` takes ``data``."""
    try:
        decode_operations(data)
    except CorruptionError:
        return False
    return True


def operation_bytes(operation: Operation) -> int:
    """What ``operation`` takes in an entry, without its id and who asked."""
    target = bytearray()
    _append_operation(target, operation, 1)
    return len(target)


def encode_operations(proposals: Iterable[Proposal], time_ms: int = 0) -> bytes:
    """The data of one entry. ``time_ms`` of 0: the log's clock stands."""
    return join_proposals([encode_proposal(proposal) for proposal in proposals], time_ms)


def join_proposals(encoded: Sequence[bytes], time_ms: int = 0) -> bytes:
    """The same, of proposals that :func:`encode_proposal` made bytes of."""
    head = _HEAD.pack(_VERSION, min(time_ms, _TIME_MAX_MS), len(encoded))
    return b"".join((head, *encoded))


def encode_proposal(proposal: Proposal) -> bytes:
    """One proposal as it stands in an entry: for whoever sends it on before it has a place there.

    Raises ValueError for numbers of more than 64 bits and for Txns nested too deeply.
    """
    proposal_id, operation, who, request = proposal
    if len(proposal_id) != PROPOSAL_ID_BYTES:
        raise ValueError(f"a proposal's id of {len(proposal_id)} bytes")
    target = bytearray(proposal_id)
    target.append((who is not None and _WHO) | (request is not None and _NUMBERED))
    if who is not None:
        _append_bytes(target, who.user.encode())
        append_varint(target, who.auth_revision)
    if request is not None:
        target += request.session
        append_varint(target, request.sequence)
        append_varint(target, request.floor)
    _append_operation(target, operation, 1)
    return bytes(target)


def fingerprint_of(operation: Operation) -> bytes:
    """8 bytes that say what an operation is; those of v1's commands are others."""
    target = bytearray(b"\x03")
    _append_operation(target, operation, 1)
    return blake2b(target, digest_size=8).digest()


def _append_bytes(target: bytearray, value: bytes) -> None:
    append_varint(target, len(value))
    target += value


def _append_operation(target: bytearray, operation: Operation | Range, depth: int) -> None:
    match operation:
        case Put(key, value, lease, prev_kv, ignore_value, ignore_lease):
            target.append(_PUT)
            _append_bytes(target, key)
            _append_bytes(target, value)
            append_signed(target, lease)
            target.append(prev_kv | ignore_value << 1 | ignore_lease << 2)
        case Txn(compare, success, failure):
            if depth > TXN_DEPTH_MAX:
                raise ValueError("Txns nested too deeply")
            target.append(_TXN)
            append_varint(target, len(compare))
            for condition in compare:
                _append_compare(target, condition)
            for branch in (success, failure):
                append_varint(target, len(branch))
                for nested in branch:
                    _append_operation(target, nested, depth + 1)
        case Range():
            _append_range(target, operation)
        case DeleteRange(key, range_end, prev_kv):
            target.append(_DELETE_RANGE)
            _append_bytes(target, key)
            _append_bytes(target, range_end)
            target.append(prev_kv)
        case _:
            _append_other(target, operation)


def _append_other(target: bytearray, operation: Operation) -> None:
    match operation:
        case Compact(revision):
            target.append(_Kind.COMPACT)
            append_signed(target, revision)
        case LeaseGrant(lease, ttl):
            target.append(_Kind.LEASE_GRANT)
            append_signed(target, lease)
            append_signed(target, ttl)
        case LeaseRevoke(lease, term, birth):
            target.append(_Kind.LEASE_REVOKE)
            append_signed(target, lease)
            append_varint(target, term)
            append_varint(target, birth)
        case LeaseCheckpoint(term, rests):
            target.append(_Kind.LEASE_CHECKPOINT)
            append_varint(target, term)
            append_varint(target, len(rests))
            for lease, birth, rest in rests:
                append_signed(target, lease)
                append_varint(target, birth)
                append_signed(target, rest)
        case Alarm(action, member, kind):
            target.append(_Kind.ALARM)
            append_signed(target, action)
            append_varint(target, member)
            append_signed(target, kind)
        case EnableModel():
            target.append(_Kind.ENABLE_MODEL)
        case RaiseLevel(level):
            target.append(_Kind.RAISE_LEVEL)
            append_varint(target, level)
        case _ if type(operation) in _AUTH_KINDS:
            target.append(_AUTH_KINDS[type(operation)])
            for field in operation:
                _append_auth_field(target, field)  # type: ignore[arg-type]  # no other has these
        case _:
            raise ValueError(f"no operation: {type(operation).__name__}")


def _append_auth_field(target: bytearray, field: bytes | str | Permission) -> None:
    if isinstance(field, Permission):
        kind, key, range_end = field
        append_signed(target, kind)
        _append_bytes(target, key)
        _append_bytes(target, range_end)
    else:
        _append_bytes(target, field.encode() if isinstance(field, str) else field)


def _append_range(target: bytearray, operation: Range) -> None:
    key, range_end, *numbers = operation
    keys_only, count_only = numbers[4:6]
    target.append(_RANGE)
    _append_bytes(target, key)
    _append_bytes(target, range_end)
    for number in (*numbers[:4], *numbers[6:]):
        append_signed(target, number)
    target.append(keys_only | count_only << 1)


def _append_compare(target: bytearray, condition: Compare) -> None:
    key, compared, result, operand, range_end = condition
    _append_bytes(target, key)
    append_signed(target, compared)
    append_signed(target, result)
    if isinstance(operand, bytes):
        if compared != _VALUE:
            raise ValueError("an operand of bytes where a number is compared")
        _append_bytes(target, operand)
    else:
        if compared == _VALUE:
            raise ValueError("an operand that is a number where bytes are compared")
        append_signed(target, operand)
    _append_bytes(target, range_end)


def decode_operations_time(data: bytes) -> int:
    """The time of an entry that :func:`decode_operations` takes."""
    time_ms: int = _HEAD.unpack_from(data)[1]
    return time_ms


def decode_operations(data: bytes) -> list[Proposal]:
    """The proposals of an entry; raises CorruptionError for anything that encoding can't give."""
    if not is_operations(data):
        raise _bad(IntegrityCode.UNSUPPORTED_VERSION, f"operations of version {data[:1].hex()}", 0)
    if len(data) < _HEAD.size:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, "batch of operations cut short", 0)
    _, time_ms, count = _HEAD.unpack_from(data)
    if time_ms > _TIME_MAX_MS:
        raise _bad(IntegrityCode.INVALID_RECORD, f"operations of the time {time_ms}", 1)
    if count > (len(data) - _HEAD.size) // _PROPOSAL_BYTES_MIN:
        raise _bad(IntegrityCode.TRUNCATED_RECORD, f"{count} proposals don't fit", 9)
    reader = _Reader(data, _HEAD.size)
    proposals = [reader.proposal() for _ in range(count)]
    if reader.at != len(data):
        raise _bad(IntegrityCode.INVALID_RECORD, "bytes after the last operation", reader.at)
    return proposals


class _Reader:
    """Takes an entry's fields one after the other. ``at``: where the next one begins."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def proposal(self) -> Proposal:
        proposal_id = self._take(PROPOSAL_ID_BYTES)
        bits = self._bits(2)
        who = self._who() if bits & _WHO else None
        request = self._numbered() if bits & _NUMBERED else None
        kind = self._take(1)[0]
        if kind == _RANGE:
            raise self._error(IntegrityCode.INVALID_OPERATION, "a Range on its own")
        operation = self._operation(kind, 1)
        assert not isinstance(operation, Range)
        return Proposal(proposal_id, operation, who, request)

    def _who(self) -> Authenticated:
        return Authenticated(self._name(), self._varint())

    def _name(self) -> str:
        start = self.at
        try:
            return self._bytes().decode()
        except UnicodeDecodeError:
            raise _bad(IntegrityCode.INVALID_RECORD, "a name isn't UTF-8", start) from None

    def _numbered(self) -> Numbered:
        start = self.at
        request = Numbered(self._take(SESSION_BYTES), self._varint(), self._varint())
        _, sequence, floor = request
        if not 0 < floor <= sequence < min(floor + SESSION_WINDOW, SEQUENCE_MAX + 1):
            raise _bad(IntegrityCode.INVALID_RECORD, f"sequence {sequence} of floor {floor}", start)
        return request

    def _operation(self, kind: int, depth: int) -> Operation | Range:
        if kind == _PUT:
            key, value, lease = self._bytes(), self._bytes(), self._signed()
            bits = self._bits(3)
            return Put(key, value, lease, bool(bits & 1), bool(bits & 2), bool(bits & 4))
        if kind == _TXN:
            return self._txn(depth)
        if kind == _RANGE:
            return self._range()
        if kind == _DELETE_RANGE:
            return DeleteRange(self._bytes(), self._bytes(), bool(self._bits(1)))
        return self._other(kind)

    def _other(self, kind: int) -> Operation:
        match kind:
            case _Kind.COMPACT:
                return Compact(self._signed())
            case _Kind.LEASE_GRANT:
                return LeaseGrant(self._signed(), self._signed())
            case _Kind.LEASE_REVOKE:
                return LeaseRevoke(self._signed(), self._varint(), self._varint())
            case _Kind.LEASE_CHECKPOINT:
                term, count = self._varint(), self._count(3)
                return LeaseCheckpoint(
                    term,
                    tuple([(self._signed(), self._varint(), self._signed()) for _ in range(count)]),
                )
            case _Kind.ALARM:
                return Alarm(self._signed(), self._varint(), self._signed())
            case _Kind.ENABLE_MODEL:
                return EnableModel()
            case _Kind.RAISE_LEVEL:
                return RaiseLevel(self._level())
        if kind not in _AUTH_FIELDS:
            raise self._error(IntegrityCode.INVALID_OPERATION, f"operation of kind {kind}")
        made, fields = _AUTH_FIELDS[_Kind(kind)]
        operation: AuthOperation = made(*[self._auth_field(field) for field in fields])
        return operation

    def _auth_field(self, field: type) -> bytes | str | Permission:
        if field is Permission:
            return Permission(self._signed(), self._bytes(), self._bytes())
        return self._name() if field is str else self._bytes()

    def _level(self) -> int:
        level = self._varint()
        if not LEVEL_MODEL <= level <= LEVEL_ACCUSES:
            raise self._error(IntegrityCode.UNSUPPORTED_VERSION, f"a state of level {level}")
        return level

    def _range(self) -> Range:
        key, range_end = self._bytes(), self._bytes()
        signed = self._signed
        limit, revision, order, target = signed(), signed(), signed(), signed()
        bounds = signed(), signed(), signed(), signed()
        bits = self._bits(2)
        return Range(
            key, range_end, limit, revision, order, target, bool(bits & 1), bool(bits & 2), *bounds
        )

    def _txn(self, depth: int) -> Txn:
        if depth > TXN_DEPTH_MAX:
            raise self._error(IntegrityCode.INVALID_RECORD, "Txns nested too deeply")
        count = self._count(5)
        compare = tuple([self._compare() for _ in range(count)])
        return Txn(compare, self._branch(depth), self._branch(depth))

    def _branch(self, depth: int) -> tuple[TxnOperation, ...]:
        operations: list[TxnOperation] = []
        for _ in range(self._count(4)):
            kind = self._take(1)[0]
            if kind > _TXN:
                raise self._error(IntegrityCode.INVALID_OPERATION, f"kind {kind} in a Txn")
            operation = self._operation(kind, depth + 1)
            assert isinstance(operation, TxnOperation)
            operations.append(operation)
        return tuple(operations)

    def _compare(self) -> Compare:
        key, target, result = self._bytes(), self._signed(), self._signed()
        operand = self._bytes() if target == _VALUE else self._signed()
        return Compare(key, target, result, operand, self._bytes())

    def _count(self, bytes_each: int) -> int:
        """The length of a list whose members take so many bytes at least."""
        start = self.at
        count = self._varint()
        if count > (len(self.data) - self.at) // bytes_each:
            raise _bad(IntegrityCode.TRUNCATED_RECORD, f"a list of {count} doesn't fit", start)
        return count

    def _bits(self, count: int) -> int:
        """A byte of so many booleans."""
        bits = self._take(1)[0]
        if bits >> count:
            raise self._error(IntegrityCode.INVALID_RECORD, f"booleans of {bits:#x}")
        return bits

    def _bytes(self) -> bytes:
        return self._take(self._varint())

    def _take(self, size: int) -> bytes:
        start = self.at
        end = start + size
        if end > len(self.data):
            raise _bad(IntegrityCode.TRUNCATED_RECORD, "operation cut short", start)
        self.at = end
        return self.data[start:end]

    def _varint(self) -> int:
        number, self.at = read_varint(self.data, self.at)
        return number

    def _signed(self) -> int:
        data, at = self.data, self.at
        if at < len(data) and data[at] < 0x80:  # nearly all are
            self.at = at + 1
            return (data[at] >> 1) ^ -(data[at] & 1)
        number, self.at = read_signed(data, at)
        return number

    def _error(self, code: IntegrityCode, message: str) -> CorruptionError:
        """Of what ends at ``at``."""
        return _bad(code, message, self.at - 1)


def _bad(code: IntegrityCode, message: str, offset: int) -> CorruptionError:
    return CorruptionError(message, code=code, path="a log entry", offset=offset)
