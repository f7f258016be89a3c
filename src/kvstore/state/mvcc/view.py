"""The model's state as a slice of the log sees it, and what the slice is to write.

A slice's operations are evaluated one after the other in one :class:`View`, which changes nothing
but itself: what is to be written gathers in its batch, and a view can be thrown away half-done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from typing import Final

from kvstore.engine import WriteBatch
from kvstore.state.mvcc.answers import KeyValue
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.auth_records import AUTH, encode_auth
from kvstore.state.mvcc.metering import ENTRY_READ_BYTES_MAX, Metered, OverreadError, cost_of
from kvstore.state.mvcc.numbering import Numbering
from kvstore.state.mvcc.overlay import Overlay, absent
from kvstore.state.mvcc.records import (
    USER,
    LeaseRecord,
    alarm_key,
    attachment_key,
    encode_event,
    encode_key,
    encode_lease,
    event_key,
    events_prefix,
    lease_key,
)
from kvstore.state.mvcc.requests import LEVEL_MODEL
from kvstore.state.mvcc.source import Span, Standing, Store, StoredSource, attached_keys

__all__ = ["ENTRY_BYTES_MAX", "OversizeError", "View"]

ENTRY_BYTES_MAX: Final = 512 << 20
"""What one entry may write. An engine's batch takes 2 GiB, and a slice's earlier entries are in it.
Part of the replicated state's rules."""


_RECORD_BYTES: Final = 100
"""What a deletion, its event or its detachment take in a batch beside the key, at most."""


class OversizeError(Exception):
    """An operation writes more than is left for its entry: see :func:`evaluate_slice`."""


class View:
    """One slice's view. One thread at a time.

    It is given the leases, alarms and users that are there before the slice, and doesn't change
    these. Afterwards :attr:`standing`, :attr:`level`, :attr:`alarms`, :attr:`auth`, :attr:`leases`
    (those that were written, None where one is gone), :attr:`numbering` and :attr:`batch` say what
    came of it. :attr:`keys` are read directly where an operation names each of them; else, or if
    they are part of its answer, as :attr:`metered`.

    Each entry is begun by :meth:`begin_entry`. Each operation that changes keys is closed by
    :meth:`commit`: its changes are one revision.
    """

    __slots__ = (
        "_attached",
        "_bytes_max",
        "_entry_bytes_max",
        "_entry_read_max",
        "_events",
        "_leases",
        "_left_until",
        "_read_ends_at",
        "_store",
        "alarms",
        "auth",
        "batch",
        "keys",
        "lease_count",
        "leases",
        "level",
        "metered",
        "numbering",
        "read_bytes",
        "standing",
    )

    def __init__(
        self,
        store: Store,
        standing: Standing,
        leases: Mapping[int, LeaseRecord],
        alarms: frozenset[tuple[int, int]],
        auth: Auth,
        entry_bytes_max: int = ENTRY_BYTES_MAX,
        entry_read_max: int = ENTRY_READ_BYTES_MAX,
        *,
        level: int,
        numbering: Numbering,
    ) -> None:
        self._store = store
        self._leases = leases
        # The keys that the slice attached to leases; some may be off again.
        self._attached: dict[int, set[bytes]] = {}
        # Of leases and spans: up to where the stored keys have left the lease.
        self._left_until: dict[tuple[int, Span], bytes] = {}
        self._events = 0
        self._entry_bytes_max = self._bytes_max = entry_bytes_max
        self._entry_read_max = self._read_ends_at = entry_read_max
        self.read_bytes = 0
        self.standing = standing
        self._see()
        self.batch = WriteBatch()
        self.lease_count = len(leases)
        self.leases: dict[int, LeaseRecord | None] = {}
        self.alarms = alarms
        self.auth = auth
        self.level = level
        self.numbering = numbering

    @property
    def revision(self) -> int:
        """The current one: the next where the operation under way has changed something."""
        return self.standing.revision + (self._events > 0)

    @property
    def next_revision(self) -> int:
        """That of the changes of the operation under way."""
        return self.standing.revision + 1

    def begin_entry(self, index: int, now_ms: int) -> None:
        """What is written from here on is another entry's: how much it may be depends on nothing
        before it, so that members who cut slices elsewhere come to the same. ``now_ms``: of the
        log's clock."""
        self.numbering.begin_entry(index, now_ms)
        self._bytes_max = self.batch.approximate_size() + self._entry_bytes_max
        self._read_ends_at = self.read_bytes + self._entry_read_max

    def read(self, cost: int) -> None:
        """Count what an operation reads; raises OverreadError when it is too much for its entry."""
        self.read_bytes += cost
        if self.read_bytes > self._read_ends_at:
            raise OverreadError

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
        self.level = LEVEL_MODEL
        self._see()

    def _see(self) -> None:
        """See the keys as the store has them."""
        stored = StoredSource(self._store, self.standing.model_from, None)
        self.keys = Overlay(stored, self.standing.revision)
        self.metered = Metered(self.keys, self.read)

    def compact(self, revision: int) -> None:
        """Forget the history below ``revision``."""
        start = events_prefix(max(self.standing.compacted, 0))
        self.batch.delete_range(start, events_prefix(revision), sequence=self.revision)
        self.standing = self.standing._replace(compacted=revision)

    def put(self, now: KeyValue, previous: KeyValue | None) -> None:
        """Write ``now``, of :attr:`next_revision`; ``previous``: what the key is."""
        key, create_revision, revision, version, value, lease = now
        record = encode_key(create_revision, version, lease, value)
        self.batch.put(USER + key, record, sequence=revision)
        self.keys.write(now)
        if previous is None:
            self._add_event(revision, False, key, 0)
            lease_was = 0
        else:
            self._add_event(revision, False, key, previous.mod_revision)
            lease_was = previous.lease
        if lease != lease_was:
            self._attach(key, lease_was, lease)

    def delete(self, previous: KeyValue) -> None:
        """Delete a key; ``previous``: what it is."""
        self.keys.write(absent(previous.key, self.next_revision))
        self._delete_stored(previous)

    def delete_span(self, span: Span) -> Iterator[KeyValue]:
        """Delete the keys of a span; gives what they were, in order, and is to be exhausted."""
        for previous in self.keys.delete(span, self.next_revision):
            self._delete_stored(previous)
            yield previous

    def _delete_stored(self, previous: KeyValue) -> None:
        key = previous.key
        revision = self.standing.revision + 1
        self.batch.delete(USER + key, sequence=revision)
        self._add_event(revision, True, key, previous.mod_revision)
        if previous.lease:
            self._attach(key, previous.lease, 0)

    def _add_event(
        self, revision: int, is_delete: bool, key: bytes, previous_revision: int
    ) -> None:
        record = encode_event(is_delete, key, previous_revision)
        self.batch.put(event_key(revision, self._events), record, sequence=revision)
        self._events += 1
        if self.batch.approximate_size() > self._bytes_max:
            raise OversizeError

    def _attach(self, key: bytes, lease_was: int, lease: int) -> None:
        """Move a key, which was just changed, from one lease to another, 0 being none."""
        revision = self.standing.revision + 1
        if lease_was:
            self.batch.delete(attachment_key(lease_was, key), sequence=revision)
        if lease:
            self.batch.put(attachment_key(lease, key), b"", sequence=revision)
            self._attached.setdefault(lease, set()).add(key)

    def attached(self, lease: int) -> Iterator[KeyValue]:
        """The keys on a lease, ascending. On the way those that were given may be deleted."""
        written = sorted(self._attached.get(lease, ()))
        last: bytes | None = None
        for key in merge(attached_keys(self._store, lease), written):
            kv = None if key == last else self.keys.get(key)
            last = key
            if kv is not None and kv.lease == lease:
                yield kv

    def has_attached(self, lease: int, span: Span) -> bool:
        """Whether a key of ``span`` is on a lease.

        It counts as the reading of one key, whatever is looked at: how much of that is stored, and
        how much the slice's earlier entries have changed, is for each member to find.
        """
        self.read(cost_of(None))
        if any(self._is_on(lease, key) for key in self._attached.get(lease, ()) if key in span):
            return True
        # What is stored before it has left the lease in this slice, and isn't looked at again: what
        # came back is among the keys above.
        start = self._left_until.get((lease, span), span.start)
        for key in attached_keys(self._store, lease, Span(start, span.stop)):
            if self._is_on(lease, key):
                self._left_until[lease, span] = key
                return True
            start = key
        self._left_until[lease, span] = start
        return False

    def _is_on(self, lease: int, key: bytes) -> bool:
        kv = self.keys.get(key)
        return kv is not None and kv.lease == lease

    def has_room_for(self, kv: KeyValue) -> bool:
        """Whether one more key may be read and deleted, and half of what its entry may do is still
        left for others; counts it as read then."""
        read = self.read_bytes + cost_of(kv)
        written = self.batch.approximate_size() + 3 * (len(kv.key) + _RECORD_BYTES)
        if (
            read > self._read_ends_at - self._entry_read_max // 2
            or written > self._bytes_max - self._entry_bytes_max // 2
        ):
            return False
        self.read_bytes = read
        return True

    def lease(self, lease: int) -> LeaseRecord | None:
        """A lease as it stands, None where there is none."""
        if lease in self.leases:
            return self.leases[lease]
        return self._leases.get(lease)

    def set_lease(self, lease: int, record: LeaseRecord | None) -> None:
        """Write a lease, or None where it is gone."""
        self.lease_count += (record is not None) - (self.lease(lease) is not None)
        self.leases[lease] = record
        if record is None:
            self.batch.delete(lease_key(lease), sequence=self.revision)
        else:
            self.batch.put(lease_key(lease), encode_lease(record), sequence=self.revision)

    def set_auth(self, auth: Auth, records: Mapping[bytes, bytes | None]) -> None:
        """Let users be as in ``auth``, and write these records, None where one is gone."""
        self.auth = auth
        self.batch.put(AUTH, encode_auth(auth.record), sequence=self.revision)
        for key, record in records.items():
            if record is None:
                self.batch.delete(key, sequence=self.revision)
            else:
                self.batch.put(key, record, sequence=self.revision)
        if self.batch.approximate_size() > self._bytes_max:
            raise OversizeError

    def raise_alarm(self, member: int, kind: int) -> None:
        """Let an alarm stand."""
        self.alarms |= {(member, kind)}
        self.batch.put(alarm_key(member, kind), b"", sequence=self.revision)

    def end_alarm(self, member: int, kind: int) -> None:
        """Let an alarm stand no more."""
        self.alarms -= {(member, kind)}
        self.batch.delete(alarm_key(member, kind), sequence=self.revision)
