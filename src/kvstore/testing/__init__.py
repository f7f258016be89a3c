"""For tests of programs that use kvstore: a store in memory, and real servers.

:class:`MemoryClient` and :class:`AsyncMemoryClient` are clients of a store that is in this process'
memory; :mod:`kvstore.testing.pytest_plugin` gives pytest fixtures of real servers. Names are loaded
on first use, as pytest loads this package in every program that has kvstore installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.testing.memory import AsyncMemoryClient, MemoryClient, MemoryStore
    from kvstore.testing.servers import Cluster, Server

__all__ = ["AsyncMemoryClient", "Cluster", "MemoryClient", "MemoryStore", "Server"]

_HOMES = {
    "AsyncMemoryClient": "kvstore.testing.memory",
    "Cluster": "kvstore.testing.servers",
    "MemoryClient": "kvstore.testing.memory",
    "MemoryStore": "kvstore.testing.memory",
    "Server": "kvstore.testing.servers",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kvstore.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
