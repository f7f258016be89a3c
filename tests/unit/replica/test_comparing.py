"""Members compare their states: who differs is named, and nobody who doesn't."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from kvstore.errors import CorruptionError, Error, IntegrityCode, StorageError
from kvstore.replica import Replica
from kvstore.replica.comparing import ComparisonFigures, Span
from kvstore.replica.packets import Packet, StateProbe, StateReport, Verdict
from kvstore.state import Captured, Command
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    Alarm,
    AlarmAction,
    AlarmKind,
    EnableModel,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
)
from tests.unit.replica.driven_group import SMALL, TICK_S, DrivenGroup, LaterWork, put_of

OPTIONS = replace(SMALL, scrub_round_s=1.0)
NAMED_S = 10.0


@pytest.fixture
def group() -> Iterator[DrivenGroup]:
    with DrivenGroup(options=OPTIONS) as driven:
        for number in range(100):
            driven.put(b"k%d" % number, b"v%d" % number)
        yield driven


def figures(driven: DrivenGroup) -> ComparisonFigures:
    return driven.leader().comparing.figures()


def within(driven: DrivenGroup, condition: Callable[[], object], seconds: float = NAMED_S) -> None:
    last = driven.steps + seconds / TICK_S
    driven.until(lambda: condition() or driven.steps > last)
    assert condition(), f"not within {seconds} s: {figures(driven)}"


def run(driven: DrivenGroup, seconds: float) -> None:
    last = driven.steps + seconds / TICK_S
    driven.until(lambda: driven.steps > last)


def follower(driven: DrivenGroup) -> Replica:
    leader = driven.leader()
    return next(r for r in driven.group.replicas.values() if r is not leader)


def change_stored_bytes(replica: Replica) -> None:
    """Another value of the key that was written last, in a table that checks: what the engine wrote
    before is not there any more, as if the bytes had changed under way to it."""
    database = replica.machine._db
    value, sequence = database.get_versioned(b"\x01k99")
    assert sequence == database.last_sequence
    batch = database.write_batch()
    batch.put(b"\x01k99", bytes((value[0] ^ 1,)) + value[1:])
    database.write(batch, sequence=sequence, applied_index=replica.machine.applied_index)
    database.flush()
    database.verify()


def accusations(driven: DrivenGroup) -> list[tuple[int, str]]:
    """Whom leaders accuse from now on, and why."""
    told: list[tuple[int, str]] = []
    for replica in driven.group.replicas.values():
        judge = replica.comparing._judge

        def watch(
            member: int,
            difference: object,
            span: Span,
            judge: Callable[[int, object, Span], None] = judge,  # type: ignore[assignment]
        ) -> None:
            judge(member, difference, span)
            if difference is not None:
                told.append((member, str(difference)))

        replica.comparing._judge = watch  # type: ignore[method-assign]
    return told


def test_members_that_agree_know_it_and_nobody_is_accused(group: DrivenGroup) -> None:
    run(group, 20)
    for replica in group.group.replicas.values():
        compared_s = replica.comparing.figures().compared_s
        assert compared_s is not None
        assert compared_s < 5
    said = figures(group)
    assert (said.accused, said.uncompared, said.differences) == ({}, {}, 0)
    assert said.rounds > 5


def test_all_rows_are_compared_a_range_after_another(group: DrivenGroup) -> None:
    for number in range(60):
        group.put(b"large%d" % number, bytes(16 << 10))
    starts: list[bytes] = []

    def watch(packet: Packet) -> bool:
        if isinstance(packet, StateProbe):
            starts.append(packet.start)
        return False

    group.group.network.hold = watch
    # A slow round: at the least rate, 128 KiB every two seconds.
    for replica in group.group.replicas.values():
        replica.comparing._round_s = 1e6
    within(group, lambda: starts.count(b"") > 2, seconds=60)
    assert len(set(starts)) >= 6
    assert figures(group).differences == 0


@pytest.mark.parametrize("which", ["leader", "follower"])
def test_changed_bytes_under_right_checksums_are_found_and_their_member_is_named(
    group: DrivenGroup, which: str
) -> None:
    run(group, 5)
    victim = group.leader() if which == "leader" else follower(group)
    told = accusations(group)
    change_stored_bytes(victim)
    within(group, lambda: victim.repair.under_way)
    assert "differs from that of a majority" in victim.repair.under_way
    assert {member for member, _ in told} == {victim.member}
    assert all(why.startswith("rows stored by entry") for _, why in told)
    # It gets the others' state, and agrees again.
    within(group, lambda: victim.counters.repairs_done == 1)
    assert victim.machine.get(b"k99") == b"v99"
    run(group, 10)
    assert figures(group).accused == {}
    assert group.failed == {}
    assert len(group.hashes()) == 1


def test_a_member_that_comes_to_other_outcomes_is_named(group: DrivenGroup) -> None:
    victim = follower(group)
    machine = victim.machine
    # What it applies from here on has another outcome there: the key is there before it is put.
    batch = machine._db.write_batch()
    batch.put(b"\x01only here", b"")
    sequence = machine._db.last_sequence
    machine._db.write(batch, sequence=sequence, applied_index=machine.applied_index)
    for replica in group.group.replicas.values():
        replica.comparing._round_s = 0.0  # by the hash of outcomes alone
    group.put(b"only here", b"now everywhere")
    told = accusations(group)
    within(group, lambda: victim.repair.under_way)
    assert {member for member, _ in told} == {victim.member}
    assert all(why.startswith("outcomes up to entry") for _, why in told)
    within(group, lambda: victim.counters.repairs_done == 1)
    run(group, 5)
    assert len(group.hashes()) == 1


def test_a_member_that_stores_other_values_is_named_long_before_all_rows_are_seen() -> None:
    with DrivenGroup(options=replace(OPTIONS, scrub_round_s=1e6)) as group:
        operate(group, EnableModel())
        for number in range(120):
            operate(group, Put(b"row%03d" % number, bytes(20 << 10)))
        run(group, 5)
        victim = follower(group)
        last = group.steps + NAMED_S / TICK_S
        number = 0
        while not victim.counters.repairs_started:
            number += 1
            operate(group, Put(b"row%03d" % (37 * number % 120), b"as it should be"))
            group.settle()
            store_otherwise(victim)
            assert group.steps < last, figures(group)
        assert group.failed == {}


def operate(group: DrivenGroup, operation: Operation) -> None:
    """One operation of the model, applied at the leader."""
    leader = group.leader()
    answers: list[object] = []
    proposal = Proposal(b"%016d" % group.steps, operation)
    leader.propose(encode_operations([proposal], leader.log_time_ms()), answers.append)
    group.until(lambda: answers)
    assert not isinstance(answers[0], Error)


def store_otherwise(replica: Replica) -> None:
    """As a member would have it that stores other bytes than were proposed."""
    machine = replica.machine
    key = machine.newest_key()
    assert key is not None
    value, sequence = machine._db.get_versioned(b"\x01" + key)
    batch = machine._db.write_batch()
    batch.put(b"\x01" + key, value[:-1] + b"!")
    machine._db.write(batch, sequence=sequence, applied_index=machine.applied_index)


def test_the_alarm_of_a_member_that_differs_is_in_the_state_that_it_gets_anew() -> None:
    with DrivenGroup(options=OPTIONS) as group:
        operate(group, RaiseLevel(LEVEL_ACCUSES))
        victim = follower(group)
        operate(group, Alarm(AlarmAction.ACTIVATE, victim.member, AlarmKind.DIFFERS))
        operate(group, Put(b"row", b"value"))
        group.settle()
        store_otherwise(victim)
        within(group, lambda: victim.counters.repairs_done == 1)
        for replica in group.group.replicas.values():
            assert replica.machine.alarms == {(victim.member, AlarmKind.DIFFERS)}
        operate(group, Put(b"row", b"goes on"))


def test_a_suspect_whose_rows_cannot_be_read_now_is_neither_cleared_nor_accused(
    group: DrivenGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(group, 5)
    leader, victim = group.leader(), follower(group)
    real = Captured.hash_rows
    mode = ["lies"]

    def hash_rows(captured: Captured, start: bytes, bytes_max: int) -> object:
        told = real(captured, start, bytes_max)
        if captured._db is not victim.machine._db or mode[0] == "tells":
            return told
        if mode[0] == "fails":
            raise StorageError("no descriptors", errno=errno.EMFILE)
        return told._replace(crc=told.crc ^ 1)

    monkeypatch.setattr(Captured, "hash_rows", hash_rows)
    within(group, lambda: leader.comparing._suspects)
    mode[0] = "fails"
    run(group, 5)
    assert list(leader.comparing._suspects) == [victim.member]
    assert leader.comparing._suspects[victim.member].rows is not None
    assert figures(group).accused == {}
    mode[0] = "tells"
    within(group, lambda: not leader.comparing._suspects)
    assert group.failed == {}


def test_where_two_differ_both_are_told_of_and_neither_is_stopped() -> None:
    with DrivenGroup(members=2, options=OPTIONS) as group:
        for number in range(100):
            group.put(b"k%d" % number, b"v%d" % number)
        run(group, 5)
        change_stored_bytes(follower(group))
        within(group, lambda: figures(group).accused)
        said = figures(group).accused
        assert list(said) == [1, 2]
        assert "no majority agrees" in said[1].why
        run(group, 5)
        assert group.failed == {}


def test_one_differing_answer_accuses_nobody(
    group: DrivenGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(group, 5)
    victim = follower(group)
    real = Captured.hash_rows
    left = [1]

    def lie_once(captured: Captured, start: bytes, bytes_max: int) -> object:
        told = real(captured, start, bytes_max)
        if captured._db is victim.machine._db and left[0]:
            left[0] -= 1
            return told._replace(crc=told.crc ^ 1)
        return told

    monkeypatch.setattr(Captured, "hash_rows", lie_once)
    told = accusations(group)
    within(group, lambda: figures(group).differences == 1)
    run(group, 10)
    assert len(told) == 1
    assert figures(group).accused == {}
    assert victim.counters.repairs_started == 0
    assert group.failed == {}


def test_a_member_that_is_cut_off_or_too_old_is_told_not_to_be_compared(
    group: DrivenGroup,
) -> None:
    run(group, 5)
    leader, cut = group.leader(), follower(group)
    others = [member for member in group.group.replicas if member != cut.member]
    group.group.network.isolate(cut.member, others)
    run(group, 12)
    assert "doesn't tell" in figures(group).uncompared[cut.member]
    compared_s = cut.comparing.figures().compared_s
    assert compared_s is not None
    assert compared_s > 10, "and it knows itself"
    assert set(figures(group).uncompared) == {cut.member}
    group.group.network.heal()
    within(group, lambda: not figures(group).uncompared)
    leader = group.leader()
    leader.comparing._understands = lambda member: member != cut.member
    within(group, lambda: cut.member in figures(group).uncompared, seconds=20)
    assert "older version" in figures(group).uncompared[cut.member]


def test_it_is_compared_under_load_as_well(group: DrivenGroup) -> None:
    leader = group.leader()
    reports: list[StateReport] = []

    def watch(packet: Packet) -> bool:
        if isinstance(packet, StateReport):
            reports.append(packet)
        return False

    group.group.network.hold = watch
    answers: list[object] = []
    for number in range(3000):
        leader.propose(group.encoded(put(number)), answers.append)
        # Several entries become durable, and are applied, at one time; a follower's a bit later.
        if number % 7 == 0:
            group.step()
    assert len(reports) >= 8
    told = sum(report.state is not None and report.rows is not None for report in reports)
    assert told >= len(reports) * 3 // 4
    assert figures(group).differences == 0


def test_a_slice_of_entries_ends_at_the_one_that_a_state_is_asked_for() -> None:
    with DrivenGroup(members=1, options=replace(SMALL, compare_s=0.0)) as group:
        group.put(b"k", b"v")
        leader = group.leader()
        applying = leader._applying
        reached: list[int] = []

        def paused() -> None:
            reached.append(leader.machine.applied_index)
            applying.pause_at = 0

        first = leader.machine.applied_index
        applying.paused = paused
        applying.pause_at = first + 3
        for number in range(6):
            leader.propose(group.encoded(put(number)), lambda outcome: None)
        group.until(lambda: leader.machine.applied_index == first + 6)
        assert reached == [first + 3]


def test_a_state_that_has_gone_on_is_not_told(group: DrivenGroup) -> None:
    group.settle()
    leader, other = group.leader(), follower(group)
    told: list[StateReport] = []

    def watch(packet: Packet) -> bool:
        if isinstance(packet, StateReport) and packet.round > 1000:
            told.append(packet)
        return False

    group.group.network.hold = watch
    applied = other.machine.applied_index
    for number, index in ((1001, applied - 1), (1002, applied)):
        places = (leader.member, other.member, leader.term, number, index)
        other.comparing.take(StateProbe(*places, 0, Verdict.UNKNOWN, b""))
    assert [report.state is None for report in told] == [True, False]


def put(number: int) -> Command:
    return put_of(f"load {number}", b"load %d" % (number % 50), b"%d" % number)


def test_what_is_late_or_of_another_term_is_no_word_of_anybody(group: DrivenGroup) -> None:
    run(group, 5)
    leader, other = group.leader(), follower(group)
    comparing = leader.comparing
    number = comparing._rounds
    for term, told in ((leader.term - 1, number), (leader.term, number - 1), (leader.term + 1, 1)):
        comparing.take(StateReport(other.member, leader.member, term, told, 1, (1, 1), None))
    differs = (1, 1, 0, Verdict.DIFFERS, b"")
    other.comparing.take(StateProbe(leader.member, other.member, 0, *differs))
    other.comparing.take(StateProbe(99, other.member, other.term, *differs))
    run(group, 5)
    assert group.failed == {}
    assert figures(group).differences == 0


def test_rows_that_cannot_be_read_are_damage_of_that_member(
    group: DrivenGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = follower(group)
    victim.machine.flush()
    number, _ = victim.machine.live_tables()[0]
    real = Captured.hash_rows

    def damaged(captured: Captured, start: bytes, bytes_max: int) -> object:
        if captured._db is victim.machine._db:
            path = f"{victim._applying.path}/{number:06d}.sst"
            raise CorruptionError("bad", code=IntegrityCode.CHECKSUM_MISMATCH, path=path)
        return real(captured, start, bytes_max)

    monkeypatch.setattr(Captured, "hash_rows", damaged)
    within(group, lambda: victim.counters.repairs_started)
    assert group.failed == {}


def test_an_answer_to_an_earlier_question_for_other_rows_is_none_to_this_one() -> None:
    """While nothing is written all questions are about the same entry."""
    with DrivenGroup(options=OPTIONS) as group:
        for number in range(60):
            group.put(b"large%d" % number, bytes(16 << 10))
        for replica in group.group.replicas.values():
            replica.comparing._round_s = 1e6  # 128 KiB each time
        slow = follower(group)
        held: list[Packet] = []

        def late(packet: Packet) -> bool:
            if isinstance(packet, StateReport) and packet.sender == slow.member:
                held.append(packet)
                if len(held) > 1:
                    group.group.replicas[packet.to].receive([held[-2]])
                return True
            return False

        group.group.network.hold = late
        run(group, 60)
        assert len(held) > 20
        assert figures(group).differences == 0
        assert slow.member in figures(group).uncompared


def test_no_moment_is_kept_open_once_it_was_read(group: DrivenGroup) -> None:
    run(group, 10)
    open_now = [
        replica.machine.statistics()["snapshots"] for replica in group.group.replicas.values()
    ]
    assert open_now == [0, 0, 0]


def test_a_read_that_takes_long_is_waited_for_and_states_are_compared_meanwhile() -> None:
    work = LaterWork("compare")
    with DrivenGroup(options=OPTIONS, work=work) as group:
        group.put(b"k", b"v")
        run(group, 6)
        assert len(work.jobs) == 3, "one a member, however often it is asked"
        work.do()
        within(group, lambda: group.leader().comparing._compared_at, seconds=6)
        run(group, 4)
        assert figures(group).differences == 0


@pytest.mark.parametrize("busy", [False, True])
def test_one_difference_costs_one_repair(group: DrivenGroup, busy: bool) -> None:
    run(group, 5)
    victim = follower(group)
    change_stored_bytes(victim)
    within(group, lambda: victim.repair.under_way)
    for number in range(int(60 / TICK_S)):
        leader = group.group.leader_replica()
        if busy and leader is not None:
            command = put_of(f"r{number}", b"w%d" % (number % 50), b"x")
            leader.propose(group.encoded(command), lambda _: None)
        # Under load, the newest entry isn't on all disks yet when a tick comes.
        group.group.turn()
        group.group.tick()
        group.group.turn()
        for replica in group.group.replicas.values():
            if replica.storage_busy:
                replica.sync_storage()
        group.group.turn()
        group.steps += 1
    assert (victim.counters.repairs_started, victim.counters.repairs_done) == (1, 1)
    within(group, lambda: not accusations(group))
    assert len(group.hashes()) == 1


# --- members that lie ----------------------------------------------------------------------------

Lie = Callable[[StateReport], list[StateReport]]


def other_rows(report: StateReport) -> StateReport:
    rows = report.rows
    return report if rows is None else replace(report, rows=rows._replace(crc=rows.crc ^ 1))


def other_outcomes(report: StateReport) -> StateReport:
    state = report.state
    return report if state is None else replace(report, state=(state[0] ^ 1, state[1]))


def lie(group: DrivenGroup, liar: int, how: Lie, late: frozenset[int] = frozenset()) -> None:
    """One member tells of its state what it likes; others' words don't arrive."""

    def hold(packet: Packet) -> bool:
        if not isinstance(packet, StateReport):
            return False
        if packet.sender == liar:
            group.group.replicas[packet.to].receive(list(how(packet)))
            return True
        return packet.sender in late

    group.group.network.hold = hold


LIES: dict[str, Lie] = {
    "rows": lambda report: [other_rows(report)],
    "outcomes": lambda report: [other_outcomes(report)],
    "both": lambda report: [other_rows(other_outcomes(report))],
    "each time another": lambda report: [
        replace(report, state=(report.round * 7919, 1 + report.round))
    ],
    "several words": lambda report: [other_outcomes(report), report, other_rows(report)],
    "about another entry": lambda report: [
        replace(other_outcomes(report), index=report.index - 1),
        report,
    ],
}


@pytest.mark.parametrize("how", LIES)
def test_a_liar_is_accused_alone_and_never_as_if_nobody_knew_who_is_right(
    group: DrivenGroup, how: str
) -> None:
    run(group, 5)
    liar = follower(group)
    told = accusations(group)
    lie(group, liar.member, LIES[how])
    last = group.steps + 40 / TICK_S
    while group.steps < last:
        group.step()
        for member, accusation in figures(group).accused.items():
            assert member == liar.member
            assert accusation.is_attributed
            assert not accusation.is_unattributed
    assert {member for member, _ in told} <= {liar.member}
    assert bool(told) == (how != "about another entry")
    assert all(
        replica.counters.repairs_started == 0
        for replica in group.group.replicas.values()
        if replica is not liar
    )
    assert group.failed == {}


def test_where_who_would_decide_is_there_and_does_not_tell_nobody_is_known_to_be_wrong(
    group: DrivenGroup,
) -> None:
    """Busy, of an older version, being repaired: its vote counts, so its word would."""
    run(group, 5)
    leader, liar = group.leader(), follower(group)
    (silent,) = group.group.replicas.keys() - {leader.member, liar.member}
    lie(group, liar.member, LIES["outcomes"], late=frozenset({silent}))
    within(group, lambda: figures(group).accused)
    last = group.steps + 40 / TICK_S
    while group.steps < last:
        group.step()
        for accusation in figures(group).accused.values():
            assert not accusation.is_attributed
            assert not accusation.is_unattributed
            assert "didn't tell" in accusation.why
    lie(group, liar.member, LIES["outcomes"])
    within(group, lambda: [*figures(group).accused] == [liar.member])
    assert figures(group).accused[liar.member].is_attributed


def test_where_who_would_decide_is_away_nobody_knows_who_is_right(group: DrivenGroup) -> None:
    """Nor can anything be written without the one that differs."""
    run(group, 5)
    leader, liar = group.leader(), follower(group)
    (away,) = group.group.replicas.keys() - {leader.member, liar.member}
    lie(group, liar.member, LIES["rows"])
    group.group.network.isolate(away, [leader.member, liar.member])

    def nobody_knows() -> bool:
        accused = figures(group).accused
        return bool(accused) and all(one.is_unattributed for one in accused.values())

    within(group, nobody_knows, seconds=30)
    assert set(figures(group).accused) == {leader.member, liar.member}


def test_a_member_that_differs_for_long_does_not_keep_the_others_from_being_compared(
    group: DrivenGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        group.put(b"large%d" % number, bytes(16 << 10))
    for replica in group.group.replicas.values():
        replica.comparing._round_s = 1e6
    run(group, 5)
    liar = follower(group)
    lie(group, liar.member, LIES["rows"])
    # As one that doesn't repair itself, either.
    monkeypatch.setattr(liar.comparing, "_differs", lambda: None)
    starts: list[bytes] = []
    tell = group.group.network.hold
    assert tell is not None

    def watch(packet: Packet) -> bool:
        if isinstance(packet, StateProbe):
            starts.append(packet.start)
        return tell(packet)

    group.group.network.hold = watch
    within(group, lambda: liar.member in figures(group).accused)
    within(group, lambda: starts.count(b"") > 2, seconds=90)
    assert len(set(starts)) >= 6, "all rows have had their turn"
    assert list(figures(group).accused) == [liar.member]
    assert figures(group).accused[liar.member].times > 3, "and it is accused all the same"


def test_a_suspect_that_says_no_more_of_its_rows_holds_nobody_up_for_long(
    group: DrivenGroup,
) -> None:
    for number in range(60):
        group.put(b"large%d" % number, bytes(16 << 10))
    for replica in group.group.replicas.values():
        replica.comparing._round_s = 1e6
    run(group, 5)
    leader, liar = group.leader(), follower(group)
    lied: list[int] = []

    def once(report: StateReport) -> list[StateReport]:
        lied.append(report.round)
        return [other_rows(report) if len(lied) < 2 else replace(report, rows=None)]

    lie(group, liar.member, once)
    within(group, lambda: leader.comparing._suspects)
    cursors = set()
    last = group.steps + 60 / TICK_S
    while group.steps < last:
        group.step()
        cursors.add(leader.comparing._cursor)
    assert len(cursors) >= 6
    assert figures(group).accused == {}
