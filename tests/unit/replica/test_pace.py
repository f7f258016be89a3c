"""Catching up gives way to those who write, and is done with nevertheless."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from kvstore.raft import Role
from kvstore.replica.pace import FLOOR_BYTES_PER_S, PAUSE_S, SLOWDOWN, Pace
from tests.unit.replica.driven_group import SMALL, TICK_S, DrivenGroup
from tests.unit.replica.test_catching_up import AWAY, VALUE, isolate, write

MIB = 1 << 20
LIMIT = 256 * MIB


class Driven:
    """A pace, its clock, and a leader whose entries take ``commit_s`` and come at a rate."""

    def __init__(self, limit: int = LIMIT, role: Role = Role.LEADER) -> None:
        self.time = 0.0
        self.role = role
        self.commit = 0
        self.last = 0
        self.written = 1
        self.sent = 0
        self.pace = Pace(cast("Any", self), limit, lambda: self.time)

    @property
    def last_entry(self) -> tuple[int, int]:
        return 1, self.last

    def run(
        self, seconds: float, *, commit_s: float = 0.0, incoming: int = 0, behind: bool = False
    ) -> int:
        """So many seconds; bytes that were sent for catching up. ``commit_s`` 0: no load."""
        before = self.sent
        for _ in range(round(seconds / TICK_S)):
            if commit_s:
                self.last += 1
                self.pace.look()
                self.time += commit_s
                self.commit = self.last
                self.pace.look()
            self.time += TICK_S - commit_s
            self.written += round(incoming * TICK_S)
            self.pace.tick(self.written)
            while behind and self.pace.allows:
                self.pace.spend(MIB)
                self.sent += MIB
        return self.sent - before


def test_nobody_waits_so_it_goes_as_fast_as_it_may() -> None:
    driven = Driven()
    driven.run(2)
    assert driven.run(4, behind=True) == pytest.approx(4 * LIMIT, rel=0.05)


def test_without_a_limit_it_never_waits() -> None:
    driven = Driven(0)
    driven.pace.spend(1 << 40)
    driven.run(1, commit_s=0.04)
    assert driven.pace.allows


def test_under_load_it_begins_carefully_and_becomes_faster_while_all_is_well() -> None:
    driven = Driven()
    driven.run(4, commit_s=0.01)
    first = driven.run(1, commit_s=0.01, behind=True)
    assert FLOOR_BYTES_PER_S / 2 < first < 3 * FLOOR_BYTES_PER_S
    driven.run(6, commit_s=0.01, behind=True)
    assert driven.pace.rate == LIMIT


def test_it_gives_way_when_commits_take_longer_than_usual() -> None:
    driven = Driven()
    driven.run(4, commit_s=0.01)
    driven.run(8, commit_s=0.01, behind=True)
    assert driven.pace.rate == LIMIT
    driven.run(3, commit_s=0.01 * SLOWDOWN * 0.9, behind=True)
    assert driven.pace.rate == LIMIT
    driven.run(3, commit_s=0.01 * SLOWDOWN * 1.2, behind=True)
    assert driven.pace.rate < LIMIT / 8
    # What is usual is what it was without: not what catching up has made of it.
    driven.run(10, commit_s=0.01 * SLOWDOWN * 1.2, behind=True)
    assert driven.pace.rate < LIMIT / 8


def test_it_is_faster_than_what_comes_in_however_long_commits_take() -> None:
    driven = Driven()
    incoming = 20 * MIB
    driven.run(4, commit_s=0.005, incoming=incoming)
    driven.run(4, commit_s=0.045, incoming=incoming, behind=True)
    sent = driven.run(4, commit_s=0.045, incoming=incoming, behind=True)
    assert 4 * 1.8 * incoming < sent < 4 * 3 * incoming


def test_a_snapshot_is_done_before_the_log_that_follows_it_is_gone() -> None:
    """However much it is: else the next one would be needed, and so on for ever."""
    driven = Driven()
    incoming, kept, total = 2 * MIB, 100 * MIB, 1000 * MIB
    driven.run(4, commit_s=0.045, incoming=incoming)
    driven.pace.outrun(total, kept)
    driven.run(1, commit_s=0.045, incoming=incoming, behind=True)
    sent = driven.run(kept / incoming / 2, commit_s=0.045, incoming=incoming, behind=True)
    assert sent >= total


def test_the_limit_holds_whatever_comes_in() -> None:
    driven = Driven(4 * MIB)
    driven.run(4, commit_s=0.045, incoming=20 * MIB)
    sent = driven.run(8, commit_s=0.045, incoming=20 * MIB, behind=True)
    assert sent == pytest.approx(8 * 4 * MIB, rel=0.1)


def test_what_a_follower_waits_for_tells_nothing() -> None:
    driven = Driven(role=Role.FOLLOWER)
    driven.run(4, commit_s=0.045)
    driven.run(4, commit_s=0.045, behind=True)
    assert driven.pace.rate == LIMIT


def test_a_loop_that_was_held_up_gets_no_burst_for_it() -> None:
    driven = Driven()
    driven.run(2)
    driven.time += 100 * PAUSE_S
    assert driven.run(TICK_S, behind=True) < LIMIT * 0.11


@pytest.mark.parametrize("log_tail_bytes", [0, 4 * MIB])
def test_catching_up_takes_as_long_as_the_limit_makes_it(log_tail_bytes: int) -> None:
    options = replace(
        SMALL,
        raft=replace(SMALL.raft, inflight_bytes_max=16 << 10),
        log_tail_bytes=log_tail_bytes,
        catch_up_bytes_per_s=20_000,
        snapshot_part_bytes=1000,
    )
    with DrivenGroup(options=options) as group:
        isolate(group)
        write(group, 600, 0)
        group.group.network.heal()
        began = group.steps
        group.settle()
        leader = group.leader()
        moved = leader.counters.snapshot_sent_bytes or 600 * len(VALUE)
        seconds = (group.steps - began) * TICK_S
        assert moved > 100_000
        assert moved / 20_000 - 2 < seconds
        assert group.group.replicas[AWAY].counters.snapshots_received == (log_tail_bytes == 0)
        assert len(group.hashes()) == 1
