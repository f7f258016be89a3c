"""A member whose log lost what its state holds: snapshots of what it has, or of less, come to it.

Its state stays where it is, unless it is damaged as well.
"""

from __future__ import annotations

import contextlib
import random
from functools import cache

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import Error
from tests.unit.replica.driven_group import DrivenGroup

HURT = 2
HOME = f"/data/node{HURT}"


def state_of(disk: MemoryFileSystem) -> str:
    (name,) = [name for name in disk.names(HOME) if name.startswith("state")]
    return f"{HOME}/{name}"


@cache
def installed(*, is_further: bool) -> MemoryFileSystem:
    """All stopped; the state of one is a snapshot, and what the leader holds durably.

    ``is_further``: it holds a little more, that the others have in their logs alone.
    """
    with DrivenGroup() as group:
        assert group.leader().member != HURT
        group.group.network.isolate(HURT, [1, 3])
        for number in range(300):
            group.put(b"k%d" % number, bytes(300))
        group.group.network.heal()
        group.settle()
        if is_further:
            group.put(b"one", b"more")
            group.settle()
            group.group.replicas[HURT].machine.flush()
        disk = group.power_off(keep="all")
    assert not state_of(disk).endswith("-" + "0" * 20)
    return disk


def without_log(*, is_further: bool = False) -> MemoryFileSystem:
    disk = installed(is_further=is_further).crash(keep="all")
    for path in disk.files(f"{HOME}/log"):
        if path.endswith(".wal"):
            disk.flip_bit(path, 60, 1)
    return disk


def damage_state(disk: MemoryFileSystem) -> None:
    (manifest,) = [path for path in disk.files(state_of(disk)) if "MANIFEST" in path]
    disk.flip_bit(manifest, 60, 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_of_the_index_that_the_open_state_is_of_leaves_it_where_it_is(
    seed: int,
) -> None:
    disk = without_log()
    name = state_of(disk)
    with DrivenGroup(disk, seed=seed) as group:
        hurt = group.group.replicas[HURT]
        assert hurt.recovery.name == "the log is damaged"
        machine = hurt.machine
        group.until(lambda: not hurt.stands_aside)
        assert hurt.counters.snapshots_received
        group.put(b"after", b"it")
        group.settle()
        assert not group.failed
        assert len(group.hashes()) == 1
        assert hurt.machine is machine
        assert not [name for name in disk.names(HOME) if name.startswith("ready")]
        disk = group.power_off(keep="all")
    assert state_of(disk) == name
    with DrivenGroup(disk, seed=seed) as group:
        assert group.read(b"after") == b"it"
        group.settle()
        assert len(group.hashes()) == 1


def test_a_snapshot_of_an_earlier_index_takes_nothing_back() -> None:
    disk = without_log(is_further=True)
    with DrivenGroup(disk) as group:
        hurt = group.group.replicas[HURT]
        held = hurt.status().applied
        begins: set[int] = set()

        def healed() -> bool:
            assert hurt.status().applied >= held
            begins.add(hurt.status().raft.first_index)
            return not hurt.stands_aside

        group.until(healed)
        assert any(1 < begin <= held for begin in begins), "it came by a snapshot, an earlier one"
        group.settle()
        assert not group.failed
        assert len(group.hashes()) == 1


def test_a_damaged_state_is_replaced_by_a_snapshot_of_its_own_index() -> None:
    disk = without_log()
    damage_state(disk)
    with DrivenGroup(disk) as group:
        hurt = group.group.replicas[HURT]
        assert hurt.state_is_damaged
        assert hurt.stands_aside
        group.until(lambda: not hurt.stands_aside and not hurt.state_is_damaged)
        group.settle()
        assert not group.failed
        assert len(group.hashes()) == 1
        for _ in range(20):
            group.step()
        disk = group.power_off(keep="all")
    assert sorted(name.partition("-")[0] for name in disk.names(HOME)) == ["LOGEND", "log", "state"]
    with DrivenGroup(disk) as group:
        assert group.group.replicas[HURT].recovery.name == "all is there"


@pytest.mark.parametrize("is_further", [False, True])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_after_a_crash_at_any_moment_of_it_the_member_has_all(
    is_further: bool, is_damaged: bool
) -> None:
    before = without_log(is_further=is_further)
    if is_damaged:
        damage_state(before)
    # Of some 300 operations every 37th: all of them would take a minute.
    for operation in range(1, 300, 37):
        disk = before.crash(keep="all")
        disk.stop_at(disk.operations + operation)
        with contextlib.suppress(Error), DrivenGroup(disk) as group:
            for _ in range(30):
                group.step()
        left = disk.crash(random.Random(operation), keep="random")
        with DrivenGroup(left, seed=operation) as group:
            hurt = group.group.replicas[HURT]
            group.settle()
            group.until(lambda hurt=hurt: not hurt.stands_aside and not hurt.repair.under_way)
            group.settle()
            assert not group.failed, operation
            assert len(group.hashes()) == 1, operation
            assert group.read(b"k5") == bytes(300)
