"""A backup that comes upon damage."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.errors import IntegrityCode, UnavailableError
from kvstore.replica import Replica
from kvstore.server.nodes.backups import Backups
from tests.unit.replica.driven_group import DrivenGroup


async def take(replica: Replica) -> None:
    async for _ in Backups().stream(replica, stale=True):
        pass


def test_damage_is_repaired_and_others_have_the_data() -> None:
    with DrivenGroup() as driven:
        for number in range(120):
            driven.put(b"%06d" % number, bytes(2000))
        driven.settle()
        leader = driven.leader()
        for path in driven.disk.files(f"/data/node{leader.member}"):
            if path.endswith(".sst"):
                driven.disk.flip_bit(path, 100)
        with pytest.raises(UnavailableError) as caught:
            asyncio.run(take(leader))
        assert caught.value.code is IntegrityCode.CHECKSUM_MISMATCH
        leader.turn()
        with pytest.raises(UnavailableError, match="ask another member"):
            asyncio.run(take(leader))
        driven.until(lambda: driven.leader() is not leader)
        asyncio.run(take(driven.leader()))
        driven.until(lambda: leader.counters.repairs_done)
        asyncio.run(take(leader))
