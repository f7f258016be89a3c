"""Keys as a tree by a delimiter: one level at a time, a page at a time, however many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvstore.client import AsyncClient, KeyValue
from kvstore.client.keys import with_prefix

__all__ = ["PAGE", "Folder", "Level", "level"]

PAGE: Final = 200
"""Folders and keys of a page, at most."""

# Ranges that are read for one page, at most: each folder that is passed over takes one.
READS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Folder:
    """All keys that begin with ``prefix``, which ends with the delimiter."""

    prefix: bytes


@dataclass(frozen=True, slots=True)
class Level:
    """A page of what lies below a prefix. ``next``: where the next page begins, None for none.
    ``revision``: at which it was read."""

    entries: tuple[Folder | KeyValue, ...]
    next: bytes | None
    revision: int


async def level(
    client: AsyncClient,
    prefix: bytes,
    delimiter: bytes,
    *,
    start: bytes = b"",
    revision: int = 0,
) -> Level:
    """Read a page of the level below ``prefix``, from ``start`` on; entries have no values.

    Without a ``delimiter`` all keys lie at one level. A page may have less than :data:`PAGE` and
    yet not be the last. Raises as calls do.
    """
    keys = with_prefix(prefix)
    end = None if keys.end == b"\0" else keys.end
    at: bytes | None = max(start, prefix) or b"\0"
    found: list[Folder | KeyValue] = []
    for _ in range(READS_MAX):
        assert at is not None
        reading = client.range(at, end, limit=PAGE, page=PAGE, keys_only=True, revision=revision)
        page = await reading.list()
        revision = reading.revision
        at = _take(found, page, prefix, delimiter)
        if at is None or (end is not None and at >= end):
            return Level(tuple(found), None, revision)
        if len(found) >= PAGE:
            break
    return Level(tuple(found), at, revision)


def _take(
    found: list[Folder | KeyValue], page: list[KeyValue], prefix: bytes, delimiter: bytes
) -> bytes | None:
    """Add what a page of keys holds; where to read on, None at the end."""
    folder: bytes | None = None
    for entry in page:
        if folder is not None and entry.key.startswith(folder):
            continue
        if len(found) >= PAGE:
            return entry.key
        cut = entry.key.find(delimiter, len(prefix)) if delimiter else -1
        folder = None if cut < 0 else entry.key[: cut + len(delimiter)]
        found.append(entry if folder is None else Folder(folder))
    if len(page) < PAGE:
        return None
    last = page[-1].key
    if folder is None or not last.startswith(folder):
        return last + b"\0"
    after = with_prefix(folder).end
    return None if after == b"\0" else after
