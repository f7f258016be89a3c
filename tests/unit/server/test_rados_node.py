"""A gateway's start while the pool is away, and what it says of one that isn't as it should be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest

from kvstore.beyond.rados.layout import CLOCK_KEY, CLOCK_NAME, Marker
from kvstore.beyond.rados.opening import OpenPool, PoolAddress
from kvstore.errors import ConfigurationError, CorruptionError, UnavailableError
from kvstore.server.config.rados_config import RadosConfig
from kvstore.server.nodes import rados_node
from kvstore.server.nodes.rados_node import RadosNode
from tests.unit.beyond.memory_pool import MemoryClient, MemoryOperation, MemoryPool, Thing


class Client(MemoryClient):
    """One that answers at once."""

    def __init__(self, pool: MemoryPool) -> None:
        super().__init__(pool)
        self._event = os.eventfd(0, os.EFD_NONBLOCK)

    def _begin(self, kind: str, name: bytes, done: Any, *what: Any) -> MemoryOperation:
        operation = super()._begin(kind, name, done, *what)
        while self.pool.run():
            pass
        os.eventfd_write(self._event, 1)
        return operation

    def fileno(self) -> int:
        return self._event

    def drain(self) -> list[MemoryOperation]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        return super().drain()

    @property
    def under_way(self) -> int:
        return 0

    def close(self) -> bool:
        os.close(self._event)
        return True


@asynccontextmanager
async def node_over(pool: MemoryPool) -> AsyncIterator[RadosNode]:
    opened: Any = OpenPool(Client(pool), Marker(bytes(16), bytes(16)), "", False)  # type: ignore[arg-type]
    node = RadosNode(opened)
    try:
        yield node
    finally:
        await node.close()


def test_a_pool_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [UnavailableError("no monitor"), UnavailableError("no OSD"), ConfigurationError("end")]

    def open_pool(address: PoolAddress) -> NoReturn:
        raise said.pop(0)

    monkeypatch.setattr(rados_node, "open_pool", open_pool)
    monkeypatch.setattr(rados_node, "RETRY_S", 0.0)
    config = RadosConfig(pool="p")
    with pytest.raises(ConfigurationError, match="end"):
        asyncio.run(rados_node.open_rados_node(config, config.options("file")))
    assert not said


def test_a_damaged_clock_ends_the_start_and_says_what_to_do() -> None:
    pool = MemoryPool()
    pool.things[CLOCK_NAME] = Thing(1, {CLOCK_KEY: b"damaged"})

    async def start() -> None:
        async with node_over(pool) as node:
            with pytest.raises(CorruptionError, match=r"clock is damaged.*'rados rm'"):
                await node.hear()

    asyncio.run(start())


def test_a_pool_that_was_renamed_is_no_pool_that_does_not_answer() -> None:
    pool = MemoryPool()

    async def start() -> None:
        async with node_over(pool) as node:
            await node.hear()
            assert node.storage_trouble() == ""
            pool.exists = False
            assert "removed, or renamed" in node.storage_trouble()

    asyncio.run(start())
