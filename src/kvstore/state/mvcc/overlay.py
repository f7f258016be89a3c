"""Keys as a slice of the log sees them: as the engine has them, and over that what the slice wrote.

It knows no more keys than were asked for or changed one by one, so a range costs what it costs the
engine, and the deletion of a large range takes one note, not one a key. Nor does it keep what the
engine can tell again: large values that a slice asks for, to compare them or to replace them, may
be more than fit into memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import Final

from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.source import Source, Span

__all__ = ["Overlay", "absent"]

_LARGE: Final = 1024
"""Keys deleted at once from which on their range is noted, and not each of them."""

_KEPT_BYTES_MAX: Final = 512
"""Of a value that the engine has; it is asked again for what is larger."""

_UNKEPT: Final = bytes(bytearray(b"a value that the engine has"))
"""Stands for such a value: this very object, whatever is in it."""

_key = itemgetter(0)


def _start(deleted: tuple[Span, int]) -> bytes:
    return deleted[0].start


def absent(key: bytes, revision: int) -> KeyValue:
    """A key without a value, since ``revision`` where it had one before: its version is 0."""
    return KeyValue(key, 0, revision, 0, b"", 0)


class Overlay:
    """A :class:`Source` that can be written to. ``revision``: the one that ``source`` is at."""

    __slots__ = ("_deleted", "_histories", "_keys", "_revision", "_source", "_unsorted")

    def __init__(self, source: Source, revision: int) -> None:
        self._source = source
        self._revision = revision
        # Of each key that was asked for or written: what it was before the slice, and each change
        # since, as of its mod revision.
        self._histories: dict[bytes, list[KeyValue]] = {}
        # The keys of these, in order but for those that came last.
        self._keys: list[bytes] = []
        self._unsorted: list[bytes] = []
        # Large ranges that were deleted, by where they start, and at which revision: what the
        # engine has of them is gone.
        self._deleted: list[tuple[Span, int]] = []

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """See :class:`Source`."""
        if revision and revision < self._revision:
            return self._source.get(key, revision)
        history = self._histories.get(key)
        if history is None:
            found, history = self._load(key)
            if found is not None and history[-1] is history[0]:
                return found  # of a revision that isn't before the slice
        known = _as_of(history, revision) if revision else history[-1]
        return self._whole(known) if known.version else None

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        """See :class:`Source`. On the way no key may be written but those that were passed."""
        if revision and revision < self._revision:
            return self._source.visible(span, revision, reverse=reverse)
        pieces = self._left_of(span, revision)
        keys = self._keys_in(span)
        if reverse:
            pieces.reverse()
            keys.reverse()
        source = self._source
        stored = chain.from_iterable(source.visible(piece, reverse=reverse) for piece in pieces)
        if not keys:
            return stored
        histories = self._histories
        known = [
            _as_of(histories[key], revision) if revision else histories[key][-1] for key in keys
        ]
        others = (found for found in stored if found.key not in histories)
        whole = map(self._whole, [kv for kv in known if kv.version])
        return merge(others, whole, key=_key, reverse=reverse)

    def count(self, span: Span, revision: int = 0) -> int:
        """See :class:`Source`."""
        if revision and revision < self._revision:
            return self._source.count(span, revision)
        count = sum(self._source.count(piece) for piece in self._left_of(span, revision))
        for key in self._keys_in(span):
            history = self._histories[key]
            now = _as_of(history, revision) if revision else history[-1]
            if history[0].version:
                gone = self._gone_from(key)
                count -= not gone or 0 < revision < gone
            count += now.version > 0
        return count

    def write(self, now: KeyValue) -> None:
        """A key that was asked for before becomes ``now``, which is :func:`absent` of a delete."""
        self._histories[now.key].append(now)

    def delete(self, span: Span, revision: int) -> Iterator[KeyValue]:
        """Delete the keys of a span; gives what they were, in order, and is to be exhausted."""
        few: list[KeyValue] = []
        deleted = 0
        for kv in self.visible(span):
            history = self._histories.get(kv.key)
            if history is not None:
                history.append(absent(kv.key, revision))
            elif deleted < _LARGE:
                few.append(_kept(kv))
                deleted += 1
            else:
                deleted += 1
            yield kv
        if deleted > len(few):
            insort(self._deleted, (span, revision), key=_start)
            return
        for kv in few:
            self._histories[kv.key] = [kv, absent(kv.key, revision)]
            self._unsorted.append(kv.key)

    def _load(self, key: bytes) -> tuple[KeyValue | None, list[KeyValue]]:
        """What the engine has of a key, and its history from now on."""
        found = self._source.get(key)
        history = [absent(key, 0) if found is None else _kept(found)]
        gone = self._gone_from(key)
        if found is not None and gone:
            history.append(absent(key, gone))
        self._histories[key] = history
        self._unsorted.append(key)
        return found, history

    def _whole(self, kv: KeyValue) -> KeyValue:
        """With its value, where that isn't kept: then it is what the key was before the slice."""
        if kv.value is not _UNKEPT:
            return kv
        found = self._source.get(kv.key)
        assert found is not None
        return found

    def _gone_from(self, key: bytes) -> int:
        """From which revision on what the engine has of a key is gone with its range; 0 if not."""
        return min((revision for span, revision in self._deleted if key in span), default=0)

    def _left_of(self, span: Span, revision: int) -> list[Span]:
        """Where in a span what the engine has still stands, ascending."""
        left = []
        start, stop = span
        for gone, gone_from in self._deleted:
            if 0 < revision < gone_from or (gone.stop is not None and gone.stop <= start):
                continue
            if stop is not None and stop <= gone.start:
                break
            if start < gone.start:
                left.append(Span(start, gone.start))
            if gone.stop is None:
                return left
            start = gone.stop
        if stop is None or start < stop:
            left.append(Span(start, stop))
        return left

    def _keys_in(self, span: Span) -> list[bytes]:
        """Those with a history here, ascending."""
        if self._unsorted:
            self._keys += self._unsorted
            self._keys.sort()
            self._unsorted.clear()
        low = bisect_left(self._keys, span.start)
        high = len(self._keys) if span.stop is None else bisect_left(self._keys, span.stop)
        return self._keys[low:high]


def _kept(kv: KeyValue) -> KeyValue:
    return kv if len(kv.value) <= _KEPT_BYTES_MAX else kv._replace(value=_UNKEPT)


def _as_of(history: list[KeyValue], revision: int) -> KeyValue:
    """What a key was at ``revision``, which isn't before the slice."""
    for known in reversed(history):
        if known.mod_revision <= revision:
            return known
    return history[0]
