"""The end of a member's log, noted beside it: what is gone is noticed, and no promise forgotten."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import ConfigurationError, CorruptionError, IntegrityCode, StorageError
from kvstore.raft import Bundle, Entry, EntryKind, HardState, Membership
from kvstore.replica.log_note import LogNote, NoteFile, hard_state_after_loss
from kvstore.replica.storage import Identity, MemberLog
from tests.unit.replica.driven_group import SMALL, DrivenGroup, LaterWork

ME = Identity("cluster-a", 1)
MEMBERS = Membership(voters=frozenset({1, 2, 3}))
LOG, NOTE = "/m/log", "/m/LOGEND"


def opened(disk: MemoryFileSystem, **options: int) -> MemberLog:
    disk.make_directories("/m")
    return MemberLog(LOG, ME, filesystem=disk, note=NoteFile(disk, NOTE), **options)


def save(log: MemberLog, **bundle: object) -> None:
    log.save(Bundle(1, must_sync=True, **bundle))
    log.sync()
    assert log.take_durable()


def entries(term: int, first: int, last: int) -> list[Entry]:
    return [Entry(term, i, EntryKind.COMMAND, bytes(100)) for i in range(first, last + 1)]


def with_votes(disk: MemoryFileSystem) -> MemberLog:
    """A log of several segments whose last records are entries, and a vote in term 7 at the end."""
    log = opened(disk, segment_bytes=4096)
    log.found(MEMBERS)
    save(log, hard_state=HardState(5, vote=2), entries=entries(5, 2, 60))
    save(log, entries=entries(5, 61, 100))
    save(log, hard_state=HardState(7, vote=3))
    return log


def closed(disk: MemoryFileSystem | None = None) -> MemoryFileSystem:
    disk = MemoryFileSystem() if disk is None else disk
    with_votes(disk).close()
    return disk


def segments(disk: MemoryFileSystem) -> list[str]:
    return [f"{LOG}/{name}" for name in disk.names(LOG) if name.endswith(".wal")]


def records(content: bytes) -> list[int]:
    """Where records begin."""
    places, at = [], 128
    while content[at : at + 2] == b"KR":
        places.append(at)
        at += 48 + (int.from_bytes(content[at + 4 : at + 8], "little") + 7) // 8 * 8
    return places


def test_a_closed_log_is_noted_with_its_hard_state_and_opens_as_it_was():
    disk = closed()
    (newest,) = segments(disk)[-1:]
    found = NoteFile(disk, NOTE).found
    assert found is not None
    assert found == LogNote(found.segment, disk.read_file(newest).__len__(), 7, 3, closed=True)
    log = opened(disk)
    assert not log.short
    assert log.hard_state == HardState(7, vote=3)
    # It isn't closed any more, which is said before anything else happens.
    assert NoteFile(disk.crash(), NOTE).found == found._replace(closed=False)


def test_a_cut_anywhere_in_the_newest_segment_is_noticed_and_the_vote_is_known():
    disk = closed()
    path = segments(disk)[-1]
    content = disk.read_file(path)
    edges = records(content)
    for size in sorted({*edges, *(edge + 1 for edge in edges), *(edge + 50 for edge in edges)}):
        if size >= len(content):
            continue
        hurt = disk.crash(keep="all")
        hurt.write_file(path, content[:size])
        log = opened(hurt)
        assert log.short, size
        assert log.hard_state._replace(commit=0) == HardState(7, vote=3, damaged=True)
        # Nothing of what lies there is touched: it may be of use to somebody.
        assert hurt.read_file(path) == content[:size]


def test_zeros_at_the_end_and_an_older_copy_of_the_segment_are_noticed():
    disk = MemoryFileSystem()
    log = with_votes(disk)
    path = segments(disk)[-1]
    older = disk.read_file(path)
    save(log, entries=entries(7, 101, 104))
    log.close()
    content = disk.read_file(path)
    assert older[: len(content)] != content
    for there in (older, content[: records(content)[-3]].ljust(len(content), b"\0")):
        hurt = disk.crash(keep="all")
        hurt.write_file(path, there)
        assert opened(hurt).short


@pytest.mark.parametrize("left", [1, 2])
def test_newest_segments_that_are_gone_are_noticed_and_the_vote_is_known(left: int):
    disk = closed()
    for path in segments(disk)[left:]:
        disk.remove_file(path)
    log = opened(disk)
    assert "missing" in log.short
    assert log.hard_state._replace(commit=0) == HardState(7, vote=3, damaged=True)


def test_a_log_that_is_gone_is_refused_and_none_is_begun_in_its_place():
    disk = closed()
    for path in segments(disk):
        disk.remove_file(path)
    with pytest.raises(ConfigurationError, match="the log is gone"):
        opened(disk)
    assert not segments(disk)


def test_the_log_of_another_member_in_its_place_is_refused():
    disk, other = closed(), closed()
    for path in segments(disk):
        disk.write_file(path, other.read_file(path))
    with pytest.raises(CorruptionError, match="another log"):
        opened(disk)


def test_a_loss_stands_in_the_note_until_it_is_durable_that_there_was_one():
    disk = closed()
    path = segments(disk)[-1]
    content = disk.read_file(path)
    disk.write_file(path, content[: records(content)[-3]])
    for _ in range(3):
        # A start that comes no further than this, and others after it.
        log = opened(disk)
        assert log.short
        assert log.to_note() is None
        assert NoteFile(disk, NOTE).found is not None
        disk = disk.crash(keep="all")
    save(log := opened(disk), hard_state=HardState(8, damaged=True))
    note = log.to_note()
    assert note is not None
    assert (note.term, note.vote) == (8, 0)
    log.close()
    again = opened(disk)
    assert not again.short
    assert again.hard_state == HardState(8, damaged=True)


def test_a_log_that_went_on_after_a_loss_without_saying_so_is_short_still():
    disk = closed()
    path = segments(disk)[-1]
    content = disk.read_file(path)
    disk.write_file(path, content[: records(content)[-3]])
    log = opened(disk)
    save(log, entries=entries(7, 101, 101))
    assert opened(disk.crash()).short


def test_a_directory_without_a_note_opens_and_gets_one():
    disk = closed()
    disk.remove_file(NOTE)
    log = opened(disk)
    assert not log.short
    assert log.hard_state == HardState(7, vote=3)
    assert NoteFile(disk.crash(), NOTE).found == log.to_note()


@pytest.mark.parametrize("copy", [0, 1])
def test_of_two_copies_the_one_that_is_right_counts(copy: int):
    disk = closed()
    opened(disk).close()
    newer = NoteFile(disk, NOTE).found
    for at in range(copy * 512, copy * 512 + 512):
        hurt = disk.crash(keep="all")
        hurt.flip_bit(NOTE, at, at % 8)
        note = NoteFile(hurt, NOTE)
        assert note.damage, at
        assert note.found is not None
        assert note.found == newer or not note.found.closed
        assert not opened(hurt).short


def test_a_note_that_is_damaged_as_a_whole_is_as_none_and_made_anew():
    disk = closed()
    disk.write_file(NOTE, bytes(700))
    assert NoteFile(disk, NOTE).damage
    opened(disk).close()
    assert not NoteFile(disk, NOTE).damage


def test_exchanged_copies_are_none():
    disk = closed()
    opened(disk).close()
    content = disk.read_file(NOTE)
    disk.write_file(NOTE, content[512:] + content[:512])
    assert NoteFile(disk, NOTE).found is None


def test_a_note_of_a_later_version_is_refused():
    disk = closed()
    content = bytearray(disk.read_file(NOTE))
    from kvstore._engine.primitives.native import crc32c

    for at in (0, 512):
        content[at + 8] = 2
        content[at + 508 : at + 512] = crc32c(bytes(content[at : at + 508])).to_bytes(4, "little")
    disk.write_file(NOTE, bytes(content))
    with pytest.raises(CorruptionError) as caught:
        NoteFile(disk, NOTE)
    assert caught.value.code is IntegrityCode.UNSUPPORTED_VERSION


def test_power_lost_at_any_operation_leaves_a_note_that_the_log_keeps():
    def run(disk: MemoryFileSystem) -> None:
        log = with_votes(disk)
        note = log.to_note()
        assert note is not None
        log.write_note(note)
        log.close()
        opened(disk).close()

    whole = MemoryFileSystem()
    run(whole)
    for stop in range(1, whole.operations + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        with pytest.raises((StorageError, OSError)):
            run(disk)
        left = disk.crash()
        if left.exists("/m"):
            assert not opened(left).short, stop


@pytest.mark.parametrize(
    ("left", "noted", "expected"),
    [
        (HardState(5, 2, 9), LogNote(1, 128, 7, 3, closed=True), HardState(7, 3, 9, True)),
        (HardState(7, 0), LogNote(1, 128, 7, 3, closed=True), HardState(7, 3, 0, True)),
        (HardState(8, 1), LogNote(1, 128, 7, 3, closed=True), HardState(8, 1, 0, True)),
        (HardState(5, 2), LogNote(1, 128, 7, 3), HardState(8, 0, 0, True)),
        (HardState(9, 2), LogNote(1, 128, 7, 3), HardState(10, 0, 0, True)),
    ],
)
def test_after_a_loss_no_term_in_which_it_may_have_voted_is_voted_in_again(left, noted, expected):
    assert hard_state_after_loss(left, noted) == expected


def test_after_a_loss_was_told_notes_go_on_also_once_it_is_healed():
    disk = closed()
    path = segments(disk)[-1]
    content = disk.read_file(path)
    disk.write_file(path, content[: records(content)[-3]])
    log = opened(disk)
    save(log, hard_state=HardState(8, damaged=True))
    save(log, hard_state=HardState(9, vote=2), entries=entries(9, 101, 105))
    note = log.to_note()
    assert note is not None
    assert (note.term, note.vote) == (9, 2)
    assert log.short, "it tells what was"
    log.close()
    closing = NoteFile(disk, NOTE).found
    assert closing is not None
    assert (closing.term, closing.closed) == (9, True)
    path = segments(disk)[-1]
    content = disk.read_file(path)
    disk.write_file(path, content[: records(content)[-1]])
    assert opened(disk).short, "the second loss is noticed as the first was"


# --- a running member --------------------------------------------------------------------------


def noted(group: DrivenGroup, member: int) -> LogNote | None:
    return NoteFile(group.disk.crash(), f"/data/node{member}/LOGEND").found


def test_a_running_member_notes_terms_at_once_and_entries_within_a_second():
    with DrivenGroup() as group:
        leader = group.leader()
        group.put(b"k", b"v")
        group.step()
        before = noted(group, leader.member)
        assert before is not None
        assert before.term == leader.term
        group.put(b"k", b"w")
        group.until(lambda: noted(group, leader.member) != before)
        after = noted(group, leader.member)
        assert after is not None
        assert after.offset > before.offset


def test_no_write_or_vote_waits_for_a_note():
    work = LaterWork("log's end")
    with DrivenGroup(work=work) as group:
        assert group.put(b"k", b"v") == [0]
        assert work.jobs


def lose_from(disk: MemoryFileSystem, member: int, drop: Callable[[bytes], bytes]) -> None:
    log = f"/data/node{member}/log"
    path = max(path for path in disk.files(log) if path.endswith(".wal"))
    disk.write_file(path, drop(disk.read_file(path)))


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_member_whose_log_was_cut_stands_aside_and_is_healed_by_a_later_leader(cut: int):
    with DrivenGroup() as group:
        for number in range(5):
            group.put(b"%d" % number, b"v")
        group.settle()
        disk = group.disk
    lose_from(disk, 2, lambda content: content[: records(content)[-cut]])
    with DrivenGroup(disk, seed=2) as group:
        assert group.group.replicas[2].status().raft.damaged
        group.leader()
        group.put(b"more", b"v")
        group.until(lambda: not group.group.replicas[2].status().raft.damaged)
        group.settle()
        assert len(group.hashes()) == 1
        assert not group.failed


def test_a_full_disk_keeps_no_note_from_being_written_over():
    with DrivenGroup(options=SMALL) as group:
        leader = group.leader()
        group.put(b"k", b"v")
        group.step()
        before = noted(group, leader.member)
        group.disk.capacity_bytes = group.disk.used_bytes
        group.put(b"k", b"w")
        group.until(lambda: noted(group, leader.member) != before)
        group.disk.capacity_bytes = None


def test_a_note_that_cannot_be_written_ends_the_member():
    with DrivenGroup() as group:
        leader = group.leader()
        group.put(b"k", b"v")
        group.disk.fail("datasync", errno.EIO, always=True, path=f"node{leader.member}/LOGEND")
        group.put(b"k", b"w")
        group.until(lambda: leader.member in group.failed)
