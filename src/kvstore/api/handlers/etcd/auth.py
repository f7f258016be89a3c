"""``etcdserverpb.Auth``: users, roles, and whether they are asked for."""

from __future__ import annotations

import os
from time import monotonic
from typing import Final

import structlog

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.auth_gate import is_root
from kvstore.api.handlers.etcd.auth_passwords import Passwords
from kvstore.api.handlers.etcd.register import Context
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.auth import ROOT, ROOT_PERMISSION, Auth
from kvstore.state.mvcc.auth_passwords import DECOY
from kvstore.state.mvcc.requests import (
    AuthDisable,
    AuthEnable,
    Operation,
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

__all__ = ["AuthHandlers"]

TOKEN_KEY_BYTES: Final = 32

TRIES_MAX: Final = 3
"""Of one login, where users change meanwhile."""

FAILURES_LOGGED_S: Final = 10.0
"""Logins that failed are logged once in so long."""

log = structlog.get_logger("kvstore.auth")


class AuthHandlers:
    """Changes go through the log, with passwords that are hashed before; what is asked is read
    linearizably. Who may do it is decided there; but nobody else than root has a password hashed.
    """

    def __init__(self, asking: Asking, passwords: Passwords) -> None:
        self._asking = asking
        self._gate = asking.gate
        self._passwords = passwords
        self._failures = 0
        self._failures_told_at = -FAILURES_LOGGED_S
        self._may_change = self._gate.or_root(lambda _: True)

    # --- whether users are asked for -------------------------------------------------------------

    async def AuthEnable(
        self, request: pb.AuthEnableRequest, context: Context
    ) -> pb.AuthEnableResponse:
        # Drawn here, since nothing is drawn when it is applied.
        enable = AuthEnable(os.urandom(TOKEN_KEY_BYTES))
        return pb.AuthEnableResponse(header=await self._change(enable, context))

    async def AuthDisable(
        self, request: pb.AuthDisableRequest, context: Context
    ) -> pb.AuthDisableResponse:
        return pb.AuthDisableResponse(header=await self._change(AuthDisable(), context))

    async def AuthStatus(
        self, request: pb.AuthStatusRequest, context: Context
    ) -> pb.AuthStatusResponse:
        auth = await self._users(context)
        return pb.AuthStatusResponse(
            header=self._asking.header(), enabled=auth.enabled, authRevision=auth.revision
        )

    async def Authenticate(
        self, request: pb.AuthenticateRequest, context: Context
    ) -> pb.AuthenticateResponse:
        """A token for who knows a password. It takes as long, and says the same, whether the user
        is unknown, has no password, or another one."""
        name, peer = request.name, context.peer()
        for _ in range(TRIES_MAX):
            await self._asking.read_point(context)
            auth = self._gate.auth
            if auth is None or not auth.enabled:
                raise EtcdError(Reason.AUTH_NOT_ENABLED)
            user = auth.users.get(name)
            has_password = user is not None and bool(user.password_hash)
            kept = user.password_hash if user is not None and has_password else DECOY
            if not await self._passwords.compare(request.password, kept, peer) or not has_password:
                self._failed(peer)
                raise EtcdError(Reason.AUTHENTICATION_FAILED)
            now = self._gate.auth
            if now is not None and now.enabled and _is_kept(now, name, kept):
                token = self._gate.tokens.make(name, now)
                return pb.AuthenticateResponse(header=self._asking.header(), token=token)
        raise EtcdError(Reason.AUTH_OLD_REVISION)

    def _failed(self, peer: str) -> None:
        """Note a login that failed: never its name, for which people mistake their password."""
        self._failures += 1
        now = monotonic()
        if now - self._failures_told_at >= FAILURES_LOGGED_S:
            log.warning("authentication failed", peer=peer, failures=self._failures)
            self._failures_told_at = now
            self._failures = 0

    # --- users -----------------------------------------------------------------------------------

    async def UserAdd(
        self, request: pb.AuthUserAddRequest, context: Context
    ) -> pb.AuthUserAddResponse:
        if not request.name:
            raise EtcdError(Reason.USER_EMPTY)
        password_hash = b""
        if not request.options.no_password:
            password_hash = await self._hashed(request.password, context)
        add = UserAdd(request.name, password_hash)
        return pb.AuthUserAddResponse(header=await self._change(add, context))

    async def UserDelete(
        self, request: pb.AuthUserDeleteRequest, context: Context
    ) -> pb.AuthUserDeleteResponse:
        delete = UserDelete(request.name)
        return pb.AuthUserDeleteResponse(header=await self._change(delete, context))

    async def UserChangePassword(
        self, request: pb.AuthUserChangePasswordRequest, context: Context
    ) -> pb.AuthUserChangePasswordResponse:
        change = UserChangePassword(request.name, await self._hashed(request.password, context))
        return pb.AuthUserChangePasswordResponse(header=await self._change(change, context))

    async def UserGet(
        self, request: pb.AuthUserGetRequest, context: Context
    ) -> pb.AuthUserGetResponse:
        name = request.name

        def allowed(auth: Auth, user: str) -> None:
            if user != name:
                is_root(auth, user)

        auth = await self._asking.read_state(lambda machine, _: machine.auth, context, allowed)
        found = auth.users.get(name)
        if found is None:
            raise EtcdError(Reason.USER_NOT_FOUND)
        return pb.AuthUserGetResponse(header=self._asking.header(), roles=sorted(found.roles))

    async def UserList(
        self, request: pb.AuthUserListRequest, context: Context
    ) -> pb.AuthUserListResponse:
        auth = await self._users(context)
        return pb.AuthUserListResponse(header=self._asking.header(), users=sorted(auth.users))

    async def UserGrantRole(
        self, request: pb.AuthUserGrantRoleRequest, context: Context
    ) -> pb.AuthUserGrantRoleResponse:
        grant = UserGrantRole(request.user, request.role)
        return pb.AuthUserGrantRoleResponse(header=await self._change(grant, context))

    async def UserRevokeRole(
        self, request: pb.AuthUserRevokeRoleRequest, context: Context
    ) -> pb.AuthUserRevokeRoleResponse:
        revoke = UserRevokeRole(request.name, request.role)
        return pb.AuthUserRevokeRoleResponse(header=await self._change(revoke, context))

    # --- roles -----------------------------------------------------------------------------------

    async def RoleAdd(
        self, request: pb.AuthRoleAddRequest, context: Context
    ) -> pb.AuthRoleAddResponse:
        return pb.AuthRoleAddResponse(header=await self._change(RoleAdd(request.name), context))

    async def RoleDelete(
        self, request: pb.AuthRoleDeleteRequest, context: Context
    ) -> pb.AuthRoleDeleteResponse:
        delete = RoleDelete(request.role)
        return pb.AuthRoleDeleteResponse(header=await self._change(delete, context))

    async def RoleGet(
        self, request: pb.AuthRoleGetRequest, context: Context
    ) -> pb.AuthRoleGetResponse:
        role = request.role

        def allowed(auth: Auth, user: str) -> None:
            found = auth.users.get(user)
            if found is None or role not in found.roles:
                is_root(auth, user)

        auth = await self._asking.read_state(lambda machine, _: machine.auth, context, allowed)
        permissions = auth.roles.get(role)
        if permissions is None:
            raise EtcdError(Reason.ROLE_NOT_FOUND)
        if role == ROOT:
            permissions = (ROOT_PERMISSION,)
        return pb.AuthRoleGetResponse(
            header=self._asking.header(),
            perm=[
                pb.Permission(permType=kind, key=key, range_end=range_end)
                for kind, key, range_end in permissions
            ],
        )

    async def RoleList(
        self, request: pb.AuthRoleListRequest, context: Context
    ) -> pb.AuthRoleListResponse:
        auth = await self._users(context)
        return pb.AuthRoleListResponse(header=self._asking.header(), roles=sorted(auth.roles))

    async def RoleGrantPermission(
        self, request: pb.AuthRoleGrantPermissionRequest, context: Context
    ) -> pb.AuthRoleGrantPermissionResponse:
        if not request.HasField("perm"):
            raise EtcdError(Reason.PERMISSION_NOT_GIVEN)
        asked = request.perm
        permission = Permission(asked.permType, asked.key, asked.range_end)
        grant = RoleGrantPermission(request.name, permission)
        return pb.AuthRoleGrantPermissionResponse(header=await self._change(grant, context))

    async def RoleRevokePermission(
        self, request: pb.AuthRoleRevokePermissionRequest, context: Context
    ) -> pb.AuthRoleRevokePermissionResponse:
        revoke = RoleRevokePermission(request.role, request.key, request.range_end)
        return pb.AuthRoleRevokePermissionResponse(header=await self._change(revoke, context))

    # --- how -------------------------------------------------------------------------------------

    async def _change(self, operation: Operation, context: Context) -> pb.ResponseHeader:
        # What isn't root's is refused where it is applied, and is to hold nobody up.
        may_change = self._may_change(context)
        propose = self._asking.propose_in_turn if may_change else self._asking.propose
        answer = await propose(operation, context)
        return self._asking.header(answer.revision)

    async def _users(self, context: Context) -> Auth:
        """All users, for root."""
        auth = await self._asking.read_state(lambda machine, _: machine.auth, context, is_root)
        assert isinstance(auth, Auth)
        return auth

    async def _hashed(self, password: str, context: Context) -> bytes:
        await self._gate.require(context, is_root)
        return await self._passwords.hash(password, context.peer())


def _is_kept(auth: Auth, name: str, kept: bytes) -> bool:
    """Whether that is still a user's password, as it is kept."""
    user = auth.users.get(name)
    return user is not None and user.password_hash == kept
