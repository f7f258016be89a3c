"""Values that gateways left behind are cleared away, and no other ones."""

from __future__ import annotations

import errno

import pytest

from kvstore.beyond.rados.sweeping import EVERY_MS, Sweep
from kvstore.errors import Outcome, UnavailableError
from kvstore.service import Get, Put
from tests.unit.beyond.gateways import World
from tests.unit.beyond.memory_pool import MemoryOperation

LARGE = b"v" * 5000


def values_in(world: World) -> set[bytes]:
    return {name for name in world.pool.things if name.startswith(b"v.")}


def swept(world: World) -> int:
    """One walk; how many went."""
    sweep = Sweep(world.clients[0], world.gateway.clock)
    done: list[bool] = []
    sweep.look_at(list(world.pool.things), lambda: done.append(True))
    world.settle()
    assert done == [True]
    return sweep.removed


def leave_behind(world: World, key: bytes) -> bytes:
    """As a gateway that ends after its value was written, and before its key named it."""
    before = values_in(world)
    world.pool.trouble = lambda operation: (
        0 if operation.kind == "read_pairs" and operation.name.startswith(b"b.") else None
    )
    world.begin(Put(key, LARGE, b"left-" + key))
    while world.pool.run():
        pass
    world.pool.queue.clear()
    world.clients[0].finished.clear()
    world.pool.trouble = lambda operation: None
    (name,) = values_in(world) - before
    return name


def test_what_no_key_names_goes_when_it_is_old_and_what_is_named_stays() -> None:
    world = World(gateways=2)
    for n in range(5):
        world.call(Put(b"k%d" % n, LARGE, b"%d" % n), at=1)
    named = values_in(world)
    left = {leave_behind(world, b"k0"), leave_behind(world, b"new")}
    assert swept(world) == 0  # one of them may yet be named
    assert values_in(world) == named | left
    world.pass_time(1300)
    assert swept(world) == 2
    assert values_in(world) == named
    for n in range(5):
        assert world.call(Get(b"k%d" % n), at=1) == LARGE


def test_what_would_name_a_value_that_is_swept_is_refused_by_its_guard() -> None:
    """It was begun before, and is done after: then it names nothing that isn't there."""
    world = World(gateways=2)
    world.call(Put(b"k", b"small", b"0"), at=1)
    held: list[MemoryOperation] = []

    def hold(operation: MemoryOperation) -> int | None:
        hangs = operation.client is world.clients[1] and operation.kind == "write"
        if hangs and operation.name.startswith(b"b."):
            held.append(operation)
            return 0
        return None

    world.pool.trouble = hold
    got = world.begin(Put(b"k", LARGE, b"1"), at=1, timeout=10_000.0)
    world.settle()
    assert held
    world.pass_time(1300)
    assert swept(world) == 1
    world.pool.trouble = lambda operation: None
    world.settle()
    assert got
    assert world.call(Get(b"k")) == b"small"


def test_what_can_not_be_read_stays_for_the_next_walk() -> None:
    world = World(gateways=2)
    leave_behind(world, b"k")
    world.pass_time(1300)
    for kind in ("read_pairs", "write"):
        world.pool.trouble = lambda operation, kind=kind: (
            -errno.ETIMEDOUT if operation.kind == kind and operation.name != b"clock" else None
        )
        assert swept(world) == 0
    world.pool.trouble = lambda operation: None
    assert swept(world) == 1


@pytest.mark.parametrize("gateways", [1, 3])
def test_one_gateway_a_day_walks(gateways: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EVERY_MS == 24 * 3_600_000
    monkeypatch.setattr("kvstore.beyond.rados.sweeping.EVERY_MS", 100_000)
    world = World(gateways=gateways)
    claims: list[bool] = []
    sweeps = [
        Sweep(client, gateway.clock)
        for client, gateway in zip(world.clients, world.gateways, strict=True)
    ]

    def claim() -> int:
        claims.clear()
        for sweep in sweeps:
            sweep.claim(claims.append)
        world.settle(shuffled=True)
        assert len(claims) == gateways
        return sum(claims)

    assert claim() == 0  # the pool is younger than a day
    world.pass_time(110)
    assert claim() == 1
    assert claim() == 0


def test_a_value_that_was_swept_while_its_gateway_stood_still_is_named_by_no_key() -> None:
    """By its own clocks no time has passed when it goes on, and tries again what lost the race."""
    world = World(gateways=2)
    world.call(Put(b"k", b"old", b"0"))
    held = True
    world.pool.trouble = lambda operation: (
        0
        if held
        and operation.client is world.clients[1]
        and operation.kind == "write"
        and operation.name.startswith(b"b.")
        else None
    )
    got = world.begin(Put(b"k", LARGE, b"1"), at=1)
    world.settle()
    world.stand_still(1, 1300)
    assert swept(world) == 1
    held = False
    world.settle()
    ((result,),) = got
    assert isinstance(result, UnavailableError)
    assert result.outcome is Outcome.NOT_APPLIED
    assert world.call(Get(b"k")) == b"old"
    assert not values_in(world)
    world.pass_time(2)
    assert world.call(Put(b"k", LARGE, b"1", age_s=1302.0), at=1) is True
    assert world.call(Get(b"k")) == LARGE
