"""The table of recovery: whole, without rows that nothing reaches, and true of what members do."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest
from structlog.testing import capture_logs

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives.native import crc32c
from kvstore.errors import (
    ConfigurationError,
    CorruptionError,
    Error,
    StorageError,
    UnavailableError,
)
from kvstore.raft import (
    Bundle,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    SnapshotMeta,
)
from kvstore.raft.codec import encode_membership
from kvstore.replica import Identity, Replica
from kvstore.replica.log_note import NoteFile
from kvstore.replica.packets import Packet
from kvstore.replica.recovery import (
    TABLE,
    Decision,
    Entries,
    Findings,
    LogFound,
    Row,
    decide,
    refused,
)
from kvstore.replica.storage import MemberLog
from kvstore.server.config.cluster_config import ClusterConfig, Node
from kvstore.server.config.data_directory import MARKER, DataDirectory
from kvstore.server.config.options import ServerOptions
from kvstore.server.config.sealed_file import write_sealed
from kvstore.server.nodes.cluster_node import open_cluster_node, tell_lost_memory
from kvstore.server.peers.identity import FILE, MemberIdentity, Stage, read_identity, save_identity
from kvstore.server.peers.registry import FILE as PEERS_FILE
from kvstore.server.peers.registry import PeerRegistry
from kvstore.state import encode_commands
from tests.unit.replica.driven_group import SMALL, DrivenGroup, put_of

KINDS: dict[str, type[enum.Enum]] = get_type_hints(Findings)


@cache
def every() -> tuple[Findings, ...]:
    return tuple(Findings(*values) for values in itertools.product(*KINDS.values()))


# --- the table itself -----------------------------------------------------------------------------


def test_each_combination_has_its_row_and_each_row_a_combination() -> None:
    reached = {decide(findings).name for findings in every()}
    assert reached == {row.name for row in TABLE}
    assert len(reached) == len(TABLE), "each has a name of its own"


def test_rows_stand_by_gravity() -> None:
    decisions = [row.decision for row in TABLE]
    assert decisions == sorted(decisions, reverse=True)


def test_what_is_found_besides_makes_a_decision_graver_if_anything() -> None:
    """So whoever refuses may do so at once, whatever else would be found."""
    fine = Findings()
    for findings in every():
        decision = decide(findings).decision
        for what in KINDS:
            milder = dataclasses.replace(findings, **{what: getattr(fine, what)})
            assert decide(milder).decision <= decision


def test_who_refuses_says_what_to_do_and_ends_with_a_status_and_nobody_else() -> None:
    for row in TABLE:
        refuses = row.decision is Decision.REFUSE
        assert bool(row.advice) is refuses
        assert (row.status in (1, 5)) is refuses
        assert row.status == 0 or refuses


def test_the_operators_manual_has_each_row() -> None:
    manual = Path("docs/operations.md").read_text(encoding="utf-8")
    lines = {line for line in manual.splitlines() if line.startswith("| ")}
    words = {
        Decision.GO_ON: "goes on",
        Decision.CUT: "cuts it off",
        Decision.FETCH: "fetches what it lacks",
        Decision.STAND_ASIDE: "stands aside",
    }
    for row in TABLE:
        does = words.get(row.decision, f"refuses, {row.status}")
        assert any(line.startswith(f"| {row.name} | {does} |") for line in lines), row.name


def test_a_refusal_ends_with_the_advice_once() -> None:
    error = refused(Findings(log=LogFound.UNNOTED), CorruptionError("no log record", path="/log"))
    assert str(error).startswith("IO_ERROR: no log record in /log; replace this member: ")
    assert error.path == "/log"
    said = str(error)
    assert str(refused(Findings(log=LogFound.UNNOTED), error)) == said


# --- the rows, of members on a memory disk --------------------------------------------------------

ME = Identity("a-cluster", 1)
MEMBERS = Membership(frozenset({1, 2, 3}))
HOME = "/data/node1"
LOG = f"{HOME}/log"


class Sink:
    """Takes what the member sends."""

    def send(self, packets: object) -> None:
        pass


def opened(disk: MemoryFileSystem, identity: Identity = ME) -> Replica:
    return Replica(
        identity,
        HOME,
        Sink(),  # type: ignore[arg-type]
        options=SMALL,
        rng=random.Random(1),
        wake=lambda: None,
        filesystem=disk,
        threaded=False,
    )


def with_log(
    *,
    members: Membership = MEMBERS,
    entries: int = 5,
    term: int = 2,
    closed: bool = True,
    noted: bool = False,
) -> MemoryFileSystem:
    """A member with entries 1 (members) to ``entries``, each synced, and no state yet."""
    disk = MemoryFileSystem()
    disk.make_directories(LOG)
    note = NoteFile(disk, f"{HOME}/LOGEND") if noted else None
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes, note=note)
    log.found(members)
    for index in range(2, entries + 1):
        entry = Entry(term, index, EntryKind.COMMAND, data_of(index))
        state = HardState(term, vote=1, commit=index - 1)
        log.save(Bundle(index, state, entries=[entry], must_sync=True))
        log.sync()
    if closed:
        log.close()
    return disk.crash(keep="all")


def data_of(index: int) -> bytes:
    return encode_commands([put_of(f"request {index}", b"key", b"entry number %d" % index)])


def segment(disk: MemoryFileSystem) -> str:
    return max(path for path in disk.files(LOG) if path.endswith(".wal"))


def flip(disk: MemoryFileSystem, what: bytes, at: int = 0) -> None:
    """A bit within the last place that has these bytes, or so far from its beginning."""
    path = segment(disk)
    disk.flip_bit(path, disk.read_file(path).rindex(what) + at, 3)


def log_of_later_version() -> MemoryFileSystem:
    disk = with_log()
    path = segment(disk)
    content = bytearray(disk.read_file(path))
    content[4] = 3
    content[124:128] = crc32c(bytes(content[:124])).to_bytes(4, "little")
    disk.write_file(path, bytes(content))
    return disk


def damaged_header() -> MemoryFileSystem:
    disk = with_log()
    flip(disk, data_of(3), at=-20)
    return disk


def noted_damage() -> MemoryFileSystem:
    disk = with_log(noted=True)
    flip(disk, data_of(3), at=-20)
    return disk


def alone_and_damaged() -> MemoryFileSystem:
    disk = with_log(members=Membership(frozenset({1})), noted=True)
    flip(disk, data_of(3), at=-20)
    return disk


def missing_middle(noted: bool = False) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories(LOG)
    note = NoteFile(disk, f"{HOME}/LOGEND") if noted else None
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=4096, note=note)
    log.found(MEMBERS)
    for index in range(2, 60):
        entry = Entry(2, index, EntryKind.COMMAND, bytes(300))
        log.save(Bundle(index, HardState(2), entries=[entry], must_sync=True))
        log.sync()
    log.close()
    paths = sorted(path for path in disk.files(LOG) if path.endswith(".wal"))
    assert len(paths) > 2
    disk.remove_file(paths[1])
    return disk


def lost_vote(members: Membership = MEMBERS, noted: bool = False) -> MemoryFileSystem:
    """Nothing follows the newest record of term and vote."""
    disk = MemoryFileSystem()
    disk.make_directories(LOG)
    note = NoteFile(disk, f"{HOME}/LOGEND") if noted else None
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes, note=note)
    log.found(members)
    log.save(Bundle(1, HardState(7, vote=3), must_sync=True))
    log.close()
    flip(disk, (7).to_bytes(8, "little") + (3).to_bytes(8, "little"))
    return disk


def alone_and_vote_lost() -> MemoryFileSystem:
    return lost_vote(Membership(frozenset({1})))


def hollow() -> MemoryFileSystem:
    disk = with_log()
    flip(disk, b"entry number 3")
    return disk


def lost_members() -> MemoryFileSystem:
    """What the state was made with."""
    disk = with_state()
    flip(disk, encode_membership(MEMBERS))
    return disk


def alone_and_hollow() -> MemoryFileSystem:
    disk = with_log(members=Membership(frozenset({1})))
    flip(disk, b"entry number 3")
    return disk


def alone_and_short() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories(LOG)
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes)
    log.found(Membership(frozenset({1})))
    log.save(Bundle(1, HardState(2, vote=1, commit=9), must_sync=True))
    log.close()
    return disk


def short() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories(LOG)
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes)
    log.found(MEMBERS)
    log.save(Bundle(1, HardState(2, vote=1, commit=9), must_sync=True))
    log.close()
    return disk


def torn() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    disk.make_directories(LOG)
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes)
    log.found(MEMBERS)
    whole = len(disk.read_file(segment(disk)).rstrip(b"\0"))
    log.save(Bundle(1, HardState(2, vote=1), must_sync=True))
    log.sync()
    path = segment(disk)
    content = disk.read_file(path)
    disk.write_file(path, content[: whole + 20] + bytes(len(content) - whole - 20))
    return disk


def with_state(members: int = 3) -> MemoryFileSystem:
    """A member, closed, whose state holds all that it has."""
    with DrivenGroup(members=members) as group:
        for number in range(20):
            group.put(b"%d" % number, b"value %d" % number)
        group.settle()
        for replica in group.group.replicas.values():
            replica.machine.flush()
    return group.disk


def marked() -> MemoryFileSystem:
    """The same; its log begins after a mark."""
    with DrivenGroup() as group:
        for number in range(900):
            group.put(b"%d" % (number % 9), b"value %d" % number)
        group.settle()
        for replica in group.group.replicas.values():
            replica.machine.flush()
        replica = group.group.replicas[1]
        group.until(lambda: replica.status().raft.first_index > 100)
        for _ in range(40):
            group.step()
    return group.disk


def states(disk: MemoryFileSystem) -> list[str]:
    return [f"{HOME}/{name}" for name in disk.names(HOME) if name.startswith("state-")]


def no_state() -> MemoryFileSystem:
    disk = marked()
    for path in states(disk):
        disk.remove_tree(path)
    return disk


def older_state() -> MemoryFileSystem:
    """A copy from the beginning, put back."""
    disk = marked()
    (path,) = states(disk)
    disk.remove_tree(path)
    with DrivenGroup() as group:
        group.settle()
    (old,) = states(group.disk)
    disk.make_directories(path)
    for file in group.disk.files(old):
        disk.write_file(path + file.removeprefix(old), group.disk.read_file(file))
    return disk


def foreign_state() -> MemoryFileSystem:
    """Of another cluster, which had another leader before it got so far."""
    disk = with_state()
    (path,) = states(disk)
    disk.remove_tree(path)
    with DrivenGroup(cluster="another") as group:
        group.settle()
        first = group.leader().member
        group.leader().transfer_leadership(1 + first % 3)
        group.until(lambda: group.leader().member != first)
        for number in range(5):
            group.put(b"theirs %d" % number, b"value")
        group.settle()
        group.group.replicas[1].machine.flush()
    (theirs,) = states(group.disk)
    for file in group.disk.files(theirs):
        disk.write_file(path + file.removeprefix(theirs), group.disk.read_file(file))
    return disk


def damaged_state(members: int = 3) -> MemoryFileSystem:
    disk = with_state(members)
    (path,) = states(disk)
    (manifest,) = [file for file in disk.files(path) if "MANIFEST" in file]
    disk.flip_bit(manifest, 60, 1)
    return disk


def alone_without_state() -> MemoryFileSystem:
    return damaged_state(1)


def newer_state() -> MemoryFileSystem:
    """Its identity says so."""
    disk = with_state()
    (path,) = states(disk)
    text, _, _ = disk.read_file(f"{path}/IDENTITY").rpartition(b"crc ")
    newer = text.replace(b"format 2", b"format 9")
    assert newer != text
    disk.write_file(f"{path}/IDENTITY", newer + b"crc %08x\n" % crc32c(newer))
    return disk


def waiting_snapshot() -> MemoryFileSystem:
    disk = marked()
    log = MemberLog(LOG, ME, filesystem=disk.crash(keep="all"), segment_bytes=4096)
    index = log.mark.index
    (path,) = states(disk)
    for file in disk.files(path):
        name = f"{HOME}/ready-{index:020d}{file.removeprefix(path)}"
        disk.make_directories(f"{HOME}/ready-{index:020d}")
        disk.write_file(name, disk.read_file(file))
    disk.remove_tree(path)
    disk.make_directories(f"{HOME}/incoming")
    return disk


FOUND: dict[str, tuple[Callable[[], MemoryFileSystem], str]] = {
    "the log is another's": (with_log, "belongs to member 1 of cluster 'a-cluster'"),
    "the log has a newer format": (log_of_later_version, "UNSUPPORTED_VERSION: "),
    "the log is damaged, and nothing is noted of it": (
        damaged_header,
        "CHECKSUM_MISMATCH: log record header checksum in ",
    ),
    "the log is damaged": (noted_damage, ""),
    "the only voter's log is damaged": (alone_and_damaged, "log record header checksum in "),
    "the only voter's vote is damaged": (alone_and_vote_lost, ""),
    "term and vote, mark or identity are lost": (
        lost_vote,
        "CHECKSUM_MISMATCH: the hard state (term and vote) is damaged in ",
    ),
    "the state has a newer format": (newer_state, "UNSUPPORTED_VERSION: "),
    "the list of members is lost": (lost_members, ""),
    "the only voter's state can't be used": (alone_without_state, "CHECKSUM_MISMATCH: "),
    "the only voter's log is short": (alone_and_short, "the only voter's log is short: "),
    "the only voter's entries are damaged": (
        alone_and_hollow,
        "the only voter's entries are damaged: ",
    ),
    "the log is short": (short, ""),
    "entries are damaged": (hollow, ""),
    "the state can't be used": (damaged_state, ""),
    "the tail is torn": (torn, ""),
    "a snapshot waits": (waiting_snapshot, ""),
    "all is there": (with_log, ""),
}
"""Rows that a member comes to by itself: how, and what it says."""


def row_of(name: str) -> Row:
    (row,) = [row for row in TABLE if row.name == name]
    return row


@pytest.mark.parametrize("name", FOUND)
def test_a_member_does_what_its_row_says(name: str) -> None:
    make, said = FOUND[name]
    row = row_of(name)
    disk = make()
    identity = Identity("a-cluster", 2) if LogFound.FOREIGN in row.found.get("log", ()) else ME
    if row.decision is Decision.REFUSE:
        before = {path: disk.read_file(path) for path in disk.files(LOG)}
        with pytest.raises((ConfigurationError, CorruptionError)) as refusal:
            opened(disk, identity)
        assert said in str(refusal.value)
        assert str(refusal.value).endswith(row.advice)
        # What kvd makes of it (cli/kvd.py).
        assert isinstance(refusal.value, StorageError) is (row.status == 5)
        kept = [path for path in before if disk.exists(path)]
        assert all(path.endswith((".spare", ".trusted")) for path in before.keys() - kept)
        return
    replica = opened(disk)
    assert replica.recovery is row
    status = replica.status().raft
    assert status.damaged is (row.decision is Decision.STAND_ASIDE)
    fetches = row.decision is Decision.FETCH
    assert bool(replica.log_trouble or replica.repair.under_way) is fetches
    replica.campaign()
    stands = not status.damaged and not status.hollow
    assert (replica.status().raft.role != 0) is stands
    replica.close()


def test_a_snapshot_that_waits_is_installed_and_what_else_was_left_goes() -> None:
    disk = waiting_snapshot()
    replica = opened(disk)
    assert sorted(name.partition("-")[0] for name in disk.names(HOME)) == [
        "LOGEND",
        "log",
        "state",
    ]
    assert replica.machine.get(b"8") == b"value 899"


@pytest.mark.parametrize("make", [no_state, older_state, foreign_state])
def test_a_state_that_is_gone_or_older_than_the_log_allows_is_fetched(
    make: Callable[[], MemoryFileSystem],
) -> None:
    replica = opened(make())
    assert replica.recovery is row_of("the state can't be used")
    assert replica.repair.under_way
    replica.close()


def test_what_stands_in_for_a_state_is_never_taken_for_one_whatever_list_the_log_has_left() -> None:
    """Of a cluster that began with one member: behind the damage are the others."""
    disk = MemoryFileSystem()
    disk.make_directories(LOG)
    note = NoteFile(disk, f"{HOME}/LOGEND")
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes, note=note)
    log.found(Membership(frozenset({1})))
    grown = Entry(2, 3, EntryKind.MEMBERSHIP, encode_membership(MEMBERS))
    entries = [Entry(2, 2, EntryKind.COMMAND, data_of(2)), grown]
    state = HardState(2, vote=1, commit=3)
    log.save(Bundle(1, state, entries=entries, must_sync=True))
    log.close()
    replica = opened(disk)
    replica.machine.flush()
    replica.close()
    (path,) = states(disk)
    (manifest,) = [file for file in disk.files(path) if "MANIFEST" in file]
    disk.flip_bit(manifest, 60, 1)
    flip(disk, data_of(2), at=-20)
    replica = opened(disk)
    assert replica.membership.voters == {1}
    assert replica.recovery is row_of("the log is damaged")
    assert replica.state_is_damaged
    assert replica.repair.under_way
    assert replica.machine.applied_index == 0
    replica.close()


def test_one_that_knows_of_no_members_does_not_say_that_what_it_cannot_read_is_lost() -> None:
    disk = MemoryFileSystem()
    disk.make_directories("/data")
    replica = opened(disk)
    assert not replica.membership.members
    table = f"{HOME}/state-00000000000000000000/000002.sst"
    assert isinstance(replica.read_failed(CorruptionError("block", path=table)), UnavailableError)
    replica.close()


def test_a_damaged_vote_is_the_one_in_the_note_and_the_member_stands_aside() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"v")
        group.settle()
        state = group.group.replicas[1].status().raft
    disk = group.disk
    flip(disk, state.term.to_bytes(8, "little") + state.vote.to_bytes(8, "little"))
    replica = opened(disk)
    assert replica.recovery is row_of("the log is short")
    assert replica.status().raft.damaged
    assert replica.term > state.term
    replica.close()


def test_a_missing_segment_in_the_middle_is_damage() -> None:
    with pytest.raises(CorruptionError, match=r"segment before this one is missing.*replace this"):
        opened(missing_middle())
    replica = opened(missing_middle(noted=True))
    assert replica.recovery is row_of("the log is damaged")
    assert "segment before this one is missing" in replica.log_short
    assert replica.status().raft.damaged
    replica.close()


@pytest.mark.parametrize("noted", [False, True])
def test_the_only_voter_goes_on_in_a_term_that_it_never_voted_in(noted: bool) -> None:
    disk = lost_vote(Membership(frozenset({1})), noted)
    replica = opened(disk)
    assert replica.recovery is row_of("the only voter's vote is damaged")
    # Of a log without a note the last entry tells: whatever term it voted in after that, itself
    # alone, without writing anything in it.
    assert replica.term >= (8 if noted else 2)
    assert "the hard state (term and vote) is damaged" in replica.vote_lost
    replica.campaign()
    for _ in range(10):
        replica.sync_storage()
        replica.turn()
    assert replica.is_leader
    replica.close()
    again = opened(disk)
    assert again.recovery is row_of("all is there")
    assert not again.vote_lost
    again.close()


def test_entries_that_are_damaged_are_neither_cut_nor_counted() -> None:
    disk = hollow()
    replica = opened(disk)
    status = replica.status().raft
    assert (status.hollow, status.last_index, status.commit) == (1, 5, 2)
    replica.close()


def test_damage_and_a_torn_tail_come_together() -> None:
    disk = with_log(closed=False)
    path = segment(disk)
    end = len(disk.read_file(path).rstrip(b"\0"))
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes)
    del log
    content = disk.read_file(path)
    disk.write_file(path, content[:end] + b"\0" * 8 + content[end + 8 :])
    flip(disk, b"entry number 4")
    again = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes)
    assert again.findings.entries is Entries.HOLLOW
    assert again.last_index == 5


def test_data_for_an_entry_whose_segment_is_gone_is_written_nowhere() -> None:
    """The next start would find a segment that is none."""
    disk = hollow()
    log = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes)
    (index,) = log.hollow
    late = Entry(2, index, EntryKind.COMMAND, data_of(index))
    snapshot = SnapshotMeta(100, 2, MEMBERS)
    log.save(Bundle(1, HardState(3, commit=100), snapshot=snapshot, must_sync=True))
    for number in (101, 102):
        log.begin_next_segment()
        entry = Entry(3, number, EntryKind.COMMAND, b"x")
        log.save(Bundle(number, entries=[entry], must_sync=True))
        log.sync()
    before = disk.names(LOG)
    log.remove_before(101)
    left = disk.names(LOG)
    assert left != before
    assert log.mend([late]) == [(late, False)]
    assert disk.names(LOG) == left
    log.close()
    again = MemberLog(LOG, ME, filesystem=disk, segment_bytes=SMALL.segment_bytes)
    assert again.last_index == 102


@pytest.mark.parametrize("size", [3, 5])
def test_members_mend_each_other_on_their_disks(size: int) -> None:
    with DrivenGroup(members=size) as group:
        for number in range(6):
            group.put(b"%d" % number, b"what number %d says" % number)
        group.settle()
        disk = group.power_off(keep="all")
    for number in range(6):
        for member in range(1, size + 1):
            if member % 3 != number % 3:
                (path,) = [p for p in disk.files(f"/data/node{member}/log") if p.endswith(".wal")]
                place = disk.read_file(path).index(b"what number %d says" % number)
                disk.flip_bit(path, place, number)
    with DrivenGroup(disk, members=size, seed=2) as group:
        group.until(lambda: not any(r.log_trouble for r in group.group.replicas.values()))
        group.settle()
        assert len(group.hashes()) == 1
        for number in range(6):
            assert group.read(b"%d" % number) == b"what number %d says" % number
        disk = group.power_off()
    with DrivenGroup(disk, members=size, seed=3) as group:
        assert not any(r.log_trouble for r in group.group.replicas.values()), "it lasts"
        group.settle()


def test_who_is_not_known_to_take_the_question_is_not_asked_for_entries() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"the only value")
        group.settle()
        disk = group.power_off(keep="all")
    (path,) = [p for p in disk.files("/data/node2/log") if p.endswith(".wal")]
    disk.flip_bit(path, disk.read_file(path).index(b"the only value"), 1)
    asked: list[int] = []

    def note(packet: Packet) -> bool:
        if isinstance(packet, Message) and packet.kind is MessageKind.MEND:
            asked.append(packet.to)
        return False

    with DrivenGroup(disk, seed=2) as group:
        member = group.group.replicas[2]
        group.group.network.hold = note
        member._understands_mending = {3}.__contains__
        group.until(lambda: not member.log_trouble)
        group.settle()
        assert set(asked) == {3}
        assert len(group.hashes()) == 1


def test_what_is_damaged_at_all_is_named_and_nobody_leads() -> None:
    with DrivenGroup() as group:
        group.put(b"k", b"the only value")
        group.settle()
        disk = group.power_off(keep="all")
    for member in (1, 2, 3):
        (path,) = [p for p in disk.files(f"/data/node{member}/log") if p.endswith(".wal")]
        disk.flip_bit(path, disk.read_file(path).index(b"the only value"), 1)
    with DrivenGroup(disk, seed=2) as group:
        for _ in range(60):
            group.step()
        assert group.group.leader_replica() is None
        words = {replica.log_trouble for replica in group.group.replicas.values()}
        assert words == {
            "entry 3 of the log is damaged at every member: nobody can lead; "
            "begin anew with a backup"
        }


# --- the rows of the directory and of MEMBER, which kvd finds before it opens a member ------------


def refusal_of(call: Callable[[], object]) -> Error:
    with pytest.raises(Error) as refusal:
        call()
    return refusal.value


MARKERS = {
    "the directory is somebody else's": None,
    "KVSTORE is damaged": b"kvstore-data format=1 mode=embedded crc32=00000000\n",
    "the directory has a newer format": b"kvstore-data format=2 mode=embedded crc32=fa8e4090\n",
    "the directory is of the other mode": b"kvstore-data format=1 mode=cluster-node crc32=",
}


@pytest.mark.parametrize("name", MARKERS)
def test_kvd_does_what_the_row_of_its_directory_says(name: str, tmp_path: Path) -> None:
    row = row_of(name)
    content = MARKERS[name]
    if content is None:
        (tmp_path / "thesis").touch()
    else:
        if content.endswith(b"crc32="):
            line = content.removesuffix(b" crc32=")
            content = line + b" crc32=%08x\n" % zlib.crc32(line)
        (tmp_path / MARKER).write_bytes(content)
    error = refusal_of(lambda: DataDirectory(tmp_path, "embedded"))
    assert isinstance(error, ConfigurationError)
    assert row.status == 1
    assert str(error).endswith(row.advice)


NODES = (Node(1, "a:1", "a:2"), Node(2, "b:1", "b:2"))


def owners() -> Iterator[tuple[str, bytes]]:
    def sealed(**fields: object) -> bytes:
        line = json.dumps(fields, sort_keys=True)
        return f"{line}\ncrc32={zlib.crc32(line.encode()):08x}\n".encode()

    whole = {
        "cluster_id": "c",
        "member": 1,
        "incarnation": 5,
        "starts": 1,
        "founders": "",
        "stage": "member",
    }
    yield "MEMBER is another's", sealed(format=1, **{**whole, "member": 2})
    yield "MEMBER has a newer format", sealed(format=2, **whole)
    yield "MEMBER is gone", b""
    yield "MEMBER is damaged", sealed(format=1, **whole).replace(b"5", b"6", 1)
    yield "the log is gone", sealed(format=1, **whole)


@pytest.mark.parametrize(("name", "content"), list(owners()))
def test_kvd_does_what_the_row_of_its_member_says(
    name: str, content: bytes, tmp_path: Path
) -> None:
    row = row_of(name)
    if content:
        (tmp_path / FILE).write_bytes(content)
    else:
        (tmp_path / "node1" / "log").mkdir(parents=True)
    config = ClusterConfig("c", 1, str(tmp_path), NODES, "a:1", "a:2")
    options = ServerOptions(mode="cluster-node", config="kvd.toml", data_dir=str(tmp_path))
    error = refusal_of(lambda: asyncio.run(open_cluster_node(config, options, tmp_path)))
    assert isinstance(error, StorageError) is (row.status == 5)
    assert str(error).endswith(row.advice)


def peers(tmp_path: Path, content: bytes | None) -> Path:
    identity = MemberIdentity("c", 1, 5, 1, "", Stage.MEMBER)
    save_identity(tmp_path, identity)
    disk = with_log()
    for file in disk.files(LOG):
        path = tmp_path / "node1" / "log" / Path(file).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(disk.read_file(file))
    if content is not None:
        (tmp_path / PEERS_FILE).write_bytes(content)
    return tmp_path


PEERS: dict[str, dict[str, object] | bytes | None] = {
    "PEERS is another's": {"known": {"2": [5, 1]}, "removed": [], "owner": 6},
    "PEERS is damaged": b'{"known": {}, "owner": 5, "removed": []}\ncrc32=00000000\n',
    "PEERS is gone": None,
}


@pytest.mark.parametrize("name", PEERS)
def test_kvd_does_what_the_row_of_its_list_of_peers_says(name: str, tmp_path: Path) -> None:
    row, content = row_of(name), PEERS[name]
    config = ClusterConfig("c", 1, str(tmp_path), NODES, "a:1", "a:2")
    directory = peers(tmp_path, content if isinstance(content, bytes) else None)
    if isinstance(content, dict):
        write_sealed(directory / PEERS_FILE, content)
    identity = read_identity(directory, config)
    assert identity is not None
    if row.decision is Decision.GO_ON:
        with capture_logs() as told:
            tell_lost_memory(directory, identity, config)
        assert [line["event"] for line in told] == ["the memory of the other members is gone"]
        assert not PeerRegistry(directory, identity.incarnation).known()
        return
    options = ServerOptions(mode="cluster-node", config="kvd.toml", data_dir=str(tmp_path))
    error = refusal_of(lambda: asyncio.run(open_cluster_node(config, options, directory)))
    assert isinstance(error, CorruptionError)
    assert row.status == 5
    assert str(error).endswith(row.advice)


OF_A_GROUP = {"the log of one of several members is gone"}
"""Rows that one member alone never comes to: test_group.py."""


def test_each_row_is_shown_by_a_test() -> None:
    shown = {*FOUND, *MARKERS, *PEERS, *OF_A_GROUP, *(name for name, _ in owners())}
    assert shown == {row.name for row in TABLE}
