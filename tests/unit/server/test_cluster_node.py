"""One member of a cluster in this process: what it tells its pulse thread, and takes from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import CorruptionError, InternalError
from kvstore.server.config.cluster_config import ClusterConfig, Node
from kvstore.server.config.options import ServerOptions
from kvstore.server.nodes.cluster_node import ClusterNode, open_cluster_node

HEARTBEAT_MS = 10


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def run(directory: Path, story: Callable[[ClusterNode], Coroutine[Any, Any, None]]) -> None:
    """Play ``story`` with a cluster of one, once it leads."""
    config = ClusterConfig(
        cluster_id="test",
        self_id=1,
        data_dir=str(directory),
        nodes=(Node(1, "127.0.0.1:1", "127.0.0.1:2"),),
        client_addr="127.0.0.1:0",
        peer_addr="127.0.0.1:0",
        heartbeat_ms=HEARTBEAT_MS,
        election_timeout_ms=100,
    )

    async def main() -> None:
        node = await open_cluster_node(config, ServerOptions(), directory)
        try:
            await until(node.leader)
            await story(node)
        finally:
            await node.close()

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    "fail",
    [
        lambda node: node.figures().replicas[0].read_failed(CorruptionError("block")),
        lambda node: node._driver.fail(InternalError("a defect")),
    ],
    ids=["damage", "defect"],
)
def test_a_leader_pulses_and_one_that_failed_does_not(
    tmp_path: Path, fail: Callable[[ClusterNode], object]
) -> None:
    async def story(node: ClusterNode) -> None:
        pulses = node._pulses
        pulses.follow([2])
        await until(pulses.beat)
        fail(node)
        await node.failed
        await until(lambda: not pulses.beat())

    run(tmp_path, story)


def test_what_was_felt_is_told_before_a_tick_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way round a loop that was held up would take its own silence for that of others."""

    async def story(node: ClusterNode) -> None:
        (replica,) = node.figures().replicas
        told: list[object] = []
        monkeypatch.setattr(replica, "pulse", lambda *pulse: told.append(pulse))
        monkeypatch.setattr(replica, "tick", lambda: told.append("tick"))
        monkeypatch.setattr(node._pulses, "take", lambda: {2: 7, 3: 7})
        await until(lambda: "tick" in told)
        assert told[:3] == [(2, 7), (3, 7), "tick"]

    run(tmp_path, story)


def test_its_pulses_are_at_its_peer_port_and_end_with_it(tmp_path: Path) -> None:
    async def story(node: ClusterNode) -> None:
        figures = node.figures().pulses
        assert figures is not None
        assert figures.listening
        (place,) = (one.getsockname() for one in node._pulse_thread._sockets.values())
        assert f"{place[0]}:{place[1]}" == node.peer_address
        node._pulse_thread.close()
        figures = node.figures().pulses
        assert figures is not None
        assert not figures.listening

    run(tmp_path, story)
