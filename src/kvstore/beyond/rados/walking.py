"""All keys of a pool and their values, in no order and of no one moment.

A key that is there from the beginning of a walk to its end is seen, once; one that comes, changes
or goes meanwhile may or may not be. What is held at one time is bounded by :data:`BUCKETS` *
:data:`PAIRS` entries, or by :data:`VALUE_BYTES` and a value of those that are objects of their own.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from kvstore.beyond.rados.driven import DrivenPool
from kvstore.beyond.rados.failing import read_failure
from kvstore.beyond.rados.layout import (
    Apart,
    Entry,
    bucket_name,
    bucket_of,
    decode_entry,
    entry_key,
    key_of_entry,
    parse_name,
)
from kvstore.beyond.rados.objects import Operation
from kvstore.errors import CorruptionError, Error, IntegrityCode, StorageError

__all__ = ["Found", "FoundKeys", "walk", "walk_keys"]

BUCKETS = 64
"""That are read side by side."""
PAIRS = 64
"""Of a bucket that are read at one time."""
PAGE_KEYS, PAGE_BYTES = 1000, 4 << 20
"""After which what was read is handed out."""
VALUE_BYTES = 8 << 20
"""Of values with objects of their own, likewise."""


class Found(NamedTuple):
    """Some of what is there. ``damaged``: keys whose value can't be told, and what is wrong with
    it; ``unread``: the same of objects of buckets, whose keys nobody knows."""

    pairs: list[tuple[bytes, bytes]]
    damaged: dict[bytes, Error]
    unread: dict[bytes, Error]


class FoundKeys(NamedTuple):
    """The same without values; ``damaged`` are those whose entry is."""

    keys: list[bytes]
    damaged: dict[bytes, Error]
    unread: dict[bytes, Error]


class _Pages:
    """Entries that were read, until they are handed out."""

    def __init__(self) -> None:
        self.inline: list[tuple[bytes, bytes]] = []
        self.apart: list[tuple[bytes, Apart]] = []
        self.damaged: dict[bytes, Error] = {}
        self.unread: dict[bytes, Error] = {}
        self.size = 0

    @property
    def is_full(self) -> bool:
        count = len(self.inline) + len(self.apart) + len(self.damaged)
        return count >= PAGE_KEYS or self.size >= PAGE_BYTES

    def add(self, key: bytes, entry: Entry) -> None:
        if isinstance(entry, Apart):
            self.apart.append((key, entry))
        else:
            self.inline.append((key, entry))
            self.size += len(key) + len(entry)


def walk(pool: DrivenPool, prefix: bytes = b"") -> Iterator[Found]:
    """All keys that begin with ``prefix``, some at a time. Raises UnavailableError."""
    for pages in _entries(pool, prefix):
        yield from _handed_out(pool, pages)


def walk_keys(pool: DrivenPool, prefix: bytes = b"") -> Iterator[FoundKeys]:
    """The same without a look at values that are objects of their own."""
    for pages in _entries(pool, prefix):
        keys = [key for key, _ in pages.inline] + [key for key, _ in pages.apart]
        if keys or pages.damaged or pages.unread:
            yield FoundKeys(keys, pages.damaged, pages.unread)


def _entries(pool: DrivenPool, prefix: bytes) -> Iterator[_Pages]:
    pages = _Pages()
    for names in pool.names():
        waiting: deque[tuple[int, bytes]] = deque()
        for name in names:
            parsed = parse_name(name)
            if parsed is not None and not parsed[1]:
                waiting.append((parsed[0], b""))
        while waiting:
            _read(pool, prefix, waiting, pages)
            if pages.is_full:
                yield pages
                pages = _Pages()
    yield pages


def _read(
    pool: DrivenPool, prefix: bytes, waiting: deque[tuple[int, bytes]], pages: _Pages
) -> None:
    """Read on in the first buckets that wait; those that have more wait again."""
    first = [waiting.popleft() for _ in range(min(BUCKETS, len(waiting)))]
    pair = entry_key(prefix)
    found = pool.ask(
        [
            partial(pool.objects.list_pairs, bucket_name(bucket), after, pair, PAIRS)
            for bucket, after in first
        ]
    )
    for (bucket, _), operation in zip(first, found, strict=True):
        last = _took(pool, bucket, operation, pages)
        if last is not None:
            waiting.append((bucket, last))


def _took(pool: DrivenPool, bucket: int, operation: Operation, pages: _Pages) -> bytes | None:
    """Take the entries; behind which one there are others, or None."""
    if operation.code == -errno.ENOENT and pool.objects.is_there():
        return None
    if operation.code:
        failure = read_failure(operation.code)
        if not isinstance(failure, StorageError):
            raise failure
        pages.unread[bucket_name(bucket)] = failure
        return None
    last = None
    for last, data in operation.pairs.items():
        key = key_of_entry(last)
        try:
            entry = decode_entry(key, data)
            if entry_key(key) != last or bucket_of(key, pool.salt) != bucket:
                raise CorruptionError(
                    "an entry of another bucket", code=IntegrityCode.INVALID_RECORD
                )
        except CorruptionError as damage:
            pages.damaged[key] = damage
        else:
            pages.add(key, entry)
    return last if operation.more else None


def _handed_out(pool: DrivenPool, pages: _Pages) -> Iterator[Found]:
    if pages.inline or pages.damaged or pages.unread:
        yield Found(pages.inline, pages.damaged, pages.unread)
    keys: list[bytes] = []
    size = 0
    for key, apart in pages.apart:
        if keys and size + apart.size > VALUE_BYTES:
            yield _values(pool, keys)
            keys, size = [], 0
        keys.append(key)
        size += apart.size
    if keys:
        yield _values(pool, keys)


def _values(pool: DrivenPool, keys: list[bytes]) -> Found:
    """As a get finds them: another value may have taken a value's place since."""
    found = Found([], {}, {})
    for key, result in zip(keys, pool.get(keys), strict=True):
        if isinstance(result, StorageError):
            found.damaged[key] = result
        elif isinstance(result, Error):
            raise result
        elif isinstance(result, bytes):
            found.pairs.append((key, result))
    return found
