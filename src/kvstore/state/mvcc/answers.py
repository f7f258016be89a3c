"""What the model answers. Revisions in here are those that etcd's headers have to show."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "AlarmAnswer",
    "Answer",
    "AuthAnswer",
    "CompactAnswer",
    "DeleteRangeAnswer",
    "EnableAnswer",
    "Event",
    "EventPage",
    "GatheredAnswer",
    "HashAnswer",
    "KeyValue",
    "LeaseCheckpointAnswer",
    "LeaseGrantAnswer",
    "LeaseRevokeAnswer",
    "PutAnswer",
    "RangeAnswer",
    "RepeatedAnswer",
    "TxnAnswer",
]


class KeyValue(NamedTuple):
    """A key as of some revision."""

    key: bytes
    create_revision: int
    mod_revision: int
    version: int
    value: bytes
    lease: int


class Event(NamedTuple):
    """One change of one key. A delete's ``kv`` has the key and ``mod_revision`` alone.

    ``previous_revision``: that of the change before it to this key, 0 where the key was absent.
    ``previous``: what the key was before, where that was asked for and is still known.
    """

    is_delete: bool
    kv: KeyValue
    previous_revision: int = 0
    previous: KeyValue | None = None


class EventPage(NamedTuple):
    """Events of a span of revisions, in order, and where to read on.

    ``revisions``: each that was read, with its events, or those of them that were wanted, possibly
    none. Where ``next_sub`` isn't 0 only so many events of ``next_revision`` were read, which is
    then the only one here: a revision is cut if it alone is too large for a page.
    """

    revisions: tuple[tuple[int, tuple[Event, ...]], ...]
    next_revision: int
    next_sub: int = 0


class RangeAnswer(NamedTuple):
    """``revision``: the current one when it was read. ``count``: of all keys in the range."""

    revision: int
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


class GatheredAnswer(NamedTuple):
    """A :class:`RangeAnswer` whose keys are with whoever gathered them. ``total``: in the range."""

    revision: int
    keys: Any
    total: int


class HashAnswer(NamedTuple):
    """A hash of all changes from ``compacted`` to ``hash_revision``, and of what was before them.

    ``revision``: the current one when it was read. Members agree on it where they agree on the
    two others.
    """

    revision: int
    hash: int
    compacted: int
    hash_revision: int


class PutAnswer(NamedTuple):
    """``previous`` where it was asked for and there was one."""

    revision: int
    previous: KeyValue | None = None


class DeleteRangeAnswer(NamedTuple):
    """``previous`` where it was asked for, in the order of keys."""

    revision: int
    deleted: int
    previous: tuple[KeyValue, ...] = ()


class TxnAnswer(NamedTuple):
    """One answer for each operation of the branch that was taken."""

    revision: int
    succeeded: bool
    answers: tuple[RangeAnswer | PutAnswer | DeleteRangeAnswer | TxnAnswer, ...]


class CompactAnswer(NamedTuple):
    revision: int


class LeaseGrantAnswer(NamedTuple):
    revision: int
    id: int
    ttl: int


class LeaseRevokeAnswer(NamedTuple):
    """The lease ``id`` is gone, and its keys with it, at ``revision`` if it had any."""

    revision: int
    id: int


class LeaseCheckpointAnswer(NamedTuple):
    revision: int


class AlarmAnswer(NamedTuple):
    """``(member, kind)`` of each alarm that the action tells of."""

    revision: int
    alarms: tuple[tuple[int, int], ...]


class EnableAnswer(NamedTuple):
    """Of EnableModel and RaiseLevel."""

    revision: int


class AuthAnswer(NamedTuple):
    """Users and roles are as was asked for."""

    revision: int


class RepeatedAnswer(NamedTuple):
    """A request that was done before came to this then: what it read isn't remembered.

    ``succeeded``: of a Txn, whether its compares held. ``deleted``: how many keys, in all.
    """

    revision: int
    succeeded: bool
    deleted: int


Answer = (
    PutAnswer
    | DeleteRangeAnswer
    | TxnAnswer
    | CompactAnswer
    | LeaseGrantAnswer
    | LeaseRevokeAnswer
    | LeaseCheckpointAnswer
    | AlarmAnswer
    | EnableAnswer
    | AuthAnswer
    | RepeatedAnswer
)
"""What an applied operation came to, unless an EtcdError says why it was refused."""
