"""Receiving snapshots: from a new leader while the old one's was on its way."""

from __future__ import annotations

import errno

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import StorageError
from kvstore.raft import Membership, SnapshotMeta
from kvstore.replica.checkpoint_stream import CheckpointReader
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.hold_off import HoldOff
from kvstore.replica.packets import SnapshotPart, SnapshotProgress
from kvstore.replica.room import WANTED_S, RoomWanted
from kvstore.replica.snapshots import SnapshotReceiver, SnapshotSender
from kvstore.replica.ticks import TICK_S
from kvstore.replica.work import AtOnce, Jobs

META = SnapshotMeta(index=7, term=2, membership=Membership(voters=frozenset((1, 2, 3))))
CONTENT = {"first": b"a" * 700, "second": b"b" * 300, "third": b""}


def sender(member: int, term: int, tick_s: float = TICK_S) -> SnapshotSender:
    """A transfer of CONTENT from ``member``, 100 bytes at a time."""
    disk = MemoryFileSystem()
    disk.make_directory("/out")
    for name, content in CONTENT.items():
        disk.write(f"/out/{name}", 0, content)
    return SnapshotSender(
        CheckpointReader(disk, "/out"), "/out", member, 3, term, META, part_bytes=100, tick_s=tick_s
    )


@pytest.fixture
def disk():
    disk = MemoryFileSystem()
    disk.make_directory("/member")
    return disk


@pytest.fixture
def receiver(disk):
    return SnapshotReceiver(MemberDirectory("/member", disk), lambda path, meta: None)


def next_part(source: SnapshotSender) -> SnapshotPart:
    return source.part(source.offset)


def take(receiver: SnapshotReceiver, part: SnapshotPart) -> bool:
    """Take and keep a part; True when all is here, and to be checked."""
    keep = receiver.take(part)
    if keep is None:
        return False
    try:
        keep()
    except StorageError:
        receiver.kept(part, ok=False)
        raise
    return receiver.kept(part, ok=True)


def move(receiver: SnapshotReceiver, source: SnapshotSender) -> bool:
    """Send the sender's part and bring back the answer; True when all is there."""
    part = next_part(source)
    whole = take(receiver, part)
    if whole:
        receiver.check(part.meta)
        receiver.checked(ok=True)
    upto = receiver.received(part)
    source.answered(SnapshotProgress(part.to, part.sender, part.term, part.meta.index, upto))
    return whole


def test_a_snapshot_arrives_in_parts(receiver, disk):
    source = sender(1, term=2)
    while not move(receiver, source):
        pass
    assert source.done
    ready = f"/member/ready-{META.index:020d}"
    assert {name: disk.read_file(f"{ready}/{name}") for name in CONTENT} == CONTENT


def test_while_it_is_checked_its_sender_hears_of_it_and_no_other_begins(receiver):
    source, later = sender(1, term=2), sender(2, term=3)
    while not take(receiver, part := next_part(source)):
        source.answered(SnapshotProgress(3, 1, 2, META.index, receiver.received(part)))
    for _ in range(3):
        source.tick()
        assert receiver.take(next_part(source)) is None
        upto = receiver.received(next_part(source))
        assert upto == source.offset < source.total
        source.answered(SnapshotProgress(3, 1, 2, META.index, upto))
        assert source.silent_ticks == 0
        assert receiver.take(next_part(later)) is None
        assert receiver.received(next_part(later)) == 0
    receiver.check(META)
    receiver.checked(ok=True)
    assert receiver.received(next_part(source)) == source.total


def test_while_a_part_is_written_its_sender_hears_of_it_and_no_other_begins(receiver):
    source, later = sender(1, term=2), sender(2, term=3)
    move(receiver, source)
    part = next_part(source)
    keep = receiver.take(part)
    for other in (source, later):
        assert receiver.take(next_part(other)) is None
    assert receiver.received(part) == 100
    assert receiver.received(next_part(later)) == 0
    keep()
    assert receiver.received(part) == 100
    assert not receiver.kept(part, ok=True)
    assert receiver.received(part) == 200
    assert not move(receiver, later)
    assert receiver.received(next_part(later)) == 100


@pytest.mark.parametrize("what", ["take", "check"])
def test_what_could_not_be_kept_leaves_nothing_behind(receiver, disk, what):
    source = sender(1, term=2)
    for _ in range(3):
        move(receiver, source)
    if what == "check":
        while not take(receiver, part := next_part(source)):
            source.offset += len(part.data)
    disk.fail("pwrite" if what == "take" else "datasync", errno.ENOSPC)
    with pytest.raises(StorageError):
        receiver.check(META) if what == "check" else receiver.take(next_part(source))()
    assert "incoming" not in disk.names("/member")


def test_what_was_found_wrong_is_forgotten(receiver):
    source = sender(1, term=2)
    while not take(receiver, part := next_part(source)):
        source.answered(SnapshotProgress(3, 1, 2, META.index, receiver.received(part)))
    receiver.checked(ok=False)
    assert receiver.received(next_part(source)) == 0
    again = sender(1, term=2)
    while not move(receiver, again):
        pass
    assert again.done


def test_one_that_is_ready_already_stays(receiver, disk):
    """The log may say by now that it is the state: at no moment is it away."""
    first = sender(1, term=2)
    while not move(receiver, first):
        pass
    ready = f"/member/ready-{META.index:020d}"
    second = sender(2, term=3)
    while not take(receiver, part := next_part(second)):
        second.answered(SnapshotProgress(3, 2, 3, META.index, receiver.received(part)))
    disk.fail("rename", errno.EIO, always=True)
    receiver.check(META)
    assert {name: disk.read_file(f"{ready}/{name}") for name in CONTENT} == CONTENT
    assert "incoming" not in disk.names("/member")


def test_the_leader_of_a_later_term_starts_over(receiver):
    old, new = sender(1, term=2), sender(2, term=3)
    for _ in range(3):
        move(receiver, old)
    assert not move(receiver, new)
    assert new.offset == 100
    for _ in range(50):
        if move(receiver, new):
            break
    assert new.done


def test_a_sender_does_not_go_on_where_another_one_stopped(receiver):
    old, other = sender(1, term=2), sender(2, term=2)
    for _ in range(3):
        move(receiver, old)
    move(receiver, other)
    assert other.offset == 0
    assert receiver.received(next_part(old)) == 300


def test_one_that_is_larger_than_what_is_free_is_not_begun(disk):
    source = sender(1, term=2)
    receiver = SnapshotReceiver(MemberDirectory("/member", disk), lambda path, meta: None)
    disk.capacity_bytes = source.total - 1
    before = disk.counts["pwrite"]
    with pytest.raises(StorageError) as caught:
        take(receiver, next_part(source))
    assert caught.value.retryable
    assert disk.counts["pwrite"] == before
    disk.capacity_bytes = 2 * source.total
    while not move(receiver, source):
        pass


def test_one_that_finds_no_room_midway_begins_anew(disk):
    source = sender(1, term=2)
    receiver = SnapshotReceiver(MemberDirectory("/member", disk), lambda path, meta: None)
    for _ in range(3):
        move(receiver, source)
    disk.fail("pwrite", errno.ENOSPC)
    with pytest.raises(StorageError):
        take(receiver, next_part(source))
    assert receiver.received(next_part(source)) == 0
    source.offset = 0
    while not move(receiver, source):
        pass


def test_pauses_after_a_lack_of_room_double_up_to_a_minute():
    now = 0.0
    hold_off = HoldOff(lambda: now)
    assert not hold_off.holds(2)
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        hold_off.refused(2)
        now += pause - 0.1
        assert hold_off.holds(2)
        assert not hold_off.holds(3)
        now += 0.2
        assert not hold_off.holds(2)
    hold_off.took(2)
    hold_off.refused(2)
    now += 1.1
    assert not hold_off.holds(2)


def test_who_says_that_it_has_room_is_not_left_alone_but_is_longer_if_it_refuses_again():
    now = 0.0
    hold_off = HoldOff(lambda: now)
    hold_off.may_take(2)
    assert not hold_off.holds(2)
    for _ in range(3):
        hold_off.refused(2)
        assert hold_off.holds(2)
        hold_off.may_take(3)
        assert hold_off.holds(2)
        hold_off.may_take(2)
        assert not hold_off.holds(2)
    hold_off.refused(2)
    now += 8 - 0.1
    assert hold_off.holds(2)


class FreeBytes:
    """What a disk says, tick by tick, and what was told of it."""

    def __init__(self) -> None:
        self.free = 0
        self.told: list[int] = []
        self._jobs = Jobs(AtOnce(), lambda: None)
        self.room = RoomWanted(lambda: self.free, self._jobs, self.told.append, 0.5)

    def want(self, index: int, total: int) -> None:
        self.room.want(index, total)
        self._jobs.take()

    def tick(self, ticks: int = 1, commit: int = 0) -> None:
        for _ in range(ticks):
            self.room.tick(commit)
            self._jobs.take()


def test_room_that_comes_is_told_again_and_again_until_the_snapshot_is_there():
    disk = FreeBytes()
    disk.tick(5)
    assert disk.told == []
    disk.want(7, 100)
    assert disk.room.lack == "its disk has no room for a snapshot of 1 MiB that it needs"
    disk.free = 99
    disk.tick(4)
    assert disk.told == []
    disk.free = 100
    disk.tick(4)
    assert disk.told == [7, 7]
    disk.room.found()
    disk.tick(4)
    assert disk.told == [7, 7]
    assert not disk.room.lack


def test_a_disk_that_had_room_by_its_own_account_is_not_asked_whether_it_has():
    disk = FreeBytes()
    disk.free = 1000
    disk.want(7, 100)
    disk.tick(10)
    assert disk.told == []
    assert disk.room.lack


def test_room_is_not_wanted_any_more_once_the_entries_came_or_no_offer_does():
    disk = FreeBytes()
    disk.want(7, 100)
    disk.tick(commit=6)
    assert disk.room.lack
    disk.tick(commit=7)
    assert not disk.room.lack
    disk.want(8, 100)
    disk.tick(round(WANTED_S / 0.5) - 1)
    assert disk.room.lack
    disk.tick()
    assert not disk.room.lack


@pytest.mark.parametrize("tick_s", [0.005, 0.05, 1.0])
def test_a_silent_sender_is_replaced_after_five_seconds(disk, tick_s):
    receiver = SnapshotReceiver(MemberDirectory("/member", disk), lambda path, meta: None, tick_s)
    old, other = sender(1, term=2), sender(2, term=2)
    for _ in range(3):
        move(receiver, old)
    for _ in range(round(5 / tick_s) - 1):
        receiver.tick()
    move(receiver, other)
    assert other.offset == 0
    receiver.tick()
    move(receiver, other)
    assert other.offset == 100


@pytest.mark.parametrize(("tick_s", "resent"), [(0.005, 20), (0.05, 20), (1.0, 5)])
def test_a_part_is_sent_again_four_times_a_second_and_for_five_seconds(tick_s, resent):
    """Or each tick, where ticks are longer."""
    source = sender(1, term=2, tick_s=tick_s)
    sent = 0
    for _ in range(round(5 / tick_s)):
        assert not source.failed
        sent += source.tick()
    assert source.failed
    assert sent == resent
