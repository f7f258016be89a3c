"""What may be asked of the model: reads, and operations that go through the log.

Every field that a client sets freely is checked by :mod:`kvstore.state.mvcc.checks` before an
operation is proposed; applying one that breaks the rules all the same refuses it, and never raises.
Ranges of keys are as in etcd: ``range_end`` empty for the single key, one zero byte for all keys
from ``key`` on, else the first key that is not in it.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

__all__ = [
    "FOR_EVER",
    "LEVEL_ACCUSES",
    "LEVEL_MODEL",
    "LEVEL_NUMBERED",
    "SERVER",
    "TO_THE_END",
    "Alarm",
    "AlarmAction",
    "AlarmKind",
    "AuthDisable",
    "AuthEnable",
    "AuthOperation",
    "Authenticated",
    "Compact",
    "Compare",
    "CompareResult",
    "CompareTarget",
    "DeleteRange",
    "EnableModel",
    "LeaseCheckpoint",
    "LeaseGrant",
    "LeaseRevoke",
    "Numbered",
    "Operation",
    "Permission",
    "PermissionKind",
    "Proposal",
    "Put",
    "RaiseLevel",
    "Range",
    "RoleAdd",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
    "SortOrder",
    "SortTarget",
    "Txn",
    "TxnOperation",
    "UserAdd",
    "UserChangePassword",
    "UserDelete",
    "UserGrantRole",
    "UserRevokeRole",
]

TO_THE_END: Final = b"\0"
"""As a ``range_end``: every key from the first one on."""

FOR_EVER: Final = -1
"""As a lease's rest: it is checkpointed no more, its next leader starts it with its whole TTL."""


LEVEL_MODEL: Final = 1
"""Of a state whose keys have revisions; without it is 0."""

LEVEL_NUMBERED: Final = 2
"""Entries may have what came after the model: requests that a session numbered, and users."""

LEVEL_ACCUSES: Final = 3
"""Entries may have alarms of :attr:`AlarmKind.DIFFERS`. The highest level that this program
knows."""


class SortOrder(enum.IntEnum):
    """Numbers as on etcd's wire."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(enum.IntEnum):
    """Numbers as on etcd's wire."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class Range(NamedTuple):
    """Read keys. ``revision`` of 0 is the current one, ``limit`` of 0 none."""

    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    sort_order: int = SortOrder.NONE
    sort_target: int = SortTarget.KEY
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class Put(NamedTuple):
    """Store a key. ``lease`` of 0 takes it off any lease."""

    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class DeleteRange(NamedTuple):
    """Remove keys."""

    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class CompareResult(enum.IntEnum):
    """Numbers as on etcd's wire: how the field stands to the operand."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(enum.IntEnum):
    """Numbers as on etcd's wire."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class Compare(NamedTuple):
    """A condition on a key, or on every key of a range.

    ``operand`` is bytes for the target VALUE and a number for the others.
    """

    key: bytes
    target: int
    result: int
    operand: int | bytes
    range_end: bytes = b""


class Txn(NamedTuple):
    """If all compares hold do ``success``, else ``failure``; all at one revision."""

    compare: tuple[Compare, ...] = ()
    success: tuple[TxnOperation, ...] = ()
    failure: tuple[TxnOperation, ...] = ()


TxnOperation = Range | Put | DeleteRange | Txn


class Compact(NamedTuple):
    """Forget the history below ``revision``."""

    revision: int


class LeaseGrant(NamedTuple):
    """Make a lease. ``id`` isn't 0, and ``ttl`` is seconds, raised to the least before this."""

    id: int
    ttl: int


class LeaseRevoke(NamedTuple):
    """End a lease and delete its keys.

    ``term``: of the leader that found it expired; it is done in an entry of that term alone. 0
    where a client asked. ``birth``, where there is a term: of the lease that has expired; a later
    one of the same id is left alone.
    """

    id: int
    term: int = 0
    birth: int = 0


class LeaseCheckpoint(NamedTuple):
    """Note how many seconds are left of leases: ``(id, birth, rest)``, FOR_EVER to clear it.

    ``term``: of the leader that noted it; it is done in an entry of that term alone. Leases that
    are gone, and later ones of the same id, are passed over. A lease's birth is a number by which
    it differs from those that had its id before: the first 8 bytes of the id of the proposal that
    granted it, big-endian.
    """

    term: int
    rests: tuple[tuple[int, int, int], ...]


class AlarmKind(enum.IntEnum):
    """Numbers as on etcd's wire, but for the last one, which stands for itself in entries and in
    the state alone."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2
    """The states of members differ, and nobody knows whose is right: nothing is written."""
    DIFFERS = 3
    """The member's state is another one than that of a majority of voters, who are right: it is
    told as CORRUPT of that member, and refuses nobody anything. From LEVEL_ACCUSES on."""

    @property
    def told_as(self) -> AlarmKind:
        """What clients are told: one of etcd's."""
        return AlarmKind.CORRUPT if self is AlarmKind.DIFFERS else self


class AlarmAction(enum.IntEnum):
    """Numbers as on etcd's wire."""

    GET = 0
    ACTIVATE = 1
    DEACTIVATE = 2


class Alarm(NamedTuple):
    """Ask for alarms, raise one or end it. ``member`` of 0 is a value of its own."""

    action: int
    member: int
    kind: int


class Authenticated(NamedTuple):
    """Who asks, as the member found that took the call, and at which revision of the users."""

    user: str
    auth_revision: int


SERVER: Final = Authenticated("", 0)
"""As who asks: the servers themselves, who may do everything. No user's name is empty."""


class Numbered(NamedTuple):
    """A request's place in a client's session (:mod:`kvstore.state.sessions`).

    ``session``: its 16 bytes. ``sequence``: from ``floor`` on, and less than a window above it;
    everything below the floor, which is 1 or more, will never be sent again.
    """

    session: bytes
    sequence: int
    floor: int


class EnableModel(NamedTuple):
    """From here on keys have revisions, history and events (:mod:`kvstore.state.mvcc`)."""


class RaiseLevel(NamedTuple):
    """From here on entries may have what every member knows that is of ``level``, and the state
    can't be read by programs that don't; keys have revisions, if they hadn't. Never back."""

    level: int


class AuthEnable(NamedTuple):
    """From here on nobody does anything but as a user, who has the right to it.

    ``token_key``: random bytes, of which tokens are made until it is ended.
    """

    token_key: bytes


class AuthDisable(NamedTuple):
    """Users aren't asked for any more; they and their roles stay."""


class UserAdd(NamedTuple):
    """``password_hash``: as :func:`kvstore.state.mvcc.auth_passwords.hash_password` gives it; empty
    for a user who has no password."""

    name: str
    password_hash: bytes


class UserDelete(NamedTuple):
    name: str


class UserChangePassword(NamedTuple):
    """A user without a password stays one."""

    name: str
    password_hash: bytes


class UserGrantRole(NamedTuple):
    user: str
    role: str


class UserRevokeRole(NamedTuple):
    user: str
    role: str


class RoleAdd(NamedTuple):
    name: str


class RoleDelete(NamedTuple):
    """Whoever has the role has it no more."""

    name: str


class PermissionKind(enum.IntEnum):
    """Numbers as on etcd's wire."""

    READ = 0
    WRITE = 1
    READWRITE = 2


class Permission(NamedTuple):
    """What a role allows to do with a range of keys."""

    kind: int
    key: bytes
    range_end: bytes = b""


class RoleGrantPermission(NamedTuple):
    """Takes the place of the role's permission for the same key and range_end."""

    role: str
    permission: Permission


class RoleRevokePermission(NamedTuple):
    role: str
    key: bytes
    range_end: bytes = b""


AuthOperation = (
    AuthEnable
    | AuthDisable
    | UserAdd
    | UserDelete
    | UserChangePassword
    | UserGrantRole
    | UserRevokeRole
    | RoleAdd
    | RoleDelete
    | RoleGrantPermission
    | RoleRevokePermission
)
"""What changes users, roles and what they may do. Names are not empty."""

Operation = (
    Put
    | DeleteRange
    | Txn
    | Compact
    | LeaseGrant
    | LeaseRevoke
    | LeaseCheckpoint
    | Alarm
    | EnableModel
    | AuthOperation
    | RaiseLevel
)
"""What one command of an entry of operations does. (Range is none: it goes through no log.)"""


class Proposal(NamedTuple):
    """An operation with its id, by which the member that took the call knows it when applied.

    ``id``: 16 bytes, of the proposing process's own drawing; never used twice. ``who``: None where
    nobody was asked who it is. ``request``: None where nothing is to be remembered of it.
    """

    id: bytes
    operation: Operation
    who: Authenticated | None = None
    request: Numbered | None = None
