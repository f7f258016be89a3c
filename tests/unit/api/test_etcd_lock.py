"""``v3lockpb.Lock``, as callers see it; expectations are etcd's unless a test says otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import contest as contest_module
from kvstore.api.handlers.etcd.contest import Contest
from kvstore.api.handlers.etcd.lock import LockHandlers
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from tests.unit.api.etcd_desk import Desk, run, settle


def locks_of(desk: Any) -> LockHandlers:
    return LockHandlers(desk, Contest(desk, desk.hub, 2))


async def lock(desk: Desk, lease: int, name: bytes = b"n") -> pb.LockResponse:
    return await locks_of(desk).Lock(pb.LockRequest(name=name, lease=lease), None)  # type: ignore[arg-type]


async def waiting(desk: Desk, lease: int, name: bytes = b"n") -> asyncio.Task[pb.LockResponse]:
    """A caller who waits for the lock."""
    task = asyncio.create_task(lock(desk, lease, name))
    await settle()
    assert not task.done()
    return task


async def unlock(desk: Desk, key: bytes) -> pb.UnlockResponse:
    return await locks_of(desk).Unlock(pb.UnlockRequest(key=key), None)  # type: ignore[arg-type]


def test_free_lock_is_had_at_once() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(0xAB)
        got = await lock(desk, 0xAB)
        assert got.key == b"n/ab"
        assert got.header.revision == got.create_revision == 2
        assert desk.oracle.now[b"n/ab"].lease == 0xAB

    run(test)


def test_lock_of_a_lease_below_zero_has_gos_name() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(-5)
        assert (await lock(desk, -5)).key == b"n/-5"

    run(test)


def test_who_has_the_lock_has_it_again() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1)
        first = await lock(desk, 1)
        again = await lock(desk, 1)
        assert (again.key, again.create_revision) == (first.key, first.create_revision)
        assert desk.revision == 2

    run(test)


def test_names_do_not_hinder_each_other() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        await lock(desk, 1, b"n")
        assert (await lock(desk, 2, b"n0")).key == b"n0/2"
        assert (await lock(desk, 2, b"")).key == b"/2"

    run(test)


def test_callers_get_the_lock_in_the_order_in_which_they_came() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2, 3)
        first = await lock(desk, 1)
        second, third = await waiting(desk, 2), await waiting(desk, 3)
        await unlock(desk, first.key)
        got = await second
        assert (got.key, got.create_revision, got.header.revision) == (b"n/2", 3, 5)
        await settle()
        assert not third.done()
        await unlock(desk, got.key)
        assert (await third).key == b"n/3"

    run(test)


def test_caller_in_the_middle_that_goes_lets_nobody_through() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2, 3)
        first = await lock(desk, 1)
        second, third = await waiting(desk, 2), await waiting(desk, 3)
        second.cancel()
        await settle()
        assert not third.done()
        await unlock(desk, first.key)
        assert (await third).key == b"n/3"

    run(test)


def test_lock_is_free_when_its_holders_lease_ends() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        await lock(desk, 1)
        second = await waiting(desk, 2)
        desk.revoke(1)
        assert (await second).key == b"n/2"

    run(test)


def test_caller_that_goes_away_leaves_its_place() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        await lock(desk, 1)
        second = await waiting(desk, 2)
        assert desk.keys() == [b"n/1", b"n/2"]
        second.cancel()
        await settle()
        assert desk.keys() == [b"n/1"]

    run(test)


def test_caller_that_goes_away_before_it_has_a_place_leaves_that_too() -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1)
        desk.held = asyncio.Event()
        caller = await waiting(desk, 1)
        caller.cancel()
        await settle()
        assert desk.keys() == []
        desk.held.set()
        await settle()
        assert desk.keys() == []
        assert desk.revision == 3

    run(test)


def test_caller_that_goes_away_takes_nobody_elses_key_along() -> None:
    """Its own was deleted meanwhile, and made anew."""

    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        await lock(desk, 1)
        second = await waiting(desk, 2)
        await unlock(desk, b"n/2")
        desk.put(b"n/2")
        second.cancel()
        await settle()
        assert desk.keys() == [b"n/1", b"n/2"]

    run(test)


def test_caller_whose_lease_ends_while_it_waits_is_told_so() -> None:
    """etcd 3.4 says that it has the lock."""

    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        first = await lock(desk, 1)
        second = await waiting(desk, 2)
        desk.revoke(2)
        await unlock(desk, first.key)
        with pytest.raises(EtcdError) as refusal:
            await second
        assert refusal.value.reason is Reason.SESSION_EXPIRED

    run(test)


def test_caller_without_a_lease_gets_one_of_a_minute() -> None:
    async def test(desk: Desk) -> None:
        got = await lock(desk, 0)
        ((lease, (ttl, _, _)),) = desk.oracle.leases.items()
        assert ttl == 60
        assert got.key == b"n/%x" % lease

    run(test)


def test_unknown_lease_is_refused() -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(EtcdError) as refusal:
            await lock(desk, 7)
        assert refusal.value.reason is Reason.LEASE_NOT_FOUND

    run(test)


def test_unlocking_what_nobody_has_changes_nothing() -> None:
    async def test(desk: Desk) -> None:
        assert (await unlock(desk, b"n/1")).header.revision == 1
        with pytest.raises(EtcdError) as refusal:
            await unlock(desk, b"")
        assert refusal.value.reason is Reason.EMPTY_KEY

    run(test)


@pytest.mark.parametrize("reason", [Reason.TIMED_OUT, Reason.NO_LEADER, Reason.LEADER_CHANGED])
def test_callers_wait_while_nobody_leads(reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest_module, "RETRY_S", 0.0)

    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        first = await lock(desk, 1)
        desk.troubles = [EtcdError(reason), EtcdError(reason)]
        second = await waiting(desk, 2)
        desk.hub.stop(EtcdError(reason))
        await settle()
        assert not second.done()
        assert desk.keys() == [b"n/1", b"n/2"]
        await unlock(desk, first.key)
        assert (await second).key == b"n/2"

    run(test)


def test_callers_wait_while_history_is_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest_module, "RETRY_S", 0.0)

    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        first = await lock(desk, 1)
        desk.troubles = [EtcdError(Reason.COMPACTED)]
        second = await waiting(desk, 2)
        for number in range(5):
            desk.put(b"%d" % number)
            desk.compact()
        await settle()
        await unlock(desk, first.key)
        assert (await second).key == b"n/2"

    run(test)


@pytest.mark.parametrize("error", [EtcdError(Reason.PERMISSION_DENIED), EtcdError(Reason.STOPPED)])
def test_what_ends_the_waiting_ends_the_place(error: Error) -> None:
    async def test(desk: Desk) -> None:
        desk.grant(1, 2)
        await lock(desk, 1)
        desk.troubles = [error]
        with pytest.raises(EtcdError) as refusal:
            await lock(desk, 2)
        assert refusal.value is error
        await settle()
        assert desk.keys() == [b"n/1"]

    run(test)
