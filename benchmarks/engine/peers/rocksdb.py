"""RocksDB through rocksdict, in raw mode."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import rocksdict

from benchmarks.engine.peers.contract import Budget, Pair

__all__ = ["RocksDb", "RocksDbMapped"]


class RocksDb:
    """A hash index in each block, two background jobs, and every table kept open (-1), as its
    tuning guide says: with a bound each read takes the mutex of the cache of tables.
    """

    mapped = False

    def __init__(self, path: Path, budget: Budget | None) -> None:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        if budget is not None:
            table = rocksdict.BlockBasedOptions()
            table.set_bloom_filter(10, False)
            table.set_block_size(4096)
            table.set_block_cache(rocksdict.Cache(budget.cache_bytes))
            table.set_format_version(5)
            table.set_data_block_index_type(rocksdict.DataBlockIndexType.binary_and_hash())
            options.set_block_based_table_factory(table)
            options.set_write_buffer_size(budget.write_buffer_bytes)
            options.set_target_file_size_base(budget.table_bytes)
            options.set_max_bytes_for_level_base(budget.level_bytes)
            options.set_compression_type(rocksdict.DBCompressionType.none())
            options.set_max_background_jobs(2)
            options.set_max_open_files(-1)
        options.set_allow_mmap_reads(self.mapped)
        self.db: Any = rocksdict.Rdict(os.fspath(path), options)
        self.synced = rocksdict.WriteOptions()
        self.synced.sync = True
        self.put = self.db.put
        self.get = self.db.get
        self.delete = self.db.delete
        self.put_awaited = None

    def put_synced(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value, self.synced)

    def write(self, pairs: Iterable[Pair]) -> None:
        self.db.write(_batch_of(pairs))

    def write_synced(self, pairs: Iterable[Pair]) -> None:
        self.db.write(_batch_of(pairs), self.synced)

    def multi_get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return self.db.get(keys)  # type: ignore[no-any-return]

    def forward(self) -> Iterable[Pair]:
        return self.db.items()  # type: ignore[no-any-return]

    def reverse(self) -> Iterable[Pair]:
        return self.db.items(backwards=True)  # type: ignore[no-any-return]

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        return list(islice(self.db.items(from_key=key), count))

    def flush(self) -> None:
        self.db.flush()

    def settle(self) -> None:
        self.db.flush()
        self.db.compact_range(None, None)

    def close(self) -> None:
        self.db.close()


class RocksDbMapped(RocksDb):
    """Reads maps of the tables, as LevelDB does; still checks them, as is its default."""

    mapped = True


def _batch_of(pairs: Iterable[Pair]) -> Any:
    batch = rocksdict.WriteBatch(raw_mode=True)
    put = batch.put
    for key, value in pairs:
        put(key, value)
    return batch
