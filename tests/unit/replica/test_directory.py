"""Whichever moment the power is lost at, an installation is finished or never happened."""

from __future__ import annotations

import contextlib
import errno

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, StorageError
from kvstore.replica.directory import MemberDirectory

OLD = "/member/state-00000000000000000000"
NEW = "/member/state-00000000000000000007"


def with_ready(index: int = 7) -> MemoryFileSystem:
    """A member with a first state, and a snapshot of ``index`` that arrived whole."""
    disk = MemoryFileSystem()
    directory = MemberDirectory("/member", disk)
    assert directory.current_state(0) == OLD
    incoming = directory.make_incoming()
    disk.write_file(f"{incoming}/table", b"of %d" % index)
    directory.incoming_is_whole(index)
    return disk.crash()


def test_power_lost_between_the_durable_mark_and_the_rename_the_next_start_installs() -> None:
    disk = with_ready()
    assert MemberDirectory("/member", disk).current_state(7) == NEW
    after = disk.crash()
    assert after.read_file(f"{NEW}/table") == b"of 7"
    assert MemberDirectory("/member", after).current_state(7) == NEW
    assert set(after.names("/member")) == {"log", NEW.rpartition("/")[2]}


def test_a_snapshot_that_comes_again_is_as_durable_as_one_that_comes_once() -> None:
    disk = MemoryFileSystem()
    directory = MemberDirectory("/member", disk)
    directory.current_state(0)

    def receive() -> None:
        disk.write_file(f"{directory.make_incoming()}/table", b"of 7")
        directory.incoming_is_whole(7)

    renamed: list[str] = []

    def lack_a_descriptor(operation: str, path: str) -> None:
        if operation == "rename":
            renamed.append(path)
        elif operation == "sync_directory" and renamed and path == "/member":
            raise OSError(errno.EMFILE, "no descriptor")

    disk.on_operation = lack_a_descriptor
    with pytest.raises(StorageError):
        receive()
    assert renamed
    disk.on_operation = None
    receive()
    assert MemberDirectory("/member", disk.crash()).current_state(7) == NEW


def test_a_snapshot_whose_mark_isnt_durable_never_happened() -> None:
    disk = with_ready()
    assert MemberDirectory("/member", disk).current_state(0) == OLD
    assert set(disk.names("/member")) == {"log", OLD.rpartition("/")[2]}


def test_power_may_be_lost_at_any_operation_of_an_installation() -> None:
    lost = 0
    finished = False
    while not finished:
        lost += 1
        disk = with_ready()
        disk.stop_at(disk.operations + lost)
        with contextlib.suppress(StorageError):
            MemberDirectory("/member", disk).current_state(7)
            finished = not disk.stopped
        for keep in ("none", "all"):
            after = disk.crash(keep=keep)  # type: ignore[arg-type]
            assert MemberDirectory("/member", after).current_state(7) == NEW
            assert after.read_file(f"{NEW}/table") == b"of 7"
    assert lost > 3


def test_the_state_of_an_installation_that_was_finished_stays() -> None:
    disk = with_ready()
    MemberDirectory("/member", disk).install(7)
    # The old state is still there, and a later snapshot is under way.
    directory = MemberDirectory("/member", disk)
    directory.make_incoming()
    assert directory.current_state(7) == NEW
    assert set(disk.names("/member")) == {"log", NEW.rpartition("/")[2]}


def test_a_log_that_begins_later_than_any_state_is_damage() -> None:
    disk = MemoryFileSystem()
    with pytest.raises(CorruptionError, match="begins after index 7 but there is no state"):
        MemberDirectory("/member", disk).current_state(7)


def test_what_is_somebody_elses_is_left() -> None:
    disk = with_ready()
    disk.write_file("/member/notes", b"mine")
    MemberDirectory("/member", disk).current_state(7)
    assert disk.read_file("/member/notes") == b"mine"


@pytest.mark.parametrize("again", ["twice", "after what was left"])
def test_a_snapshot_is_withdrawn_that_came_twice_or_was_withdrawn_by_half(again: str) -> None:
    """Two leaders may send the same one: the second withdrawal finds what the first one left."""
    disk = with_ready()
    directory = MemberDirectory("/member", disk)
    directory.withdraw(7)
    if again == "after what was left":
        disk.write_file(f"{directory.make_incoming()}/table", b"of 7")
        directory.incoming_is_whole(7)
    directory.withdraw(7)
    assert disk.names("/member") == [
        "log",
        directory.withdrawn(7).rpartition("/")[2],
        "state-" + "0" * 20,
    ]
    assert MemberDirectory("/member", disk.crash()).current_state(7) == OLD


def test_a_checkpoint_gets_a_name_that_nothing_of_the_run_before_has() -> None:
    disk = MemoryFileSystem()
    before = MemberDirectory("/member", disk).outgoing(2)
    disk.make_directory(before)
    directory = MemberDirectory("/member", disk)
    # Without a state nothing is removed.
    with pytest.raises(CorruptionError):
        directory.current_state(7)
    assert disk.kind(before)
    assert directory.outgoing(2) != before
