"""Three members, four committed entries, each member's copy of each damaged or not: 4,096 cases.

Those of "Protocol-Aware Recovery" (FAST'18). Where each entry has one good copy left (7^4 = 2,401)
all members come back by themselves, with every entry; where one has none they stop, and say which.
The logs are real ones, opened and mended on a memory disk; the members are cores that talk over a
list.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import deque
from functools import cache

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.raft import (
    Bundle,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    Options,
    Raft,
    Role,
)
from kvstore.replica.log_note import NoteFile
from kvstore.replica.storage import Identity, MemberLog

MEMBERS = (1, 2, 3)
FIRST = 3
"""The members' list is entry 1, its leader's own one entry 2; the four follow."""
DATA = tuple(b"entry number %d, and what it says" % index for index in range(FIRST, FIRST + 4))
TERMS = {"one term": (2, 2, 2, 2), "two terms": (2, 2, 3, 3), "each its own": (2, 3, 4, 5)}
SHARE = 1 if os.environ.get("KVSTORE_ALL_DAMAGE") else 8
"""With entries of several terms each eighth case is run, and all where that is set."""

Damage = frozenset[int]
"""Which of the four are damaged at one member, by their place."""
CASES = [frozenset(place for place in range(4) if bits >> place & 1) for bits in range(16)]


def path_of(member: int) -> str:
    return f"/member{member}"


@cache
def written(member: int, terms: tuple[int, ...]) -> MemoryFileSystem:
    """A member's log as a power loss leaves it; each entry came with a sync of its own."""
    disk = MemoryFileSystem()
    log = opened(disk, member)
    log.found(Membership(frozenset(MEMBERS)))
    entries = [Entry(2, 2, EntryKind.EMPTY, b"")]
    entries += [
        Entry(term, index, EntryKind.COMMAND, data)
        for index, (term, data) in enumerate(zip(terms, DATA, strict=True), FIRST)
    ]
    for entry in entries:
        state = HardState(entry.term, vote=1, commit=entry.index - 1)
        log.save(Bundle(entry.index, state, entries=[entry], must_sync=True))
        log.sync()
        log.take_durable()
    note = log.to_note()
    assert note is not None
    assert log.write_note(note)
    return disk.crash(keep="all")


def hurt(
    member: int, terms: tuple[int, ...], damage: Damage, header: int | None = None
) -> MemoryFileSystem:
    disk = written(member, terms).crash(keep="all")
    (path,) = [path for path in disk.files(path_of(member)) if path.endswith(".wal")]
    content = disk.read_file(path)
    for place in damage:
        disk.flip_bit(path, content.index(DATA[place]) + 7, place)
    if header is not None:
        disk.flip_bit(path, content.index(DATA[header]) - 44, header)
    return disk


def opened(disk: MemoryFileSystem, member: int) -> MemberLog:
    identity = Identity("a-cluster", member)
    note = NoteFile(disk, f"/note{member}")
    return MemberLog(path_of(member), identity, filesystem=disk, segment_bytes=8192, note=note)


@cache
def found(
    member: int, terms: tuple[int, ...], damage: Damage, header: int | None = None
) -> MemberLog:
    """What opening such a log reads back. Not for writing: cases share it."""
    return opened(hurt(member, terms, damage, header), member)


class Member:
    """A core over what was read back; what it writes is durable at once."""

    def __init__(self, member: int, log: MemberLog, seed: int) -> None:
        self.applied: list[Entry] = []
        self.core = Raft(
            member,
            Options(),
            rng=random.Random(f"{seed}/{member}"),
            hard_state=log.hard_state,
            entries=log.entries,
            hollow=log.hollow,
            damaged=bool(log.short),
        )

    def turn(self) -> list[Message]:
        sent: list[Message] = []
        while (bundle := self.core.ready()) is not None:
            sent += bundle.messages
            if bundle.must_sync:
                self.core.stored(bundle.number)
            if bundle.committed:
                self.applied += bundle.committed
                self.core.applied(bundle.committed[-1].index)
            for entry in bundle.mends:
                self.core.mended(entry, right=entry.data == DATA[entry.index - FIRST])
        return sent


def run(members: dict[int, Member], ticks: int) -> set[tuple[int, int]]:
    """So many ticks, or until all have all; (term, leader) of all leaders that there were."""
    leaders = set()
    wire: deque[Message] = deque()
    for _ in range(ticks):
        for member in members.values():
            member.core.tick()
            wire += member.turn()
        while wire:
            message = wire.popleft()
            target = members[message.to]
            target.core.step(message)
            wire += target.turn()
        cores = [member.core for member in members.values()]
        leaders |= {(core.term, core.id) for core in cores if core.role is Role.LEADER}
        done = {len(member.applied) for member in members.values()}
        if leaders and done == {core.commit for core in cores} and len(done) == 1:
            break
    return leaders


def check(
    terms: tuple[int, ...],
    case: tuple[Damage, ...],
    seed: int,
    headers: dict[int, int] | None = None,
) -> bool:
    """One case; True where all came back. ``headers``: member -> entry whose header is damaged,
    by its place; that one and what follows it is lost there."""
    headers = headers or {}
    members = {
        member: Member(member, found(member, terms, damage, headers.get(member)), seed)
        for member, damage in zip(MEMBERS, case, strict=True)
    }
    gone = [
        damage.union(range(headers.get(m, 4), 4)) for m, damage in zip(MEMBERS, case, strict=True)
    ]
    everywhere = frozenset.intersection(*gone)
    leaders = run(members, 25 if everywhere else 200)
    assert len({term for term, _ in leaders}) == len(leaders), "two leaders of one term"
    shortest, *others = sorted((m.applied for m in members.values()), key=len)
    for other in others:
        assert other[: len(shortest)] == shortest
    said = [entry.data for entry in max((m.applied for m in members.values()), key=len)]
    if everywhere:
        first = FIRST + min(everywhere)
        assert not leaders
        told = {m.core.status().lost for m in members.values() if m.core.status().hollow}
        assert first in told if headers else told == {first}
        assert len(said) < first
        return False
    assert leaders
    assert not any(m.core.damaged for m in members.values())
    assert not any(m.core.status().hollow for m in members.values())
    assert {tuple(m.applied) for m in members.values()} == {tuple(members[1].applied)}
    assert said[2:6] == list(DATA)
    return True


@pytest.mark.parametrize("terms", TERMS)
def test_of_all_cases_those_come_back_where_each_entry_is_whole_somewhere(terms: str) -> None:
    share = 1 if terms == "one term" else SHARE
    cases = list(itertools.product(CASES, repeat=3))
    assert len(cases) == 4096
    back = 0
    for number, case in enumerate(cases):
        if (number + number // 16 + number // 256) % share == 0:
            back += check(TERMS[terms], case, number)
    if share == 1:
        assert back == 2401
    else:
        assert 0 < back < 4096 // share


@pytest.mark.parametrize("terms", TERMS)
def test_one_of_whose_records_a_header_is_damaged_comes_back_with_the_others(terms: str) -> None:
    """It keeps what stands before that, and gives it; its vote isn't needed, and isn't there."""
    number = back = 0
    for member, place in itertools.product(MEMBERS, range(4)):
        before = [damage for damage in CASES if max(damage, default=-1) < place]
        for own, second, third in itertools.product(before, CASES, CASES):
            number += 1
            if number % SHARE == 0:
                case = [second, third]
                case.insert(member - 1, own)
                back += check(TERMS[terms], (case[0], case[1], case[2]), number, {member: place})
    assert number == 3 * 15 * 256
    assert 0 < back < number // SHARE


@pytest.mark.parametrize("terms", TERMS)
def test_two_who_lost_the_end_of_their_logs_elect_nobody(terms: str) -> None:
    """What the third has may be the last copy, or none: it can't be told."""
    for places in itertools.product(range(4), repeat=2):
        headers = dict(zip((1, 3), places, strict=True))
        members = {
            m: Member(m, found(m, TERMS[terms], frozenset(), headers.get(m)), 1) for m in MEMBERS
        }
        assert not run(members, 100)
        assert all(members[m].core.damaged for m in headers)


def test_a_copy_that_another_member_gave_is_durable_in_its_place() -> None:
    damage = frozenset({0, 3})
    disk = hurt(2, TERMS["two terms"], damage)
    log = opened(disk, 2)
    assert log.hollow == {FIRST, FIRST + 3}
    right = found(1, TERMS["two terms"], frozenset()).entries
    wrong = right[-1]._replace(data=b"something else")
    assert log.mend([right[2], wrong]) == [(right[2], True), (wrong, False)]
    disk = disk.crash()
    again = opened(disk, 2)
    assert again.hollow == {FIRST + 3}
    assert again.mend([right[-1]]) == [(right[-1], True)]
    last = opened(disk.crash(), 2)
    assert not last.hollow
    assert last.entries == right
