"""Changes of users, roles and permissions, as they are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import AuthAnswer
from kvstore.state.mvcc.auth import ROOT, Auth, auth_cost
from kvstore.state.mvcc.auth_records import (
    Role,
    User,
    encode_role,
    encode_user,
    role_key,
    user_key,
)
from kvstore.state.mvcc.requests import (
    LEVEL_NUMBERED,
    AuthDisable,
    AuthEnable,
    AuthOperation,
    Permission,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)
from kvstore.state.mvcc.view import View

__all__ = ["AUTH_COST_MAX", "AUTH_RECORD_BYTES_MAX", "change_auth"]

AUTH_COST_MAX: Final = 8 << 20
"""Of all users and roles together (:func:`auth_cost`): each member holds them in memory, and copies
what it knows of them with each change. Part of the replicated state's rules."""

AUTH_RECORD_BYTES_MAX: Final = 256 << 10
"""Of a user's record, or a role's: some 20,000 roles, or permissions. Part of them too."""

_LOOKED_AT_COST: Final = 8
_SEARCHED_COST: Final = 64


class _Written(NamedTuple):
    """A record that changes: what it was and what it becomes, None where there is none."""

    key: bytes
    before: bytes | None
    after: bytes | None


class _Changed(NamedTuple):
    """What comes of a change."""

    auth: Auth
    written: Sequence[_Written] = ()


def change_auth(view: View, operation: AuthOperation) -> AuthAnswer:
    """Do what ``operation``, a checked one, says; raises EtcdError."""
    if view.level < LEVEL_NUMBERED:
        # A program that can't read the state of that level would take it for one without users.
        raise EtcdError(Reason.NOT_CAPABLE)
    auth = view.auth
    # What it takes to do it, on each member, so that an entry takes no longer than any other may.
    view.read(_LOOKED_AT_COST * (len(auth.users) + len(auth.roles)))
    if isinstance(operation, RoleDelete):
        view.read(_SEARCHED_COST * len(auth.users))
    changed = _change(auth, operation)
    if changed is not None:
        if changed.auth.cost > max(AUTH_COST_MAX, auth.cost):
            raise EtcdError(Reason.TOO_MANY_REQUESTS)
        for _, before, after in changed.written:
            size = len(after or b"")
            if size > max(AUTH_RECORD_BYTES_MAX, len(before or b"")):
                raise EtcdError(Reason.TOO_MANY_REQUESTS)
            view.read(size)
        view.set_auth(changed.auth, {key: after for key, _, after in changed.written})
    return AuthAnswer(view.revision)


def _change(auth: Auth, operation: AuthOperation) -> _Changed | None:
    """What comes of it, None where all is as it was."""
    match operation:
        case AuthEnable(token_key):
            return _enable(auth, token_key)
        case AuthDisable():
            return _Changed(_next(auth, enabled=False)) if auth.enabled else None
        case UserAdd(name, password_hash):
            if name in auth.users:
                raise EtcdError(Reason.USER_EXISTS)
            return _with_user(auth, name, User(password_hash))
        case UserDelete(name):
            if auth.enabled and name == ROOT:
                raise EtcdError(Reason.INVALID_AUTH_MANAGEMENT)
            _user(auth, name)
            return _with_user(auth, name, None)
        case UserChangePassword(name, password_hash):
            user = _user(auth, name)
            # Who has no password gets none.
            kept = password_hash if user.password_hash else b""
            return _with_user(auth, name, user._replace(password_hash=kept))
        case UserGrantRole(name, role):
            return _grant_role(auth, name, role)
        case UserRevokeRole(name, role):
            return _revoke_role(auth, name, role)
        case _:
            return _change_role(auth, operation)


def _change_role(
    auth: Auth, operation: RoleAdd | RoleDelete | RoleGrantPermission | RoleRevokePermission
) -> _Changed:
    match operation:
        case RoleAdd(name):
            if name in auth.roles:
                raise EtcdError(Reason.ROLE_EXISTS)
            return _with_role(auth, name, ())
        case RoleDelete(name):
            return _delete_role(auth, name)
        case RoleGrantPermission(name, permission):
            others = [each for each in _role(auth, name) if each[1:] != permission[1:]]
            role = tuple(sorted([*others, permission], key=_place))
            return _with_role(auth, name, role)
        case RoleRevokePermission(name, key, range_end):
            known = _role(auth, name)
            kept = tuple([each for each in known if each[1:] != (key, range_end)])
            if len(kept) == len(known):
                raise EtcdError(Reason.PERMISSION_NOT_GRANTED)
            return _with_role(auth, name, kept)


def _place(permission: Permission) -> tuple[bytes, bytes]:
    return permission.key, permission.range_end


def _enable(auth: Auth, token_key: bytes) -> _Changed | None:
    if auth.enabled:
        return None
    root = auth.users.get(ROOT)
    if root is None:
        raise EtcdError(Reason.ROOT_USER_NOT_EXIST)
    if ROOT not in root.roles:
        raise EtcdError(Reason.ROOT_ROLE_NOT_EXIST)
    enabled = Auth(
        enabled=True,
        revision=auth.revision,
        token_key=token_key,
        users=auth.users,
        roles=auth.roles,
        cost=auth.cost,
    )
    return _Changed(enabled)


def _grant_role(auth: Auth, name: str, role: str) -> _Changed | None:
    user = _user(auth, name)
    if role != ROOT:
        _role(auth, role)
    if role in user.roles:
        return None
    return _with_user(auth, name, user._replace(roles=tuple(sorted((*user.roles, role)))))


def _revoke_role(auth: Auth, name: str, role: str) -> _Changed:
    if auth.enabled and name == role == ROOT:
        raise EtcdError(Reason.INVALID_AUTH_MANAGEMENT)
    user = _user(auth, name)
    if role not in user.roles:
        raise EtcdError(Reason.ROLE_NOT_GRANTED)
    return _with_user(auth, name, _without(user, role))


def _delete_role(auth: Auth, name: str) -> _Changed:
    if auth.enabled and name == ROOT:
        raise EtcdError(Reason.INVALID_AUTH_MANAGEMENT)
    _role(auth, name)
    had_it = {user: known for user, known in auth.users.items() if name in known.roles}
    have_left = {user: _without(known, name) for user, known in had_it.items()}
    written = [_written_user(user, known, have_left[user]) for user, known in had_it.items()]
    written.append(_Written(role_key(name), encode_role(auth.roles[name]), None))
    roles = {each: role for each, role in auth.roles.items() if each != name}
    return _replaced(auth, written, users={**auth.users, **have_left}, roles=roles)


def _without(user: User, role: str) -> User:
    return user._replace(roles=tuple([each for each in user.roles if each != role]))


def _with_user(auth: Auth, name: str, user: User | None) -> _Changed:
    users = dict(auth.users)
    before = users.pop(name, None)
    if user is not None:
        users[name] = user
    return _replaced(auth, [_written_user(name, before, user)], users=users)


def _with_role(auth: Auth, name: str, role: Role) -> _Changed:
    known = auth.roles.get(name)
    before = None if known is None else encode_role(known)
    written = _Written(role_key(name), before, encode_role(role))
    return _replaced(auth, [written], roles={**auth.roles, name: role})


def _written_user(name: str, before: User | None, after: User | None) -> _Written:
    return _Written(
        user_key(name),
        None if before is None else encode_user(before),
        None if after is None else encode_user(after),
    )


def _replaced(
    auth: Auth,
    written: Sequence[_Written],
    *,
    users: Mapping[str, User] | None = None,
    roles: Mapping[str, Role] | None = None,
) -> _Changed:
    cost = auth.cost
    for key, before, after in written:
        cost += _cost(key, after) - _cost(key, before)
    return _Changed(_next(auth, enabled=auth.enabled, users=users, roles=roles, cost=cost), written)


def _next(
    auth: Auth,
    *,
    enabled: bool,
    users: Mapping[str, User] | None = None,
    roles: Mapping[str, Role] | None = None,
    cost: int | None = None,
) -> Auth:
    """Of the next revision, and as before in what isn't given."""
    return Auth(
        enabled=enabled,
        revision=auth.revision + 1,
        token_key=auth.token_key,
        users=auth.users if users is None else users,
        roles=auth.roles if roles is None else roles,
        cost=auth.cost if cost is None else cost,
    )


def _cost(key: bytes, record: bytes | None) -> int:
    return 0 if record is None else auth_cost(key, record)


def _user(auth: Auth, name: str) -> User:
    user = auth.users.get(name)
    if user is None:
        raise EtcdError(Reason.USER_NOT_FOUND)
    return user


def _role(auth: Auth, name: str) -> Role:
    role = auth.roles.get(name)
    if role is None:
        raise EtcdError(Reason.ROLE_NOT_FOUND)
    return role
