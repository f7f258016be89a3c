"""What is read of keys: entries with their revisions, and events."""

from __future__ import annotations

import enum
from typing import NamedTuple

from kvstore.api.etcd import etcd_pb2

__all__ = ["Event", "EventKind", "KeyValue", "entry_of", "event_of"]


class KeyValue(NamedTuple):
    """A key as it was at one revision.

    ``create_revision``: when it came into being, ``mod_revision``: when it was last written,
    ``version``: how often since it came into being, 1 at first. ``lease``: the id of the lease that
    it goes with, 0 for none.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class EventKind(enum.Enum):
    """What happened to a key."""

    PUT = "put"
    DELETE = "delete"


class Event(NamedTuple):
    """One change of one key.

    Of a delete ``entry`` has the key and, in ``mod_revision``, when; the rest of it is empty.
    ``previous``: what there was before, where that was asked for and there was something.
    """

    kind: EventKind
    entry: KeyValue
    previous: KeyValue | None = None

    @property
    def key(self) -> bytes:
        return self.entry.key

    @property
    def value(self) -> bytes:
        """Empty for a delete."""
        return self.entry.value

    @property
    def revision(self) -> int:
        """When it happened; changes of one transaction share it."""
        return self.entry.mod_revision

    @property
    def is_create(self) -> bool:
        """Whether the key had no value before."""
        return self.kind is EventKind.PUT and self.entry.version == 1


def entry_of(message: etcd_pb2.KeyValue) -> KeyValue:
    """From the wire."""
    return KeyValue(
        message.key,
        message.value,
        message.create_revision,
        message.mod_revision,
        message.version,
        message.lease,
    )


def event_of(message: etcd_pb2.Event) -> Event:
    """From the wire."""
    return Event(
        EventKind.DELETE if message.type == etcd_pb2.Event.DELETE else EventKind.PUT,
        entry_of(message.kv),
        entry_of(message.prev_kv) if message.HasField("prev_kv") else None,
    )
