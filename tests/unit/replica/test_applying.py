"""Applying never waits: not for room, not for the disk, not to the end of all that there is."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from kvstore.errors import Error, StorageError
from kvstore.replica import Replica
from kvstore.replica.applying import SLICE_BYTES
from kvstore.state import StateMachine, encode_commands
from tests.unit.replica.driven_group import SMALL, DrivenGroup, LaterWork, into, put_of

SLICED = replace(
    SMALL,
    apply_turn_s=0.0,
    apply_slice_entries=1,
    engine=replace(SMALL.engine, write_buffer_size=4 << 20),
)


def propose(replica: Replica, number: int, answers: list[object]) -> None:
    data = encode_commands([put_of(f"r{number}", b"%d" % number, b"v")])
    replica.propose(data, into(answers))


def test_a_turn_applies_what_its_budget_allows_and_asks_for_another() -> None:
    with DrivenGroup(options=SLICED) as driven:
        leader = driven.leader()
        driven.settle()
        applied = leader.machine.applied_index
        turns: list[int] = []
        real = leader.turn

        def turn() -> None:
            real()
            turns.append(leader.machine.applied_index)

        leader.turn = turn  # type: ignore[method-assign]
        answers: list[object] = []
        for number in range(20):
            propose(leader, number, answers)
        driven.until(lambda: len(answers) == 20)
        assert answers == [[False]] * 20
        steps = [after - before for before, after in zip([applied, *turns], turns, strict=False)]
        assert max(steps) == 1
        driven.settle()
        assert len(driven.hashes()) == 1


def test_a_slice_ends_with_the_entry_that_passes_its_bytes() -> None:
    with DrivenGroup(options=replace(SLICED, apply_slice_entries=64)) as driven:
        leader = driven.leader()
        driven.settle()
        slices: list[int] = []
        applying = leader._applying
        real = applying._apply
        applying._apply = lambda entries, prepared: (  # type: ignore[method-assign]
            slices.append(len(entries)) or real(entries, prepared)  # type: ignore[func-returns-value]
        )
        answers: list[object] = []
        value = bytes(SLICE_BYTES // 4)
        for number in range(9):
            data = encode_commands([put_of(f"r{number}", b"%d" % number, value)])
            leader.propose(data, into(answers))
        driven.until(lambda: len(answers) == 9)
        assert sum(slices) == 9
        # Four of them are a little more than fits, and are taken for that.
        assert max(slices) == 4


def test_keys_that_only_the_disk_knows_are_looked_up_beside_the_loop() -> None:
    work = LaterWork("keys")
    with DrivenGroup(work=work, options=replace(SLICED, apply_slice_entries=64)) as driven:
        leader = driven.leader()
        for replica in driven.group.replicas.values():
            replica.machine.flush()
        driven.put(b"1", b"before")
        driven.settle()
        for replica in driven.group.replicas.values():
            replica.machine.flush()
        answers: list[object] = []
        reads: list[Error | None] = []
        propose(leader, 1, answers)
        leader.read(reads.append)
        driven.until(lambda: work.jobs)
        driven.disk.fail("pread", errno.EIO, always=True, path="/state")
        propose(leader, 2, answers)
        for _ in range(60):
            driven.step()
        # It leads on, and promises nothing that it hasn't applied.
        assert driven.leader() is leader
        assert answers == []
        assert reads in ([], [None])
        late: list[Error | None] = []
        leader.read(late.append)
        for _ in range(5):
            driven.step()
        assert late == []
        driven.disk.heal()
        driven.until(lambda: work.do() or len(answers) == 2)
        assert answers == [[True], [False]]
        driven.until(lambda: work.do() or late == [None])
        driven.until(lambda: work.do() or len(driven.hashes()) == 1)
        assert not driven.failed


def test_what_the_system_lacks_to_look_up_keys_is_asked_for_again_at_a_tick() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        driven.put(b"1", b"before")
        driven.settle()
        leader.machine.flush()
        driven.disk.fail("open", errno.EMFILE, always=True, path=f"/node{leader.member}/state")
        answers: list[object] = []
        propose(leader, 1, answers)
        for _ in range(10):
            driven.step()
        assert answers == []
        driven.disk.heal()
        driven.until(lambda: answers)
        assert answers == [[True]]
        assert not driven.failed


def test_room_is_waited_for_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    work = LaterWork("room")
    room = True
    monkeypatch.setattr(StateMachine, "has_room", lambda machine: room)
    with DrivenGroup(work=work) as driven:
        leader = driven.leader()
        driven.settle()
        room = False
        answers: list[object] = []
        propose(leader, 1, answers)
        for _ in range(60):
            driven.step()
        assert answers == []
        assert len(work.jobs) == 3
        assert driven.leader() is leader
        # A flush is no lack of room: nobody is refused, and what comes waits its turn.
        assert not leader.lacks_room
        propose(leader, 2, answers)
        room = True
        work.do()
        driven.until(lambda: len(answers) == 2)
        assert answers == [[False], [False]]


def test_a_lack_that_is_told_when_room_is_there_again_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = LaterWork("room")
    room = True

    def make_room(machine: StateMachine) -> None:
        raise StorageError("no space left", errno=errno.ENOSPC)

    monkeypatch.setattr(StateMachine, "has_room", lambda machine: room)
    monkeypatch.setattr(StateMachine, "make_room", make_room)
    with DrivenGroup(work=work) as driven:
        leader = driven.leader()
        driven.settle()
        room = False
        answers: list[object] = []
        propose(leader, 1, answers)
        driven.until(lambda: work.jobs)
        room = True
        driven.until(lambda: answers)
        # Nothing waits for room by now: nobody would ask again.
        work.do()
        driven.step()
        assert not leader.lacks_room
        propose(leader, 2, answers)
        driven.until(lambda: len(answers) == 2)
        assert answers == [[False], [False]]
        assert not driven.failed
