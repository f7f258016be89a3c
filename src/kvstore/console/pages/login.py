"""Logging in and out, and the colours."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kvstore.console.audit import audited, place_of
from kvstore.console.rendering import THEMES, page
from kvstore.console.requests import checked_form, console_of, cookie_name, read_form, session_of
from kvstore.console.sessions import Session
from kvstore.console.statuses import status_of
from kvstore.errors import Error, UnauthenticatedError

__all__ = ["ROUTES"]

THEME_S = 365 * 86_400


async def form(request: Request) -> Response:
    """Nothing in it is done for a session, so that it has no token: a stranger's form could only
    log somebody in whose password the stranger knows, and the Origin is checked."""
    session = session_of(request)
    if session is not None and not session.guest:
        return RedirectResponse("/", 303)
    return _form(request, key=request.query_params.get("key", ""))


def _form(request: Request, *, key: str = "", said: str = "", status: int = 200) -> Response:
    wants_key = console_of(request).sessions.key is not None
    return page(request, "login.html", wants_key=wants_key, key=key, said=said, status=status)


async def log_in(request: Request) -> Response:
    console = console_of(request)
    fields = await read_form(request)
    name = fields.get("user", "")
    try:
        if name:
            async with audited(request, name, "log in"):
                password = fields.get("password", "")
                session = await console.sessions.log_in(name, password, place_of(request))
        else:
            async with audited(request, "(owner)", "log in"):
                session = await console.sessions.log_in_owner(fields.get("key", ""))
    except Error as error:
        known = not isinstance(error, UnauthenticatedError)
        said = str(error) if known else "the store knows no such user with this password"
        status = status_of(error)
        # Whatever was wrong with what was typed: the login was refused.
        return _form(request, said=said, status=status if status >= 500 else 403)
    response = RedirectResponse("/", 303)
    _remember(request, response, session)
    return response


def _remember(request: Request, response: Response, session: Session) -> None:
    response.set_cookie(
        cookie_name(request, "session"),
        session.id,
        httponly=True,
        samesite="strict",
        secure=console_of(request).options.encrypted,
    )


async def log_out(request: Request) -> Response:
    session, _ = await checked_form(request)
    async with audited(request, session.name, "log out"):
        await console_of(request).sessions.end(session)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_name(request, "session"))
    return response


async def set_theme(request: Request) -> Response:
    _, fields = await checked_form(request)
    chosen = fields.text("theme", "")
    response = RedirectResponse("/", 303)
    name = cookie_name(request, "theme")
    if chosen in THEMES:
        response.set_cookie(name, chosen, max_age=THEME_S, httponly=True, samesite="strict")
    else:
        response.delete_cookie(name)
    return response


ROUTES = (
    Route("/login", form),
    Route("/login", log_in, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"]),
    Route("/theme", set_theme, methods=["POST"]),
)
