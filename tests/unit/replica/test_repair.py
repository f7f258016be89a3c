"""Damaged state: made anew from the leader's while the member votes, appends and serves on."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest

from kvstore._engine.database.native import repair
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import repair_db
from kvstore.errors import (
    ConfigurationError,
    CorruptionError,
    Error,
    IntegrityCode,
    StorageError,
    UnavailableError,
)
from kvstore.raft import Message, MessageKind
from kvstore.replica import Replica
from kvstore.replica.repair import CALM_S
from tests.unit.replica.driven_group import TICK_S, DrivenGroup, LaterWork, into, put_of

KEYS = 200


def fill(group: DrivenGroup) -> None:
    """Tables on every member, and something after them."""
    for number in range(KEYS):
        group.put(b"key-%04d" % number, bytes([number]) * 300)
    group.settle()
    for replica in group.group.replicas.values():
        replica.machine.flush()
    group.put(b"after", b"the tables")
    group.settle()


def state_files(group: DrivenGroup, member: int, suffix: str) -> list[str]:
    found = [
        path
        for path in group.disk.files()
        if path.startswith(f"/data/node{member}/state-") and path.endswith(suffix)
    ]
    assert found
    return found


def damage(disk: MemoryFileSystem, path: str, at: float = 0.5) -> None:
    disk.flip_bit(path, int(len(disk.read_file(path)) * at), 3)


def damage_ends(disk: MemoryFileSystem, path: str) -> None:
    """Of a table nearly all: more than is fetched as rows."""
    damage(disk, path, 0.1)
    damage(disk, path, 0.8)


def damage_tables(group: DrivenGroup, member: int) -> None:
    for path in state_files(group, member, ".sst"):
        damage_ends(group.disk, path)


def find(replica: Replica) -> None:
    """As whoever reads the damage tells."""
    with pytest.raises(CorruptionError) as found:
        replica.machine.verify()
    told = replica.read_failed(found.value)
    assert isinstance(told, UnavailableError)


def whole_again(group: DrivenGroup, member: int) -> None:
    replica = group.group.replicas[member]
    group.until(lambda: not replica.repair.under_way and replica.counters.repairs_done)
    group.settle()
    assert group.failed == {}
    assert len(group.hashes()) == 1
    replica.machine.verify()
    for number in range(KEYS):
        assert replica.machine.get(b"key-%04d" % number) == bytes([number]) * 300


def follower(group: DrivenGroup) -> Replica:
    leader = group.leader().member
    return next(r for r in group.group.replicas.values() if r.member != leader)


def other_states(group: DrivenGroup, member: int) -> set[str]:
    names = group.disk.names(f"/data/node{member}")
    return {name for name in names if name not in ("log", "LOGEND")}


def test_a_followers_damaged_state_is_made_anew_while_writes_go_on() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage_tables(group, hurt.member)
        find(hurt)
        hurt.turn()
        assert hurt.repair.under_way
        number = 0
        while hurt.repair.under_way:
            assert group.put(b"more", b"%d" % number) in ([False], [True])
            number += 1
        whole_again(group, hurt.member)
        assert hurt.counters.repairs_started == hurt.counters.repairs_done == 1
        assert hurt.counters.repairs_failed == 0
        group.until(lambda: len(other_states(group, hurt.member)) == 1)


def test_its_vote_and_its_log_count_meanwhile() -> None:
    """With a third member away, each entry needs the one whose state is damaged."""
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        leader = group.leader()
        (away,) = set(group.group.replicas) - {hurt.member, leader.member}
        group.group.network.isolate(away, [hurt.member, leader.member])
        damage_tables(group, hurt.member)
        find(hurt)
        hurt.turn()
        before = leader.status().raft.commit
        group.put(b"needs", b"both")
        assert leader.status().raft.commit > before
        group.until(lambda: not hurt.repair.under_way)
        group.group.network.heal()
        whole_again(group, hurt.member)


def test_a_leader_hands_over_and_is_answered_for() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = group.leader()
        damage_tables(group, hurt.member)
        find(hurt)
        hurt.turn()
        answers: list[object] = []
        hurt.read(answers.append)
        hurt.propose(group.encoded(put_of("refused", b"k", b"v")), into(answers))
        assert len(answers) == 2
        assert all(isinstance(answer, UnavailableError) for answer in answers)
        group.until(lambda: group.leader().member != hurt.member)
        assert group.read(b"key-0007") == bytes([7]) * 300
        assert group.put(b"key-0007", bytes([7]) * 300) == [True]
        whole_again(group, hurt.member)


def test_a_leader_whose_followers_cannot_do_without_its_vote_hands_over_all_the_same() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = group.leader()
        away, other = sorted(set(group.group.replicas) - {hurt.member})
        group.group.network.isolate(away, [hurt.member, other])
        damage_tables(group, hurt.member)
        find(hurt)
        group.until(lambda: group.leader().member == other)
        group.until(lambda: not hurt.repair.under_way)
        assert group.put(b"k", b"v") == [False]
        group.group.network.heal()
        whole_again(group, hurt.member)


def test_damage_that_applying_meets_is_repaired() -> None:
    """Whether a key of which only the disk knows has a value."""
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage_tables(group, hurt.member)
        for number in range(KEYS):
            group.put(b"key-%04d" % number, bytes([number]) * 300, f"again-{number}")
        group.until(lambda: hurt.counters.repairs_done)
        whole_again(group, hurt.member)


def test_the_leader_makes_an_entry_where_its_state_is_no_newer() -> None:
    """So that no two states of a member ever have one name."""
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        for _ in range(2):
            done = hurt.counters.repairs_done
            number = hurt.directory.state_number()
            damage_tables(group, hurt.member)
            find(hurt)
            group.until(lambda done=done: hurt.counters.repairs_done > done)
            assert hurt.directory.state_number() > number
        whole_again(group, hurt.member)


def test_a_lone_member_is_fenced() -> None:
    with DrivenGroup(members=1) as group:
        fill(group)
        (hurt,) = group.group.replicas.values()
        damage_tables(group, hurt.member)
        with pytest.raises(CorruptionError) as found:
            hurt.machine.verify()
        assert isinstance(hurt.read_failed(found.value), CorruptionError)
        hurt.turn()
        assert hurt.failure is found.value
        assert hurt.counters.repairs_started == 0


def test_what_is_received_damaged_is_asked_for_again() -> None:
    """The sender has damage of its own, which that leads to."""
    with DrivenGroup(members=3) as group:
        fill(group)
        leader, hurt = group.leader(), follower(group)
        damage_tables(group, leader.member)
        damage_tables(group, hurt.member)
        find(hurt)
        for member in (leader.member, hurt.member):
            replica = group.group.replicas[member]
            group.until(lambda replica=replica: replica.counters.repairs_done)
        assert hurt.counters.repairs_failed >= 1
        whole_again(group, hurt.member)
        whole_again(group, leader.member)


def restart(group: DrivenGroup, harm: Callable[[MemoryFileSystem], None]) -> DrivenGroup:
    disk = group.power_off()
    harm(disk)
    return DrivenGroup(disk, seed=2)


def flip(suffix: str, member: int) -> Callable[[MemoryFileSystem], None]:
    def harm(disk: MemoryFileSystem) -> None:
        paths = [
            path
            for path in disk.files()
            if path.startswith(f"/data/node{member}/state-") and suffix in path
        ]
        assert paths
        for path in paths:
            (damage_ends if suffix == ".sst" else damage)(disk, path)

    return harm


def lose_state(member: int) -> Callable[[MemoryFileSystem], None]:
    def harm(disk: MemoryFileSystem) -> None:
        for name in disk.names(f"/data/node{member}"):
            if name.startswith("state"):
                disk.remove_tree(f"/data/node{member}/{name}")

    return harm


def remove(name: str, member: int) -> Callable[[MemoryFileSystem], None]:
    def harm(disk: MemoryFileSystem) -> None:
        paths = [
            path for path in disk.files(f"/data/node{member}") if "/state-" in path and name in path
        ]
        assert paths
        for path in paths:
            disk.remove_file(path)

    return harm


@pytest.mark.parametrize("name", [".sst", "MANIFEST", "CURRENT", "IDENTITY"])
def test_a_file_of_the_state_that_is_gone_is_as_good_as_damaged(name: str) -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group).member
        again = restart(group, remove(name, hurt))
    with again as group:
        assert group.group.replicas[hurt].repair.under_way
        whole_again(group, hurt)


def test_a_state_that_is_withheld_is_not_made_anew() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group).member
        disk = group.power_off()
    disk.fail("open", errno.EACCES, path=f"node{hurt}/state-")
    with pytest.raises(StorageError, match="ermission"):
        DrivenGroup(disk, seed=2)


@pytest.mark.parametrize("what", ["MANIFEST", "CURRENT", "IDENTITY", "lost", "tables"])
def test_a_state_that_cannot_be_opened_is_made_anew_after_the_start(what: str) -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group).member
        files = ".sst" if what == "tables" else what
        harm = lose_state(hurt) if what == "lost" else flip(files, hurt)
        again = restart(group, harm)
    with again as group:
        replica = group.group.replicas[hurt]
        if what == "tables":
            group.settle()
            if not replica.repair.under_way and not replica.counters.repairs_done:
                find(replica)
        whole_again(group, hurt)
        group.until(lambda: len(other_states(group, hurt)) == 1)
        disk = group.power_off()
    with DrivenGroup(disk, seed=3) as group:
        group.settle()
        assert group.group.replicas[hurt].counters.repairs_started == 0
        assert len(group.hashes()) == 1


@pytest.mark.parametrize("seed", range(12))
def test_power_lost_during_a_repair_leaves_the_old_state_or_the_new_one(seed: int) -> None:
    rng = random.Random(seed)
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage_tables(group, hurt.member)
        find(hurt)
        for _ in range(rng.randrange(40)):
            group.step()
        disk = group.power_off(seed, rng.choice(["none", "prefix", "random"]))
    with DrivenGroup(disk, seed=seed) as group:
        group.settle()
        replica = group.group.replicas[hurt.member]
        try:
            replica.machine.verify()
        except Error:
            if not replica.repair.under_way:
                find(replica)
            whole_again(group, hurt.member)
        assert len(group.hashes()) == 1
        assert group.failed == {}


def write_until_repaired(group: DrivenGroup, hurt: Replica) -> None:
    """Without a writer of its own a log syncs for what is waited for alone: not for marks."""
    number = 0
    while hurt.repair.under_way:
        number += 1
        assert number < KEYS
        group.put(b"written", b"%d" % number)


def log_damage(path: str) -> CorruptionError:
    return CorruptionError("record", code=IntegrityCode.CHECKSUM_MISMATCH, path=path, offset=100)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_a_running_member_lets_go_of_a_damaged_part_of_its_log(members: int, which: str) -> None:
    with DrivenGroup(members=members) as group:
        fill(group)
        for number in range(KEYS):
            group.put(b"key-%04d" % number, bytes([number]) * 300, f"again-{number}")
        group.settle()
        hurt = group.leader()
        segments = sorted(
            path for path in group.disk.files(f"{hurt.directory.log}") if path.endswith(".wal")
        )
        path = segments[0] if which == "oldest" else segments[-1]
        group.disk.flip_bit(path, 700, 2)
        hurt.damage_found(log_damage(path))
        hurt.turn()
        assert "lets go" in hurt.repair.under_way
        assert group.put(b"meanwhile", b"it serves") == [False]
        write_until_repaired(group, hurt)
        assert hurt.counters.repairs_done == 1
        assert hurt.is_leader
        assert group.put(b"k", b"v") == [False]
        group.settle()
        disk = group.power_off()
    with DrivenGroup(disk, members=members, seed=2) as group:
        group.settle()
        assert group.read(b"meanwhile") == b"it serves"
        assert group.read(b"k") == b"v"
        assert len(group.hashes()) == 1
        assert not any(replica.status().raft.damaged for replica in group.group.replicas.values())


def test_damage_found_again_in_the_newer_segment_is_let_go_of_as_well() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        for _ in range(3):
            path = max(p for p in group.disk.files(hurt.directory.log) if p.endswith(".wal"))
            hurt.damage_found(log_damage(path))
            group.step()
        write_until_repaired(group, hurt)
        newest = min(p for p in group.disk.files(hurt.directory.log) if p.endswith(".wal"))
        assert newest > path


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", ["MANIFEST-", "CURRENT"])
def test_a_running_member_writes_its_manifest_anew(members: int, name: str) -> None:
    with DrivenGroup(members=members) as group:
        fill(group)
        hurt = group.leader()
        path = next(p for p in group.disk.files(hurt.directory.path) if f"/{name}" in p)
        damage(group.disk, path)
        hurt.damage_found(log_damage(path))
        group.until(lambda: hurt.counters.repairs_done)
        assert hurt.is_leader
        disk = group.power_off()
    with DrivenGroup(disk, members=members, seed=2) as group:
        group.settle()
        assert group.read(b"after") == b"the tables"
        assert all(not r.counters.repairs_started for r in group.group.replicas.values())


def test_the_note_of_the_logs_end_is_written_anew() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        path = hurt.directory.log_note
        for half in (0.2, 0.7):
            damage(group.disk, path, half)
        before = group.disk.read_file(path)
        hurt.damage_found(log_damage(path))
        group.until(lambda: group.disk.read_file(path) != before)
        for _ in range(100):
            group.step()
        disk = group.power_off()
    with DrivenGroup(disk, seed=2) as group:
        group.settle()
        assert not group.failed


def test_a_table_that_cannot_be_read_is_as_good_as_damaged() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        (path, *_) = state_files(group, hurt.member, ".sst")
        hurt.damage_found(StorageError("read", path=path, errno=errno.EIO))
        group.until(lambda: hurt.counters.repairs_done)
        whole_again(group, hurt.member)


def test_who_applies_and_cannot_read_is_repaired() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        group.disk.fail("pread", errno.EIO, path=f"node{hurt.member}/state-")
        for number in range(KEYS):
            group.put(b"key-%04d" % number, bytes([number]) * 300, f"again-{number}")
        group.until(lambda: hurt.counters.repairs_done)
        group.disk.heal()
        whole_again(group, hurt.member)


def test_a_disk_that_damages_what_it_is_given_is_waited_with_for_longer_and_longer() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        took = []
        for done in range(5):
            group.put(b"newer", b"than its state")
            damage_tables(group, hurt.member)
            find(hurt)
            began = group.steps
            group.until(lambda done=done: hurt.counters.repairs_done > done)
            took.append(group.steps - began)
        pauses = [later - took[0] for later in took]
        seconds = [pause * TICK_S for pause in pauses]
        assert seconds[1] >= 0.9
        assert all(b > 1.5 * a for a, b in pairwise(seconds[1:]))
        for _ in range(int((CALM_S + 1) / TICK_S)):
            group.step()
        group.put(b"newer", b"than its state")
        damage_tables(group, hurt.member)
        find(hurt)
        began = group.steps
        group.until(lambda: hurt.counters.repairs_done == 6)
        assert (group.steps - began - took[0]) * TICK_S < 0.9


def test_the_core_may_need_a_snapshot_while_that_of_a_repair_is_opened() -> None:
    work = LaterWork("install")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt = follower(group)
        damage_tables(group, hurt.member)
        find(hurt)
        hurt.turn()
        group.until(lambda: bool(work.jobs))
        others = [member for member in group.group.replicas if member != hurt.member]
        group.group.network.isolate(hurt.member, others)
        for number in range(600):
            group.put(b"more-%03d" % number, bytes(300))
        for member in others:
            group.group.replicas[member].machine.flush()
        for _ in range(100):
            group.step()
        group.group.network.heal()
        received = hurt.counters.snapshots_received
        group.until(lambda: hurt.counters.snapshots_received > received)
        work.do()
        work.kinds = ()
        whole_again(group, hurt.member)


def test_a_state_that_somebody_made_openable_is_fetched_all_the_same() -> None:
    with DrivenGroup() as group:
        fill(group)
        for replica in group.group.replicas.values():
            replica.machine.flush()
        disk = group.disk
        damaged = state_files(group, 2, ".sst")
    for path in damaged:
        damage_ends(disk, path)
    path = damaged[0].rpartition("/")[0]
    with pytest.raises(ConfigurationError, match="is a member's"):
        repair_db(path, filesystem=disk)
    # As an earlier version did.
    assert repair(path, disk, None).lost
    with DrivenGroup(disk, seed=2) as group:
        assert "repair_db" in group.group.replicas[2].repair.under_way
        whole_again(group, 2)
        assert len(other_states(group, 2)) == 1


def test_while_a_damaged_state_is_held_the_log_forgets_no_more_than_the_core_knows() -> None:
    with DrivenGroup() as group:
        fill(group)
        follower = next(one for one in group.group.replicas.values() if not one.is_leader)
        group.group.network.isolate(follower.member, [m for m in (1, 2, 3) if m != follower.member])
        # As when the state was found damaged after an entry was applied, and before that was told.
        applied = follower.machine.applied_index
        follower._raft._state.log.applied = applied - 1
        follower.machine.flush()
        assert follower.machine.durable_index == applied
        follower._compaction.compact()
        assert follower.status().raft.first_index <= applied
        assert not group.failed


def test_what_takes_the_place_of_a_damaged_state_is_sent_to_nobody() -> None:
    """It says that it is of the log's mark, is whole, and holds nothing."""
    with DrivenGroup() as group:
        fill(group)
        for replica in group.group.replicas.values():
            replica.machine.flush()
        disk = group.disk
        (manifest,) = state_files(group, 2, "CURRENT")
    disk.write_file(manifest, b"MANIFEST-000000\n")
    with DrivenGroup(disk, seed=2) as group:
        hurt = group.group.replicas[2]
        assert hurt.repair.under_way
        told: list[tuple[int, bool]] = []
        hurt._transfers._raft = SimpleNamespace(  # type: ignore[assignment]
            snapshot_status=lambda to, ok: told.append((to, ok)), term=1
        )
        hurt._transfers.begin(Message(MessageKind.SNAPSHOT, 1, 2, 1))
        assert told == [(1, False)]
        assert not [name for name in disk.names("/data/node2") if name.startswith("outgoing-1")]
