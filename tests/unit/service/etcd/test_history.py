"""What history is compacted by itself, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.history import SAVE_S, History, Mark, Retention, Service
from kvstore.state.mvcc.requests import AlarmKind, Compact, Operation


class Member:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.log_bytes = 0

    def log_time_ms(self) -> int:
        return int(self.stage.time * 1000)


class Kept:
    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def load(self) -> Sequence[Mark]:
        return self.marks

    def save(self, marks: Sequence[Mark]) -> None:
        self.marks = [*marks]


class Machine:
    clock_ms = 0
    revision = 1
    compacted = -1
    alarms: frozenset[tuple[int, int]] = frozenset()


class Stage:
    """A service whose time, revision and log a test moves on."""

    def __init__(self, retention: Retention) -> None:
        self.time = 0.0
        self.member = Member(self)
        self.machine = Machine()
        self.is_leader = True
        self.model_enabled = True
        self.compacts = True
        self.asked: list[int] = []
        self.retention = retention
        self.kept = Kept()
        self.start()

    def start(self) -> None:
        """As a process that starts."""
        self.history = History(
            cast(Service, self), self.retention, self.kept, now=lambda: self.time
        )

    def propose_here(self, operation: Operation, done: Callable[[Any], None]) -> None:
        assert isinstance(operation, Compact)
        self.asked.append(operation.revision)
        if self.compacts:
            self.machine.compacted = operation.revision
            done(None)
        else:
            done(EtcdError(Reason.TIMED_OUT))

    def run(self, seconds: int, *, revisions: int = 1, size: int = 100) -> None:
        """So many seconds, with so many writes and bytes in each."""
        for _ in range(seconds):
            self.time += 1
            self.machine.revision += revisions
            self.member.log_bytes += size
            if size:
                self.machine.clock_ms = int(self.time * 1000)
            self.history.tick()


def test_what_is_older_than_the_retention_goes_and_nothing_younger():
    stage = Stage(Retention(160, 0, 0))
    stage.run(1000)
    age = stage.machine.revision - stage.machine.compacted
    assert 160 <= age <= 160 * 17 / 16 + 2
    assert stage.asked == sorted(stage.asked)


def test_a_flood_of_writes_is_bounded_before_its_time():
    stage = Stage(Retention(3600, 16_000, 0))
    stage.run(300, size=1000)
    kept = stage.machine.revision - stage.machine.compacted
    assert 16 <= kept <= 18


def test_a_bound_of_revisions():
    stage = Stage(Retention(0, 0, 50))
    stage.run(10, revisions=10)
    assert stage.machine.revision - stage.machine.compacted == 50


@pytest.mark.parametrize("retention", [Retention(0, 0, 0), Retention(10_000, 1 << 40, 0)])
def test_nothing_goes_without_a_bound_or_before_it(retention):
    stage = Stage(retention)
    stage.run(2000)
    assert stage.asked == []


def test_a_follower_takes_note_and_leaves_it_to_the_leader():
    stage = Stage(Retention(100, 0, 0))
    stage.is_leader = False
    stage.run(500)
    assert stage.asked == []
    stage.is_leader = True
    stage.run(1)
    (asked,) = stage.asked
    assert stage.machine.revision - asked >= 100


def test_what_failed_is_tried_again():
    stage = Stage(Retention(100, 0, 0))
    stage.compacts = False
    stage.run(150)
    assert len(stage.asked) > 1
    stage.compacts = True
    stage.run(1)
    assert stage.machine.compacted == stage.asked[-1]


def test_nothing_is_compacted_while_the_model_is_off_or_nothing_was_written():
    stage = Stage(Retention(100, 0, 10))
    stage.model_enabled = False
    stage.run(300)
    assert stage.asked == []
    idle = Stage(Retention(100, 0, 0))
    idle.run(1000, revisions=0, size=0)
    assert idle.asked == []


def test_another_local_member_is_counted_anew():
    stage = Stage(Retention(0, 10_000, 0))
    stage.run(50, size=100)
    stage.member = Member(stage)
    stage.run(50, size=100)
    assert stage.asked == []
    stage.run(100, size=100)
    assert stage.asked != []


def test_few_samples_are_kept_however_long_it_runs():
    stage = Stage(Retention(160, 16_000, 0))
    stage.is_leader = False
    stage.run(5000, size=10)
    assert len(stage.history._times.marks) + len(stage.history._sizes.marks) <= 40


def test_nothing_is_proposed_while_a_corrupt_cluster_refuses_it():
    stage = Stage(Retention(0, 0, 50))
    stage.machine.alarms = frozenset({(2, AlarmKind.CORRUPT)})
    stage.run(10, revisions=10)
    assert not stage.asked
    stage.machine.alarms = frozenset({(2, AlarmKind.NOSPACE)})
    stage.run(1)
    assert stage.asked, "a compaction makes room"


def test_age_is_counted_on_over_restarts():
    stage = Stage(Retention(1600, 0, 0))
    for _ in range(30):
        stage.run(200)
        stage.start()
        stage.member = Member(stage)
    age = stage.machine.revision - stage.machine.compacted
    # What was noted in the last minute before each restart may be lost.
    assert 1600 <= age <= 1600 * 17 / 16 + 200 + SAVE_S


def test_without_what_was_kept_history_lasts_longer_and_never_less():
    stage = Stage(Retention(1600, 0, 0))
    for _ in range(30):
        stage.run(200)
        stage.kept.marks = []
        stage.start()
    assert stage.asked == []


def test_what_was_kept_of_another_state_is_not_believed():
    stage = Stage(Retention(1600, 0, 0))
    stage.kept.marks = [(1, 10_000), (10_000_000, 1)]
    stage.time = 5000.0
    stage.start()
    stage.run(1000)
    assert stage.asked == []


def test_little_is_saved_and_not_at_once():
    stage = Stage(Retention(160, 0, 0))
    stage.run(59)
    assert stage.kept.marks == []
    stage.run(600)
    assert 1 <= len(stage.kept.marks) <= 17
