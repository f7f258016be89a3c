"""LevelDB through plyvel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import plyvel  # type: ignore[import-untyped]

from benchmarks.engine.peers.contract import Budget, Pair

__all__ = ["LevelDb"]


class LevelDb:
    """Its tables grow as ours do: with its 2 MiB it opens many more files. Reads through maps."""

    def __init__(self, path: Path, budget: Budget | None) -> None:
        budgeted: dict[str, Any] = {}
        if budget is not None:
            budgeted = {
                "write_buffer_size": budget.write_buffer_bytes,
                # Without a size plyvel leaves LevelDB its own 8 MiB; a block is larger than a byte.
                "lru_cache_size": max(budget.cache_bytes, 1),
                "bloom_filter_bits": 10,
                "max_file_size": budget.table_bytes,
                "compression": None,
            }
        self.db: Any = plyvel.DB(os.fspath(path), create_if_missing=True, **budgeted)
        self.put = self.db.put
        self.get = self.db.get
        self.delete = self.db.delete
        self.put_awaited = None

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

    def multi_get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        get = self.db.get
        return [get(key) for key in keys]

    def forward(self) -> Iterable[Pair]:
        return self.db.iterator()  # type: ignore[no-any-return]

    def reverse(self) -> Iterable[Pair]:
        return self.db.iterator(reverse=True)  # type: ignore[no-any-return]

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        with self.db.iterator(start=key) as pairs:
            return list(islice(pairs, count))

    def flush(self) -> None:
        # It has no flush: compacting where no keys are writes the memtable and nothing else.
        self.db.compact_range(start=b"\xff" * 200, stop=b"\xff" * 201)

    def settle(self) -> None:
        self.db.compact_range()

    def close(self) -> None:
        self.db.close()
