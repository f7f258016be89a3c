"""kvstore: an embedded, ordered key-value store and a replicated server, with clients for it.

Names are loaded on first use, so that ``import kvstore`` costs nothing and a program that only
embeds the store never loads gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore import errors
    from kvstore.client import TLS, AsyncClient, Client, RetryPolicy
    from kvstore.engine import (
        DB,
        Iterator,
        Options,
        PrefixedDB,
        RawIterator,
        Snapshot,
        WriteBatch,
        destroy_db,
        open,
        repair_db,
    )

    __version__: str

__all__ = [
    "DB",
    "TLS",
    "AsyncClient",
    "Client",
    "Iterator",
    "Options",
    "PrefixedDB",
    "RawIterator",
    "RetryPolicy",
    "Snapshot",
    "WriteBatch",
    "__version__",
    "destroy_db",
    "errors",
    "open",
    "repair_db",
]

_CLIENT = ("AsyncClient", "Client", "RetryPolicy", "TLS")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'kvstore' has no attribute {name!r}")
    value: object
    if name == "errors":
        value = importlib.import_module("kvstore.errors")
    elif name == "__version__":
        value = importlib.import_module("kvstore.version").version()
    else:
        home = "kvstore.client" if name in _CLIENT else "kvstore.engine"
        value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
