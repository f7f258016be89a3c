"""All that a member holds is read and checked, slowly, and damage is found by it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import Options as EngineOptions
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.raft import Membership
from kvstore.replica import Identity, Replica, ReplicaOptions
from kvstore.replica.scrub import PAUSE_PARTS, RETRY_S
from kvstore.replica.scrub_rate import BYTES_PER_S_MAX, BYTES_PER_S_MIN, bytes_per_s
from kvstore.state import encode_commands
from tests.unit.replica.driven_group import SMALL, TICK_S, DrivenGroup, LaterWork, put_of

OPTIONS = replace(
    SMALL,
    scrub_round_s=1.0,
    segment_bytes=16 << 10,
    log_tail_bytes=1 << 30,
    engine=EngineOptions(wal=False, background=False, write_buffer_size=64 << 10),
)


class Alone:
    """A lone member on a memory disk, driven step by step."""

    def __init__(
        self,
        disk: MemoryFileSystem | None = None,
        *,
        options: ReplicaOptions = OPTIONS,
        work: LaterWork | None = None,
        wall: Callable[[], float] = lambda: 1000.0,
    ) -> None:
        self.disk = disk or MemoryFileSystem()
        self.damages: list[StorageError] = []
        self.steps = 0
        self.replica = Replica(
            Identity("alone", 1),
            "/member",
            self,
            options=options,
            rng=random.Random(1),
            wake=lambda: None,
            founders=Membership(voters=frozenset({1})) if disk is None else None,
            filesystem=self.disk,
            threaded=False,
            work=work,
            now=lambda: self.steps * TICK_S,
            wall=wall,
        )
        self.replica.scrub._damaged = self.damages.append
        self.step()

    def send(self, packets: object) -> None:
        """There is nobody."""

    def step(self) -> None:
        replica = self.replica
        replica.turn()
        while replica.storage_busy:
            replica.sync_storage()
            replica.turn()
        replica.tick()
        self.steps += 1

    def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        last = self.steps + seconds / TICK_S
        while not condition():
            assert self.steps < last, self.replica.scrub.figures()
            self.step()

    def run(self, seconds: float) -> None:
        last = self.steps + seconds / TICK_S
        self.until(lambda: self.steps >= last, seconds + 1)

    def fill(self, first: int = 0, rows: int = 300) -> None:
        self.until(lambda: self.replica.is_leader)
        for number in range(first, first + rows):
            command = put_of(
                f"p{number}", b"key%05d" % number, random.Random(number).randbytes(400)
            )
            done: list[object] = []
            self.replica.propose(encode_commands([command]), done.append)
            self.until(lambda done=done: done)

    def rounds(self) -> int:
        return self.replica.scrub.figures().rounds

    def paths(self, ending: str) -> list[str]:
        return sorted(path for path in self.disk.files("/member") if path.endswith(ending))

    def close(self) -> None:
        self.replica.close()


def filled(**options: object) -> Alone:
    alone = Alone(**options)  # type: ignore[arg-type]
    alone.fill()
    alone.replica.machine.flush()
    return alone


def test_a_round_reads_each_file_once_and_the_next_one_follows() -> None:
    alone = Alone()
    alone.fill(rows=200)  # fewer than are merged into one table
    alone.replica.machine.flush()
    assert len(alone.paths(".wal")) > 5
    assert len(alone.paths(".sst")) >= 2
    alone.until(lambda: alone.rounds() == 1)
    figures = alone.replica.scrub.figures()
    held = sum(alone.disk.size(path) for path in alone.paths(".sst"))
    assert figures.bytes > held
    assert (figures.damages, figures.ended_s) == (0, 0.0)
    alone.until(lambda: alone.rounds() == 3)
    assert alone.damages == []
    alone.close()


def test_a_flipped_bit_in_any_kind_of_file_is_found_and_told_with_its_place() -> None:
    alone = filled()
    for path in (
        alone.paths(".sst")[0],
        alone.paths(".wal")[2],
        *(path for path in alone.paths("") if "MANIFEST" in path or "IDENTITY" in path),
    ):
        alone.damages.clear()
        alone.disk.flip_bit(path, 60)
        alone.until(lambda: alone.damages)
        alone.disk.flip_bit(path, 60)
        rounds = alone.rounds()
        alone.until(lambda rounds=rounds: alone.rounds() > rounds)
        # A segment's header is looked at from the one before it as well.
        assert {damage.path for damage in alone.damages} == {path}
        assert alone.replica.scrub.damage is alone.damages[-1]
    alone.close()


def test_what_is_written_now_is_no_damage() -> None:
    alone = filled()
    rounds = alone.rounds()
    number = 1000
    while alone.rounds() < rounds + 3:
        # Flushes, compactions, new segments; the log's old ones go and are used anew.
        alone.fill(number, 20)
        alone.replica.machine.flush()
        number += 20
        if number % 100 == 0:
            alone.replica.machine._db.compact_range()
            alone.replica._log._log.remove_before(alone.replica.machine.applied_index - 50)
        assert number < 10_000
    assert alone.damages == []
    alone.close()


def test_a_segment_that_is_used_anew_while_it_is_read_is_no_damage() -> None:
    alone = filled()
    scrub = alone.replica.scrub
    alone.until(lambda: scrub._round is not None and scrub._round.items[0].place[0] == 2)
    alone.until(lambda: scrub._round is not None and scrub._round.check is not None)
    log = alone.replica._log._log
    log.remove_before(alone.replica.machine.applied_index)
    rounds = alone.rounds()
    alone.fill(2000, 50)
    alone.until(lambda: alone.rounds() > rounds)
    assert alone.damages == []
    alone.close()


def test_it_goes_on_after_a_restart_where_it_was() -> None:
    alone = filled(options=replace(OPTIONS, scrub_round_s=1e4))
    scrub = alone.replica.scrub
    scrub._save_ticks = 1
    alone.until(lambda: scrub._place[0] == 2, seconds=60)
    place = scrub._place
    alone.run(1)
    alone.close()
    again = Alone(alone.disk)
    assert again.replica.scrub._place >= place
    again.until(lambda: again.rounds() == 1)
    assert again.replica.scrub.figures().ended_s == 0.0
    again.close()
    later = Alone(alone.disk, wall=lambda: 1060.0)
    assert later.replica.scrub.figures().ended_s == 60.0, "when a round ended is remembered"
    assert later.replica.scrub._place == (0, 0)
    later.close()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 200, None], ids=["cut", "other", "gone"])
def test_a_lost_or_damaged_note_of_it_begins_the_round_anew(content: bytes | None) -> None:
    alone = filled()
    alone.until(lambda: alone.rounds() == 1)
    alone.run(2)
    alone.close()
    if content is None:
        alone.disk.remove_file("/member/SCRUB")
    else:
        alone.disk.write_file("/member/SCRUB", content)
    again = Alone(alone.disk)
    assert again.replica.scrub.figures().ended_s == -1.0
    again.until(lambda: again.rounds() == 1)
    again.close()


def test_a_device_that_cannot_read_a_table_is_damage_of_that_table() -> None:
    alone = filled()
    path = alone.paths(".sst")[0]
    alone.disk.fail("pread", 5, always=True, path=path)
    alone.until(lambda: alone.damages)
    assert alone.damages[0].path == path
    assert alone.damages[0].code is IntegrityCode.IO_ERROR
    assert isinstance(alone.damages[0], CorruptionError), "so it is repaired"
    alone.disk.heal()
    alone.close()


def test_a_lack_of_descriptors_is_waited_for_and_no_damage() -> None:
    alone = filled()
    alone.disk.fail("open", 24, always=True, path="/member/state-00000000000000000000/CURRENT")
    rounds = alone.rounds()
    alone.run(5 * RETRY_S)
    assert alone.rounds() <= rounds + 1
    alone.disk.heal()
    alone.until(lambda: alone.rounds() > rounds + 1)
    assert alone.damages == []
    alone.close()


def test_it_gives_way_to_other_work_but_not_for_ever() -> None:
    alone = filled()
    scrub = alone.replica.scrub
    asked = [0]

    def busy() -> bool:
        asked[0] += 1
        return True

    scrub._gives_way = busy
    alone.run(RETRY_S)
    before = scrub.figures().bytes
    alone.run(30)
    assert scrub.figures().bytes == before
    assert asked[0] > 100
    alone.run(600)
    assert scrub.figures().bytes > before
    alone.close()


def test_it_reads_no_faster_than_its_rate() -> None:
    alone = filled(options=replace(OPTIONS, scrub_round_s=1e4))
    alone.run(RETRY_S)
    before = alone.replica.scrub.figures().bytes
    alone.run(4)
    read = alone.replica.scrub.figures().bytes - before
    # One piece may be ahead of its time.
    assert 0 < read <= 4 * BYTES_PER_S_MIN + (300 << 10)
    alone.close()


def test_the_rate_has_bounds() -> None:
    week = 7 * 24 * 3600
    assert bytes_per_s(0, week) == BYTES_PER_S_MIN
    assert bytes_per_s(600 << 30, week) == pytest.approx((600 << 30) / week)
    assert bytes_per_s(1 << 50, week) == BYTES_PER_S_MAX


def test_switched_off_it_reads_nothing() -> None:
    alone = filled(options=replace(OPTIONS, scrub_round_s=0.0))
    alone.run(60)
    assert alone.replica.scrub.figures() == (-1.0, 0, -1.0, 0, 0)
    assert not alone.disk.exists("/member/SCRUB")
    alone.close()


@pytest.mark.parametrize("round_s", [0.0, 1e6])
def test_a_hurried_round_is_over_at_once_and_begins_anew(round_s: float) -> None:
    alone = filled(options=replace(OPTIONS, scrub_round_s=round_s))
    scrub = alone.replica.scrub
    scrub._gives_way = lambda: True
    rounds = alone.rounds()
    scrub.hurry()
    alone.until(lambda: alone.rounds() > rounds, seconds=2)
    assert alone.damages == []
    before = scrub.figures().bytes
    alone.disk.flip_bit(alone.paths(".sst")[0], 60)
    scrub.hurry()
    alone.until(lambda: alone.rounds() > rounds + 1, seconds=2)
    assert [damage.path for damage in alone.damages] == [alone.paths(".sst")[0]]
    assert scrub.figures().bytes > before
    alone.run(30)
    assert alone.rounds() == rounds + 2, "and then it goes on as before"
    alone.close()


def test_one_piece_is_under_way_at_a_time_and_its_disk_may_hang() -> None:
    work = LaterWork("scrub")
    alone = Alone(work=work)
    alone.fill()
    alone.replica.machine.flush()
    alone.run(60)
    assert len(work.jobs) == 1
    assert not alone.replica.storage_trouble, "a scrub that waits says nothing of what is served"
    while alone.rounds() == 0:
        work.do()
        alone.step()
    assert alone.damages == []
    alone.close()


def test_damage_of_one_member_is_repaired_by_the_others() -> None:
    with DrivenGroup(options=replace(OPTIONS, compare_s=0.0)) as group:
        for number in range(200):
            group.put(b"k%d" % number, random.Random(number).randbytes(300))
        victim = next(r for r in group.group.replicas.values() if r is not group.leader())
        victim.machine.flush()
        (path, *_) = sorted(
            path for path in group.disk.files(f"/data/node{victim.member}") if path.endswith(".sst")
        )
        group.disk.flip_bit(path, 3000)
        group.until(lambda: victim.repair.under_way)
        assert path in victim.repair.under_way
        group.until(lambda: victim.counters.repairs_done == 1)
        group.settle()
        rounds = victim.scrub.figures().rounds
        group.until(lambda: victim.scrub.figures().rounds > rounds)
        assert victim.scrub.figures().damages == 1
        assert group.failed == {}


def test_between_rounds_of_a_small_store_lies_a_part_of_a_rounds_time() -> None:
    week = 7 * 24 * 3600.0
    alone = filled(options=replace(OPTIONS, scrub_round_s=week))
    alone.until(lambda: alone.rounds() == 1)
    alone.run(week / PAUSE_PARTS - 5)
    assert alone.rounds() == 1
    alone.until(lambda: alone.rounds() == 2)
    alone.close()


@pytest.mark.parametrize("copy", [0, 1])
@pytest.mark.parametrize("name", ["LOGEND", "END"])
def test_a_damaged_copy_of_a_note_of_an_end_is_found_told_and_written_anew(
    name: str, copy: int
) -> None:
    with DrivenGroup(options=OPTIONS) as group:
        for number in range(5):
            group.put(b"k", b"%d" % number)
        group.settle()
        for member in group.group.replicas.values():
            member.machine.flush()
            member.machine.flush()
        for _ in range(20):
            group.step()
        hurt = group.group.replicas[2]
        (path,) = [p for p in group.disk.files("/data/node2") if p.endswith(f"/{name}")]
        group.disk.flip_bit(path, 512 * copy + 50, 3)
        rounds, done = hurt.scrub.figures().rounds, hurt.counters.repairs_done
        hurt.check_all()
        group.until(lambda: hurt.scrub.figures().rounds > rounds)
        # A check begins a segment, and the note of that is written over the older copy.
        found = 0 if (name, copy) == ("LOGEND", 0) else 1
        assert hurt.scrub.figures().damages == found
        group.until(lambda: not hurt.repair.under_way)
        assert hurt.counters.repairs_done == done + found
        rounds = hurt.scrub.figures().rounds
        hurt.check_all()
        group.until(lambda: hurt.scrub.figures().rounds > rounds)
        assert hurt.scrub.figures().damages == found, "both are right now"
        assert hurt.counters.repairs_failed == 0
