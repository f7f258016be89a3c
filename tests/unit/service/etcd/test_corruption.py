"""Alarms for members whose states differ."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.errors import Error, UnavailableError
from kvstore.replica.comparing import Accusation
from kvstore.service.etcd.corruption import LOOK_S, CorruptionAlarms
from kvstore.state.mvcc.answers import AlarmAnswer, Answer
from kvstore.state.mvcc.requests import Alarm, AlarmAction, AlarmKind, Operation


class Stage:
    """A service whose proposals are applied when the test says so."""

    def __init__(self) -> None:
        self.model_enabled = True
        self.alarms: set[tuple[int, int]] = set()
        self.machine = self
        self.accused: dict[int, Accusation] = {}
        self.proposed: list[tuple[Alarm, Callable[[Answer | Error], None]]] = []
        self.raised: list[int] = []
        self.clock = 0.0
        self.corruption = CorruptionAlarms(
            self,  # type: ignore[arg-type]
            lambda: self.accused,
            now=lambda: self.clock,
            raised=self.raised.append,
        )

    def propose_for_server(
        self, operation: Operation, done: Callable[[Answer | Error], None]
    ) -> None:
        assert isinstance(operation, Alarm)
        self.proposed.append((operation, done))

    def look(self) -> None:
        self.clock += LOOK_S
        self.corruption.tick()

    def apply(self) -> None:
        ((alarm, done),) = self.proposed
        self.proposed.clear()
        self.alarms.add((alarm.member, alarm.kind))
        done(AlarmAnswer(1, ((alarm.member, alarm.kind),)))


def accused(times: int = 1) -> Accusation:
    return Accusation("rows differ", times)


def test_each_member_that_is_accused_gets_an_alarm_of_its_own_and_once() -> None:
    stage = Stage()
    stage.look()
    assert stage.proposed == []
    stage.accused = {3: accused(), 5: accused()}
    for _ in range(3):
        stage.look()
    ((alarm, _),) = stage.proposed
    assert alarm == Alarm(AlarmAction.ACTIVATE, 3, AlarmKind.CORRUPT)
    stage.apply()
    stage.look()
    stage.apply()
    for _ in range(5):
        stage.look()
    assert stage.proposed == []
    assert stage.raised == [3, 5]
    assert stage.alarms == {(3, AlarmKind.CORRUPT), (5, AlarmKind.CORRUPT)}


def test_what_could_not_be_proposed_is_tried_again() -> None:
    stage = Stage()
    stage.accused = {3: accused()}
    stage.look()
    ((_, done),) = stage.proposed
    stage.proposed.clear()
    done(UnavailableError("no leader"))
    assert stage.raised == []
    stage.look()
    stage.apply()
    assert stage.raised == [3]


def test_a_disarmed_alarm_comes_again_only_with_the_next_comparison_that_finds_it() -> None:
    stage = Stage()
    stage.accused = {3: accused(1)}
    stage.look()
    stage.apply()
    stage.accused = {3: accused(4)}
    stage.look()
    stage.alarms.clear()
    stage.look()
    assert stage.proposed == [], "the accusation is older than the disarming, maybe"
    stage.accused = {3: accused(5)}
    stage.look()
    stage.apply()
    assert stage.raised == [3, 3]


def test_a_member_that_agrees_again_is_accused_anew_from_the_beginning() -> None:
    stage = Stage()
    stage.accused = {3: accused(9)}
    stage.look()
    stage.apply()
    stage.look()
    stage.accused = {}
    stage.alarms.clear()
    stage.look()
    stage.accused = {3: accused(1)}
    stage.look()
    stage.apply()
    assert stage.raised == [3, 3]


def test_a_store_without_the_model_has_no_alarms() -> None:
    stage = Stage()
    stage.model_enabled = False
    stage.accused = {3: accused()}
    stage.look()
    assert stage.proposed == []
