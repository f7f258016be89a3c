"""A damaged table, made whole by the rows of another member while its own votes and serves on."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from functools import partial

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError, Error, UnavailableError
from kvstore.replica import Packet, RangeLoan, RangeWish, Replica
from kvstore.replica.range_repair import LACKS_S, SILENT_S
from tests.unit.replica.driven_group import TICK_S, DrivenGroup, LaterWork, into, put_of

KEYS = 400


def value(number: int) -> bytes:
    return random.Random(number).randbytes(300)


def key(number: int) -> bytes:
    return b"key-%04d" % number


def fill(group: DrivenGroup) -> None:
    """Some tables on every member, which came about at other moments, and something after them."""
    numbers = list(range(KEYS))
    random.Random(7).shuffle(numbers)
    for place, number in enumerate(numbers):
        group.put(key(number), value(number))
        if place % (KEYS // 2) == KEYS // 2 - 1:
            flush(group)
    for replica in group.group.replicas.values():
        replica.machine._db.compact_range()
    for number in range(0, KEYS, 25):
        group.put(key(number), value(number), f"anew-{number}")
    flush(group)
    group.put(b"after", b"the tables")
    group.settle()


def flush(group: DrivenGroup) -> None:
    group.settle()
    for replica in group.group.replicas.values():
        replica.machine.flush()


def follower(group: DrivenGroup) -> Replica:
    leader = group.leader().member
    return next(r for r in group.group.replicas.values() if r.member != leader)


def tables(replica: Replica) -> list[str]:
    """The largest first."""
    numbers = sorted(replica.machine.live_tables(), key=lambda table: table[::-1], reverse=True)
    state = f"{replica.directory.path}/{replica._applying.part}"
    return [f"{state}/{number:06d}.sst" for number, _ in numbers]


def damage(group: DrivenGroup, replica: Replica, table: int = 0, at: float = 0.5) -> str:
    """A bit of one of its tables."""
    path = tables(replica)[table]
    group.disk.flip_bit(path, int(len(group.disk.read_file(path)) * at), 3)
    return path


def find(replica: Replica) -> None:
    with pytest.raises(CorruptionError) as found:
        replica.machine.verify()
    assert isinstance(replica.read_failed(found.value), UnavailableError)


def stored(replica: Replica) -> int:
    return replica.machine.stored_bytes


def whole_again(group: DrivenGroup, replica: Replica, *, by_range: bool = True) -> None:
    group.until(lambda: not replica.repair.under_way and replica.counters.repairs_done)
    group.settle()
    assert group.failed == {}
    assert len(group.hashes()) == 1
    replica.machine.verify()
    rows = [[*r.machine._db] for r in group.group.replicas.values()]  # all that is stored
    assert rows[0] == rows[1] == rows[2]
    for number in range(KEYS):
        assert replica.machine.get(key(number)) == value(number)
    counters = replica.counters
    assert bool(counters.repairs_by_range) == by_range
    assert bool(counters.snapshots_received) != by_range
    if by_range:
        assert 0 < counters.repair_received_bytes < stored(replica) / 4


def test_a_followers_table_is_made_whole_while_writes_go_on() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt)
        find(hurt)
        hurt.turn()
        assert "rows of a table are being fetched" in hurt.repair.under_way
        number = 0
        while hurt.repair.under_way:
            assert group.put(b"more", b"%d" % number) in ([False], [True])
            number += 1
        whole_again(group, hurt)
        assert hurt.counters.repairs_started == hurt.counters.repairs_done == 1
        assert hurt.counters.repairs_failed == 0
        assert hurt.repair.fallen_back == ""


@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("at", [0.2, 0.4, 0.6, 0.8])
def test_damage_anywhere_among_the_rows_is_mended_and_a_restart_finds_nothing(
    table: int, at: float
) -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt, table, at)
        find(hurt)
        whole_again(group, hurt)
        disk = group.power_off()
    with DrivenGroup(disk, seed=2) as group:
        group.settle()
        assert len(group.hashes()) == 1
        for replica in group.group.replicas.values():
            replica.machine.verify()
            assert replica.counters.repairs_started == 0


def test_its_vote_and_its_log_count_meanwhile() -> None:
    work = LaterWork("replace")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt, leader = follower(group), group.leader()
        (away,) = set(group.group.replicas) - {hurt.member, leader.member}
        group.group.network.isolate(away, [hurt.member, leader.member])
        damage(group, hurt)
        find(hurt)
        group.until(lambda: work.jobs)
        group.put(b"needs", b"both")
        assert hurt.machine.get(b"needs") is None, "it stands still"
        work.kinds = ()
        work.do()
        group.until(lambda: not hurt.repair.under_way)
        group.group.network.heal()
        whole_again(group, hurt)


def test_a_leader_hands_over_and_is_answered_for() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = group.leader()
        damage(group, hurt)
        find(hurt)
        hurt.turn()
        answers: list[object] = []
        hurt.read(answers.append)
        hurt.propose(group.encoded(put_of("refused", b"k", b"v")), into(answers))
        assert len(answers) == 2
        assert all(isinstance(answer, UnavailableError) for answer in answers)
        group.until(lambda: group.leader().member != hurt.member or not hurt.repair.under_way)
        assert group.put(b"more", b"v") == [False]
        whole_again(group, hurt)


def test_damage_that_applying_meets_is_mended() -> None:
    """Whether a key of which only the disk knows has a value: the entry waits for the rows."""
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt)
        for number in range(KEYS):
            group.put(key(number), value(number), f"again-{number}")
        group.until(lambda: hurt.counters.repairs_done)
        whole_again(group, hurt)


def merge_at(group: DrivenGroup, replicas: list[Replica]) -> None:
    """Have them forget how the rows were: entries, and all of the engine merged."""
    for number in range(0, KEYS, 7):
        group.put(key(number), value(number), f"anew-{number}")
    for replica in replicas:
        replica.machine.flush()
        replica.machine._db.compact_range()


def test_who_has_merged_its_rows_since_says_no_and_another_one_is_asked() -> None:
    work = LaterWork("survey")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt, leader = follower(group), group.leader()
        damage(group, hurt)
        find(hurt)
        group.until(lambda: work.jobs)
        merge_at(group, [leader])
        work.kinds = ()
        work.do()
        whole_again(group, hurt)
        assert hurt.counters.repairs_failed == 1


def test_where_nobody_has_the_rows_any_more_the_whole_state_is_made_anew() -> None:
    work = LaterWork("survey")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt)
        find(hurt)
        group.until(lambda: work.jobs)
        merge_at(group, [r for r in group.group.replicas.values() if r is not hurt])
        work.kinds = ()
        work.do()
        group.until(lambda: hurt.repair.fallen_back)
        assert "made anew from the leader's" in hurt.repair.under_way
        assert "no other member" in hurt.repair.fallen_back
        whole_again(group, hurt, by_range=False)


def test_a_lender_with_the_same_damage_says_no_and_mends_itself() -> None:
    with DrivenGroup() as group:
        fill(group)
        disk = group.power_off()
    # Opened anew, since rows that the lender has in its cache are whole, and lent.
    with DrivenGroup(disk, seed=2) as group:
        group.settle()
        hurt, leader = follower(group), group.leader()
        damage(group, hurt)
        damage(group, leader)
        find(hurt)
        whole_again(group, hurt)
        group.until(lambda: leader.counters.repairs_done)
        whole_again(group, leader)


def test_much_damage_is_made_good_by_the_whole_state() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        for at in (0.1, 0.9):
            damage(group, hurt, at=at)
        find(hurt)
        group.until(lambda: hurt.repair.fallen_back)
        assert "bytes are damaged" in hurt.repair.fallen_back
        whole_again(group, hurt, by_range=False)


def test_other_records_than_rows_are_made_good_by_the_whole_state() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        group.disk.flip_bit(tables(hurt)[0], 200, 1)
        find(hurt)
        group.until(lambda: hurt.repair.fallen_back)
        assert "can lend" in hurt.repair.fallen_back
        whole_again(group, hurt, by_range=False)


def test_older_members_are_not_asked() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        asked: list[Packet] = []

        def note(packet: Packet) -> bool:
            if isinstance(packet, RangeWish):
                asked.append(packet)
            return False

        group.group.network.hold = note
        hurt._ranges._understands = lambda member: False
        damage(group, hurt)
        find(hurt)
        whole_again(group, hurt, by_range=False)
        assert not asked


def lenders_lose(group: DrivenGroup, members: list[int]) -> None:
    group.group.network.hold = lambda packet: (
        isinstance(packet, RangeLoan) and packet.sender in members
    )


def test_a_lender_that_says_nothing_is_left_for_another_one() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt, leader = follower(group), group.leader()
        lenders_lose(group, [leader.member])
        damage(group, hurt)
        find(hurt)
        began = group.steps
        group.until(lambda: hurt.counters.repairs_done)
        assert (group.steps - began) * TICK_S >= SILENT_S
        whole_again(group, hurt)
        group.group.network.release()
        whole_again(group, hurt)


def test_where_nobody_answers_the_whole_state_is_made_anew() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        lenders_lose(group, [*group.group.replicas])
        damage(group, hurt)
        find(hurt)
        whole_again(group, hurt, by_range=False)
        group.group.network.release()
        whole_again(group, hurt, by_range=False)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda part: part[:-1],
        lambda part: part + b"x",
        lambda part: b"",
        lambda part: part[:20] + bytes(8) + part[28:],
    ],
)
def test_a_lender_that_gives_what_makes_no_sense_is_left(
    spoil: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt, leader = follower(group), group.leader()
        take = hurt._ranges.take

        def spoiled(loan: RangeLoan) -> None:
            if loan.sender == leader.member:
                loan = RangeLoan(
                    *(loan.sender, loan.to, loan.moment, loan.given, loan.start, loan.stop),
                    spoil(loan.part),
                )
            take(loan)

        monkeypatch.setattr(hurt._ranges, "take", spoiled)
        damage(group, hurt)
        find(hurt)
        whole_again(group, hurt)
        assert hurt.counters.repairs_failed == 1


@pytest.mark.parametrize("seed", range(4))
def test_packets_that_are_lost_doubled_and_reordered_do_no_harm(seed: int) -> None:
    rng = random.Random(seed)
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        network = group.group.network
        network.shuffle = rng
        again: list[Packet] = []

        def lose(packet: Packet) -> bool:
            if not isinstance(packet, RangeWish | RangeLoan):
                return False
            again.append(packet)
            return rng.random() < 0.5

        network.hold = lose
        hurt._ranges._resend_ticks = 2
        damage(group, hurt)
        find(hurt)
        while hurt.repair.under_way or not hurt.counters.repairs_done:
            group.step()
            if again and rng.random() < 0.3:
                network.send([rng.choice(again)])
        network.release()
        network.send(again)
        assert hurt.counters.repairs_by_range
        whole_again(group, hurt)


def test_another_table_damaged_as_well_has_its_turn() -> None:
    work = LaterWork("survey")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt = follower(group)
        paths = [damage(group, hurt, table, 0.5) for table in (0, 1)]
        for path in paths:
            hurt.damage_found(CorruptionError("block", code="CHECKSUM_MISMATCH", path=path))  # type: ignore[arg-type]
        group.until(lambda: work.jobs)
        work.kinds = ()
        work.do()
        group.until(lambda: not hurt.repair.under_way)
        whole_again(group, hurt)


def test_damage_of_no_table_has_its_turn_as_well_and_wants_the_whole_state() -> None:
    work = LaterWork("survey")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt = follower(group)
        path = damage(group, hurt)
        identity = f"{path.rpartition('/')[0]}/IDENTITY"
        group.disk.flip_bit(identity, 10, 3)
        for found in (path, identity, identity):
            hurt.damage_found(CorruptionError("block", code="CHECKSUM_MISMATCH", path=found))  # type: ignore[arg-type]
        group.until(lambda: work.jobs)
        work.kinds = ()
        work.do()
        group.until(lambda: not hurt.repair.under_way)
        assert hurt.counters.repairs_by_range == 1
        assert hurt.counters.snapshots_received == 1
        assert hurt.counters.repairs_started == 2
        assert not group.disk.exists(identity)
        group.settle()
        assert group.failed == {}
        assert len(group.hashes()) == 1


def test_what_a_compaction_cannot_read_is_mended_though_nobody_asks() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt, 1)
        for number in range(0, KEYS, 3):
            group.put(b"new-%04d" % number, value(number))
        group.settle()
        with pytest.raises(CorruptionError):
            hurt.machine._db.compact_range()
        assert not hurt.repair.under_way
        assert hurt.machine.damaged_tables
        whole_again(group, hurt)
        assert not hurt.machine.damaged_tables


@pytest.mark.parametrize("seed", range(24))
def test_power_lost_during_it_leaves_the_damage_or_none(seed: int) -> None:
    rng = random.Random(seed)
    states: list[MemoryFileSystem] = []
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt)
        keep = rng.choice(["none", "prefix", "random"])
        left = rng.randrange(1, 40)

        def called(operation: str, path: str) -> None:
            nonlocal left
            if f"node{hurt.member}/state" in path and operation not in ("pread", "size"):
                left -= 1
                if left == 0:
                    states.append(group.power_off(seed, keep))

        group.disk.on_operation = called
        find(hurt)
        whole_again(group, hurt)
        group.disk.on_operation = None
        disk = states[0] if states else group.power_off(seed, keep)
    with DrivenGroup(disk, seed=seed) as group:
        group.settle()
        again = group.group.replicas[hurt.member]
        try:
            again.machine.verify()
        except Error:
            if not again.repair.under_way:
                find(again)
            group.until(lambda: again.counters.repairs_done)
        group.settle()
        again.machine.verify()
        assert len(group.hashes()) == 1
        assert group.failed == {}


def test_a_snapshot_that_the_core_needs_meanwhile_is_installed() -> None:
    work = LaterWork("replace")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt)
        find(hurt)
        group.until(lambda: work.jobs)
        others = [member for member in group.group.replicas if member != hurt.member]
        group.group.network.isolate(hurt.member, others)
        for number in range(600):
            group.put(b"more-%03d" % number, bytes(300))
        for member in others:
            group.group.replicas[member].machine.flush()
        for _ in range(100):
            group.step()
        group.group.network.heal()
        group.until(lambda: hurt.counters.snapshots_received)
        group.until(lambda: not hurt.repair.under_way)
        work.kinds = ()
        work.do()
        group.settle()
        assert group.failed == {}
        assert len(group.hashes()) == 1
        hurt.machine.verify()
        assert hurt.counters.repairs_by_range == 0


def test_a_full_disk_is_waited_for_and_then_the_whole_state_is_wanted() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt)
        fail = partial(group.disk.fail, "pwrite", errno.ENOSPC, always=True)
        fail(path=f"{hurt.directory.path}/state")
        find(hurt)
        began = group.steps
        for _ in range(int(3 / TICK_S)):
            group.step()
        assert hurt._ranges.is_under_way
        group.disk.heal()
        whole_again(group, hurt)
        damage(group, hurt)
        fail(path=f"{hurt.directory.path}/state")
        find(hurt)
        began = group.steps
        group.until(lambda: hurt.repair.fallen_back)
        assert (group.steps - began) * TICK_S >= LACKS_S
        group.disk.heal()
        group.until(lambda: hurt.counters.repairs_done == 2)
        group.settle()
        hurt.machine.verify()
        assert group.failed == {}


def test_damage_of_a_table_that_was_replaced_meanwhile_is_of_no_consequence() -> None:
    """Somebody had begun to read it before."""
    with DrivenGroup() as group:
        fill(group)
        hurt = follower(group)
        path = damage(group, hurt)
        find(hurt)
        whole_again(group, hurt)
        told = CorruptionError("block", code="CHECKSUM_MISMATCH", path=path)  # type: ignore[arg-type]
        hurt.damage_found(told)
        group.settle()
        assert not hurt.repair.under_way
        whole_again(group, hurt)
        assert hurt.counters.repairs_started == 1


def test_who_lends_and_is_damaged_himself_lends_no_more() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt, leader = follower(group), group.leader()
        damage(group, hurt)
        find(hurt)
        whole_again(group, hurt)
        assert leader._lending._loans
        damage(group, leader)
        find(leader)
        began = group.steps
        whole_again(group, leader)
        assert (group.steps - began) * TICK_S < 2, "what it held was not in its way"


def test_closing_meanwhile_ends_it() -> None:
    work = LaterWork("replace", "range for")
    with DrivenGroup(work=work) as group:
        fill(group)
        hurt = follower(group)
        damage(group, hurt)
        find(hurt)
        group.until(lambda: work.jobs)
        hurt.close()
        work.do()
        group.step()


def test_who_asks_nothing_more_is_forgotten() -> None:
    with DrivenGroup() as group:
        fill(group)
        hurt, leader = follower(group), group.leader()
        damage(group, hurt)
        find(hurt)
        whole_again(group, hurt)
        assert leader._lending._loans
        group.until(lambda: not leader._lending._loans)
        assert not leader.machine._db.stats().get("snapshots", 0)


def test_questions_of_strangers_and_of_the_future_are_left_alone() -> None:
    with DrivenGroup() as group:
        fill(group)
        leader, other = group.leader(), follower(group)
        moment = leader.machine.moment
        for wish in (
            RangeWish(77, leader.member, moment, b"\x01", b"\x02"),
            RangeWish(leader.member, leader.member, moment, b"\x01", b"\x02"),
            RangeWish(
                other.member,
                leader.member,
                moment._replace(applied=moment.applied + 1),
                b"\x01",
                b"\x02",
            ),
        ):
            leader.receive([wish])
            assert not leader._lending._loans
        for never in (
            moment._replace(revision=moment.revision + 1),
            moment._replace(keep_from=moment.revision + 1),
            moment._replace(keep_from=0),
            moment._replace(compacted=5),
        ):
            leader.receive([RangeWish(other.member, leader.member, never, b"\x01", b"\x02")])
            assert not leader._lending._loans
        group.settle()
