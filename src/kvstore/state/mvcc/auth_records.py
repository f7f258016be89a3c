"""What users and roles are called in the engine, and their bytes.

| key | value |
|---|---|
| 05 00 | u8 1 while users are asked for, else 0; varint revision of all this; the key of tokens |
| 05 01 + name | bytes password hash, roles: their number and each one's name, ascending |
| 05 02 + name | permissions: their number, and of each u8 kind, bytes key, bytes range_end |

Bytes and names have a varint of their size before them, numbers are varints. A role's permissions
are in the order of their keys and range_ends, which no two have in common. None of these records is
there before there was a user or a role.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.mvcc.records import USERS
from kvstore.state.mvcc.requests import Permission, PermissionKind
from kvstore.state.mvcc.varints import append_varint, read_varint

__all__ = [
    "AUTH",
    "AUTH_ROLES",
    "AUTH_USERS",
    "AuthRecord",
    "Role",
    "User",
    "decode_auth",
    "decode_name",
    "decode_role",
    "decode_user",
    "encode_auth",
    "encode_role",
    "encode_user",
    "role_key",
    "unknown_record",
    "user_key",
]

AUTH: Final = USERS + b"\x00"
AUTH_USERS: Final = USERS + b"\x01"
AUTH_ROLES: Final = USERS + b"\x02"

_KIND_MAX = int(max(PermissionKind))


class AuthRecord(NamedTuple):
    """See :class:`kvstore.state.mvcc.auth.Auth`."""

    enabled: bool
    revision: int
    token_key: bytes


class User(NamedTuple):
    """``password_hash``: empty where there is no password. ``roles``: ascending; one may be missing
    among the roles, which is that of root alone."""

    password_hash: bytes
    roles: tuple[str, ...] = ()


Role = tuple[Permission, ...]
"""What it allows, in the order of keys and range_ends."""


def user_key(name: str) -> bytes:
    """The key of a user's record."""
    return AUTH_USERS + name.encode()


def role_key(name: str) -> bytes:
    """The key of a role's record."""
    return AUTH_ROLES + name.encode()


def decode_name(stored_key: bytes) -> str:
    """The name of what is stored under a user's or a role's key; raises CorruptionError."""
    return _Reader(stored_key, len(AUTH_ROLES)).rest_as_name()


def encode_auth(auth: AuthRecord) -> bytes:
    """The record of what is known of all users together."""
    record = bytearray((auth.enabled,))
    append_varint(record, auth.revision)
    record += auth.token_key
    return bytes(record)


def decode_auth(record: bytes) -> AuthRecord:
    """The same from its record; raises CorruptionError."""
    if not record or record[0] > 1:
        raise _invalid("users that are neither asked for nor not")
    revision, at = read_varint(record, 1)
    if not revision:
        raise _invalid("users as of no revision")
    return AuthRecord(record[0] == 1, revision, record[at:])


def unknown_record(stored_key: bytes) -> CorruptionError:
    """What to raise for a key that is none of these."""
    return _invalid(f"a record of users or roles under {stored_key[:2].hex()}")


def encode_user(user: User) -> bytes:
    """The record of a user."""
    record = bytearray()
    _append(record, user.password_hash)
    append_varint(record, len(user.roles))
    for role in user.roles:
        _append(record, role.encode())
    return bytes(record)


def decode_user(record: bytes) -> User:
    """The user; raises CorruptionError."""
    reader = _Reader(record)
    password_hash = reader.value()
    roles = tuple([reader.name() for _ in range(reader.count(1))])
    reader.end()
    if any(one >= other for one, other in pairwise(roles)):
        raise _invalid("a user's roles are in no order")
    return User(password_hash, roles)


def encode_role(role: Role) -> bytes:
    """The record of a role."""
    record = bytearray()
    append_varint(record, len(role))
    for kind, key, range_end in role:
        record.append(kind)
        _append(record, key)
        _append(record, range_end)
    return bytes(record)


def decode_role(record: bytes) -> Role:
    """The role; raises CorruptionError."""
    reader = _Reader(record)
    role = tuple([reader.permission() for _ in range(reader.count(3))])
    reader.end()
    if any(one[1:] >= other[1:] for one, other in pairwise(role)):
        raise _invalid("a role's permissions are in no order")
    return role


def _append(record: bytearray, value: bytes) -> None:
    append_varint(record, len(value))
    record += value


class _Reader:
    """Takes a record's fields one after the other."""

    __slots__ = ("_at", "_record")

    def __init__(self, record: bytes, at: int = 0) -> None:
        self._record = record
        self._at = at

    def count(self, bytes_each: int) -> int:
        """The length of a list whose members take so many bytes at least."""
        count = self._varint()
        if count > (len(self._record) - self._at) // bytes_each:
            raise _invalid("a list of users or roles cut short")
        return count

    def permission(self) -> Permission:
        kind = self._varint()
        if kind > _KIND_MAX:
            raise _invalid(f"a permission of kind {kind}")
        return Permission(kind, self.value(), self.value())

    def name(self) -> str:
        return _name(self.value())

    def rest_as_name(self) -> str:
        return _name(self._record[self._at :])

    def value(self) -> bytes:
        size = self._varint()
        start, self._at = self._at, self._at + size
        if self._at > len(self._record):
            raise _invalid("a record of users or roles cut short")
        return self._record[start : self._at]

    def end(self) -> None:
        if self._at != len(self._record):
            raise _invalid("bytes after a record of users or roles")

    def _varint(self) -> int:
        number, self._at = read_varint(self._record, self._at)
        return number


def _name(encoded: bytes) -> str:
    if not encoded:
        raise _invalid("a user or a role without a name")
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        raise _invalid("the name of a user or a role isn't UTF-8") from None


def _invalid(message: str) -> CorruptionError:
    return CorruptionError(message, code=IntegrityCode.INVALID_RECORD)
