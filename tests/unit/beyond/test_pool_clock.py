"""The pool's clock: never faster than the world, and stamps that retries can be judged by."""

from __future__ import annotations

import random

import pytest

from kvstore.beyond.rados.layout import CLOCK_KEY, CLOCK_NAME, decode_clock
from kvstore.beyond.rados.pool_clock import STEP_S
from kvstore.service import Put
from tests.unit.beyond.gateways import World


def number(world: World) -> int:
    return decode_clock(world.pool.things[CLOCK_NAME].pairs[CLOCK_KEY])


def test_it_goes_on_while_a_gateway_runs_and_stands_while_none_does() -> None:
    world = World()
    begun = number(world)
    world.pass_time(100)
    assert 97_000 <= number(world) - begun <= 100_000
    before = number(world)
    world.now += 86_400
    world.tick()
    assert number(world) == before
    world.pass_time(10)
    assert 5_000 <= number(world) - before <= 10_000


@pytest.mark.parametrize("seed", range(20))
def test_what_is_stamped_is_never_before_what_a_retry_says(seed: int) -> None:
    """Gateways hang, and what they begin is done late; each runs on the same world."""
    rng = random.Random(seed)
    world = World(seed=seed, gateways=4)
    numbers: list[tuple[float, int]] = []
    stamps: list[tuple[float, int]] = []
    for _ in range(400):
        world.now += rng.choice((0.05, 0.3, 1.0, 4.0))
        for gateway in rng.sample(world.gateways, rng.randrange(4)):
            gateway.tick()
        for _ in range(rng.randrange(4)):
            world.pool.run(rng.randrange)
        if rng.random() < 0.8:
            world.drain()
        numbers.append((world.now, number(world)))
        gateway = rng.choice(world.gateways)
        if gateway.clock.is_set:
            stamps.append((world.now, gateway.clock.stamp_ms()))
            for at, stamp in stamps[-50:]:
                assert gateway.clock.since_ms(at) <= stamp
    for (at, before), (later, after) in zip(numbers, numbers[7:], strict=False):
        assert before <= after <= before + 1000 * (later - at + STEP_S)


def test_damage_of_the_clock_is_told_and_nothing_is_made_up() -> None:
    world = World()
    world.pool.things[CLOCK_NAME].pairs[CLOCK_KEY] = b"damaged"
    known = world.gateway.clock.known_ms
    world.pass_time(20)
    assert world.gateway.clock.known_ms == known
    assert world.gateway.clock.is_damaged
    assert world.gateway.silent_s() < 2
    assert world.call(Put(b"k", b"v", b"1")) is False
    assert world.gateway.figures().failures
