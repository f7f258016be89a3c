"""A lease lives at least its TTL after its last renewal, whatever happens to its leaders."""

from __future__ import annotations

from functools import partial

import pytest

from kvstore.service.etcd import lessor_checkpoints
from kvstore.state.mvcc.requests import LeaseGrant, LeaseRevoke
from tests.unit.service.etcd.lease_world import ELECTION_S, World

SEEDS = 80
TROUBLE_S = 120.0
LEASES = 12


@pytest.fixture(autouse=True)
def _short_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that leases of seconds are noted as those of hours are."""
    monkeypatch.setattr(lessor_checkpoints, "INTERVAL_S", 3.0)
    monkeypatch.setattr(lessor_checkpoints, "LEFT_MIN_S", 2.0)
    monkeypatch.setattr(lessor_checkpoints, "GAIN_MIN_S", 1.0)


def trouble(world: World) -> None:
    """Leaders change, and nodes stand still, until TROUBLE_S: with calm in between, or without."""
    rng = world.rng
    if world.now > TROUBLE_S:
        return
    if rng.random() < 0.4:
        world.elect(rng.choice(world.nodes))
    else:
        rng.choice(world.nodes).stand_still(rng.choice((0.3, 0.8, 3.0, 12.0)))
    world.at(rng.choice((rng.uniform(0, 1), rng.uniform(0, 10))), partial(trouble, world))


def client(world: World, id: int) -> None:
    """Grants a lease, renews it for a while, then lets it run out, or takes its id for another."""
    rng = world.rng
    if world.now > TROUBLE_S:
        return
    pause = rng.uniform(0, 3)
    lease = world.truth.leases.get(id)
    if lease is None:
        world.do(LeaseGrant(id, rng.choice((2, 3, 5, 10, 20))))
    elif rng.random() < 0.1:
        # About when the one before runs out.
        left = world.promised[id, lease.birth] - world.now
        pause = max(0.0, left + rng.uniform(-0.1, 0.3)) if left < 3 else pause
        world.at(pause, partial(_replace, world, id))
    elif rng.random() < 0.6:
        world.keep(id, lambda ttl: None)
    world.at(pause, partial(client, world, id))


def _replace(world: World, id: int) -> None:
    world.do(LeaseRevoke(id))
    world.do(LeaseGrant(id, world.rng.choice((2, 5, 20))))


def run(seed: int) -> World:
    """A world of this seed, after its troubles."""
    world = World(seed)
    for id in range(1, LEASES + 1):
        client(world, id)
    world.at(1.0, partial(trouble, world))
    world.run_until(TROUBLE_S)
    return world


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_lease_is_cut_short_and_all_end(seed: int) -> None:
    world = run(seed)
    # With one leader for good, whatever is left runs out.
    world.elect(world.nodes[0])
    world.run_until(TROUBLE_S + 20 + 12 + 3 * ELECTION_S)
    world.elect(world.nodes[1])
    world.run_until(world.now + 20 + 12 + 6 * ELECTION_S)
    assert world.broken == []
    assert world.truth.leases == {}
    assert world.expired > 0
