"""The engines that are measured side by side, each behind the same few calls.

Every engine gets the same budgets (`WRITE_BUFFER_BYTES`, the cache, 4 KiB blocks, ten Bloom bits a
key, no compression: the values don't compress) and otherwise the options with which it was fastest
here. `put`, `get` and `delete` are the peer's own bound methods wherever its call fits, so that
nothing of ours is measured with them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import lmdb
import plyvel  # type: ignore[import-untyped]
import rocksdict

from kvstore.engine import DB

WRITE_BUFFER_BYTES = 64 << 20
TABLE_BYTES = 32 << 20
MAP_BYTES = 1 << 38

Pair = tuple[bytes, bytes]


class Engine(Protocol):
    """An open store. Not synced unless the name says so."""

    put: Callable[[bytes, bytes], object]
    get: Callable[[bytes], bytes | None]
    delete: Callable[[bytes], object]

    def put_synced(self, key: bytes, value: bytes) -> object: ...

    def write(self, pairs: Iterable[Pair]) -> None:
        """All pairs in one batch."""

    def multi_get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]: ...

    def forward(self) -> Iterable[Pair]: ...

    def reverse(self) -> Iterable[Pair]: ...

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        """The first `count` pairs at or after the key."""

    def settle(self) -> None:
        """Everything flushed and compacted; nothing runs in the background any more."""

    def close(self) -> None: ...


class KvstoreEngine:
    """kvstore with its defaults but for the budgets: two memtables, as LevelDB and RocksDB."""

    def __init__(self, path: Path, cache_bytes: int, write_buffer_bytes: int) -> None:
        self.db: Any = DB(
            path,
            lru_cache_size=cache_bytes,
            write_buffer_size=write_buffer_bytes,
            max_write_buffers=2,
        )
        self.put = self.db.put
        self.get = self.db.get
        self.delete = self.db.delete
        self.multi_get = self.db.multi_get

    def put_synced(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value, sync=True)

    def write(self, pairs: Iterable[Pair]) -> None:
        with self.db.write_batch() as batch:
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

    def settle(self) -> None:
        self.db.compact_range()

    def close(self) -> None:
        self.db.close()


class PlyvelEngine:
    """LevelDB. Its tables grow to 32 MiB like ours: with its 2 MiB it opens many more files."""

    def __init__(self, path: Path, cache_bytes: int, write_buffer_bytes: int) -> None:
        self.db: Any = plyvel.DB(
            os.fspath(path),
            create_if_missing=True,
            write_buffer_size=write_buffer_bytes,
            lru_cache_size=cache_bytes,
            bloom_filter_bits=10,
            max_file_size=TABLE_BYTES,
            compression=None,
        )
        self.put = self.db.put
        self.get = self.db.get
        self.delete = self.db.delete

    def put_synced(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value, sync=True)

    def write(self, pairs: Iterable[Pair]) -> None:
        with self.db.write_batch() as batch:
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

    def settle(self) -> None:
        self.db.compact_range()

    def close(self) -> None:
        self.db.close()


class RocksEngine:
    """RocksDB through rocksdict in raw mode: a hash index in each block, two background jobs."""

    def __init__(self, path: Path, cache_bytes: int, write_buffer_bytes: int) -> None:
        table = rocksdict.BlockBasedOptions()
        table.set_bloom_filter(10, False)
        table.set_block_size(4096)
        table.set_block_cache(rocksdict.Cache(cache_bytes))
        table.set_format_version(5)
        table.set_data_block_index_type(rocksdict.DataBlockIndexType.binary_and_hash())
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_size(write_buffer_bytes)
        options.set_target_file_size_base(TABLE_BYTES)
        options.set_compression_type(rocksdict.DBCompressionType.none())
        options.set_max_background_jobs(2)
        options.set_max_open_files(1000)
        self.db: Any = rocksdict.Rdict(os.fspath(path), options)
        self.synced = rocksdict.WriteOptions()
        self.synced.sync = True
        self.put = self.db.put
        self.get = self.db.get
        self.delete = self.db.delete

    def put_synced(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value, self.synced)

    def write(self, pairs: Iterable[Pair]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in pairs:
            put(key, value)
        self.db.write(batch)

    def multi_get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return self.db.get(keys)  # type: ignore[no-any-return]

    def forward(self) -> Iterable[Pair]:
        return self.db.items()  # type: ignore[no-any-return]

    def reverse(self) -> Iterable[Pair]:
        return self.db.items(backwards=True)  # type: ignore[no-any-return]

    def from_key(self, key: bytes, count: int) -> list[Pair]:
        pairs = self.db.items(from_key=key)
        return list(islice(pairs, count))

    def settle(self) -> None:
        self.db.flush()
        self.db.compact_range(None, None)

    def close(self) -> None:
        self.db.close()


class LmdbEngine:
    """LMDB: one transaction a call, as the others' calls are; without sync it writes to its map."""

    def __init__(self, path: Path, cache_bytes: int, write_buffer_bytes: int) -> None:
        self.path = path
        self.environment = self.open(sync=False)

    def open(self, sync: bool) -> Any:
        return lmdb.open(
            os.fspath(self.path),
            map_size=MAP_BYTES,
            sync=sync,
            writemap=True,
            map_async=not sync,
            max_spare_txns=8,
        )

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

    def settle(self) -> None:
        self.environment.sync(True)

    def close(self) -> None:
        self.environment.close()


ENGINES: dict[str, Callable[[Path, int, int], Any]] = {
    "kvstore": KvstoreEngine,
    "plyvel": PlyvelEngine,
    "rocksdict": RocksEngine,
    "lmdb": LmdbEngine,
}


def disk_bytes(path: Path) -> int:
    """What a store takes on disk, holes not counted."""
    return sum(found.stat().st_blocks * 512 for found in path.rglob("*") if found.is_file())


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
