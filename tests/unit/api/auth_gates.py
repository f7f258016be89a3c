"""Gates over users that a test makes up, and who calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from kvstore.api.handlers.etcd.auth_gate import Gate
from kvstore.errors import Error
from kvstore.service.etcd.auth_tokens import Tokens, new_tokens
from kvstore.state.mvcc.auth import NOBODY, Auth, Role, User
from kvstore.state.mvcc.requests import Permission, PermissionKind

__all__ = ["Caller", "Machine", "Users", "users_of"]

PASSWORD_HASH = b"kept"


class Machine:
    """As far as users go."""

    def __init__(self, auth: Auth) -> None:
        self.auth = auth


class Users:
    """Has a gate, and what that asks; ``auth`` are the users now.

    ``newer``: what this member has once it has caught up.
    """

    def __init__(self, auth: Auth = NOBODY) -> None:
        self.machine: Any = Machine(auth)
        self.newer: Auth | None = None
        self.points: list[Callable[[Error | None], None]] = []
        self.tokens: Tokens = new_tokens()
        self.gate = Gate(cast(Any, self), self.tokens)

    @property
    def auth(self) -> Auth:
        return cast(Auth, self.machine.auth)

    def listen(self, listener: Any) -> None:
        self._listener = listener

    def read_point(self, deadline: float | None, done: Callable[[Error | None], None]) -> None:
        self.points.append(done)

    def reach_point(self, error: Error | None = None) -> None:
        """Catch up with ``newer``, and tell who waits for that."""
        points, self.points = self.points, []
        if error is None and self.newer is not None:
            self.become(self.newer)
        for done in points:
            done(error)

    def become(self, auth: Auth) -> None:
        """Users change."""
        self.machine.auth = auth
        self._listener.applied((), 0)

    def token(self, user: str) -> str:
        return self.tokens.make(user, self.auth)


class Caller:
    """The context of a call."""

    def __init__(
        self, *metadata: tuple[str, str], name: bytes = b"", peer: str = "ipv4:127.0.0.1:1"
    ) -> None:
        self._metadata = metadata
        self._name = name
        self._peer = peer

    def invocation_metadata(self) -> Iterable[tuple[str, str]]:
        return self._metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_common_name": [self._name]} if self._name else {}

    def peer(self) -> str:
        return self._peer

    def time_remaining(self) -> float | None:
        return None


def users_of(
    roles: dict[str, list[str]],
    permissions: dict[str, list[tuple[PermissionKind, bytes, bytes]]] | None = None,
    *,
    revision: int = 7,
    enabled: bool = True,
) -> Auth:
    """Users with their roles, root among them, and what the roles allow."""
    users = {"root": ["root"], **roles}
    allowed: dict[str, Role] = {
        role: tuple(Permission(*one) for one in listed)
        for role, listed in (permissions or {}).items()
    }
    return Auth(
        enabled=enabled,
        revision=revision,
        token_key=b"k" * 32,
        users={name: User(PASSWORD_HASH + name.encode(), tuple(of)) for name, of in users.items()},
        roles={"root": (), **allowed},
    )
