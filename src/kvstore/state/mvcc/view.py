"""The model's state as a slice of the log sees it: the engine's, and over it what the slice wrote.

A slice's operations are evaluated one after the other in one :class:`View`, which changes nothing
but itself: what is to be written gathers in its batch, and a view can be thrown away half-done.
What the engine must be able to tell is a :class:`Store`; one that must not ask the disk raises
:class:`ColdError` where it would have to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from heapq import merge
from operator import itemgetter
from typing import NamedTuple, Protocol

from kvstore.engine import WriteBatch
from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.records import (
    ATTACHMENTS,
    USER,
    LeaseRecord,
    alarm_key,
    attachment_key,
    attachment_prefix,
    decode_attachment_key,
    decode_key,
    encode_event,
    encode_key,
    encode_lease,
    event_key,
    events_prefix,
    lease_key,
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
    "View",
    "attached_keys",
    "span_of",
]

_USER_END = bytes([USER[0] + 1])
_ATTACHMENTS_END = bytes([ATTACHMENTS[0] + 1])
_key = itemgetter(0)


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
        found = self._store.get_versioned(USER + key, revision or self._newest)
        return None if found is None else decode_key(key, *found, self._model_from)

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        if span.is_empty:
            return
        model_from = self._model_from
        versions = self._store.versions(*span.stored, revision or self._newest, reverse=reverse)
        for key, value, sequence in versions:
            yield decode_key(key[1:], value, sequence, model_from)

    def count(self, span: Span, revision: int = 0) -> int:
        if span.is_empty:
            return 0
        return self._store.count(*span.stored, revision or self._newest)


class View:
    """One slice's view. One thread at a time.

    It is given the leases and alarms that stand before the slice, and doesn't change these.
    Afterwards :attr:`standing`, :attr:`alarms`, :attr:`leases` (those that were written, None where
    one is gone) and :attr:`batch` say what came of it.
    Each operation that changes keys is closed by :meth:`commit`: its changes are one revision.
    """

    __slots__ = (
        "_attached",
        "_events",
        "_histories",
        "_keys",
        "_leases",
        "_source",
        "_store",
        "_unsorted",
        "_was",
        "alarms",
        "batch",
        "leases",
        "standing",
    )

    def __init__(
        self,
        store: Store,
        standing: Standing,
        leases: Mapping[int, LeaseRecord],
        alarms: frozenset[tuple[int, int]],
    ) -> None:
        self._store = store
        self._source = StoredSource(store, standing.model_from, None)
        self._was = standing
        self._leases = leases
        # Of each key that was asked for or written: what it was before the slice, and each change
        # since. Where it has no value its version is 0.
        self._histories: dict[bytes, list[KeyValue]] = {}
        # The keys of these, in order but for those that came last.
        self._keys: list[bytes] = []
        self._unsorted: list[bytes] = []
        # Of leases that the slice attached keys to, or took keys off: which, and whether it is on.
        self._attached: dict[int, dict[bytes, bool]] = {}
        self._events = 0
        self.batch = WriteBatch()
        self.standing = standing
        self.leases: dict[int, LeaseRecord | None] = {}
        self.alarms = alarms

    @property
    def revision(self) -> int:
        """The current one: the next where the operation under way has changed something."""
        return self.standing.revision + (self._events > 0)

    @property
    def next_revision(self) -> int:
        """That of the changes of the operation under way."""
        return self.standing.revision + 1

    def commit(self) -> int:
        """End an operation; returns the revision that now is the current one."""
        if self._events:
            self._events = 0
            self.standing = self.standing._replace(revision=self.standing.revision + 1)
        return self.standing.revision

    def enable(self) -> None:
        """Enable the model as of now: what has been written before is v1's and has no headers."""
        revision = max(self.standing.revision, 1)
        compacted = revision if self.standing.revision else -1
        self.standing = Standing(revision, revision, compacted)
        self._source = StoredSource(self._store, revision, None)

    def compact(self, revision: int) -> None:
        """Forget the history below ``revision``."""
        start = events_prefix(max(self.standing.compacted, 0))
        self.batch.delete_range(start, events_prefix(revision), sequence=self.revision)
        self.standing = self.standing._replace(compacted=revision)

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """One key, None where it has no value."""
        if revision and revision < self._was.revision:
            return self._source.get(key, revision)
        history = self._histories.get(key)
        if history is None:
            found = self._source.get(key)
            history = self._histories[key] = [found or KeyValue(key, 0, 0, 0, b"", 0)]
            self._unsorted.append(key)
        known = self._as_of(history, revision) if revision else history[-1]
        return known if known.version else None

    def visible(
        self, span: Span, revision: int = 0, *, reverse: bool = False
    ) -> Iterator[KeyValue]:
        """The keys of a span, ascending or descending. On the way nothing may be written but to
        keys that were passed."""
        if revision and revision < self._was.revision:
            return self._source.visible(span, revision, reverse=reverse)
        stored = self._source.visible(span, reverse=reverse)
        keys = self._keys_in(span)
        if not keys:
            return stored
        if reverse:
            keys.reverse()
        histories = self._histories
        known = [
            self._as_of(histories[key], revision) if revision else histories[key][-1]
            for key in keys
        ]
        # Of a key with a history here the engine knows the first state at best.
        others = (found for found in stored if found.key not in histories)
        return merge(others, [kv for kv in known if kv.version], key=_key, reverse=reverse)

    def count(self, span: Span, revision: int = 0) -> int:
        """How many keys of a span have a value."""
        if revision and revision < self._was.revision:
            return self._source.count(span, revision)
        count = self._source.count(span)
        for key in self._keys_in(span):
            history = self._histories[key]
            now = self._as_of(history, revision) if revision else history[-1]
            count += (now.version > 0) - (history[0].version > 0)
        return count

    def _as_of(self, history: list[KeyValue], revision: int) -> KeyValue:
        """What a key was at ``revision``, which isn't before the slice."""
        for known in reversed(history[1:]):
            if known.mod_revision <= revision:
                return known
        first = history[0]
        # The value of what a slice has changed isn't kept: see delete().
        return self._source.get(first.key) or first if len(history) > 1 else first

    def _keys_in(self, span: Span) -> list[bytes]:
        """Those with a history here, ascending."""
        if self._unsorted:
            self._keys += self._unsorted
            self._keys.sort()
            self._unsorted.clear()
        low = bisect_left(self._keys, span.start)
        high = len(self._keys) if span.stop is None else bisect_left(self._keys, span.stop)
        return self._keys[low:high]

    def put(self, now: KeyValue, previous: KeyValue | None) -> None:
        """Write ``now``, of :attr:`next_revision`; ``previous``: what :meth:`get` gave for it."""
        key, create_revision, revision, version, value, lease = now
        record = encode_key(create_revision, version, lease, value)
        self.batch.put(USER + key, record, sequence=revision)
        self._histories[key].append(now)
        if previous is None:
            self._add_event(revision, False, key, 0)
            lease_was = 0
        else:
            self._add_event(revision, False, key, previous.mod_revision)
            lease_was = previous.lease
        if lease != lease_was:
            self._attach(key, lease_was, lease)

    def delete(self, previous: KeyValue) -> None:
        """Delete a key; ``previous``: what :meth:`get` or :meth:`visible` gave for it."""
        key = previous.key
        revision = self.standing.revision + 1
        self.batch.delete(USER + key, sequence=revision)
        history = self._histories.get(key)
        if history is None:
            # Without its value, or the deletion of a large range would keep all of it in memory.
            history = self._histories[key] = [previous._replace(value=b"")]
            self._unsorted.append(key)
        history.append(KeyValue(key, 0, revision, 0, b"", 0))
        self._add_event(revision, True, key, previous.mod_revision)
        if previous.lease:
            self._attach(key, previous.lease, 0)

    def _add_event(
        self, revision: int, is_delete: bool, key: bytes, previous_revision: int
    ) -> None:
        record = encode_event(is_delete, key, previous_revision)
        self.batch.put(event_key(revision, self._events), record, sequence=revision)
        self._events += 1

    def _attach(self, key: bytes, lease_was: int, lease: int) -> None:
        """Move a key, which was just changed, from one lease to another, 0 being none."""
        if lease_was:
            self.batch.delete(attachment_key(lease_was, key), sequence=self.next_revision)
            self._attached.setdefault(lease_was, {})[key] = False
        if lease:
            self.batch.put(attachment_key(lease, key), b"", sequence=self.next_revision)
            self._attached.setdefault(lease, {})[key] = True

    def attached(self, lease: int) -> list[bytes]:
        """The keys on a lease, ascending."""
        keys = set(attached_keys(self._store, lease))
        for key, is_on in self._attached.get(lease, {}).items():
            if is_on:
                keys.add(key)
            else:
                keys.discard(key)
        return sorted(keys)

    def lease(self, lease: int) -> LeaseRecord | None:
        """A lease as it stands, None where there is none."""
        if lease in self.leases:
            return self.leases[lease]
        return self._leases.get(lease)

    def set_lease(self, lease: int, record: LeaseRecord | None) -> None:
        """Write a lease, or None where it is gone."""
        self.leases[lease] = record
        if record is None:
            self.batch.delete(lease_key(lease), sequence=self.revision)
        else:
            self.batch.put(lease_key(lease), encode_lease(record), sequence=self.revision)

    def raise_alarm(self, member: int, kind: int) -> None:
        """Let an alarm stand."""
        self.alarms |= {(member, kind)}
        self.batch.put(alarm_key(member, kind), b"", sequence=self.revision)

    def end_alarm(self, member: int, kind: int) -> None:
        """Let an alarm stand no more."""
        self.alarms -= {(member, kind)}
        self.batch.delete(alarm_key(member, kind), sequence=self.revision)


def attached_keys(store: Store, lease: int) -> Iterator[bytes]:
    """The keys on a lease by what is stored now, ascending."""
    start = attachment_prefix(lease)
    stop = _ATTACHMENTS_END if lease == I64_MAX else attachment_prefix(lease + 1)
    for stored_key, _, _ in store.versions(start, stop):
        yield decode_attachment_key(stored_key)[1]
