"""Users, their roles, and what these are allowed to do."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, TypeVar

from kvstore.api.etcd import etcd_pb2
from kvstore.client.attempts import Attempts
from kvstore.client.background import Runner
from kvstore.client.calls import Calls
from kvstore.client.keys import KeyRange, selected_or_key
from kvstore.client.options import checked_timeout
from kvstore.client.requests import BytesLike
from kvstore.client.servers import Method, Server

__all__ = ["Access", "AsyncAuth", "Auth", "AuthStatus", "Permission"]

Request = TypeVar("Request")


class Access(enum.StrEnum):
    """What may be done with keys."""

    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"


class Permission(NamedTuple):
    """Keys as etcd's API says them: ``end`` empty for the single ``key``, one zero byte for all
    from ``key`` on, else the first key that isn't in it."""

    access: Access
    key: bytes
    end: bytes


class AuthStatus(NamedTuple):
    """``enabled``: users are asked for. ``revision``: grows with each change of users."""

    enabled: bool
    revision: int


# By etcd's number for it.
_ACCESS = (Access.READ, Access.WRITE, Access.READWRITE)


class AsyncAuth:
    """Users and roles of a store; see :attr:`kvstore.Client.auth`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def enable(self, *, timeout: float | None = None) -> None:
        """Ask for users from now on: there must be a user root that has the role root."""
        await self._repeated("AuthEnable", etcd_pb2.AuthEnableRequest(), timeout)

    async def disable(self, *, timeout: float | None = None) -> None:
        """Ask for nobody any more. Users and roles stay."""
        await self._repeated("AuthDisable", etcd_pb2.AuthDisableRequest(), timeout)

    async def status(self, *, timeout: float | None = None) -> AuthStatus:
        """Whether users are asked for."""
        answer = await self._asked("AuthStatus", etcd_pb2.AuthStatusRequest(), timeout)
        return AuthStatus(answer.enabled, answer.authRevision)

    async def add_user(
        self, name: str, password: str | None, *, timeout: float | None = None
    ) -> None:
        """Make a user; without a password only a certificate's name can be it. Raises
        ConflictError."""
        options = etcd_pb2.UserAddOptions(no_password=password is None)
        request = etcd_pb2.AuthUserAddRequest(name=name, password=password or "", options=options)
        await self._once("UserAdd", request, timeout)

    async def delete_user(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a user. Raises NotFoundError, as all that name a user or a role do."""
        await self._once("UserDelete", etcd_pb2.AuthUserDeleteRequest(name=name), timeout)

    async def change_password(
        self, name: str, password: str, *, timeout: float | None = None
    ) -> None:
        """Give a user another password; what it was logged in with ends."""
        request = etcd_pb2.AuthUserChangePasswordRequest(name=name, password=password)
        await self._repeated("UserChangePassword", request, timeout)

    async def users(self, *, timeout: float | None = None) -> list[str]:
        """All users by name."""
        answer = await self._asked("UserList", etcd_pb2.AuthUserListRequest(), timeout)
        return [*answer.users]

    async def roles_of(self, user: str, *, timeout: float | None = None) -> list[str]:
        """The roles that a user has."""
        answer = await self._asked("UserGet", etcd_pb2.AuthUserGetRequest(name=user), timeout)
        return [*answer.roles]

    async def grant_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Give a user a role."""
        request = etcd_pb2.AuthUserGrantRoleRequest(user=user, role=role)
        await self._repeated("UserGrantRole", request, timeout)

    async def revoke_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Take a role from a user."""
        request = etcd_pb2.AuthUserRevokeRoleRequest(name=user, role=role)
        await self._once("UserRevokeRole", request, timeout)

    async def add_role(self, name: str, *, timeout: float | None = None) -> None:
        """Make a role that is allowed nothing yet. Raises ConflictError."""
        await self._once("RoleAdd", etcd_pb2.AuthRoleAddRequest(name=name), timeout)

    async def delete_role(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a role, and take it from everybody."""
        await self._once("RoleDelete", etcd_pb2.AuthRoleDeleteRequest(role=name), timeout)

    async def roles(self, *, timeout: float | None = None) -> list[str]:
        """All roles by name."""
        answer = await self._asked("RoleList", etcd_pb2.AuthRoleListRequest(), timeout)
        return [*answer.roles]

    async def permissions_of(self, role: str, *, timeout: float | None = None) -> list[Permission]:
        """What a role is allowed."""
        answer = await self._asked("RoleGet", etcd_pb2.AuthRoleGetRequest(role=role), timeout)
        return [Permission(_ACCESS[one.permType], one.key, one.range_end) for one in answer.perm]

    async def grant_permission(
        self,
        role: str,
        access: Access,
        key: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        timeout: float | None = None,
    ) -> None:
        """Allow a role that with a key, those of a prefix or a range, or with all.

        It takes the place of another permission for the same keys.
        """
        keys = selected_or_key(key, start, end, prefix)
        permission = etcd_pb2.Permission(
            permType=Access(access).upper(), key=keys.key, range_end=keys.end
        )
        request = etcd_pb2.AuthRoleGrantPermissionRequest(name=role, perm=permission)
        await self._repeated("RoleGrantPermission", request, timeout)

    async def revoke_permission(
        self,
        role: str,
        key: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        timeout: float | None = None,
    ) -> None:
        """Take back what was granted for just these keys. Raises RefusedError."""
        keys: KeyRange = selected_or_key(key, start, end, prefix)
        request = etcd_pb2.AuthRoleRevokePermissionRequest(
            role=role, key=keys.key, range_end=keys.end
        )
        await self._once("RoleRevokePermission", request, timeout)

    async def _asked(self, method: str, request: Request, timeout: float | None) -> Any:
        return await self._calls.call(lambda server: _method(server, method), request, timeout)

    async def _repeated(self, method: str, request: Request, timeout: float | None) -> None:
        """What comes to the same if it is done twice."""
        await self._calls.write_again(lambda server: _method(server, method), request, timeout)

    async def _once(self, method: str, request: Request, timeout: float | None) -> None:
        """What doesn't: sent again only while no try may have been applied."""
        calls = self._calls
        seconds = checked_timeout(timeout, calls.timeout)
        attempts = Attempts(calls.endpoints, calls.policy, seconds, writes=True, repeatable=False)
        await calls.tried(lambda server: _method(server, method), request, attempts)


def _method(server: Server, name: str) -> Method[Any, Any]:
    return server.etcd.auth(name)


class Auth:
    """Users and roles of a store; see :attr:`kvstore.Client.auth`.

    Only root may change them, or list them, once users are asked for.
    """

    def __init__(self, run: Runner, auth: AsyncAuth) -> None:
        self._run = run
        self._auth = auth

    def enable(self, *, timeout: float | None = None) -> None:
        """Ask for users from now on: there must be a user root that has the role root."""
        self._run(self._auth.enable(timeout=timeout))

    def disable(self, *, timeout: float | None = None) -> None:
        """Ask for nobody any more. Users and roles stay."""
        self._run(self._auth.disable(timeout=timeout))

    def status(self, *, timeout: float | None = None) -> AuthStatus:
        """Whether users are asked for."""
        return self._run(self._auth.status(timeout=timeout))

    def add_user(self, name: str, password: str | None, *, timeout: float | None = None) -> None:
        """Make a user; without a password only a certificate's name can be it. Raises
        ConflictError."""
        self._run(self._auth.add_user(name, password, timeout=timeout))

    def delete_user(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a user. Raises NotFoundError, as all that name a user or a role do."""
        self._run(self._auth.delete_user(name, timeout=timeout))

    def change_password(self, name: str, password: str, *, timeout: float | None = None) -> None:
        """Give a user another password; what it was logged in with ends."""
        self._run(self._auth.change_password(name, password, timeout=timeout))

    def users(self, *, timeout: float | None = None) -> list[str]:
        """All users by name."""
        return self._run(self._auth.users(timeout=timeout))

    def roles_of(self, user: str, *, timeout: float | None = None) -> list[str]:
        """The roles that a user has."""
        return self._run(self._auth.roles_of(user, timeout=timeout))

    def grant_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Give a user a role."""
        self._run(self._auth.grant_role(user, role, timeout=timeout))

    def revoke_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Take a role from a user."""
        self._run(self._auth.revoke_role(user, role, timeout=timeout))

    def add_role(self, name: str, *, timeout: float | None = None) -> None:
        """Make a role that is allowed nothing yet. Raises ConflictError."""
        self._run(self._auth.add_role(name, timeout=timeout))

    def delete_role(self, name: str, *, timeout: float | None = None) -> None:
        """Remove a role, and take it from everybody."""
        self._run(self._auth.delete_role(name, timeout=timeout))

    def roles(self, *, timeout: float | None = None) -> list[str]:
        """All roles by name."""
        return self._run(self._auth.roles(timeout=timeout))

    def permissions_of(self, role: str, *, timeout: float | None = None) -> list[Permission]:
        """What a role is allowed."""
        return self._run(self._auth.permissions_of(role, timeout=timeout))

    def grant_permission(
        self,
        role: str,
        access: Access,
        key: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        timeout: float | None = None,
    ) -> None:
        """Allow a role that with a key, those of a prefix or a range, or with all.

        It takes the place of another permission for the same keys.
        """
        granting = self._auth.grant_permission(
            role, access, key, prefix=prefix, start=start, end=end, timeout=timeout
        )
        self._run(granting)

    def revoke_permission(
        self,
        role: str,
        key: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        timeout: float | None = None,
    ) -> None:
        """Take back what was granted for just these keys. Raises RefusedError."""
        revoking = self._auth.revoke_permission(
            role, key, prefix=prefix, start=start, end=end, timeout=timeout
        )
        self._run(revoking)
