"""Whom leadership goes to when nobody is named."""

from __future__ import annotations

import asyncio
import errno

from kvstore.server.nodes.operators import Operators
from tests.unit.replica.driven_group import DrivenGroup, put_of


def test_it_goes_to_nobody_whose_disk_is_full() -> None:
    async def hand_over(driven: DrivenGroup) -> int:
        task = asyncio.create_task(Operators(driven.leader).transfer(0))
        while not task.done():
            driven.step()
            await asyncio.sleep(0)
        return await task

    with DrivenGroup() as driven:
        leader = driven.leader()
        full, well = sorted({1, 2, 3} - {leader.member})
        driven.disk.fail("pwrite", errno.ENOSPC, always=True, path=f"/node{full}/state")
        for number in range(120):
            driven.ask([put_of(f"put-{number}", b"%06d" % number, bytes(2000))])

        def is_known() -> bool:
            return any(peer.ailing for peer in leader.status().raft.peers)

        driven.until(is_known)
        assert asyncio.run(asyncio.wait_for(hand_over(driven), 30)) == well
        assert driven.failed == {}
