"""For tests of programs that use kvstore: a store in memory, and real servers.

:class:`MemoryClient` and :class:`AsyncMemoryClient` are clients of a store that is in this process'
memory; :mod:`kvstore.testing.pytest_plugin` gives pytest fixtures of real servers. Names are loaded
on first use, as pytest loads this package in every program that has kvstore installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kvstore.extras import missing_package

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
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        line = missing_package(f"kvstore.testing.{name}", error, "server")
        if line is None:
            raise
        raise ModuleNotFoundError(line, name=error.name) from None
    value = getattr(module, name)
    globals()[name] = value
    return value
