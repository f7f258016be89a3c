"""A gateway's start while the pool is away."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from kvstore.beyond.rados.opening import PoolAddress
from kvstore.errors import ConfigurationError, UnavailableError
from kvstore.server.config.rados_config import RadosConfig
from kvstore.server.nodes import rados_node


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
