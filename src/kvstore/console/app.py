"""The console put together: routes, what each request is given, and what errors become."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from kvstore.console.cluster import Cluster
from kvstore.console.guard import Guard
from kvstore.console.options import Options
from kvstore.console.pages import (
    backups,
    bulk,
    engine,
    history,
    keys,
    login,
    members,
    overview,
    slow,
    users,
    watch,
)
from kvstore.console.rendering import page
from kvstore.console.requests import Console, console_of, session_of
from kvstore.console.sampler import Sampler
from kvstore.console.sessions import Sessions
from kvstore.console.statuses import status_of
from kvstore.errors import Error, Outcome, UnauthenticatedError

__all__ = ["application", "console_of_options"]

logger = logging.getLogger("kvstore.console")

STATIC = Path(__file__).parent / "static"

_OUTCOMES = {
    Outcome.APPLIED: "The change was made.",
    Outcome.NOT_APPLIED: "Nothing was changed.",
    Outcome.UNKNOWN: "The change may have been made: look before you try again.",
}


def console_of_options(options: Options) -> Console:
    """What the pages of a cluster's console stand on."""
    cluster = Cluster(options)
    sessions = Sessions(cluster, lends_rights=options.lends_rights)
    return Console(options, cluster, sessions, Sampler(cluster, options.metrics))


def application(console: Console) -> Guard:
    """The console as ASGI; in its lifespan it asks the cluster how it is."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sampling = asyncio.create_task(console.sampler.run())
        expiring = asyncio.create_task(_expire(console.sessions))
        try:
            yield
        finally:
            sampling.cancel()
            expiring.cancel()
            await asyncio.gather(sampling, expiring, return_exceptions=True)
            await console.sessions.close()
            await console.cluster.close()

    app = Starlette(
        routes=[
            *overview.ROUTES,
            *keys.ROUTES,
            *bulk.ROUTES,
            *history.ROUTES,
            *watch.ROUTES,
            *members.ROUTES,
            *engine.ROUTES,
            *slow.ROUTES,
            *backups.ROUTES,
            *users.ROUTES,
            *login.ROUTES,
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/favicon.ico", lambda _: Response(status_code=204)),
        ],
        lifespan=lifespan,
        exception_handlers={
            Error: _refused,
            HTTPException: _http_error,
            Exception: _defect,
        },
    )
    app.state.console = console
    return Guard(app, console.options.hosts)


async def _expire(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(60)
        await sessions.expire()


async def _refused(request: Request, error: Exception) -> Response:
    """What the cluster or the console refused, in its own words."""
    assert isinstance(error, Error)
    if isinstance(error, UnauthenticatedError) and request.url.path != "/login":
        session = session_of(request)
        if session is not None:
            await console_of(request).sessions.end(session)
        return RedirectResponse("/login", 303)
    outcome = "" if error.outcome is None else _OUTCOMES[error.outcome]
    return page(
        request,
        "error.html",
        status=status_of(error),
        title="That didn't work",
        said=str(error),
        more=outcome,
    )


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return page(
        request,
        "error.html",
        status=error.status_code,
        title="That didn't work",
        said=str(error.detail),
        more="",
    )


async def _defect(request: Request, error: Exception) -> Response:
    logger.error("a page failed", exc_info=error)
    return page(
        request,
        "error.html",
        status=500,
        title="A defect of the console",
        said="The console's log has more.",
        more="",
    )
