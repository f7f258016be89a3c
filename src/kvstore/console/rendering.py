"""Pages out of templates, which escape all that they are given."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from kvstore.console.formats import duration, in_link, label, size
from kvstore.console.requests import console_of, cookie_name, session_of
from kvstore.version import version

__all__ = ["fragment", "page"]

TEMPLATES = Path(__file__).parent / "templates"

THEMES = ("light", "dark")

# What every page leads to.
PAGES = (
    ("Overview", "/"),
    ("Keys", "/keys"),
    ("Watch", "/watch"),
    ("Members", "/members"),
    ("Engine", "/engine"),
    ("Slow calls", "/slow"),
    ("Backups", "/backups"),
    ("Users", "/users"),
)

_environment = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(
    label=label, link=in_link, size=size, duration=duration, is_open=lambda end: end == b"\0"
)


def page(request: Request, template: str, *, status: int = 200, **given: Any) -> HTMLResponse:
    """A page of the console, and its session's cookie."""
    console = console_of(request)
    session = session_of(request)
    theme = request.cookies.get(cookie_name(request, "theme"))
    response = HTMLResponse(
        _environment.get_template(template).render(
            session=session,
            csrf="" if session is None else console.sessions.csrf_of(session),
            write=console.options.write,
            path=request.url.path,
            pages=PAGES,
            theme=theme if theme in THEMES else "",
            version=version(),
            **given,
        ),
        status,
    )
    if session is not None and request.cookies.get(cookie_name(request, "session")) != session.id:
        set_cookie = partial(response.set_cookie, cookie_name(request, "session"), session.id)
        set_cookie(httponly=True, samesite="strict", secure=console.options.encrypted)
    return response


def fragment(request: Request, template: str, **given: Any) -> HTMLResponse:
    """Part of a page, to be put in place of an older one."""
    return HTMLResponse(_environment.get_template(template).render(**given))
