"""A damaged log of one of three: wherever it is damaged, and whenever it is killed then."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import Error
from kvstore.raft import Bundle, Entry, EntryKind, HardState, Membership, SnapshotMeta
from kvstore.replica.log_loss import ASIDE
from kvstore.replica.log_note import NoteFile
from kvstore.replica.recovery import LogFound
from kvstore.replica.storage import Identity, MemberLog
from tests.unit.replica.driven_group import SMALL, DrivenGroup

HURT = 2
LOG = f"/data/node{HURT}/log"
OPTIONS = replace(SMALL, segment_bytes=4096)
VALUES = {b"key %d" % number: b"value %d " % number * 20 for number in range(40)}


@cache
def written(flush: bool) -> MemoryFileSystem:
    """The disk of three members, killed; ``flush``: half of it is in their states' tables."""
    with DrivenGroup(options=OPTIONS) as group:
        for number, (key, value) in enumerate(VALUES.items()):
            group.put(key, value)
            if flush and number == len(VALUES) // 2:
                for member in group.group.replicas.values():
                    member.machine.flush()
        group.settle()
        for _ in range(40):
            group.step()
        return group.disk.crash(keep="all")


def segments(disk: MemoryFileSystem) -> list[str]:
    return [path for path in disk.files(LOG) if path.endswith(".wal")]


def headers(content: bytes) -> list[int]:
    return [at for at in range(128, len(content), 8) if content[at : at + 3] == b"KR\2"]


def comes_back(disk: MemoryFileSystem, rows: set[str]) -> None:
    """It stands aside, gets all again, votes again, and starts as any other then."""
    with DrivenGroup(disk, options=OPTIONS) as group:
        hurt = group.group.replicas[HURT]
        assert hurt.recovery.name in rows
        if hurt.recovery.name == "the log is damaged":
            assert hurt.stands_aside
            assert hurt.log_short
        group.until(lambda: not hurt.stands_aside)
        group.settle()
        for key, value in VALUES.items():
            assert group.read(key) == value
        assert len(group.hashes()) == 1
        for _ in range(40):
            group.step()
        assert not [path for path in group.disk.files(LOG) if path.endswith(ASIDE)]
        disk = group.power_off()
    with DrivenGroup(disk, options=OPTIONS, seed=5) as group:
        names = {replica.recovery.name for replica in group.group.replicas.values()}
        assert names <= {"all is there", "the tail is torn"}
        # Its vote, or its log, is needed now.
        group.group.network.isolate(1, [2, 3])
        group.until(lambda: (leads := group.group.leader_replica()) and leads.member != 1)
        for key, value in VALUES.items():
            assert group.read(key) == value


def header_places(flush: bool) -> list[tuple[str, int]]:
    disk = written(flush)
    found = []
    for path in segments(disk):
        found += [(path, at) for at in [0, 40, 124, *headers(disk.read_file(path))]]
    return found


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("turn", range(8))
def test_a_damaged_header_costs_no_acknowledged_write(flush: bool, turn: int) -> None:
    for path, at in header_places(flush)[turn * 3 :: 24]:
        disk = written(flush).crash(keep="all")
        disk.flip_bit(path, at + turn, turn)
        # Behind the last sync that something proves it is a torn tail.
        comes_back(disk, {"the log is damaged", "the tail is torn", "the log is short"})


@pytest.mark.parametrize("flush", [False, True])
def test_a_segment_that_is_gone_costs_no_acknowledged_write(flush: bool) -> None:
    paths = segments(written(flush))
    assert len(paths) > 2
    for path in paths:
        disk = written(flush).crash(keep="all")
        disk.remove_file(path)
        comes_back(disk, {"the log is damaged", "the log is short", "all is there"})


def test_segments_that_changed_places_or_are_of_another_log_are_damage() -> None:
    paths = segments(written(False))
    disk = written(False).crash(keep="all")
    first, second = disk.read_file(paths[1]), disk.read_file(paths[2])
    disk.write_file(paths[1], second)
    disk.write_file(paths[2], first)
    comes_back(disk, {"the log is damaged"})
    disk = written(False).crash(keep="all")
    disk.write_file(paths[2], disk.read_file(paths[2].replace("node2", "node1")))
    comes_back(disk, {"the log is damaged"})


@pytest.mark.parametrize("how", ["header", "gone", "first"])
def test_a_crash_at_any_moment_of_such_a_start_leaves_the_loss_known(how: str) -> None:
    damaged = written(True).crash(keep="all")
    paths = segments(damaged)
    if how == "gone":
        damaged.remove_file(paths[2])
    else:
        path = paths[0] if how == "first" else paths[2]
        damaged.flip_bit(path, 8 if how == "first" else headers(damaged.read_file(path))[2] + 20)
    reached, operation, stood = True, 0, 0
    while reached:
        operation += 1
        disk = damaged.crash(keep="all")
        disk.stop_at(operation)
        reached = False
        with contextlib.suppress(Error), DrivenGroup(disk, options=OPTIONS) as group:
            for _ in range(4):
                group.step()
        reached = disk.stopped
        left = disk.crash(random.Random(operation), keep="random")
        with DrivenGroup(left, options=OPTIONS, seed=operation) as group:
            hurt = group.group.replicas[HURT]
            assert hurt.stands_aside, operation
            stood += 1
            group.until(lambda hurt=hurt: not hurt.stands_aside)
            group.settle()
            assert {key: group.read(key) for key in VALUES} == VALUES
        if operation > 40:
            break
    assert stood == operation


# --- the log alone --------------------------------------------------------------------------------

ME = Identity("a-cluster", 1)
MEMBERS = Membership(frozenset({1, 2, 3}))


def opened(disk: MemoryFileSystem) -> MemberLog:
    disk.make_directories("/m")
    return MemberLog("/m", ME, filesystem=disk, segment_bytes=4096, note=NoteFile(disk, "/note"))


def save(log: MemberLog, hard_state: HardState, first: int, last: int) -> None:
    entries = [
        Entry(hard_state.term, index, EntryKind.COMMAND, b"entry %d" % index + bytes(300))
        for index in range(first, last + 1)
    ]
    log.save(Bundle(first, hard_state, entries=entries, must_sync=True))
    log.sync()
    log.take_durable()


def long_log(*, marked: int = 0) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    log = opened(disk)
    log.found(MEMBERS)
    for first in range(2, 62, 4):
        save(log, HardState(2 + first // 20, vote=2, commit=first - 1), first, first + 3)
        if marked and first == 42:
            log.write_mark(SnapshotMeta(marked, 3, MEMBERS))
    note = log.to_note()
    assert note is not None
    assert log.write_note(note._replace(term=3))
    return disk.crash(keep="all")


def files(disk: MemoryFileSystem) -> list[str]:
    return [path for path in disk.files("/m") if path.endswith(".wal")]


def damage(disk: MemoryFileSystem, index: int) -> None:
    """The header of an entry's record, wherever it stands."""
    for path in files(disk):
        place = disk.read_file(path).find(b"entry %d\0" % index)
        if place >= 0:
            disk.flip_bit(path, place - 30, 2)


def test_what_stands_before_the_damage_is_kept_and_the_rest_lies_aside() -> None:
    disk = long_log()
    damage(disk, 20)
    before = {path: disk.read_file(path) for path in files(disk)}
    log = opened(disk)
    assert log.findings.log is LogFound.DAMAGED
    assert [entry.index for entry in log.entries] == list(range(1, 20))
    assert {path: disk.read_file(path) for path in files(disk)} == before
    log.settle()
    aside = [path for path in disk.files("/m") if path.endswith(ASIDE)]
    assert aside
    assert all(disk.read_file(path) == before[path.replace(ASIDE, ".wal")] for path in aside)
    state = log.hard_state
    save(log, state, 20, 25)
    log.close()
    again = opened(disk)
    assert [entry.index for entry in again.entries] == list(range(1, 26))
    assert (again.hard_state, again.short) == (state, "")
    save(again, state._replace(damaged=False), 26, 26)
    note = again.to_note()
    assert note is not None
    assert again.write_note(note)
    assert not [path for path in disk.files("/m") if path.endswith(ASIDE)], "nobody needs it now"


def test_records_behind_the_damage_tell_of_a_later_vote_than_the_note() -> None:
    disk = long_log()
    damage(disk, 20)
    log = opened(disk)
    found = NoteFile(disk, "/note").found
    assert found is not None
    assert found.term == 3
    # The last one that was written was in term 4; one more may have been lost.
    assert log.hard_state == HardState(5, vote=0, commit=17, damaged=True)


def test_entries_that_cannot_be_placed_are_left_out_for_good() -> None:
    """The mark that said what the log goes on after stood behind the damage."""
    disk = long_log(marked=40)
    paths = files(disk)
    for path in paths[:2]:
        disk.remove_file(path)
    damage(disk, 42)
    log = opened(disk)
    assert log.entries == []
    assert log.mark.index == 0
    log.settle()
    save(log, log.hard_state, 1, 3)
    log.close()
    again = opened(disk)
    assert [entry.index for entry in again.entries] == [1, 2, 3]
    assert again.first_readable > 40, "nobody is sent what was left out"


def test_a_log_without_its_first_segment_is_damaged_but_where_the_mark_covers_it() -> None:
    disk = long_log(marked=40)
    for path in files(disk)[:2]:
        disk.remove_file(path)
    log = opened(disk)
    assert log.findings.log is LogFound.WHOLE
    assert log.entries[0].index == 41
    disk = long_log()
    disk.remove_file(files(disk)[0])
    log = opened(disk)
    assert log.findings.log is LogFound.DAMAGED
    assert "are gone in /m" in log.short
    assert log.hard_state.damaged
    log.settle()
    log.sync()
    again = opened(disk.crash())
    assert again.hard_state.damaged or again.short, "also where nothing of it was written yet"


def test_a_log_of_which_nothing_is_left_goes_on_after_a_crash_as_one_that_lost_all() -> None:
    disk = long_log()
    disk.flip_bit(files(disk)[0], 8)
    log = opened(disk)
    assert (log.entries, log.mark.index, log.identity) == ([], 0, ME)
    operations = disk.operations
    log.settle()
    for operation in range(1, disk.operations - operations + 1):
        disk = long_log()
        disk.flip_bit(files(disk)[0], 8)
        log = opened(disk)
        disk.stop_at(disk.operations + operation)
        with contextlib.suppress(Error):
            log.settle()
        log = opened(disk.crash(random.Random(operation), keep="random"))
        assert log.short, operation
        assert log.hard_state.damaged
        assert log.hard_state.term == 5


def sparse(disk: MemoryFileSystem) -> None:
    disk.write_file(files(disk)[2], b"")


@pytest.mark.parametrize(
    "rest",
    [
        sparse,
        lambda disk: disk.write_file(files(disk)[2], bytes(200)),
        lambda disk: disk.write_file(files(disk)[-1], b"KVWL"),
    ],
)
def test_a_segment_that_holds_nothing_is_damage(rest: Callable[[MemoryFileSystem], None]) -> None:
    disk = long_log()
    rest(disk)
    log = opened(disk)
    assert log.findings.log is LogFound.DAMAGED
    assert log.entries
    assert log.hard_state.damaged


def test_without_a_note_a_damaged_log_is_refused() -> None:
    disk = long_log()
    disk.remove_file("/note")
    damage(disk, 20)
    with pytest.raises(Error, match="log record header checksum"):
        opened(disk)
