"""What a watch promises, checked against all events that there were.

The properties are those that etcd documents for its watches (ordered, unique, reliable, atomic,
resumable, bookmarkable) and those of its own robustness tests (filters, is-create, previous value).
Nothing in here knows the hub, a message or a socket: unit tests, the simulator and tests of a whole
cluster translate what they saw into :class:`Seen`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kvstore.state.mvcc.answers import Event, KeyValue

__all__ = ["Asked", "History", "Seen", "Watched", "violations"]


@dataclass(frozen=True)
class Asked:
    """What a client asked for. ``start``: the first revision that it is to see; what ``created``
    said plus one for a watch from now on."""

    key: bytes
    range_end: bytes = b""
    start: int = 0
    prev_kv: bool = False
    no_puts: bool = False
    no_deletes: bool = False

    def holds(self, key: bytes) -> bool:
        """``key`` is in its range."""
        if not self.range_end:
            return key == self.key
        return self.key <= key and (self.range_end == b"\0" or key < self.range_end)

    def matches(self, event: Event) -> bool:
        left_out = self.no_deletes if event.is_delete else self.no_puts
        return not left_out and self.holds(event.kv.key)


@dataclass(frozen=True)
class Seen:
    """One message of a watch: events, or none for progress. ``revision``: of its header;
    ``fragment``: more of it follows; ``compacted``: it ended with this compact revision."""

    revision: int
    events: tuple[Event, ...] = ()
    fragment: bool = False
    compacted: int = 0


@dataclass
class Watched:
    """A watch, and all that came of it, in order."""

    asked: Asked
    seen: list[Seen] = field(default_factory=list)


class History:
    """All events of a store, by revision, and what keys were."""

    def __init__(
        self,
        revisions: Mapping[int, Sequence[Event]] | None = None,
        before: Iterable[KeyValue] = (),
    ) -> None:
        """``before``: what keys were before the first of the events."""
        self.revisions: dict[int, tuple[Event, ...]] = {}
        self.compactions: set[int] = set()
        """Revisions that history was compacted to: of their events what keys were before may be
        missing."""
        self._events: dict[tuple[int, bytes], Event] = {}
        # Of each key: when it changed, and what it was from then on.
        self._changes: dict[bytes, list[int]] = {}
        for kv in before:
            self._note(kv.mod_revision, Event(False, kv))
        for revision in sorted(revisions or {}):
            self.add(revision, (revisions or {})[revision])

    def add(self, revision: int, events: Iterable[Event]) -> None:
        """The next revision."""
        events = self.revisions[revision] = tuple(events)
        for event in events:
            self._note(revision, event)

    def _note(self, revision: int, event: Event) -> None:
        self._events[revision, event.kv.key] = event
        self._changes.setdefault(event.kv.key, []).append(revision)

    def event(self, revision: int, key: bytes) -> Event | None:
        """What happened to a key."""
        return self._events.get((revision, key))

    def before(self, event: Event) -> KeyValue | None:
        """What the key of an event was before it."""
        key = event.kv.key
        place = bisect.bisect_left(self._changes[key], event.kv.mod_revision)
        if not place:
            return None
        change = self._events[self._changes[key][place - 1], key]
        return None if change.is_delete else change.kv


def violations(watched: Watched, history: History, *, applied: int | None = None) -> list[str]:
    """What is wrong with what a watch saw; nothing if all is well.

    ``applied``: the watch is at its end and had time: everything up to here must have come.
    """
    return [*_violations(watched, history, applied)]


def _violations(watched: Watched, history: History, applied: int | None) -> Iterator[str]:
    asked = watched.asked
    # All up to here was seen or isn't this watch's: what comes must be later.
    done = asked.start - 1
    # A revision whose events are coming, in parts.
    parts: list[Event] = []
    progress = 0
    ended = 0
    for seen in watched.seen:
        if ended:
            yield f"after its end came {seen}"
            return
        if seen.compacted:
            if parts:
                yield f"ended in the middle of a message: {parts}"
            if done + 1 >= seen.compacted:
                yield f"ended for {seen.compacted}, though all before {done + 1} had come"
            ended = seen.compacted
            continue
        if not seen.events:
            if parts:
                yield f"progress {seen.revision} in the middle of a message"
            if seen.revision < asked.start - 1:
                yield f"progress {seen.revision} of a watch from {asked.start} on"
            if seen.revision < progress:
                yield f"progress went back from {progress} to {seen.revision}"
            progress = seen.revision
            yield from _missing(asked, history, done, seen.revision, "bookmarkable")
            done = max(done, seen.revision)
            continue
        parts += seen.events
        if seen.fragment:
            continue
        whole, parts = tuple(parts), []
        if seen.revision < whole[-1].kv.mod_revision:
            yield f"header {seen.revision} is before its event {whole[-1]}"
        yield from _message(asked, history, done, whole)
        done = max(done, whole[-1].kv.mod_revision)
    if parts:
        yield f"the last message has no end: {parts}"
    if applied is not None and not ended:
        yield from _missing(asked, history, done, applied, "reliable")


def _message(asked: Asked, history: History, done: int, events: tuple[Event, ...]) -> Iterator[str]:
    """Events that came as one message, all up to ``done`` having come before."""
    last = events[-1].kv.mod_revision
    previous = done
    for event in events:
        revision = event.kv.mod_revision
        if revision < asked.start:
            yield f"resumable: {revision} is before the start {asked.start}"
        elif revision <= done:
            yield f"unique, ordered: {revision} came after {done}"
        if revision < previous:
            yield f"ordered: {revision} after {previous} in one message"
        previous = revision
        yield from _one(asked, history, event)
    got = [_identity(event) for event in events]
    expected = [
        _identity(event)
        for revision in range(done + 1, last + 1)
        for event in history.revisions.get(revision, ())
        if asked.matches(event)
    ]
    if got != expected:
        yield (
            f"atomic, reliable: from {done + 1} to {last} came {got[:20]} "
            f"instead of {expected[:20]}"
        )


def _one(asked: Asked, history: History, event: Event) -> Iterator[str]:
    known = history.event(event.kv.mod_revision, event.kv.key)
    if known is None:
        yield f"never happened: {event}"
        return
    if (known.is_delete, known.kv) != (event.is_delete, event.kv):
        yield f"{event} is another one than {known}"
    if not asked.matches(event):
        yield f"filter: {event} isn't for {asked}"
    before = history.before(event)
    if not event.is_delete and (before is None) != (
        event.kv.create_revision == event.kv.mod_revision
    ):
        yield f"is-create: {event}, and before it {before}"
    if event.previous is not None and (not asked.prev_kv or event.previous != before):
        yield f"previous: {event}, and before it {before}"
    may_lack = event.kv.mod_revision in history.compactions
    if asked.prev_kv and event.previous is None and before is not None and not may_lack:
        yield f"previous: {event} lacks {before}"


def _missing(asked: Asked, history: History, done: int, until: int, promise: str) -> Iterator[str]:
    for revision in range(done + 1, until + 1):
        missing = [event for event in history.revisions.get(revision, ()) if asked.matches(event)]
        if missing:
            yield f"{promise}: {missing} never came, all up to {until} being said to have"


def _identity(event: Event) -> tuple[int, bytes, bool]:
    return event.kv.mod_revision, event.kv.key, event.is_delete
