"""LMDB through lmdb: with a transaction a call, and with one long read transaction."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from benchmarks.engine.peers.contract import Budget, Pair

__all__ = ["Lmdb", "LmdbLongReads"]

# More than any run here fills; a copy that keeps no holes stays survivable.
MAP_BYTES = 1 << 35


class Lmdb:
    """One transaction a call, as the others' calls are.

    Without sync: stores into its map, which isn't ordered on the disk, so that a power loss may
    leave nothing readable; a weaker promise than that of an unsynced log. By its own defaults
    (no budget) it writes pages by calls, and here still without sync, since nobody else syncs.
    """

    def __init__(self, path: Path, budget: Budget | None) -> None:
        mapped: dict[str, Any] = {}
        if budget is not None:
            # Reading ahead brings 16 MiB for the first get of a store that no cache has.
            mapped = {"writemap": True, "map_async": True, "max_spare_txns": 32, "readahead": False}
        self.environment: Any = lmdb.open(
            os.fspath(path), map_size=MAP_BYTES, sync=False, max_readers=1024, **mapped
        )

    put_awaited = None

    def put(self, key: bytes, value: bytes) -> None:
        with self.environment.begin(write=True) as transaction:
            transaction.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        with self.environment.begin() as transaction:
            return transaction.get(key)  # type: ignore[no-any-return]

    def delete(self, key: bytes) -> None:
        with self.environment.begin(write=True) as transaction:
            transaction.delete(key)

    def put_synced(self, key: bytes, value: bytes) -> None:
        with self.environment.begin(write=True) as transaction:
            transaction.put(key, value)
        self.environment.sync(True)

    def write(self, pairs: Iterable[Pair]) -> None:
        with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(pairs)

    def write_synced(self, pairs: Iterable[Pair]) -> None:
        self.write(pairs)
        self.environment.sync(True)

    def multi_get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        with self.environment.begin() as transaction:
            get = transaction.get
            return [get(key) for key in keys]

    def forward(self) -> Iterator[Pair]:
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            yield from cursor

    def reverse(self) -> Iterator[Pair]:
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            yield from cursor.iterprev()

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(key):
                return []
            return list(islice(cursor, count))

    def flush(self) -> None:
        self.environment.sync(True)

    def settle(self) -> None:
        self.environment.sync(True)

    def close(self) -> None:
        self.environment.close()


class LmdbLongReads(Lmdb):
    """Reads in one transaction a thread that stays open, with its cursor, as LMDB's guide has it.

    They see the store as it was when the thread read first, so only workloads that write nothing
    have this column.
    """

    def __init__(self, path: Path, budget: Budget | None) -> None:
        super().__init__(path, budget)
        self.threads = threading.local()
        self.begun: list[Any] = []

    def reading(self) -> Any:
        found = getattr(self.threads, "transaction", None)
        if found is None:
            found = self.threads.transaction = self.environment.begin()
            self.threads.get = found.get
            self.threads.cursor = found.cursor()
            self.begun.append(found)
        return self.threads

    def get(self, key: bytes) -> bytes | None:
        try:
            return self.threads.get(key)  # type: ignore[no-any-return]
        except AttributeError:
            return self.reading().get(key)  # type: ignore[no-any-return]

    def multi_get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        # Faster than a cursor's getmulti, whose pairs would have to be put in a dict.
        get = self.reading().get
        return [get(key) for key in keys]

    def forward(self) -> Iterator[Pair]:
        cursor = self.reading().cursor
        cursor.first()
        return iter(cursor)

    def reverse(self) -> Iterator[Pair]:
        cursor = self.reading().cursor
        cursor.last()
        return iter(cursor.iterprev())

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        cursor = self.reading().cursor
        return list(islice(cursor, count)) if cursor.set_range(key) else []

    def close(self) -> None:
        for transaction in self.begun:
            transaction.abort()
        super().close()
