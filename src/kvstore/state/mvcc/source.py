"""Keys as of a revision, as the engine has them.

What the engine must be able to tell is a :class:`Store`; one that must not ask the disk raises
:class:`ColdError` where it would have to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.records import (
    ATTACHMENTS,
    USER,
    attachment_prefix,
    decode_attachment_key,
    decode_key,
)
from kvstore.state.mvcc.requests import TO_THE_END
from kvstore.state.mvcc.varints import I64_MAX

__all__ = [
    "ColdError",
    "Source",
    "Span",
    "Standing",
    "Store",
    "StoredSource",
    "attached_keys",
    "span_of",
]

_USER_END = bytes([USER[0] + 1])
_ATTACHMENTS_END = bytes([ATTACHMENTS[0] + 1])


class ColdError(Exception):
    """Of ``key``, or of keys from it on, only the disk knows, and it wasn't to be asked."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key = key


class Standing(NamedTuple):
    """How far the model is: all numbers are part of the replicated state.

    ``model_from``: the revision at which the model was enabled, 0 while it isn't. ``compacted``:
    the revision below which history is gone, -1 where none ever was.
    """

    revision: int
    model_from: int
    compacted: int


class Store(Protocol):
    """What the engine tells. ``sequence``: as of when, None for now. Raises StorageError."""

    def get_versioned(self, key: bytes, sequence: int | None = None) -> tuple[bytes, int] | None:
        """Value and sequence of a key's newest version, None where it has no value."""

    def versions(
        self, start: bytes, stop: bytes, sequence: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes, int]]:
        """Key, value and sequence of each key from ``start`` on and below ``stop``, in order."""

    def count(self, start: bytes, stop: bytes, sequence: int | None = None) -> int:
        """How many these are."""


class Span(NamedTuple):
    """User keys from ``start`` on and below ``stop``; without a stop all from ``start`` on."""

    start: bytes
    stop: bytes | None

    @property
    def is_empty(self) -> bool:
        """Whether no key can be in it."""
        return self.stop is not None and self.stop <= self.start

    @property
    def stored(self) -> tuple[bytes, bytes]:
        """The same, in keys of the engine."""
        stop = _USER_END if self.stop is None else USER + self.stop
        return USER + self.start, stop

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, bytes)
        return self.start <= key and (self.stop is None or key < self.stop)


def span_of(key: bytes, range_end: bytes) -> Span:
    """The keys that a request with these two means, one key for an empty ``range_end``."""
    if range_end == TO_THE_END:
        return Span(key, None)
    return Span(key, range_end or key + b"\0")


class Source(Protocol):
    """Keys as of a revision, 0 being the newest that the source knows."""

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """One key, None where it has no value."""

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        """Those of a span, ascending or descending."""

    def count(self, span: Span, revision: int = 0) -> int:
        """How many these are."""


class StoredSource:
    """What the engine holds. ``newest``: the sequence of revision 0, None for now."""

    __slots__ = ("_model_from", "_newest", "_store")

    def __init__(self, store: Store, model_from: int, newest: int | None) -> None:
        self._store = store
        self._model_from = model_from
        self._newest = newest

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """See :class:`Source`."""
        found = self._store.get_versioned(USER + key, revision or self._newest)
        return None if found is None else decode_key(key, *found, self._model_from)

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        """See :class:`Source`."""
        if span.is_empty:
            return
        model_from = self._model_from
        versions = self._store.versions(*span.stored, revision or self._newest, reverse=reverse)
        for key, value, sequence in versions:
            yield decode_key(key[1:], value, sequence, model_from)

    def count(self, span: Span, revision: int = 0) -> int:
        """See :class:`Source`."""
        if span.is_empty:
            return 0
        return self._store.count(*span.stored, revision or self._newest)


def attached_keys(store: Store, lease: int, span: Span | None = None) -> Iterator[bytes]:
    """The keys on a lease, or those in ``span``, by what is stored now, ascending."""
    start = attachment_prefix(lease)
    stop = _ATTACHMENTS_END if lease == I64_MAX else attachment_prefix(lease + 1)
    if span is not None:
        if span.stop is not None:
            stop = start + span.stop
        start += span.start
    for stored_key, _, _ in store.versions(start, stop):
        yield decode_attachment_key(stored_key)[1]
