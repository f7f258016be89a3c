"""A pool in memory whose operations are done when somebody waits for them."""

from __future__ import annotations

import os
from typing import Any

from kvstore.beyond.rados.driven import DrivenPool
from tests.unit.beyond.gateways import SALT
from tests.unit.beyond.memory_pool import MemoryClient, MemoryOperation, MemoryPool

PATIENCE_S = 20.0


class LiveClient(MemoryClient):
    """A :class:`kvstore.beyond.rados.driven.PoolClient`."""

    def __init__(self, pool: MemoryPool) -> None:
        super().__init__(pool)
        self.under_way = 0
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def _begin(self, kind: str, name: bytes, done: Any, *what: Any) -> MemoryOperation:
        self.under_way += 1
        os.eventfd_write(self._event, 1)
        return super()._begin(kind, name, done, *what)

    def fileno(self) -> int:
        return self._event

    def drain(self) -> list[MemoryOperation]:
        while self.pool.run():
            pass
        taken = super().drain()
        self.under_way -= len(taken)
        if not self.under_way:
            os.eventfd_read(self._event)
        return taken

    def close(self) -> bool:
        assert not self.under_way
        os.close(self._event)
        return True


class LiveNames:
    """All objects that there are when it begins."""

    def __init__(self, pool: MemoryPool) -> None:
        self._names = list(pool.things)

    def names(self, most: int) -> list[bytes]:
        taken, self._names = self._names[:most], self._names[most:]
        return taken


def live_pool(pool: MemoryPool, *, timeout_s: float = PATIENCE_S) -> DrivenPool:
    """A store in it."""
    driven = DrivenPool(LiveClient(pool), SALT, lambda: LiveNames(pool), timeout_s=timeout_s)
    driven.hear()
    return driven
