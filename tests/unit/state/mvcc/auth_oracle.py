"""What etcd's v3 API says of users and roles, as plainly as it can be said: see oracle.py."""

from __future__ import annotations

from collections.abc import Iterator

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.requests import (
    Alarm,
    AuthDisable,
    AuthEnable,
    Authenticated,
    AuthOperation,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    Txn,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)


def refuse(condition: object, reason: Reason) -> None:
    """Raise for ``reason`` if the condition is true."""
    if condition:
        raise EtcdError(reason)


class AuthOracle:
    """Users: names to whether there is a password, and roles. Roles: names to permissions, as
    (key, range_end) to kind."""

    def __init__(self) -> None:
        self.enabled = False
        self.revision = 1
        self.users: dict[str, tuple[bytes, set[str]]] = {}
        self.roles: dict[str, dict[tuple[bytes, bytes], int]] = {}

    # --- who may do what

    def check(self, proposal: Proposal, leased: dict[int, list[bytes]]) -> None:
        """Raise EtcdError unless who proposed it may do it. ``leased``: the keys on leases."""
        who, operation = proposal.who, proposal.operation
        if not self.enabled or who == Authenticated("", 0):
            return
        if who is None and (
            isinstance(operation, EnableModel | RaiseLevel | LeaseCheckpoint)
            or (isinstance(operation, LeaseRevoke) and operation.term)
        ):
            return
        refuse(who is None or who.user == "", Reason.USER_EMPTY)
        assert who is not None
        refuse(who.auth_revision != self.revision, Reason.AUTH_OLD_REVISION)
        refuse(who.user not in self.users, Reason.PERMISSION_DENIED)
        if "root" in self.users[who.user][1]:
            return
        if isinstance(operation, LeaseGrant) or (
            isinstance(operation, Alarm) and operation.action == 0
        ):
            return
        refuse(
            not isinstance(operation, Put | DeleteRange | Txn | LeaseRevoke),
            Reason.PERMISSION_DENIED,
        )
        for kind, key, end in needs(operation, leased):
            refuse(not self.may(who.user, kind, key, end), Reason.PERMISSION_DENIED)

    def may(self, user: str, kind: int, key: bytes, end: bytes) -> bool:
        """Walk through the range from permission to permission."""
        granted = [
            place
            for role in self.users[user][1]
            for place, has in self.roles.get(role, {}).items()
            if has in (kind, 2)
        ]
        at: bytes | None = max(key, b"\0")
        until = None if end == b"\0" else end
        if end == b"" or (until is not None and until <= key):
            until = key + b"\0"
        while at is not None and (until is None or at < until):
            stops = [
                None if stop == b"\0" else stop or start + b"\0"
                for start, stop in granted
                if start <= at and (stop == b"\0" or at < (stop or start + b"\0"))
            ]
            if not stops:
                return False
            at = None if None in stops else max(stop for stop in stops if stop is not None)
        return True

    # --- what changes them

    def apply(self, operation: AuthOperation) -> None:
        """Do it; raises EtcdError."""
        before = self.everything()
        self._apply(operation)
        if isinstance(operation, UserChangePassword | RoleGrantPermission):
            self.revision += 1  # of old to new, even where these are the same
        elif not isinstance(operation, AuthEnable):
            self.revision += before != self.everything()

    def everything(self) -> tuple[object, ...]:
        """All but the revision, apart from what comes after it."""
        users = {
            name: (password, tuple(sorted(has))) for name, (password, has) in self.users.items()
        }
        roles = {
            name: tuple((kind, *place) for place, kind in sorted(has.items()))
            for name, has in self.roles.items()
        }
        return self.enabled, users, roles

    def _apply(self, operation: AuthOperation) -> None:
        users, roles, on = self.users, self.roles, self.enabled
        match operation:
            case AuthEnable():
                if not on:
                    refuse("root" not in users, Reason.ROOT_USER_NOT_EXIST)
                    refuse("root" not in users["root"][1], Reason.ROOT_ROLE_NOT_EXIST)
                self.enabled = True
            case AuthDisable():
                self.enabled = False
            case UserAdd(name, password):
                refuse(name in users, Reason.USER_EXISTS)
                users[name] = (password, set())
            case UserDelete(name):
                refuse(on and name == "root", Reason.INVALID_AUTH_MANAGEMENT)
                refuse(name not in users, Reason.USER_NOT_FOUND)
                del users[name]
            case UserChangePassword(name, password):
                refuse(name not in users, Reason.USER_NOT_FOUND)
                users[name] = (password if users[name][0] else b"", users[name][1])
            case UserGrantRole(name, role):
                refuse(name not in users, Reason.USER_NOT_FOUND)
                refuse(role not in roles and role != "root", Reason.ROLE_NOT_FOUND)
                users[name][1].add(role)
            case UserRevokeRole(name, role):
                refuse(on and name == role == "root", Reason.INVALID_AUTH_MANAGEMENT)
                refuse(name not in users, Reason.USER_NOT_FOUND)
                refuse(role not in users[name][1], Reason.ROLE_NOT_GRANTED)
                users[name][1].remove(role)
            case RoleAdd(name):
                refuse(name in roles, Reason.ROLE_EXISTS)
                roles[name] = {}
            case RoleDelete(name):
                refuse(on and name == "root", Reason.INVALID_AUTH_MANAGEMENT)
                refuse(name not in roles, Reason.ROLE_NOT_FOUND)
                del roles[name]
                for _, has in users.values():
                    has.discard(name)
            case RoleGrantPermission(name, (kind, key, end)):
                refuse(name not in roles, Reason.ROLE_NOT_FOUND)
                roles[name][key, end] = kind
            case RoleRevokePermission(name, key, end):
                refuse(name not in roles, Reason.ROLE_NOT_FOUND)
                refuse((key, end) not in roles[name], Reason.PERMISSION_NOT_GRANTED)
                del roles[name][key, end]


def needs(
    operation: Operation | Range, leased: dict[int, list[bytes]]
) -> Iterator[tuple[int, bytes, bytes]]:
    """What it needs a right to: 0 for reading or 1 for writing, key and range_end."""
    match operation:
        case Range():
            yield 0, operation.key, operation.range_end
        case Put():
            yield 1, operation.key, b""
            if operation.prev_kv:
                yield 0, operation.key, b""
            for key in leased.get(operation.lease, []) if operation.lease else []:
                yield 1, key, b""
        case DeleteRange():
            yield 1, operation.key, operation.range_end
            if operation.prev_kv:
                yield 0, operation.key, operation.range_end
        case LeaseRevoke():
            for key in leased.get(operation.id, []):
                yield 1, key, b""
        case Txn():
            for compare in operation.compare:
                yield 0, compare.key, compare.range_end
            for nested in (*operation.success, *operation.failure):
                yield from needs(nested, leased)
