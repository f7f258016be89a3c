"""Users, their roles, and what these are allowed."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kvstore.client import Access, Permission
from kvstore.client.auth import AsyncAuth
from kvstore.console.audit import audited
from kvstore.console.formats import decode, from_link
from kvstore.console.rendering import page
from kvstore.console.requests import Form, changes, shown
from kvstore.console.sessions import Session
from kvstore.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError

__all__ = ["ROUTES", "keys_of"]

# Users, and roles, that a page shows, each of which takes a call.
SHOWN_MAX: Final = 100


@shown
async def users(request: Request, session: Session) -> Response:
    auth = session.client.auth
    try:
        names, role_names = await auth.users(), await auth.roles()
    except PermissionDeniedError:
        # Only root may list them; everybody may know its own.
        names = [] if session.user is None else [session.user]
        role_names = list(session.roles)
    roles_of = {name: await _roles(auth, name) for name in names[:SHOWN_MAX]}
    permissions = {name: await _permissions(auth, name) for name in role_names[:SHOWN_MAX]}
    return page(
        request,
        "users.html",
        roles_of=roles_of,
        permissions=permissions,
        more=len(names) > SHOWN_MAX or len(role_names) > SHOWN_MAX,
        keys_of=keys_of,
        accesses=[access.value for access in Access],
    )


async def _roles(auth: AsyncAuth, user: str) -> list[str]:
    try:
        return await auth.roles_of(user)
    except NotFoundError:
        return []  # it went meanwhile


async def _permissions(auth: AsyncAuth, role: str) -> list[Permission]:
    try:
        return await auth.permissions_of(role)
    except (NotFoundError, PermissionDeniedError):
        return []


def keys_of(permission: Permission) -> str:
    """Which keys a permission is for, in a word before the key."""
    if not permission.end:
        return "the key"
    return "from" if permission.end == b"\0" else "from, and less than its end:"


@changes
async def change(request: Request, session: Session, form: Form) -> Response:
    """One change; passwords are in no log."""
    do, name = form.text("do"), form.text("name")
    if not name:
        raise InvalidArgumentError("a user or a role has a name")
    making = _change(session.client.auth, do, name, form)
    async with audited(request, session.name, do, name=name, role=form.text("role", "")):
        await making
    return RedirectResponse("/users", 303)


def _change(auth: AsyncAuth, do: str, name: str, form: Form) -> Awaitable[None]:
    match do:
        case "add user":
            return auth.add_user(name, form.text("password"))
        case "change password":
            return auth.change_password(name, form.text("password"))
        case "delete user":
            return auth.delete_user(name)
        case "grant role":
            return auth.grant_role(name, form.text("role"))
        case "revoke role":
            return auth.revoke_role(name, form.text("role"))
        case "add role":
            return auth.add_role(name)
        case "delete role":
            return auth.delete_role(name)
        case "grant permission":
            return _grant(auth, name, form)
        case "revoke permission":
            key, end = from_link(form.text("key")), from_link(form.text("end"))
            if not end:
                return auth.revoke_permission(name, key)
            return auth.revoke_permission(name, start=key, end=None if end == b"\0" else end)
    raise InvalidArgumentError(f"there is no change {do[:40]!r}")


def _grant(auth: AsyncAuth, role: str, form: Form) -> Awaitable[None]:
    typed = decode(form.text("key"), form.text("encoding", "text"))
    access = form.text("access")
    if access not in [one.value for one in Access]:
        raise InvalidArgumentError(f"there is no access {access[:40]!r}")
    if "prefix" in form:
        return auth.grant_permission(role, Access(access), prefix=typed)
    return auth.grant_permission(role, Access(access), typed)


ROUTES = (Route("/users", users), Route("/users/change", change, methods=["POST"]))
