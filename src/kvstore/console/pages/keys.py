"""Keys as a tree; a key with its value; putting and deleting, compared on the revision seen."""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from kvstore.client import (
    AsyncClient,
    Delete,
    KeyValue,
    LeaseStatus,
    Permission,
    Put,
    TransactionResult,
)
from kvstore.console.audit import audited
from kvstore.console.formats import (
    ENCODINGS,
    VIEWS,
    decode,
    editable,
    encode,
    in_link,
    label,
    view_of,
)
from kvstore.console.rendering import page
from kvstore.console.requests import Form, changes, console_of, key_of, shown, stores, whole_number
from kvstore.console.sessions import Session
from kvstore.console.tree import Folder, level
from kvstore.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError

__all__ = ["ROUTES", "conflict", "key_link", "outcome_of"]

# Of a delimiter.
DELIMITER_MAX = 16

# As the protocol has it; a form is told before it is sent on.
VALUE_BYTES_MAX = 1 << 20

DOWNLOAD_PIECE = 64 << 10


class Crumb(NamedTuple):
    """A part of a prefix: its name, and the prefix up to its end."""

    name: str
    prefix: bytes


def crumbs(prefix: bytes, delimiter: bytes) -> list[Crumb]:
    """The way down to a prefix."""
    found, start = [], 0
    while delimiter and (cut := prefix.find(delimiter, start)) >= 0:
        end = cut + len(delimiter)
        found.append(Crumb(label(prefix[start:end]), prefix[:end]))
        start = end
    if start < len(prefix):
        found.append(Crumb(label(prefix[start:]), prefix))
    return found


def key_link(key: bytes) -> str:
    return f"/key?k={in_link(key)}"


def _tree_link(prefix: bytes, delimiter: bytes) -> str:
    return f"/keys?p={in_link(prefix)}&d={in_link(delimiter)}"


@shown
async def keys(request: Request, session: Session) -> Response:
    prefix = key_of(request, "p")
    delimiter = key_of(request, "d") if "d" in request.query_params else b"/"
    if len(delimiter) > DELIMITER_MAX:
        raise InvalidArgumentError(f"a delimiter has at most {DELIMITER_MAX} bytes")
    revision = whole_number(request.query_params.get("r", "0"), "the revision")
    try:
        found = await level(
            session.client, prefix, delimiter, start=key_of(request, "after"), revision=revision
        )
    except PermissionDeniedError as error:
        allowed = await _allowed(session)
        return page(
            request, "keys_denied.html", said=str(error), allowed=allowed, delimiter=delimiter
        )
    return page(
        request,
        "keys.html",
        prefix=prefix,
        delimiter=delimiter,
        crumbs=crumbs(prefix, delimiter),
        folders=[one.prefix for one in found.entries if isinstance(one, Folder)],
        entries=[one for one in found.entries if not isinstance(one, Folder)],
        next=found.next,
        first=not request.query_params.get("after"),
        revision=found.revision,
    )


async def _allowed(session: Session) -> list[Permission]:
    """What a user's roles let it see, as far as it may know."""
    try:
        return [
            permission
            for role in session.roles
            for permission in await session.client.auth.permissions_of(role)
        ]
    except PermissionDeniedError:
        return []


async def find(request: Request) -> Response:
    """A key or a prefix that was typed: the way to its page."""
    query = request.query_params
    typed = decode(query.get("text", ""), query.get("encoding", "text"))
    if query.get("what") == "key" and typed:
        return RedirectResponse(key_link(typed), 303)
    delimiter = decode(query.get("delimiter", "/"), "text")
    return RedirectResponse(_tree_link(typed, delimiter), 303)


@shown
async def count(request: Request, session: Session) -> Response:
    return PlainTextResponse(f"{await session.client.count(prefix=key_of(request, 'p')):,}")


async def entry_of_link(request: Request, client: AsyncClient) -> KeyValue:
    """The key of a link, as it is or was at the revision of the link. Raises NotFoundError."""
    key = key_of(request)
    revision = whole_number(request.query_params.get("r", "0"), "the revision")
    entry = await client.get_entry(key, revision=revision)
    if entry is None:
        at = f" at revision {revision}" if revision else ""
        raise NotFoundError(f"there is no key {label(key)}{at}")
    return entry


@shown
async def key(request: Request, session: Session) -> Response:
    entry = await entry_of_link(request, session.client)
    return page(
        request,
        "key.html",
        entry=entry,
        lease=await _lease(session.client, entry),
        view=view_of(entry.value, request.query_params.get("as")),
        views=VIEWS,
        at=whole_number(request.query_params.get("r", "0"), "the revision"),
        folder=_folder(entry.key),
    )


def _folder(key: bytes) -> bytes:
    """Where the key lies in the tree that most have."""
    return key[: key.rfind(b"/") + 1]


async def _lease(client: AsyncClient, entry: KeyValue) -> LeaseStatus | None:
    """That of a key, where it has one that is there still."""
    return await client.lease_status(entry.lease) if entry.lease else None


@shown
async def value(request: Request, session: Session) -> Response:
    """The value, byte for byte, as a file: never as something that a browser would run."""
    entry = await entry_of_link(request, session.client)
    pieces = (
        entry.value[start : start + DOWNLOAD_PIECE]
        for start in range(0, len(entry.value), DOWNLOAD_PIECE)
    )
    headers = {
        "content-disposition": 'attachment; filename="value.bin"',
        "content-length": str(len(entry.value)),
    }
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@shown
async def edit(request: Request, session: Session) -> Response:
    """A form for a key's value; for a new key without one."""
    if not console_of(request).options.write:
        raise PermissionDeniedError("this console only reads: start it with --write")
    if "k" not in request.query_params:
        return page(request, "key_new.html", prefix=key_of(request, "p"), encodings=ENCODINGS)
    entry = await entry_of_link(request, session.client)
    encoding = editable(entry.value)
    return page(
        request,
        "key_edit.html",
        entry=entry,
        encoding=encoding,
        text=encode(entry.value, encoding),
    )


def _typed_value(form: Form) -> bytes:
    """Browsers send each end of a line of a form's text as CR LF."""
    typed = decode(form.text("value").replace("\r\n", "\n"), form.text("encoding"))
    if len(typed) > VALUE_BYTES_MAX:
        raise InvalidArgumentError(
            f"a value has at most {VALUE_BYTES_MAX} bytes, and this has {len(typed)}"
        )
    return typed


@stores
async def put(request: Request, session: Session, form: Form) -> Response:
    """Store what was typed if the key is as it was seen: at that revision, or (0) not there."""
    new = "key" in form
    key = decode(form.text("key"), form.text("key_encoding")) if new else form.key()
    seen = 0 if new else form.number("seen")
    lease = form.number("lease", "0")
    typed = _typed_value(form)
    client = session.client
    unchanged = client.key(key).mod_revision == seen
    async with audited(request, session.name, "put", key=key, bytes=len(typed)) as said:
        storing = client.transaction().if_(unchanged).then(Put(key, typed, lease=lease))
        result = await storing.commit()
        said.update(outcome_of(result))
    if not result.succeeded:
        return await conflict(request, session, key, seen, typed)
    return RedirectResponse(key_link(key), 303)


def outcome_of(result: TransactionResult) -> dict[str, object]:
    """For the audit log."""
    return {"outcome": "done" if result.succeeded else "conflict", "revision": result.revision}


async def conflict(
    request: Request, session: Session, key: bytes, seen: int, typed: bytes | None
) -> Response:
    """Others came first: what they made of the key, beside what was to be stored (None: the key
    was to be deleted)."""
    entry = await session.client.get_entry(key)
    encoding = "text" if typed is None else editable(typed)
    return page(
        request,
        "conflict.html",
        status=409,
        key=key,
        seen=seen,
        entry=entry,
        view=None if entry is None else view_of(entry.value, None),
        deleting=typed is None,
        encoding=encoding,
        text="" if typed is None else encode(typed, encoding),
    )


@changes
async def delete(request: Request, session: Session, form: Form) -> Response:
    """Remove a key if it is as it was seen."""
    key, seen = form.key(), form.number("seen")
    client = session.client
    unchanged = client.key(key).mod_revision == seen
    async with audited(request, session.name, "delete", key=key) as said:
        result = await client.transaction().if_(unchanged).then(Delete(key)).commit()
        said.update(outcome_of(result))
    if not result.succeeded:
        return await conflict(request, session, key, seen, None)
    return RedirectResponse(_tree_link(_folder(key), b"/"), 303)


ROUTES = (
    Route("/keys", keys),
    Route("/keys/find", find),
    Route("/keys/count", count),
    Route("/key", key),
    Route("/key/value", value),
    Route("/key/edit", edit),
    Route("/key/put", put, methods=["POST"]),
    Route("/key/delete", delete, methods=["POST"]),
)
