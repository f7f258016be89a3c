"""The audit log: one line of JSON for each change, and for each login, on standard error."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request

from kvstore.console.formats import label
from kvstore.errors import Error, OutcomeUnknownError

__all__ = ["audited", "log", "place_of"]

# Characters of a name, a key or an error in a line.
TEXT_MAX: Final = 4096

log = logging.getLogger("kvstore.console.audit")


def place_of(request: Request) -> str:
    """The address that a request came from."""
    return request.client.host if request.client is not None else ""


def write_line(request: Request, user: str, did: str, outcome: str, **what: object) -> None:
    """Write one line. Keys may be bytes; values of keys never belong here."""
    what = {name: _short(value) for name, value in what.items()}
    fields = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "user": _short(user),
        "from": place_of(request),
        "did": did,
        "outcome": outcome,
        **what,
    }
    log.info(json.dumps(fields))


def _short(value: object) -> object:
    """What strangers choose doesn't fill the log."""
    said = label(value) if isinstance(value, bytes) else value
    if isinstance(said, str) and len(said) > TEXT_MAX:
        return f"{said[:TEXT_MAX]}…"
    return said


@contextlib.asynccontextmanager
async def audited(
    request: Request, user: str, did: str, **what: object
) -> AsyncIterator[dict[str, object]]:
    """Write a line about the block when it ends; what it adds to the dictionary is in it.

    ``outcome`` is ``done``, ``refused`` or ``unknown``, unless the block says another.
    """
    said: dict[str, object] = {}
    try:
        yield said
    except BaseException as error:
        unknown = not isinstance(error, Error) or isinstance(error, OutcomeUnknownError)
        if isinstance(error, Error) and error.outcome is not None:
            unknown = error.outcome == "unknown"
        outcome = "unknown" if unknown else "refused"
        write_line(request, user, did, outcome, **what, **said, error=str(error))
        raise
    outcome = str(said.pop("outcome", "done"))
    write_line(request, user, did, outcome, **what, **said)
