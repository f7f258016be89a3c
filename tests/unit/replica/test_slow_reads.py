"""A leader whose disk answers no reads lets another one lead, whoever asked it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvstore.replica import Replica
from kvstore.replica.applying import FLUSH_PATIENCE
from tests.unit.replica.driven_group import SMALL, DrivenGroup, LaterWork, delete_of


def test_a_leader_whose_reads_hang_hands_over_and_may_lead_again() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        leader.reads_take(600)
        driven.until(lambda: leader.storage_trouble)
        driven.until(lambda: not leader.is_leader)
        assert driven.leader() is not leader
        leader.reads_take(0)
        driven.until(lambda: not leader.storage_trouble)
        assert not driven.failed


def claim(replica: Replica, **figures: object) -> None:
    """Let its engine say so of itself."""
    machine, told = replica.machine, replica.machine.statistics
    machine.statistics = lambda: told() | figures  # type: ignore[method-assign]


def wait_for_room(replica: Replica, frozen: int) -> None:
    """It has none, and so many memtables wait for a flush; with none it's for a compaction."""
    replica.machine.has_room = lambda: False  # type: ignore[method-assign]
    claim(replica, frozen_memtables=frozen)


@pytest.mark.parametrize("kind", ["keys", "room"])
def test_a_leader_whose_apply_waits_for_its_disk_hands_over(kind: str) -> None:
    """Its log takes writes all along; but none of them is answered, and reads wait for them."""
    options = replace(SMALL, engine=replace(SMALL.engine, lru_cache_size=0))
    with DrivenGroup(options=options) as driven:
        driven.put(b"k", b"v")
        driven.settle()
        leader = driven.leader()
        leader.machine.flush()
        work = LaterWork(kind)
        leader._jobs._work = work
        if kind == "room":
            wait_for_room(leader, frozen=1)
        leader.propose(driven.encoded(delete_of("d", b"k")), lambda outcome: None)
        driven.until(lambda: work.jobs)
        driven.until(lambda: leader.storage_trouble)
        driven.until(lambda: not leader.is_leader)
        assert driven.put(b"l", b"v")
        if kind == "keys":
            work.do()
            driven.until(lambda: not leader.storage_trouble)
            driven.settle()
        assert not driven.failed


def test_a_leader_whose_flush_hangs_hands_over_though_there_is_room_for_more() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        claim(leader, frozen_memtables=1)
        ticks = driven.steps
        driven.until(lambda: leader.storage_trouble)
        election_ticks = leader.options.raft.election_ticks
        assert driven.steps - ticks >= 2 * FLUSH_PATIENCE * election_ticks
        driven.until(lambda: not leader.is_leader)
        assert driven.put(b"k", b"v") == [False]
        claim(leader, frozen_memtables=0)
        driven.until(lambda: not leader.storage_trouble)
        assert not driven.failed


@pytest.mark.parametrize("lately", ["flushed", "refused"])
def test_flushes_that_end_or_lack_room_are_none_that_hang(lately: str) -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        election_ticks = leader.options.raft.election_ticks
        for number in range(3 * FLUSH_PATIENCE * election_ticks):
            if number % 100 == 0:
                told = {"flushes": number} if lately == "flushed" else {"background_error": "full"}
                claim(leader, frozen_memtables=1, **told)
            driven.step()
            assert not leader.storage_trouble


def test_a_compaction_that_takes_long_is_no_disk_that_hangs() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        leader._jobs._work = work = LaterWork("room")
        wait_for_room(leader, frozen=0)
        leader.propose(driven.encoded(delete_of("d", b"k")), lambda outcome: None)
        driven.until(lambda: work.jobs)
        for _ in range(1000):
            driven.step()
        assert leader.is_leader
        assert not leader.storage_trouble


def test_what_takes_gigabytes_is_no_disk_that_hangs() -> None:
    work = LaterWork("verify")
    with DrivenGroup(work=work) as driven:
        leader = driven.leader()
        leader._transfers._verify()
        assert work.jobs
        for _ in range(200):
            driven.step()
        assert leader.is_leader
        assert not leader.storage_trouble


def test_readers_do_not_hide_what_another_one_waits_for() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        leader.reads_take(600, "etcd")
        leader.reads_take(0)
        driven.until(lambda: leader.storage_trouble)
        leader.reads_take(0, "etcd")
        driven.until(lambda: not leader.storage_trouble)
        assert not driven.failed
