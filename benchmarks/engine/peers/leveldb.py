"""LevelDB through plyvel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import plyvel  # type: ignore[import-untyped]

from benchmarks.engine.peers.contract import Budget, Pair

__all__ = ["LevelDb", "LevelDbChecked"]

BEYOND_ALL_KEYS = b"\xff" * 200


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
        self.reading: dict[str, Any] = {}
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
        get = self.get
        return [get(key) for key in keys]

    def forward(self) -> Iterable[Pair]:
        return self.db.iterator(**self.reading)  # type: ignore[no-any-return]

    def reverse(self) -> Iterable[Pair]:
        return self.db.iterator(reverse=True, **self.reading)  # type: ignore[no-any-return]

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        with self.db.iterator(start=key, **self.reading) as pairs:
            return list(islice(pairs, count))

    def flush(self) -> None:
        # It has no flush: compacting where no keys are writes the memtable and nothing else.
        self.db.compact_range(start=BEYOND_ALL_KEYS, stop=BEYOND_ALL_KEYS)

    def settle(self) -> None:
        # Without bounds plyvel gives LevelDB an empty range, and nothing but the memtable moves.
        self.db.compact_range(start=b"", stop=BEYOND_ALL_KEYS)

    def close(self) -> None:
        self.db.close()


class LevelDbChecked(LevelDb):
    """Checks what it reads, as kvstore and RocksDB always do; by itself it believes the disk."""

    def __init__(self, path: Path, budget: Budget | None) -> None:
        super().__init__(path, budget)
        self.reading = {"verify_checksums": True}
        self.get = partial(self.db.get, **self.reading)
