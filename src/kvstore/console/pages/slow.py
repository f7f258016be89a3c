"""The calls that took long lately, as each member remembers them: sizes and times, never keys."""

from __future__ import annotations

import datetime
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvstore.client import SlowCall
from kvstore.console.rendering import page
from kvstore.console.requests import console_of, operates, shown
from kvstore.console.sessions import Session
from kvstore.errors import Error

__all__ = ["ROUTES"]

# Of all members together, the newest.
SHOWN_MAX: Final = 200


class Row(NamedTuple):
    address: str
    at: str
    call: SlowCall


@shown
async def slow(request: Request, session: Session) -> Response:
    await operates(request, session)
    cluster = console_of(request).cluster
    found: list[Row] = []
    silences: dict[str, str] = {}
    for address, answer in (await cluster.slow_calls()).items():
        if isinstance(answer, Error):
            silences[address] = str(answer)
        else:
            found += [Row(address, _at(call), call) for call in answer]
    found.sort(key=lambda row: row.call.ended_at, reverse=True)
    return page(request, "slow.html", rows=found[:SHOWN_MAX], silences=silences)


def _at(call: SlowCall) -> str:
    return f"{datetime.datetime.fromtimestamp(call.ended_at, datetime.UTC):%Y-%m-%d %H:%M:%S}"


ROUTES = (Route("/slow", slow),)
