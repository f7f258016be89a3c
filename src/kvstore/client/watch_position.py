"""How far a watch has come: what is taken of a stream's responses, and where the next one resumes.

A response holds whole revisions, except that one of a revision too large for a message is sent in
fragments. Every member sends a revision's events in the same order, so a stream that is lost
between two fragments is resumed by leaving out as many events of that revision as were taken. No
I/O here.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from kvstore.api.etcd import etcd_pb2
from kvstore.client.entries import Event, event_of

__all__ = ["Batch", "Delivery", "Position", "Unpacking"]


class Delivery(NamedTuple):
    """Events in order; ``revision``: with them all that a watch asks for has come up to here."""

    events: tuple[Event, ...]
    revision: int


class Batch(NamedTuple):
    """All events of ``revision`` that a watch asks for; with none, there were none up to it."""

    revision: int
    events: tuple[Event, ...]


class Position:
    """Of one watch, over as many streams as it takes. ``next``: the first revision of which
    something may be missing, 0 while that isn't known."""

    __slots__ = ("_seen", "_taken", "next")

    def __init__(self, start: int) -> None:
        self.next = start
        # Of revision `next`: events that were taken, and those that came over this stream.
        self._taken = 0
        self._seen = 0

    def began(self, revision: int) -> None:
        """A stream has it now, with all after ``revision`` or from ``next`` on."""
        if self.next == 0:
            self.next = revision + 1
        self._seen = 0

    def take(self, response: etcd_pb2.WatchResponse) -> Delivery:
        """What is new in a response."""
        events: list[Event] = []
        for message in response.events:
            revision = message.kv.mod_revision
            if revision < self.next:
                continue
            if revision > self.next:
                self._move(revision)
            self._seen += 1
            if self._seen > self._taken:
                self._taken += 1
                events.append(event_of(message))
        if not response.events:
            self.progressed(response.header.revision)
        elif not response.fragment:
            self.progressed(response.events[-1].kv.mod_revision)
        return Delivery(tuple(events), self.next - 1)

    def progressed(self, revision: int) -> None:
        """All up to ``revision`` has come."""
        if revision >= self.next:
            self._move(revision + 1)

    def _move(self, revision: int) -> None:
        self.next = revision
        self._taken = self._seen = 0


class Unpacking:
    """Deliveries, handed out by the event or by the revision."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._complete = 0
        self._told = 0
        self.revision = 0
        """All up to here was handed out."""

    def add(self, delivery: Delivery) -> None:
        """What comes next."""
        self._events += delivery.events
        self._complete = max(self._complete, delivery.revision)
        if not self._events:
            self.revision = self._complete

    def event(self) -> Event | None:
        """The next event; None: there is none yet."""
        if not self._events:
            return None
        event = self._events.popleft()
        self.revision = self._events[0].revision - 1 if self._events else self._complete
        return event

    def batch(self) -> Batch | None:
        """The next revision's events, or up to where there are none; None: not all came yet."""
        if self._events and self._events[0].revision <= self._complete:
            revision = self._events[0].revision
            events: list[Event] = []
            while self._events and self._events[0].revision == revision:
                events.append(self._events.popleft())
            self.revision = self._told = revision
            return Batch(revision, tuple(events))
        if not self._events and self._complete > self._told:
            self.revision = self._told = self._complete
            return Batch(self._complete, ())
        return None
