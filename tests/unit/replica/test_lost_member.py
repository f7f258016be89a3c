"""One of several members in a process whose log, or whole directory, is gone (ADR 5)."""

from __future__ import annotations

import contextlib
import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import ConfigurationError, CorruptionError, Error
from tests.unit.replica.driven_group import DrivenGroup


def without(disk: MemoryFileSystem, *paths: str) -> MemoryFileSystem:
    for path in paths:
        disk.remove_tree(path)
    return disk


@pytest.mark.parametrize("members", [3, 5])
@pytest.mark.parametrize("lost", ["node3", "node3/log", "node1"])
def test_a_member_that_lost_its_directory_comes_back_as_one_that_forgot_all(
    members: int, lost: str
) -> None:
    with DrivenGroup(members=members) as group:
        group.put(b"k", b"1")
        group.settle()
        term = group.leader().term
        disk = group.power_off()
    with DrivenGroup(without(disk, f"/data/{lost}"), members=members) as group:
        assert [*group.group.replicas] == sorted(group.group.replicas), "as people are told of them"
        replica = group.group.replicas[int(lost[4])]
        assert replica.recovery.name == "the log of one of several members is gone"
        assert replica.status().raft.damaged
        assert replica.term > term
        assert "the log is gone" in replica.log_short
        group.until(lambda: not replica.status().raft.damaged)
        assert group.read(b"k") == b"1"
        assert len(group.hashes()) == 1
        disk = group.power_off()
    with DrivenGroup(disk, members=members) as group:
        rows = {replica.recovery.name for replica in group.group.replicas.values()}
        assert rows == {"all is there"}
        group.settle()
        assert group.read(b"k") == b"1"


def test_one_that_forgot_all_does_not_vote_before_it_is_healed() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        group.settle()
        disk = group.power_off()
    with DrivenGroup(without(disk, "/data/node3")) as group:
        # Nobody but it could help the first one to a majority.
        group.group.network.isolate(2, [1, 3])
        for _ in range(200):
            group.step()
        assert group.group.leader_replica() is None
        assert group.group.replicas[3].status().raft.damaged
        group.group.network.heal()
        group.settle()
        assert group.read(b"k") == b"1"


def test_damage_of_the_state_of_one_that_forgot_its_log_is_mended() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"1" * 500)
        group.settle()
        for replica in group.group.replicas.values():
            replica.machine.flush()
        disk = without(group.power_off(keep="all"), "/data/node3/log")
    with DrivenGroup(disk) as group:
        replica = group.group.replicas[3]
        assert replica.stands_aside
        assert not replica.status().raft.membership.members
        ((number, size),) = replica.machine.live_tables()
        disk.flip_bit(f"{replica.machine._db.path}/{number:06d}.sst", size // 4, 1)
        with pytest.raises(CorruptionError) as found:
            replica.machine.verify()
        replica.read_failed(found.value)
        group.until(lambda: not replica.stands_aside and not replica.repair.under_way)
        group.settle()
        assert group.failed == {}
        replica.machine.verify()
        assert replica.machine.get(b"k") == b"1" * 500


def test_a_crash_while_one_that_forgot_begins_anew_makes_it_no_founder() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        group.settle()
        before = without(group.power_off(), "/data/node3")
    reached, operation = True, 0
    while reached:
        operation += 1
        disk = before.crash(keep="all")
        disk.stop_at(operation)
        with contextlib.suppress(Error), DrivenGroup(disk) as group:
            reached = False
            for _ in range(30):
                group.step()
                reached = reached or disk.stopped
        left = disk.crash(random.Random(operation), keep="random")
        with DrivenGroup(left, seed=operation) as group:
            replica = group.group.replicas[3]
            if replica.last_log[1] < 2:
                assert replica.status().raft.damaged, operation
            group.settle()
            assert group.read(b"k") == b"1"


def test_a_directory_that_is_gone_is_no_matter_of_a_few_where_no_majority_is_whole() -> None:
    with DrivenGroup(members=5) as group:
        group.put(b"k", b"1")
        group.settle()
        disk = group.power_off()
    without(disk, *(f"/data/node{member}" for member in (2, 3, 5)))
    with pytest.raises(
        ConfigurationError, match=r"node2 has no log .* too few .* put back the dir"
    ):
        DrivenGroup(disk, members=5)


@pytest.mark.parametrize("left", [0, 128 + 80])
def test_what_is_left_of_a_damaged_log_may_be_nothing_and_yet_nobody_is_founded_anew(
    left: int,
) -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        group.settle()
        for _ in range(40):
            group.step()
        disk = without(group.power_off(), "/data/node2", "/data/node3")
    for path in disk.files("/data/node1/log"):
        content = disk.read_file(path)
        disk.write_file(path, content[:left] + bytes(len(content) - left))
    with pytest.raises(ConfigurationError, match="too few of them are whole"):
        DrivenGroup(disk)


def test_a_member_that_refuses_for_its_damaged_log_comes_back_when_its_directory_is_moved() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"1")
        group.settle()
        disk = group.power_off()
    without(disk, "/data/node2/LOGEND")
    (segment, *_) = [path for path in disk.files("/data/node2/log") if path.endswith(".wal")]
    disk.flip_bit(segment, 60, 1)
    with pytest.raises(CorruptionError, match=r"/data/node2/.* move that member's directory, node"):
        DrivenGroup(disk)
    disk.rename("/data/node2", "/elsewhere")
    with DrivenGroup(disk) as group:
        replica = group.group.replicas[2]
        group.until(lambda: not replica.stands_aside)
        group.settle()
        assert group.read(b"k") == b"1"
