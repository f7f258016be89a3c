"""A member's durable records: written, read back, replaced, cut."""

from __future__ import annotations

import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import ConfigurationError, CorruptionError, StorageError
from kvstore.raft import Bundle, Entry, EntryKind, Fetch, HardState, Membership, SnapshotMeta
from kvstore.raft.codec import encode_snapshot_meta
from kvstore.replica import Replica
from kvstore.replica.storage import Identity, MemberLog
from tests.unit.replica.driven_group import SMALL

ME = Identity("cluster-a", 1)
MEMBERS = Membership(voters=frozenset({1, 2, 3}))


def opened(disk: MemoryFileSystem, identity: Identity = ME, **options: int) -> MemberLog:
    return MemberLog("/log", identity, filesystem=disk, **options)


def entries(term: int, first: int, last: int, size: int = 3) -> list[Entry]:
    return [Entry(term, i, EntryKind.COMMAND, b"%d" % term * size) for i in range(first, last + 1)]


def save(log: MemberLog, **bundle: object) -> None:
    log.save(Bundle(1, must_sync=True, **bundle))
    log.sync()
    assert log.take_durable()


def places(log: MemberLog) -> list[tuple[int, int]]:
    return [(entry.term, entry.index) for entry in log.entries]


def test_a_new_log_is_founded_once_and_knows_its_member():
    disk = MemoryFileSystem()
    with_log = opened(disk)
    assert with_log.is_new
    with_log.found(MEMBERS)
    with_log.close()
    again = opened(disk)
    assert not again.is_new
    assert again.identity == ME
    assert again.hard_state == HardState(term=1)
    assert places(again) == [(1, 1)]


def test_a_log_is_there_after_a_power_loss_as_soon_as_it_was_opened():
    """A joiner notes then that it has one, long before it hears of the cluster."""
    disk = MemoryFileSystem()
    opened(disk)
    lost_power = disk.crash()
    assert [name for name in lost_power.names("/log") if name.endswith(".wal")]
    assert opened(lost_power).identity == ME


def test_a_founder_that_lost_power_before_it_was_founded_is_founded_in_a_second_try():
    disk = MemoryFileSystem()
    opened(disk)
    again = opened(disk.crash())
    assert again.is_new
    again.found(MEMBERS)
    assert not again.is_new
    assert not opened(disk.crash()).entries
    assert places(again) == [(1, 1)]


@pytest.mark.parametrize("other", [Identity("cluster-b", 1), Identity("cluster-a", 2)])
def test_a_log_of_another_member_or_cluster_is_refused_by_name(other):
    disk = MemoryFileSystem()
    log = opened(disk)
    log.found(MEMBERS)
    log.close()
    with pytest.raises(ConfigurationError, match="belongs to member 1 of cluster 'cluster-a'"):
        opened(disk, other)


def test_entries_replace_the_conflicting_suffix():
    disk = MemoryFileSystem()
    log = opened(disk)
    save(log, hard_state=HardState(1), entries=entries(1, 1, 5))
    save(log, hard_state=HardState(2), entries=entries(2, 3, 4))
    log.close()
    again = opened(disk)
    assert places(again) == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert again.hard_state == HardState(2)


def test_a_mark_within_the_log_keeps_what_follows_and_one_beyond_it_voids_all():
    disk = MemoryFileSystem()
    log = opened(disk)
    save(log, hard_state=HardState(1), entries=entries(1, 1, 5))
    log.write_mark(SnapshotMeta(3, 1, MEMBERS))
    log.close()
    again = opened(disk)
    assert places(again) == [(1, 4), (1, 5)]
    assert again.mark == SnapshotMeta(3, 1, MEMBERS)
    save(again, snapshot=SnapshotMeta(9, 2, MEMBERS), hard_state=HardState(2))
    save(again, entries=entries(2, 10, 11))
    again.close()
    last = opened(disk)
    assert places(last) == [(2, 10), (2, 11)]


def test_removing_segments_keeps_hard_state_mark_and_identity():
    disk = MemoryFileSystem()
    log = opened(disk, segment_bytes=4096)
    save(log, hard_state=HardState(1, vote=2))
    for first in range(1, 101, 10):
        save(log, entries=entries(1, first, first + 9, size=100))
    ticket = log.write_mark(SnapshotMeta(90, 1, MEMBERS))
    assert not log.is_durable(ticket)
    log.sync()
    assert log.is_durable(ticket)
    log.remove_before(91)
    log.close()
    assert len([name for name in disk.names("/log") if name.endswith(".wal")]) < 5
    again = opened(disk, segment_bytes=4096)
    assert again.hard_state == HardState(1, vote=2)
    assert again.identity == ME
    assert places(again) == [(1, index) for index in range(91, 101)]


def test_what_was_synced_survives_a_power_loss_and_nothing_half_written_is_read():
    disk = MemoryFileSystem()
    log = opened(disk)
    save(log, hard_state=HardState(1), entries=entries(1, 1, 3))
    log.save(Bundle(2, must_sync=True, entries=entries(1, 4, 9)))
    again = opened(disk.crash())
    assert places(again) == [(1, 1), (1, 2), (1, 3)]
    assert again.hard_state == HardState(1)
    for seed in range(40):
        torn = disk.crash(random.Random(seed), "prefix" if seed % 2 else "random")
        kept = places(opened(torn))
        assert kept == [(1, index) for index in range(1, len(kept) + 1)]
        assert 3 <= len(kept) <= 9


def test_marks_of_a_time_whose_entries_are_gone_take_no_entries_with_them():
    """Segments of old entries go while a mark before them is still in a later segment."""
    disk = MemoryFileSystem()
    log = opened(disk, segment_bytes=4096)
    save(log, hard_state=HardState(1), entries=entries(1, 1, 100, 20))
    log.write_mark(SnapshotMeta(10, 1, MEMBERS))
    save(log, entries=entries(1, 101, 200, 20))
    ticket = log.write_mark(SnapshotMeta(90, 1, MEMBERS))
    log.sync()
    assert log.is_durable(ticket)
    log.remove_before(91)
    again = opened(disk.crash(), segment_bytes=4096)
    assert again.mark.index == 90
    assert places(again) == [(1, index) for index in range(91, 201)]


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 1)])
def test_what_a_snapshot_made_void_doesnt_come_back_where_it_begins_a_segment(old: int, new: int):
    """What is before the mark isn't replayed, so the entry that differs isn't seen."""
    disk = MemoryFileSystem()
    log = opened(disk, segment_bytes=4096)
    save(log, hard_state=HardState(old))
    first = index = 0
    segment = log.statistics()["segment"]
    while index < 40:
        index += 1
        save(log, entries=entries(old, index, index, 200))
        if log.statistics()["segment"] != segment:
            segment, first = log.statistics()["segment"], index
    assert 1 < first < index
    mark = SnapshotMeta(first - 1, new, MEMBERS)
    save(log, hard_state=HardState(4, commit=mark.index), snapshot=mark)
    disk = disk.crash()
    again = opened(disk, segment_bytes=4096)
    assert again.mark == mark
    assert places(again) == []
    save(again, entries=entries(4, first, first + 2))
    again.close()
    assert places(opened(disk, segment_bytes=4096)) == [(4, first + i) for i in range(3)]


def test_without_a_note_of_snapshots_nothing_before_the_mark_is_read_back():
    """Logs of earlier builds have none: what a snapshot made void may be there, uncommitted."""
    disk = MemoryFileSystem()
    log = opened(disk)
    save(log, hard_state=HardState(1), entries=entries(1, 1, 100))
    everything = Fetch(2, 1, 120, 1 << 20)
    assert len(log.read_back(everything)) == 100
    assert log.first_readable == 1
    log.write_mark(SnapshotMeta(50, 1, MEMBERS))
    log.close()
    # The same is known after a restart.
    assert opened(disk.crash()).first_readable == 1
    old = MemoryFileSystem()
    with Log("/log", filesystem=old) as raw:
        raw.append(10, 0, 0, b"\1" + (1).to_bytes(8, "little") + b"cluster-a")
        raw.append_many([(1, i, 1, b"lost") for i in range(1, 101)])
        raw.append(9, 0, 0, encode_snapshot_meta(SnapshotMeta(95, 2, MEMBERS)))
        raw.append_many([(1, i, 2, b"right") for i in range(96, 111)])
    again = opened(old)
    assert again.first_readable == 96
    assert places(again) == [(2, index) for index in range(96, 111)]
    save(again, snapshot=SnapshotMeta(200, 3, MEMBERS), hard_state=HardState(3))
    again.close()
    assert opened(old).first_readable == 201


def test_a_mark_that_a_power_loss_tore_from_what_follows_it_voids_the_same():
    disk = MemoryFileSystem()
    log = opened(disk, segment_bytes=4096)
    save(log, hard_state=HardState(1), entries=entries(1, 1, 14, 200))
    segment = log.statistics()["segment"]
    index = 14
    while log.statistics()["segment"] == segment:
        index += 1
        save(log, entries=entries(1, index, index, 200))
    save(log, entries=entries(1, index + 1, index + 3, 10))
    save(log, snapshot=SnapshotMeta(index - 1, 2, MEMBERS))
    log.close()
    path = max(f"/log/{name}" for name in disk.names("/log") if name.endswith(".wal"))
    end = len(bytes(disk.read(path, 0, disk.size(path))).rstrip(b"\0"))
    found = set()
    for torn in range(200):
        cut = disk.crash(keep="all")
        cut.write(path, end - torn, bytes(torn))
        again = opened(cut, segment_bytes=4096)
        found.add((again.mark.index, len(again.entries)))
        again.close()
    assert found == {(0, index + 3), (index - 1, 0)}


def test_a_bundle_is_given_back_only_when_it_is_durable():
    log = opened(MemoryFileSystem())
    log.save(Bundle(1, must_sync=True, entries=entries(1, 1, 1)))
    assert log.take_durable() == []
    assert log.busy
    log.sync()
    assert [bundle.number for bundle in log.take_durable()] == [1]
    assert not log.busy


def test_a_failed_sync_is_final():
    disk = MemoryFileSystem()
    log = opened(disk)
    save(log, entries=entries(1, 1, 1))
    disk.fail("datasync", 5)
    log.save(Bundle(2, must_sync=True, entries=entries(1, 2, 2)))
    with pytest.raises(StorageError):
        log.sync()
    with pytest.raises(StorageError):
        log.take_durable()


class Nowhere:
    """Carries nothing."""

    def send(self, packets: object) -> None:
        """Drop them."""


def test_records_that_contradict_each_other_are_told_with_the_members_directory():
    disk = MemoryFileSystem()
    disk.make_directories("/data/node1")
    log = MemberLog("/data/node1/log", ME, filesystem=disk)
    log.found(MEMBERS)
    # Of a term that the hard state, which comes with it, doesn't know.
    save(log, entries=entries(9, 2, 3))
    log.close()
    with pytest.raises(CorruptionError, match="the log reaches term 9") as caught:
        Replica(
            ME,
            "/data/node1",
            Nowhere(),
            options=SMALL,
            rng=random.Random(1),
            wake=lambda: None,
            filesystem=disk,
            threaded=False,
        )
    assert caught.value.path == "/data/node1"
    assert str(caught.value).endswith("in /data/node1")


def with_snapshot_in_three_segments() -> MemoryFileSystem:
    """The note of which entries are void stands before entries 101 to 103, and twice after them."""
    disk = MemoryFileSystem()
    log = opened(disk)
    log.found(MEMBERS)
    save(log, hard_state=HardState(2, 2, 1), entries=entries(2, 2, 2))
    save(log, hard_state=HardState(2, 2, 100), snapshot=SnapshotMeta(100, 2, MEMBERS))
    save(log, entries=entries(2, 101, 102))
    log.begin_next_segment()
    save(log, entries=entries(2, 103, 103))
    log.begin_next_segment()
    log.sync()
    log.close()
    return disk


def notes_of_snapshot(disk: MemoryFileSystem, index: int) -> list[tuple[str, int]]:
    """Where the payload of a record of kind 11 stands that says ``index``."""
    found = []
    for path in sorted(f"/log/{name}" for name in disk.names("/log") if name.endswith(".wal")):
        content = disk.read_file(path)
        at = content.find(index.to_bytes(8, "little"))
        while at >= 0:
            if content[at - 48 : at - 46] == b"KR":
                found.append((path, at))
            at = content.find(index.to_bytes(8, "little"), at + 1)
    return found


def test_no_entry_goes_for_a_damaged_note_of_a_snapshot():
    """One that is said again after entries that came meanwhile voids nothing of them."""
    disk = with_snapshot_in_three_segments()
    first, second, third = notes_of_snapshot(disk, 101)
    for path, at in (first, third):
        flipped = disk.crash(keep="all")
        flipped.flip_bit(path, at, 0)
        with pytest.raises(CorruptionError, match="note of the last snapshot") as caught:
            opened(flipped)
        assert (caught.value.path, caught.value.offset) == (path, at - 48)
    disk.flip_bit(*second, 0)
    assert places(opened(disk)) == [(2, 101), (2, 102), (2, 103)]


def test_a_damaged_note_of_a_snapshot_is_nothing_where_the_next_one_voids_no_entry():
    disk = with_snapshot_in_three_segments()
    log = opened(disk)
    save(log, hard_state=HardState(2, 2, 200), snapshot=SnapshotMeta(200, 2, MEMBERS))
    save(log, entries=entries(2, 201, 202))
    log.close()
    disk.flip_bit(*notes_of_snapshot(disk, 101)[-1], 0)
    log = opened(disk)
    assert places(log) == [(2, 201), (2, 202)]
    assert log.first_readable == 201
