"""Engines by name; what an engine needs is imported when it is opened, and not before."""

from __future__ import annotations

import importlib
from pathlib import Path

from benchmarks.engine.peers.contract import Budget, Engine

__all__ = ["PEERS", "TITLES", "find", "stores_of"]

_CLASSES = {
    "kvstore": ("own", "Own"),
    "kvstore-through": ("own", "OwnWrittenThrough"),
    "kvstore-mapped": ("own", "OwnMapped"),
    "plyvel": ("leveldb", "LevelDb"),
    "plyvel-checked": ("leveldb", "LevelDbChecked"),
    "rocksdict": ("rocksdb", "RocksDb"),
    "rocksdict-mapped": ("rocksdb", "RocksDbMapped"),
    "lmdb": ("lightning", "Lmdb"),
    "lmdb-long": ("lightning", "LmdbLongReads"),
}

TITLES = {
    "kvstore": "kvstore",
    "kvstore-through": "kvstore, written through",
    "kvstore-mapped": "kvstore, mapped",
    "plyvel": "LevelDB",
    "plyvel-checked": "LevelDB, checked",
    "rocksdict": "RocksDB",
    "rocksdict-mapped": "RocksDB, mapped",
    "lmdb": "LMDB",
    "lmdb-long": "LMDB, long reads",
}

PEERS = ("kvstore", "plyvel", "rocksdict", "lmdb")


def stores_of(name: str) -> str:
    """The engine whose files this one opens as well."""
    return name.partition("-")[0]


def find(name: str) -> type[Engine]:
    module, attribute = _CLASSES[name]
    found: type[Engine] = getattr(
        importlib.import_module(f"benchmarks.engine.peers.{module}"), attribute
    )
    return found


def open_store(name: str, path: Path, budget: Budget | None) -> Engine:
    store: Engine = find(name)(path, budget)  # type: ignore[call-arg]
    return store
