"""Deleting all keys of a prefix: counted first, and only as they were when they were counted."""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvstore.client import AsyncClient, Delete
from kvstore.client.keys import with_prefix
from kvstore.console.audit import audited
from kvstore.console.rendering import page
from kvstore.console.requests import Form, changes, console_of, key_of, shown
from kvstore.console.sessions import Session
from kvstore.errors import ConflictError, Error, PermissionDeniedError

__all__ = ["ROUTES", "delete_counted"]

# Keys that go in one transaction: others' calls pass between two of them.
CHUNK: Final = 1_000
# For one form; what is left then is said, and can be gone on with.
DELETING_S: Final = 20.0


@shown
async def ask(request: Request, session: Session) -> Response:
    """How many keys there are, and whether they are meant."""
    if not console_of(request).options.write:
        raise PermissionDeniedError("this console only reads: start it with --write")
    prefix = key_of(request, "p")
    return await _form(request, session, prefix)


async def _form(request: Request, session: Session, prefix: bytes, **said: Any) -> Response:
    # The revision before the count: what is written in between isn't taken for counted.
    keys = session.client.range(prefix=prefix, limit=5, keys_only=True)
    examples = await keys.list()
    revision = keys.revision
    counted = await session.client.count(prefix=prefix, revision=revision)
    given: dict[str, Any] = {"deleted": None, "why": "", "status": 200, **said}
    return page(
        request,
        "delete.html",
        prefix=prefix,
        counted=counted,
        revision=revision,
        examples=[entry.key for entry in examples],
        **given,
    )


@changes
async def delete(request: Request, session: Session, form: Form) -> Response:
    prefix, revision = form.key(), form.number("revision")
    if form.number("typed") != form.number("counted"):
        why = "that is not how many keys there are: nothing was deleted"
        return await _form(request, session, prefix, status=400, why=why)
    async with audited(
        request, session.name, "delete prefix", key=prefix, revision=revision
    ) as said:
        deleted, trouble = await delete_counted(session.client, prefix, revision)
        said["deleted"] = deleted
        if trouble is not None:
            said["outcome"], said["error"] = "partly", str(trouble)
    why = "" if trouble is None else str(trouble)
    status = 200 if trouble is None else 409
    return await _form(request, session, prefix, deleted=deleted, why=why, status=status)


async def delete_counted(
    client: AsyncClient, prefix: bytes, revision: int
) -> tuple[int, Error | None]:
    """Delete what begins with ``prefix`` as it was at ``revision``, some at a time.

    How many went, and what ended it before all had: ConflictError where a key was written since,
    or where DELETING_S were over, or what a call raised. What went stays gone.
    """
    deleted = 0
    end = time.monotonic() + DELETING_S
    bound = with_prefix(prefix).end
    start = prefix or b"\0"
    try:
        while True:
            keys = client.range(
                start, None if bound == b"\0" else bound, limit=CHUNK, page=CHUNK, keys_only=True
            )
            found = await keys.list()
            if not found:
                return deleted, None
            first, after = found[0].key, found[-1].key + b"\0"
            counted = client.keys(first, after).mod_revision < revision + 1
            deleting = Delete(start=first, end=after)
            result = await client.transaction().if_(counted).then(deleting).commit()
            if not result.succeeded:
                raise ConflictError("keys were written since they were counted; those stay")
            deleted += result[deleting].deleted
            start = after
            if time.monotonic() > end:
                raise ConflictError(f"{DELETING_S:.0f} s are over; what is left can go next")
    except Error as error:
        return deleted, error


ROUTES = (Route("/keys/delete", ask), Route("/keys/delete", delete, methods=["POST"]))
