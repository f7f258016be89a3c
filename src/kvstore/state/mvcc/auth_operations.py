"""What is refused by its looks alone of what changes users and roles."""

from __future__ import annotations

from typing import Final

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.requests import (
    TO_THE_END,
    AuthEnable,
    AuthOperation,
    Permission,
    PermissionKind,
    RoleAdd,
    RoleGrantPermission,
    UserAdd,
    UserChangePassword,
)

__all__ = ["NAME_BYTES_MAX", "TOKEN_KEY_BYTES", "check_auth_operation"]

NAME_BYTES_MAX: Final = 1024
"""Of a user or a role; etcd has no such bound. Each proposal of a user carries its name."""

PASSWORD_HASH_BYTES_MAX: Final = 1024

TOKEN_KEY_BYTES: Final = 32

_KINDS: Final = frozenset(map(int, PermissionKind))


def check_auth_operation(operation: AuthOperation) -> None:
    """Raise EtcdError where what was asked can't be right, whatever the state is."""
    match operation:
        case AuthEnable(token_key):
            if len(token_key) != TOKEN_KEY_BYTES:
                raise EtcdError(Reason.INVALID_AUTH_MANAGEMENT)
        case UserAdd(name, password_hash) | UserChangePassword(name, password_hash):
            _check_name(name, Reason.USER_EMPTY)
            if len(password_hash) > PASSWORD_HASH_BYTES_MAX:
                raise EtcdError(Reason.REQUEST_TOO_LARGE)
        case RoleAdd(name):
            _check_name(name, Reason.ROLE_EMPTY)
        case RoleGrantPermission(_, permission):
            if not _is_right(permission):
                raise EtcdError(Reason.INVALID_AUTH_MANAGEMENT)


def _check_name(name: str, empty: Reason) -> None:
    if not name:
        raise EtcdError(empty)
    if len(name.encode()) > NAME_BYTES_MAX:
        raise EtcdError(Reason.REQUEST_TOO_LARGE)


def _is_right(permission: Permission) -> bool:
    kind, key, range_end = permission
    if kind not in _KINDS or not key:
        return False
    return not range_end or range_end == TO_THE_END or key < range_end
