"""A live watch: the changes of a prefix as they come, as far as the browser can take them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kvstore.client import AsyncClient, AsyncWatch, Event
from kvstore.console.buffers import Buffer, Buffers
from kvstore.console.formats import label, size
from kvstore.console.pages.keys import key_link
from kvstore.console.rendering import page
from kvstore.console.requests import console_of, key_of, shown
from kvstore.console.sessions import Session
from kvstore.errors import Error

__all__ = ["ROUTES"]

# Rows that a page keeps.
ROWS_MAX: Final = 200
# Of a value, beside its change.
PREVIEW_BYTES: Final = 120

# A sign of life, by which a browser that is gone is noticed.
SIGN_S: Final = 10.0
# What is sent goes at this pace at most, all that came meanwhile at once.
PACE_S: Final = 0.1


@shown
async def watch(request: Request, session: Session) -> Response:
    return page(request, "watch.html", prefix=key_of(request, "p"), rows=ROWS_MAX)


def _event(name: str, data: object) -> str:
    # JSON has no raw ends of lines: nothing in a key or value can begin another event.
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _change(event: Event) -> str:
    value = label(event.value[:PREVIEW_BYTES])
    return _event(
        "change",
        {
            "revision": event.revision,
            "kind": event.kind.value,
            "key": label(event.key),
            "link": key_link(event.key),
            "size": size(len(event.value)) if event.value else "",
            "value": value + ("…" if len(event.value) > PREVIEW_BYTES else ""),
        },
    )


async def _fill(buffer: Buffer, watching: AsyncWatch) -> None:
    try:
        async for event in watching:
            buffer.add(_change(event))
    except Error as error:
        buffer.fail(str(error))


async def _changes(buffer: Buffer) -> AsyncIterator[str]:
    """What a browser is sent, until the watch fails or the browser is gone."""
    while True:
        try:
            async with asyncio.timeout(SIGN_S):
                changes, dropped = await buffer.take()
        except TimeoutError:
            yield ": still here\n\n"
            continue
        if dropped:
            yield _event("state", f"Watching. {dropped:,} changes were left out: too many at once.")
        yield "".join(changes)
        if buffer.failure is not None:
            yield _event("over", f"The watch ended: {buffer.failure}")
            return
        await asyncio.sleep(PACE_S)


async def _events(buffers: Buffers, client: AsyncClient, prefix: bytes) -> AsyncIterator[str]:
    try:
        with buffers.one() as buffer:
            async with client.watch(prefix=prefix) as watching:
                yield _event("state", "Watching.")
                filling = asyncio.create_task(_fill(buffer, watching))
                try:
                    async for piece in _changes(buffer):
                        yield piece
                finally:
                    filling.cancel()
    except Error as error:
        yield _event("over", f"There is no watch: {error}")


@shown
async def stream(request: Request, session: Session) -> Response:
    """Server-sent events. What goes wrong is one of them: a browser would try again at once."""
    events = _events(console_of(request).buffers, session.client, key_of(request, "p"))
    return StreamingResponse(events, media_type="text/event-stream")


ROUTES = (Route("/watch", watch), Route("/watch/stream", stream))
