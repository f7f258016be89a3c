"""Saving a backup into the browser's downloads, and reading one whether it is whole."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kvstore.console.audit import audited
from kvstore.console.formats import size
from kvstore.console.rendering import page
from kvstore.console.requests import (
    checked_form,
    checked_header,
    console_of,
    operates,
    shown,
)
from kvstore.console.sessions import Session
from kvstore.errors import CorruptionError, InternalError
from kvstore.replica.backup_file import BackupInfo, BackupParser

__all__ = ["ROUTES"]

# A member that can begin is waited for this long; the transfer isn't bounded.
BEGIN_S: Final = 15.0


@shown
async def backups(request: Request, session: Session) -> Response:
    return page(request, "backups.html")


async def save(request: Request) -> Response:
    """A backup, as it comes: it is checked on its way, and breaks off where it isn't whole."""
    session, _ = await checked_form(request)
    await operates(request, session)
    pieces = session.client.save_snapshot(timeout=BEGIN_S)
    async with audited(request, session.name, "begin a backup"):
        first = await anext(pieces, None)
    if first is None:
        raise InternalError("the member sent no backup")
    now = datetime.datetime.now(datetime.UTC)
    headers = {"content-disposition": f'attachment; filename="kvstore-{now:%Y%m%dT%H%M%SZ}.kvs"'}
    return StreamingResponse(
        _checked(first, pieces), media_type="application/octet-stream", headers=headers
    )


async def _checked(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    parser = BackupParser("the backup")
    try:
        parser.feed(first)
        yield first
        async for piece in pieces:
            parser.feed(piece)
            yield piece
        parser.finish()
    finally:
        await pieces.aclose()


async def verify(request: Request) -> Response:
    """Read a backup that is sent as the body, keep nothing of it, and say what it is."""
    checked_header(request)
    if console_of(request).verifying.locked():
        return PlainTextResponse("Another backup is read now: try again after it.", 503)
    parser = BackupParser("the file")
    count = 0
    async with console_of(request).verifying:
        try:
            async for piece in request.stream():
                count += len(piece)
                parser.feed(piece)
            info = parser.finish()
        except CorruptionError as error:
            return PlainTextResponse(f"It is damaged: {error}")
        except (TimeoutError, ClientDisconnect):
            raise HTTPException(408, "the file didn't come in time") from None
    return PlainTextResponse(_said(info, count))


def _said(info: BackupInfo, count: int) -> str:
    saved = datetime.datetime.fromtimestamp(info.saved_at, datetime.UTC)
    return (
        f"It is whole: {size(count)}, of cluster {info.cluster or '(embedded)'} at revision "
        f"{info.revision}, saved by member {info.member} at {saved:%Y-%m-%d %H:%M:%S} UTC."
    )


ROUTES = (
    Route("/backups", backups),
    Route("/backups/save", save, methods=["POST"]),
    Route("/backups/verify", verify, methods=["POST"]),
)
