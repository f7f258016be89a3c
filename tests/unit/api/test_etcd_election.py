"""``v3electionpb.Election``, as callers see it; expectations as for locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.contest import Contest
from kvstore.api.handlers.etcd.election import ElectionHandlers
from kvstore.etcd_errors import EtcdError, Reason
from tests.unit.api.etcd_desk import Desk, run, settle

NO_CONTEXT: Any = None


class Observer:
    """The context of a call of Observe."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes, int]] = []

    async def write(self, response: pb.LeaderResponse) -> None:
        self.seen.append((response.kv.key, response.kv.value, response.header.revision))


def election_of(desk: Any) -> ElectionHandlers:
    return ElectionHandlers(desk, Contest(desk, desk.hub, 2), desk.hub)


async def campaign(desk: Desk, lease: int, value: bytes = b"") -> pb.CampaignResponse:
    request = pb.CampaignRequest(name=b"e", lease=lease, value=value)
    return await election_of(desk).Campaign(request, NO_CONTEXT)


async def waiting(desk: Desk, lease: int, value: bytes = b"") -> asyncio.Task[pb.CampaignResponse]:
    task = asyncio.create_task(campaign(desk, lease, value))
    await settle()
    assert not task.done()
    return task


async def proclaim(desk: Desk, leader: pb.LeaderKey, value: bytes) -> pb.ProclaimResponse:
    request = pb.ProclaimRequest(leader=leader, value=value)
    return await election_of(desk).Proclaim(request, NO_CONTEXT)


async def resign(desk: Desk, leader: pb.LeaderKey) -> pb.ResignResponse:
    return await election_of(desk).Resign(pb.ResignRequest(leader=leader), NO_CONTEXT)


async def leader_of(desk: Desk) -> pb.LeaderResponse:
    return await election_of(desk).Leader(pb.LeaderRequest(name=b"e"), NO_CONTEXT)


@asynccontextmanager
async def observing(desk: Desk) -> AsyncIterator[list[tuple[bytes, bytes, int]]]:
    observer: Any = Observer()
    task = asyncio.create_task(election_of(desk).Observe(pb.LeaderRequest(name=b"e"), observer))
    await settle()
    yield observer.seen
    assert not task.done()
    task.cancel()


def test_first_candidate_is_elected_at_once() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(0xA)
        got = await campaign(desk, 0xA, b"me")
        assert got.header.revision == 2
        assert got.leader == pb.LeaderKey(name=b"e", key=b"e/a", rev=2, lease=0xA)
        elected = await leader_of(desk)
        assert (elected.kv.key, elected.kv.value) == (b"e/a", b"me")

    run(test)


def test_candidates_are_elected_in_the_order_in_which_they_came() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        first = await campaign(desk, 1, b"one")
        second = await waiting(desk, 2, b"two")
        assert (await leader_of(desk)).kv.value == b"one"
        await resign(desk, first.leader)
        got = await second
        assert (got.leader.key, got.leader.rev, got.header.revision) == (b"e/2", 3, 3)
        assert (await leader_of(desk)).kv.value == b"two"

    run(test)


def test_candidate_that_stands_again_says_something_else() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1)
        first = await campaign(desk, 1, b"one")
        again = await campaign(desk, 1, b"two")
        assert again.leader == first.leader
        assert (await leader_of(desk)).kv.value == b"two"
        await campaign(desk, 1, b"two")
        assert desk.revision == 3

    run(test)


def test_candidate_that_goes_away_leaves_its_place() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        await campaign(desk, 1)
        second = await waiting(desk, 2)
        second.cancel()
        await settle()
        assert desk.keys() == [b"e/1"]

    run(test)


def test_candidate_whose_lease_ends_while_it_waits_is_not_elected() -> None:
    """etcd says that it is."""

    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        await campaign(desk, 1)
        second = await waiting(desk, 2)
        desk.revoke(2)
        desk.revoke(1)
        with pytest.raises(EtcdError) as refusal:
            await second
        assert refusal.value.reason is Reason.SESSION_EXPIRED

    run(test)


def test_nobody_is_elected_before_a_campaign() -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(EtcdError) as refusal:
            await leader_of(desk)
        assert refusal.value.reason is Reason.NOBODY_ELECTED

    run(test)


def test_the_elected_one_proclaims() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1)
        got = await campaign(desk, 1, b"one")
        assert (await proclaim(desk, got.leader, b"two")).header.revision == 3
        assert (await leader_of(desk)).kv.value == b"two"
        assert desk.oracle.now[b"e/1"].lease == 1

    run(test)


def test_who_is_not_elected_any_more_proclaims_and_resigns_nothing() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1)
        former = (await campaign(desk, 1, b"one")).leader
        await resign(desk, former)
        await campaign(desk, 1, b"again")
        with pytest.raises(EtcdError) as refusal:
            await proclaim(desk, former, b"x")
        assert refusal.value.reason is Reason.NOT_ELECTED
        await resign(desk, former)
        assert (await leader_of(desk)).kv.value == b"again"

    run(test)


def test_who_says_not_as_whom_is_refused() -> None:
    async def test(desk: Desk) -> None:
        election = election_of(desk)
        with pytest.raises(EtcdError) as refusal:
            await election.Proclaim(pb.ProclaimRequest(value=b"x"), NO_CONTEXT)
        assert refusal.value.reason is Reason.NO_LEADER_KEY
        with pytest.raises(EtcdError) as refusal:
            await election.Resign(pb.ResignRequest(), NO_CONTEXT)
        assert refusal.value.reason is Reason.NO_LEADER_KEY

    run(test)


def test_observers_see_all_that_the_elected_ones_say() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        first = await campaign(desk, 1, b"one")
        async with observing(desk) as seen:
            assert seen == [(b"e/1", b"one", 2)]
            second = await waiting(desk, 2, b"two")
            await proclaim(desk, first.leader, b"uno")
            await settle()
            assert seen[1:] == [(b"e/1", b"uno", 4)]
            await resign(desk, first.leader)
            await second
            await settle()
            assert seen[2:] == [(b"e/2", b"two", 5)]

    run(test)


def test_observers_wait_for_the_first_candidate() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1)
        async with observing(desk) as seen:
            assert seen == []
            desk.put(b"f")
            await campaign(desk, 1, b"one")
            await settle()
            assert seen == [(b"e/1", b"one", 3)]

    run(test)


def test_observers_go_on_after_history_was_compacted() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1)
        got = await campaign(desk, 1, b"one")
        async with observing(desk) as seen:
            desk.troubles = [EtcdError(Reason.COMPACTED)]
            await resign(desk, got.leader)
            await settle()
            await campaign(desk, 1, b"two")
            await settle()
            assert [value for _, value, _ in seen] == [b"one", b"two"]

    run(test)
