"""What a request is given: the console, its session, forms that were checked, keys of links."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Final
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from kvstore.console.buffers import Buffers
from kvstore.console.cluster import Cluster
from kvstore.console.formats import from_link
from kvstore.console.options import Options
from kvstore.console.sampler import Sampler
from kvstore.console.sessions import Session, Sessions
from kvstore.errors import (
    InvalidArgumentError,
    OverloadedError,
    PermissionDeniedError,
    TooLargeError,
)

__all__ = [
    "Console",
    "Form",
    "changes",
    "checked_form",
    "checked_header",
    "console_of",
    "cookie_name",
    "key_of",
    "operates",
    "read_form",
    "session_of",
    "shown",
    "stores",
    "whole_number",
]

# A value of 1 MiB as a form sends it: three bytes for each that isn't plain, and the rest of it.
VALUE_FORM_BYTES_MAX: Final = 4 << 20
# Every other form.
FORM_BYTES_MAX: Final = 64 << 10
# For all of a form to come, with a value and without. What whoever has no session may send is so
# small that connections bound it, and waits for no place that others could hold.
FORM_S: Final = 10.0
VALUE_FORM_S: Final = 60.0
# Of forms with values so many may be on their way at one time; others wait so long for a place.
VALUE_FORMS_MAX: Final = 8
PLACE_S: Final = 20.0
FIELDS_MAX: Final = 32

Page = Callable[[Request, Session], Awaitable[Response]]
Change = Callable[[Request, Session, "Form"], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Console:
    """All that pages stand on."""

    options: Options
    cluster: Cluster
    sessions: Sessions
    sampler: Sampler
    buffers: Buffers = field(default_factory=Buffers)
    value_forms: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(VALUE_FORMS_MAX)
    )
    """A place for each form with a value that is being read."""
    verifying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of backups that are sent, one at a time."""


class Form:
    """The fields of a form that has proved to be ours."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def text(self, name: str, default: str | None = None) -> str:
        """A field. Raises InvalidArgumentError for one that is missing and has no default."""
        value = self._fields.get(name, default)
        if value is None:
            raise InvalidArgumentError(f"the form has no {name}")
        return value

    def key(self) -> bytes:
        return from_link(self.text("k"))

    def number(self, name: str, default: str | None = None) -> int:
        return whole_number(self.text(name, default), name)


def console_of(request: Request) -> Console:
    console = request.app.state.console
    assert isinstance(console, Console)
    return console


def cookie_name(request: Request, what: str) -> str:
    """Cookies go to every port of a host: each console has its own."""
    return f"kvstore-{what}-{request.url.port or request.url.scheme}"


def session_of(request: Request) -> Session | None:
    """The session of a request, found once; None: to be logged in."""
    if not hasattr(request.state, "session"):
        sid = request.cookies.get(cookie_name(request, "session"))
        request.state.session = console_of(request).sessions.find(sid)
    session = request.state.session
    assert session is None or isinstance(session, Session)
    return session


def shown(do: Page) -> Endpoint:
    """A page for whoever is logged in; others are sent to the login."""

    @wraps(do)
    async def endpoint(request: Request) -> Response:
        session = session_of(request)
        if session is None:
            return RedirectResponse("/login", 303)
        return await do(request, session)

    return endpoint


def changes(do: Change) -> Endpoint:
    """A form that changes what the cluster holds, of a console that may write."""
    return _changes(do, FORM_BYTES_MAX)


def stores(do: Change) -> Endpoint:
    """The same of one that has a value in it."""
    return _changes(do, VALUE_FORM_BYTES_MAX)


def _changes(do: Change, bytes_max: int) -> Endpoint:
    @wraps(do)
    async def endpoint(request: Request) -> Response:
        session, form = await checked_form(request, bytes_max)
        if not console_of(request).options.write:
            raise PermissionDeniedError("this console only reads: start it with --write")
        return await do(request, session, form)

    return endpoint


async def operates(request: Request, session: Session) -> None:
    """Raises PermissionDeniedError unless the session may do what operators may."""
    if not await console_of(request).sessions.may_operate(session):
        raise PermissionDeniedError(
            "the console does that for users with the role root alone, or for whoever started it"
        )


async def checked_form(request: Request, bytes_max: int = FORM_BYTES_MAX) -> tuple[Session, Form]:
    """The session and the form of a POST; raises HTTPException where it isn't ours."""
    session = session_of(request)
    if session is None:
        raise HTTPException(401, "your session is over: log in again")
    fields = await read_form(request, bytes_max)
    if not console_of(request).sessions.is_ours(session, fields.get("csrf", "")):
        raise HTTPException(403, "the form is old, or of another session: load the page again")
    return session, Form(fields)


def checked_header(request: Request) -> Session:
    """The session of a POST that is no form: its token is in a header, which other sites can't
    send. Raises HTTPException."""
    session = session_of(request)
    token = request.headers.get("x-csrf-token", "")
    if session is None or not console_of(request).sessions.is_ours(session, token):
        raise HTTPException(403, "the page is old, or of another session: load it again")
    return session


async def read_form(request: Request, bytes_max: int = FORM_BYTES_MAX) -> dict[str, str]:
    """The fields of a form, unproved. Raises TooLargeError, InvalidArgumentError, OverloadedError,
    HTTPException."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidArgumentError("that is no form")
    try:
        if bytes_max > FORM_BYTES_MAX:
            async with _place(console_of(request).value_forms), asyncio.timeout(VALUE_FORM_S):
                body = await _body(request, bytes_max)
        else:
            async with asyncio.timeout(FORM_S):
                body = await _body(request, bytes_max)
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(408, "the form didn't come in time") from None
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise InvalidArgumentError("the form can't be read") from None
    return dict(pairs)


@contextlib.asynccontextmanager
async def _place(places: asyncio.Semaphore) -> AsyncIterator[None]:
    """One of those. Raises OverloadedError if none becomes free."""
    try:
        await asyncio.wait_for(places.acquire(), PLACE_S)
    except TimeoutError:
        raise OverloadedError(
            f"{VALUE_FORMS_MAX} values are on their way to the console already; try again"
        ) from None
    try:
        yield
    finally:
        places.release()


async def _body(request: Request, bytes_max: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > bytes_max:
            raise TooLargeError(f"this form has at most {bytes_max >> 10} KiB")
    return bytes(body)


def key_of(request: Request, name: str = "k") -> bytes:
    """The key of a link; empty where it has none. Raises InvalidArgumentError."""
    return from_link(request.query_params.get(name, ""))


def whole_number(text: str, name: str) -> int:
    """Raises InvalidArgumentError unless it is one from 0 to 2**63 - 1."""
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or int(text) >= 1 << 63:
        raise InvalidArgumentError(f"{name} is a whole number, not {text[:40]!r}")
    return int(text)
