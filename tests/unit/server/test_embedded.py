"""Five members in one process: one that fails is stopped by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kvstore.api.v1 import admin_pb2
from kvstore.errors import CorruptionError, InternalError, InvalidArgumentError, StorageError
from kvstore.server.config.options import ServerOptions
from kvstore.server.nodes.embedded import EmbeddedNode, open_embedded
from kvstore.service import Get, Operation, Put

DEADLINE_S = 10.0


async def call(node: EmbeddedNode, operation: Operation) -> Any:
    answer: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
    while not node.leader():
        await asyncio.sleep(0.01)
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    node.service.submit((operation,), deadline, answer.set_result)
    return (await answer)[0]


async def stop_one(node: EmbeddedNode, member: int) -> None:
    """Its state turns out to be damaged."""
    (replica,) = (r for r in node.figures().replicas if r.member == member)
    replica.read_failed(CorruptionError("block"))
    while replica.failure is None:
        await asyncio.sleep(0)


def test_there_are_no_members_to_change(tmp_path: Path) -> None:
    async def main() -> None:
        node = await open_embedded(ServerOptions(data_dir=str(tmp_path)), tmp_path)
        try:
            while not node.leader():
                await asyncio.sleep(0)
            listed = node.members()
            assert [(one.member_id, one.learner) for one in listed.members] == [
                (member, False) for member in range(1, 6)
            ]
            assert listed.leader_id == node.leader()
            for change in (
                node.forget_introduction(1),
                node.transfer_leadership(0),
                node.change_members(admin_pb2.ChangeMembersRequest(remove=1)),
            ):
                with pytest.raises(InvalidArgumentError, match="embedded"):
                    await change
        finally:
            await node.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_it_goes_on_while_a_majority_is_left_and_ends_with_the_last(tmp_path: Path) -> None:
    async def main() -> None:
        node = await open_embedded(ServerOptions(data_dir=str(tmp_path)), tmp_path)
        try:
            assert await call(node, Put(b"k", b"0", b"zero")) is False
            for count in (1, 2):
                # The leader each time.
                await stop_one(node, node.leader())
                assert await call(node, Put(b"k", b"%d" % count, b"%d" % count)) is True
                assert await call(node, Get(b"k")) == b"%d" % count
                assert not node.failed.done()
            roles = [replica.status().role for replica in node.figures().replicas]
            assert roles.count("stopped") == 2
            await stop_one(node, node.leader())
            assert isinstance(await node.failed, StorageError)
        finally:
            await node.close()

    with capture_logs() as lines:
        asyncio.run(asyncio.wait_for(main(), 30))
    told = [line for line in lines if line["event"] == "a member has stopped"]
    assert [line["left"] for line in told] == [4, 3, 2]
    # What to do while there is still a majority to read from.
    assert ["snapshot save" in line["advice"] for line in told] == [True, True, False]


def test_a_defect_ends_it_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        node = await open_embedded(ServerOptions(data_dir=str(tmp_path)), tmp_path)
        try:
            node._member_failed(1, InternalError("a defect"))
            assert isinstance(await node.failed, InternalError)
        finally:
            await node.close()

    asyncio.run(asyncio.wait_for(main(), 30))
