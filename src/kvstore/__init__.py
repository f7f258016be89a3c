"""kvstore: an embedded, ordered key-value store and a replicated server, with clients for it.

Names are loaded on first use, so that ``import kvstore`` costs nothing, a program that only
embeds the store never loads gRPC, and one that is only a client never loads the store.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.client import TLS, AsyncClient, Client, RetryPolicy
    from kvstore.engine import (
        DB,
        Iterator,
        Options,
        PrefixedDB,
        RawIterator,
        RepairReport,
        Snapshot,
        WriteBatch,
        destroy_db,
        open,
        repair_db,
    )
    from kvstore.errors import (
        AlreadyOpenError,
        ClosedError,
        CorruptionError,
        Error,
        IntegrityCode,
        InvalidArgumentError,
        IteratorInvalidError,
        OutOfMemoryError,
        StorageError,
    )

__all__ = [
    "DB",
    "TLS",
    "AlreadyOpenError",
    "AsyncClient",
    "Client",
    "ClosedError",
    "CorruptionError",
    "Error",
    "IntegrityCode",
    "InvalidArgumentError",
    "Iterator",
    "IteratorInvalidError",
    "Options",
    "OutOfMemoryError",
    "PrefixedDB",
    "RawIterator",
    "RepairReport",
    "RetryPolicy",
    "Snapshot",
    "StorageError",
    "WriteBatch",
    "destroy_db",
    "open",
    "repair_db",
]

_HOMES = {
    "kvstore.client": ("AsyncClient", "Client", "RetryPolicy", "TLS"),
    "kvstore.engine": (
        "DB",
        "Iterator",
        "Options",
        "PrefixedDB",
        "RawIterator",
        "RepairReport",
        "Snapshot",
        "WriteBatch",
        "destroy_db",
        "open",
        "repair_db",
    ),
    "kvstore.errors": (
        "AlreadyOpenError",
        "ClosedError",
        "CorruptionError",
        "Error",
        "IntegrityCode",
        "InvalidArgumentError",
        "IteratorInvalidError",
        "OutOfMemoryError",
        "StorageError",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'kvstore' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
