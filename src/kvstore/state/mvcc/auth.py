"""Users, roles and what they may do: as of one moment of the log, on every member the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from kvstore.state.mvcc.auth_records import (
    AUTH,
    AUTH_ROLES,
    AUTH_USERS,
    AuthRecord,
    Role,
    User,
    decode_auth,
    decode_name,
    decode_role,
    decode_user,
    unknown_record,
)
from kvstore.state.mvcc.auth_spans import Spans, asked_span
from kvstore.state.mvcc.requests import Permission, PermissionKind
from kvstore.state.mvcc.source import span_of

__all__ = ["NOBODY", "ROOT", "ROOT_PERMISSION", "Auth", "auth_cost", "load_auth"]

ROOT: Final = "root"
"""The user without whom users can't be asked for, and the role that may do everything."""

ROOT_PERMISSION: Final = Permission(PermissionKind.READWRITE, b"", b"\0")
"""What is shown as what the role root allows."""

_RECORD_COST: Final = 128


class _Allowed(NamedTuple):
    reads: Spans
    writes: Spans


class Auth:
    """What is known of users. Never changes, but for what it remembers of its own; any thread.

    ``enabled``: users are asked for. ``revision``: 1, and one more with each change of users,
    roles and permissions, and when users cease to be asked for. ``token_key``: see AuthEnable,
    empty before the first. ``cost``: of all records, see :func:`auth_cost`.
    """

    __slots__ = ("_allowed", "cost", "enabled", "revision", "roles", "token_key", "users")

    def __init__(
        self,
        *,
        enabled: bool = False,
        revision: int = 1,
        token_key: bytes = b"",
        users: Mapping[str, User] | None = None,
        roles: Mapping[str, Role] | None = None,
        cost: int = 0,
    ) -> None:
        self.enabled = enabled
        self.revision = revision
        self.token_key = token_key
        self.users: Mapping[str, User] = {} if users is None else users
        self.roles: Mapping[str, Role] = {} if roles is None else roles
        self.cost = cost
        # Of the users that were asked for.
        self._allowed: dict[str, _Allowed] = {}

    @property
    def guard(self) -> int:
        """The revision while users are asked for, else 0."""
        return self.revision if self.enabled else 0

    @property
    def record(self) -> AuthRecord:
        """What is stored of it beside users and roles."""
        return AuthRecord(self.enabled, self.revision, self.token_key)

    def is_root(self, user: str) -> bool:
        """Whether a user may do everything."""
        known = self.users.get(user)
        return known is not None and ROOT in known.roles

    def may_read(self, user: str, key: bytes, range_end: bytes = b"") -> bool:
        """Whether a user may read all that a request with these two means."""
        return self.is_root(user) or self.read_spans(user).cover(asked_span(key, range_end))

    def may_write(self, user: str, key: bytes, range_end: bytes = b"") -> bool:
        """The same of writing."""
        return self.is_root(user) or self.write_spans(user).cover(asked_span(key, range_end))

    def read_spans(self, user: str) -> Spans:
        """The keys that the roles of a user let it read, that of root aside."""
        return self._allowed_to(user).reads

    def write_spans(self, user: str) -> Spans:
        """The keys that the roles of a user let it write, that of root aside."""
        return self._allowed_to(user).writes

    def _allowed_to(self, user: str) -> _Allowed:
        allowed = self._allowed.get(user)
        if allowed is None:
            known = self.users.get(user)
            roles = () if known is None else known.roles
            permissions = [each for role in roles for each in self.roles.get(role, ())]
            allowed = _Allowed(
                _spans(permissions, PermissionKind.WRITE), _spans(permissions, PermissionKind.READ)
            )
            if known is not None:  # strangers are without number
                self._allowed[user] = allowed
        return allowed


def _spans(permissions: Iterable[Permission], but: PermissionKind) -> Spans:
    """Where those that aren't for ``but`` alone allow something."""
    return Spans(span_of(key, range_end) for kind, key, range_end in permissions if kind != but)


NOBODY: Final = Auth()
"""As it is to begin with."""


def auth_cost(stored_key: bytes, record: bytes) -> int:
    """What a record takes in memory, about: part of the replicated state's rules."""
    return _RECORD_COST + len(stored_key) + len(record)


def load_auth(records: Iterable[tuple[bytes, bytes]]) -> Auth:
    """What was stored. Raises CorruptionError."""
    users: dict[str, User] = {}
    roles: dict[str, Role] = {}
    auth = NOBODY.record
    cost = 0
    for stored_key, record in records:
        if stored_key.startswith(AUTH_USERS):
            users[decode_name(stored_key)] = decode_user(record)
        elif stored_key.startswith(AUTH_ROLES):
            roles[decode_name(stored_key)] = decode_role(record)
        elif stored_key == AUTH:
            auth = decode_auth(record)
            continue
        else:
            raise unknown_record(stored_key)
        cost += auth_cost(stored_key, record)
    enabled, revision, token_key = auth
    return Auth(
        enabled=enabled,
        revision=revision,
        token_key=token_key,
        users=users,
        roles=roles,
        cost=cost,
    )
