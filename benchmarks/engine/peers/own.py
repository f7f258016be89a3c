"""kvstore, with its defaults but for the budget."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.engine.peers.contract import Budget, Pair
from kvstore.engine import DB

__all__ = ["Own", "OwnMapped", "OwnWrittenThrough"]


class Own:
    """A put is in the log's memory when it returns, and in the file about a millisecond later."""

    options: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, path: Path, budget: Budget | None) -> None:
        budgeted: dict[str, Any] = {}
        if budget is not None:
            budgeted = {
                "lru_cache_size": budget.cache_bytes,
                "write_buffer_size": budget.write_buffer_bytes,
                "max_write_buffers": 2,
                "max_file_size": budget.table_bytes,
                "level_size_base": budget.level_bytes,
            }
        self.db: Any = DB(path, **budgeted, **self.options)
        self.put = self.db.put
        self.get = self.db.get
        self.delete = self.db.delete
        self.multi_get = self.db.multi_get
        self.put_awaited = self.db.put_async

    def put_synced(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value, sync=True)

    def write(self, pairs: Iterable[Pair]) -> None:
        with self.db.write_batch() as batch:
            put = batch.put
            for key, value in pairs:
                put(key, value)

    def write_synced(self, pairs: Iterable[Pair]) -> None:
        with self.db.write_batch(sync=True) as batch:
            put = batch.put
            for key, value in pairs:
                put(key, value)

    def forward(self) -> Iterable[Pair]:
        return self.db.iterator()  # type: ignore[no-any-return]

    def reverse(self) -> Iterable[Pair]:
        return self.db.iterator(reverse=True)  # type: ignore[no-any-return]

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        with self.db.iterator(start=key) as pairs:
            return list(islice(pairs, count))

    def flush(self) -> None:
        self.db.flush()

    def settle(self) -> None:
        self.db.compact_range()

    def close(self) -> None:
        self.db.close()


class OwnWrittenThrough(Own):
    """Each write handed to the kernel before it returns, as LevelDB's and RocksDB's are."""

    options = {"write_through": True}  # noqa: RUF012


class OwnMapped(Own):
    """Lookups read maps of the tables, as LevelDB's and LMDB's do."""

    options = {"mmap_reads": True}  # noqa: RUF012
