"""What became of a key: its changes that are remembered, two of them compared, and going back."""

from __future__ import annotations

import difflib
from collections import deque
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kvstore.client import AsyncClient, Event, EventKind, Put
from kvstore.console.audit import audited
from kvstore.console.formats import editable, label, view_of
from kvstore.console.pages.keys import conflict, key_link, outcome_of
from kvstore.console.rendering import page
from kvstore.console.requests import Form, changes, key_of, shown, whole_number
from kvstore.console.sessions import Session
from kvstore.errors import NotFoundError

__all__ = ["ROUTES", "Difference", "differences"]

# Changes that are shown: the newest.
CHANGES_MAX: Final = 200
# Of a value, beside its change.
PREVIEW_BYTES: Final = 120

# Of each of two values that are compared; comparing takes more than its share of time beyond.
DIFF_BYTES: Final = 64 << 10
DIFF_LINES: Final = 1_000


class Change(NamedTuple):
    revision: int
    kind: str
    size: int
    preview: str
    before: int
    """The revision of the change before, 0 for none that is known."""


def _change(event: Event, before: int) -> Change:
    preview = label(event.value[:PREVIEW_BYTES])
    return Change(event.revision, event.kind.value, len(event.value), preview, before)


@shown
async def history(request: Request, session: Session) -> Response:
    key = key_of(request)
    found: deque[Change] = deque(maxlen=CHANGES_MAX)
    count, before = 0, 0
    async for event in session.client.history(key):
        found.append(_change(event, before))
        count += 1
        before = event.revision if event.kind is EventKind.PUT else 0
    return page(
        request,
        "history.html",
        key=key,
        changes=list(reversed(found)),
        left_out=count - len(found),
        there=before != 0,
    )


class Difference(NamedTuple):
    """A line: ``kind`` is ``added``, ``removed`` or empty."""

    kind: str
    text: str


def differences(before: bytes, after: bytes) -> tuple[list[Difference], bool]:
    """What differs, line by line; of what isn't text, in rows of bytes. And whether that is all:
    only so much of a value is compared."""
    text = editable(before[:DIFF_BYTES]) == editable(after[:DIFF_BYTES]) == "text"
    kind = "text" if text else "hex"
    views = [view_of(value[:DIFF_BYTES], kind) for value in (before, after)]
    lines = [view.text.split("\n") for view in views]
    whole = all(
        len(view_lines) <= DIFF_LINES and view.shown == len(value)
        for view_lines, view, value in zip(lines, views, (before, after), strict=True)
    )
    found = [
        Difference({"+": "added", "-": "removed"}.get(line[0], ""), line)
        for line in difflib.unified_diff(
            lines[0][:DIFF_LINES], lines[1][:DIFF_LINES], lineterm="", n=3
        )
        if not line.startswith(("+++", "---"))
    ]
    return found, whole


async def _value_at(client: AsyncClient, key: bytes, revision: int) -> bytes:
    entry = await client.get_entry(key, revision=revision)
    if entry is None:
        raise NotFoundError(f"there was no key {label(key)} at revision {revision}")
    return entry.value


@shown
async def diff(request: Request, session: Session) -> Response:
    key = key_of(request)
    first, second = (
        whole_number(request.query_params.get(name, ""), "a revision") for name in ("a", "b")
    )
    before = await _value_at(session.client, key, first)
    after = await _value_at(session.client, key, second)
    found, whole = differences(before, after)
    return page(
        request,
        "diff.html",
        key=key,
        first=first,
        second=second,
        same=before == after,
        differences=found,
        whole=whole,
    )


@changes
async def revert(request: Request, session: Session, form: Form) -> Response:
    """Store what a key was at a revision, if it is still as it was seen (0: not there)."""
    key, revision = form.key(), form.number("revision")
    client = session.client
    value = await _value_at(client, key, revision)
    now = await client.get_entry(key)
    seen = form.number("seen")
    unchanged = client.key(key).mod_revision == seen
    lease = now.lease if now is not None else 0
    async with audited(request, session.name, "revert", key=key, to=revision) as said:
        storing = client.transaction().if_(unchanged).then(Put(key, value, lease=lease))
        result = await storing.commit()
        said.update(outcome_of(result))
    if not result.succeeded:
        return await conflict(request, session, key, seen, value)
    return RedirectResponse(key_link(key), 303)


ROUTES = (
    Route("/history", history),
    Route("/diff", diff),
    Route("/key/revert", revert, methods=["POST"]),
)
