"""The services that need no other program: a group on memory disks, and a pool in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.contract.service_contract import ServiceContract, Stage
from tests.unit.beyond.gateways import World
from tests.unit.replica.driven_group import TICK_S
from tests.unit.service.test_failover import ServedGroup


class GroupStage:
    """A group of three that led before anything was asked."""

    def __init__(self, group: ServedGroup) -> None:
        self._group = group
        self.service = group.service
        group.leader()

    def now(self) -> float:
        return self._group.steps * TICK_S

    def until(self, done: Callable[[], object]) -> None:
        self._group.until(done)

    def pause(self, seconds: float) -> None:
        for _ in range(int(seconds / TICK_S) + 1):
            self._group.step()


class PoolStage:
    """One of two gateways to a pool in memory."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.service = world.gateways[1]

    def now(self) -> float:
        return self._world.now

    def until(self, done: Callable[[], object]) -> None:
        self._world.settle(shuffled=True)
        assert done()

    def pause(self, seconds: float) -> None:
        self._world.pass_time(seconds)


class TestGroup(ServiceContract):
    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        with ServedGroup() as group:
            yield GroupStage(group)


class TestPoolInMemory(ServiceContract):
    @pytest.fixture
    def stage(self) -> Stage:
        return PoolStage(World(gateways=2))
