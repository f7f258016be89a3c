"""What the model's face reads of a state, on whatever thread, while more is applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvstore._state.native import KeyReader
from kvstore.engine import DB
from kvstore.state.cold import COLD, Cold
from kvstore.state.mvcc.answers import (
    EventPage,
    GatheredAnswer,
    HashAnswer,
    KeyValue,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.hashing import hash_kv
from kvstore.state.mvcc.ranges import MakeGathered
from kvstore.state.mvcc.reads import (
    gather_range,
    read_events,
    read_events_cached,
    read_range,
    read_txn,
)
from kvstore.state.mvcc.records import EVENTS, USER
from kvstore.state.mvcc.requests import Range, Txn
from kvstore.state.mvcc.source import ColdError, Standing, attached_keys
from kvstore.state.stores import DiskStore, MemoryStore

__all__ = ["Reading"]

_USER_STOP = bytes([USER[0] + 1])
_EVENTS_STOP = bytes([EVENTS[0] + 1])


class _Bounds(Protocol):
    """What knows how far the state is."""

    @property
    def model_from(self) -> int: ...
    @property
    def compacted(self) -> int: ...


class Reading:
    """Reads by revisions. What is read of the disk may be read on any thread.

    Where it takes a Range or Txn it raises EtcdError; and StorageError, ClosedError.
    """

    def __init__(self, db: DB, bounds: _Bounds) -> None:
        self._db = db
        self._bounds = bounds
        self._disk = DiskStore(db)
        self._memory = MemoryStore(db)
        self._keys = KeyReader(db, RangeAnswer, KeyValue)

    def standing(self) -> Standing:
        """How far what can be read is, all of one moment.

        What is applied moves the bounds just before its batch can be seen, and the revision with
        it. The bounds are asked first: so none of them is ahead of the others.
        """
        model_from, compacted = self._bounds.model_from, self._bounds.compacted
        revision = self._db.last_sequence
        if revision < model_from:
            model_from = 0
        return Standing(revision, model_from, min(compacted, revision))

    def range(self, asked: Range, step: Callable[[], None]) -> RangeAnswer:
        """The answer to a Range. ``step``: see :class:`DiskStore`."""
        return read_range(DiskStore(self._db, step), self.standing, asked)

    def gather(
        self, asked: Range, make: MakeGathered, step: Callable[[], None]
    ) -> GatheredAnswer | RangeAnswer:
        """The same, its keys in what ``make`` makes where that is possible."""
        return gather_range(DiskStore(self._db, step), self.standing, asked, make)

    def range_cached(self, asked: Range) -> RangeAnswer | Cold:
        """The same from memory, or COLD: on the thread that applies."""
        try:
            return read_range(self._memory, self.standing, asked)
        except ColdError:
            return COLD

    def keys_cached(self, keys: list[bytes]) -> list[RangeAnswer | None]:
        """Of each key what :meth:`range_cached` says of it, None for COLD, and for those after the
        first MiB of values: all answers are there at one time."""
        now = self.standing()
        if not now.model_from:
            return [None] * len(keys)
        return self._keys.read(keys, now.revision, now.model_from)

    def txn(self, asked: Txn, step: Callable[[], None]) -> TxnAnswer:
        """The answer to a Txn that only reads."""
        return read_txn(DiskStore(self._db, step), self.standing, asked)

    def events(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool,
        wanted: Callable[[bytes], bool] | None,
        sub: int,
    ) -> EventPage:
        """See :func:`kvstore.state.mvcc.reads.read_events`."""
        return read_events(
            self._disk,
            self.standing,
            first,
            last,
            bytes_max,
            previous=previous,
            wanted=wanted,
            sub=sub,
        )

    def events_cached(
        self,
        first: int,
        last: int,
        bytes_max: int,
        previous: bool,
        wanted: Callable[[bytes], bool] | None,
    ) -> EventPage | Cold:
        """The same of whole revisions, from memory, or COLD: on the thread that applies."""
        try:
            return read_events_cached(
                self._memory,
                self.standing,
                first,
                last,
                bytes_max,
                previous=previous,
                wanted=wanted,
            )
        except ColdError:
            return COLD

    def lease_keys(self, lease: int, step: Callable[[], None]) -> tuple[bytes, ...]:
        """The keys on a lease, ascending."""
        return tuple(attached_keys(DiskStore(self._db, step), lease))

    def hash(self, revision: int) -> HashAnswer:
        """See :func:`kvstore.state.mvcc.hashing.hash_kv`."""
        return hash_kv(self._disk, self.standing, revision)

    def reclaim(self) -> None:
        """Rewrite tables with versions and events that nobody can read any more; takes long."""
        self._db.compact_range(start=USER, stop=_USER_STOP)
        self._db.compact_range(start=EVENTS, stop=_EVENTS_STOP)
