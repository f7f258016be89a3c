"""The engine as the model sees it: from memory alone, or with the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kvstore.engine import DB
from kvstore.engine import Iterator as Walk
from kvstore.state.cold import COLD, Cold
from kvstore.state.mvcc.source import ColdError

__all__ = ["DiskStore", "MemoryStore"]

STEP_KEYS = 256
"""Of a walk over keys so many are a step: whoever waits can tell a long one from a hanging disk."""


class MemoryStore:
    """What memory knows of single keys. Raises ColdError for all else."""

    def __init__(self, db: DB) -> None:
        self._db = db

    def get_versioned(self, key: bytes, sequence: int | None = None) -> tuple[bytes, int] | None:
        """See :class:`kvstore.state.mvcc.source.Store`."""
        version: tuple[bytes, int] | Cold | None
        version = self._db.get_versioned_cached(key, sequence, cold=COLD)
        if version is COLD:
            raise ColdError(key)
        return version

    def versions(
        self, start: bytes, stop: bytes, sequence: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes, int]]:
        """See :class:`kvstore.state.mvcc.source.Store`."""
        raise ColdError(start)

    def count(self, start: bytes, stop: bytes, sequence: int | None = None) -> int:
        """See :class:`kvstore.state.mvcc.source.Store`."""
        raise ColdError(start)


class DiskStore:
    """All there is. ``step`` is called at each answer, and now and then within a long one, however
    little that finds; what it raises ends the reading."""

    def __init__(self, db: DB, step: Callable[[], None] = lambda: None) -> None:
        self._db = db
        self._step = step

    def get_versioned(self, key: bytes, sequence: int | None = None) -> tuple[bytes, int] | None:
        """See :class:`kvstore.state.mvcc.source.Store`."""
        version: tuple[bytes, int] | None = self._db.get_versioned(key, sequence)
        self._step()
        return version

    def versions(
        self, start: bytes, stop: bytes, sequence: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes, int]]:
        """See :class:`kvstore.state.mvcc.source.Store`."""
        with self._walk(start, stop, sequence, reverse) as walk:
            for number, version in enumerate(walk, start=1):
                if number % STEP_KEYS == 0:
                    self._step()
                yield version
        self._step()

    def gather(
        self,
        start: bytes,
        stop: bytes,
        sequence: int,
        take: Callable[[Any, int], bool],
        *,
        reverse: bool,
    ) -> None:
        """See :class:`kvstore.state.mvcc.ranges.GatheringStore`."""
        with self._walk(start, stop, sequence, reverse) as walk:
            while take(walk, STEP_KEYS):
                self._step()
        self._step()

    def _walk(
        self, start: bytes, stop: bytes, sequence: int | None, reverse: bool
    ) -> Walk[tuple[bytes, bytes, int]]:
        return self._db.iterator(
            start=start,
            stop=stop,
            sequence=sequence,
            reverse=reverse,
            include_sequence=True,
            interrupt=self._step,
        )

    def count(self, start: bytes, stop: bytes, sequence: int | None = None) -> int:
        """See :class:`kvstore.state.mvcc.source.Store`."""
        count: int = self._db.count(start, stop, sequence, interrupt=self._step)
        self._step()
        return count
