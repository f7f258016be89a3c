"""kvstore: an embedded, ordered key-value store and a replicated server, with clients for it.

Names are loaded on first use, so that ``import kvstore`` costs nothing and a program that only
embeds the store never loads gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.client import TLS, AsyncClient, Client, RetryPolicy

__all__ = ["TLS", "AsyncClient", "Client", "RetryPolicy"]

_HOMES = {
    "AsyncClient": "kvstore.client",
    "Client": "kvstore.client",
    "RetryPolicy": "kvstore.client",
    "TLS": "kvstore.client",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kvstore' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
