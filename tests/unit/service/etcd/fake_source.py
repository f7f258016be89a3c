"""A store that remembers everything, with a state machine's face for watches."""

from __future__ import annotations

import random
from collections.abc import Callable

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state import COLD, Cold
from kvstore.state.mvcc.answers import Event, EventPage, KeyValue
from tests.watch_validator import History

__all__ = ["FakeSource"]

Wanted = Callable[[bytes], bool]


class FakeSource:
    """What was applied up to :attr:`revision`, of one history that several of these may share.

    ``is_cold`` and ``forgets_previous`` decide what memory doesn't know; ``trouble`` is raised by
    whatever reads.
    """

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()
        self.revision = 1
        self.compacted = -1
        self.is_cold: Callable[[int], bool] = lambda revision: False
        self.forgets_previous: Callable[[Event], bool] = lambda event: False
        self.trouble: Exception | None = None
        self.reads: list[tuple[int, int, int]] = []
        self._keys: dict[bytes, KeyValue] = {}

    # --- what happens ----------------------------------------------------------------------------

    def put(self, *pairs: tuple[bytes, bytes]) -> int:
        """All of them as one revision."""
        return self.change([(key, value) for key, value in pairs])

    def delete(self, *keys: bytes) -> int:
        """Keys that are there, as one revision."""
        return self.change([(key, None) for key in keys])

    def change(self, changes: list[tuple[bytes, bytes | None]]) -> int:
        """Puts and, where the value is None, deletes of keys that are there; one revision."""
        revision = self.revision + 1
        events = []
        for key, value in changes:
            before = self._keys.get(key)
            if value is None:
                assert before is not None
                kv = KeyValue(key, 0, revision, 0, b"", 0)
                del self._keys[key]
            else:
                created = before.create_revision if before else revision
                version = before.version + 1 if before else 1
                kv = KeyValue(key, created, revision, version, value, 0)
                self._keys[key] = kv
            events.append(Event(value is None, kv, before.mod_revision if before else 0))
        self.history.add(revision, events)
        self.revision = revision
        return revision

    def change_somehow(self, rng: random.Random, keys: list[bytes]) -> int:
        """A revision of one to four changes."""
        changes: list[tuple[bytes, bytes | None]] = []
        for key in rng.sample(keys, rng.choice([1, 1, 1, 2, 4])):
            deletes = key in self._keys and rng.random() < 0.3
            changes.append((key, None if deletes else rng.randbytes(rng.choice([0, 3, 40]))))
        return self.change(changes)

    @property
    def keys(self) -> list[bytes]:
        """Those that are there."""
        return sorted(self._keys)

    # --- what a hub asks -------------------------------------------------------------------------

    def events(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool = False,
        wanted: Wanted | None = None,
        sub: int = 0,
    ) -> EventPage:
        if self.trouble is not None:
            raise self.trouble
        if first < self.compacted:
            raise EtcdError(Reason.COMPACTED)
        assert last <= self.revision
        self.reads.append((first, last, sub))
        revisions = []
        size = 0
        for revision in range(first, last + 1):
            all_of_it = self.history.revisions.get(revision, ())
            events = []
            for number, event in enumerate(all_of_it[sub:], start=sub):
                if wanted is None or wanted(event.kv.key):
                    event = self._read(event, previous)
                    events.append(event)
                    size += _bytes(event)
                if size >= bytes_max and number + 1 < len(all_of_it):
                    if revision == first:
                        return EventPage(((revision, tuple(events)),), revision, number + 1)
                    if sum(_bytes(self._read(each, previous)) for each in all_of_it) >= bytes_max:
                        return EventPage(tuple(revisions), revision)
            sub = 0
            revisions.append((revision, tuple(events)))
            if size >= bytes_max:
                return EventPage(tuple(revisions), revision + 1)
        return EventPage(tuple(revisions), last + 1)

    def events_cached(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool = False,
        wanted: Wanted | None = None,
    ) -> EventPage | Cold:
        if self.trouble is not None:
            raise self.trouble
        if any(self.is_cold(revision) for revision in range(first, last + 1)):
            return COLD
        page = self.events(first, last, bytes_max, previous, wanted)
        self.reads.pop()
        if page.next_sub:
            return COLD
        revisions = [
            (
                revision,
                tuple(
                    event._replace(previous=None) if self.forgets_previous(event) else event
                    for event in events
                ),
            )
            for revision, events in page.revisions
        ]
        return EventPage(tuple(revisions), page.next_revision)

    def _read(self, event: Event, previous: bool) -> Event:
        return event._replace(previous=self.history.before(event)) if previous else event


def _bytes(event: Event) -> int:
    before = event.previous
    size = 64 + len(event.kv.key) + len(event.kv.value)
    return size if before is None else size + len(before.key) + len(before.value)
