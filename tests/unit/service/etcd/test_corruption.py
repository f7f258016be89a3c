"""Alarms for members whose states differ."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.errors import Error, UnavailableError
from kvstore.replica.comparing import Accusation
from kvstore.service.etcd.corruption import AGAIN_S, LOOK_S, RETRY_S, CorruptionAlarms
from kvstore.state.mvcc.answers import AlarmAnswer, Answer
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    LEVEL_NUMBERED,
    Alarm,
    AlarmAction,
    AlarmKind,
    Operation,
)


class Stage:
    """A service whose proposals are applied when the test says so."""

    def __init__(self) -> None:
        self.model_enabled = True
        self.alarms: set[tuple[int, int]] = set()
        self.level = LEVEL_ACCUSES
        self.machine = self
        self.accused: dict[int, Accusation] = {}
        self.proposed: list[tuple[Alarm, Callable[[Answer | Error], None]]] = []
        self.raised: list[tuple[int, AlarmKind]] = []
        self.clock = 0.0
        self.corruption = CorruptionAlarms(
            self,  # type: ignore[arg-type]
            lambda: self.accused,
            now=lambda: self.clock,
            raised=lambda member, kind: self.raised.append((member, kind)),
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
    """By a majority."""
    return Accusation("rows differ", times)


def unattributed(times: int = 1) -> Accusation:
    """By others who differ as well: no majority agrees."""
    return Accusation("rows differ", times, False, True)


def test_each_member_that_is_accused_gets_an_alarm_of_its_own_and_once() -> None:
    stage = Stage()
    stage.look()
    assert stage.proposed == []
    stage.accused = {3: accused(), 5: accused()}
    for _ in range(3):
        stage.look()
    ((alarm, _),) = stage.proposed
    assert alarm == Alarm(AlarmAction.ACTIVATE, 3, AlarmKind.DIFFERS)
    stage.apply()
    stage.look()
    stage.apply()
    for _ in range(5):
        stage.look()
    assert stage.proposed == []
    assert stage.alarms == {(3, AlarmKind.DIFFERS), (5, AlarmKind.DIFFERS)}
    assert set(stage.raised) == stage.alarms


def test_what_could_not_be_proposed_is_tried_again() -> None:
    stage = Stage()
    stage.accused = {3: accused()}
    stage.look()
    ((_, done),) = stage.proposed
    stage.proposed.clear()
    done(UnavailableError("no leader"))
    assert stage.raised == []
    stage.look()
    assert stage.proposed == [], "not four times a second"
    stage.clock += RETRY_S
    stage.look()
    stage.apply()
    assert stage.raised == [(3, AlarmKind.DIFFERS)]


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
    stage.clock += AGAIN_S
    stage.look()
    stage.apply()
    assert stage.raised == [(3, AlarmKind.DIFFERS)] * 2


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
    stage.clock += AGAIN_S
    stage.look()
    stage.apply()
    assert stage.raised == [(3, AlarmKind.DIFFERS)] * 2


def test_a_store_without_the_model_has_no_alarms() -> None:
    stage = Stage()
    stage.model_enabled = False
    stage.accused = {3: accused()}
    stage.look()
    assert stage.proposed == []


def test_where_nobody_knows_who_is_right_the_alarm_is_one_that_stops_writes() -> None:
    stage = Stage()
    stage.accused = {1: unattributed(), 2: unattributed()}
    stage.look()
    stage.apply()
    stage.look()
    stage.apply()
    assert stage.alarms == {(1, AlarmKind.CORRUPT), (2, AlarmKind.CORRUPT)}


def test_an_accusation_that_gets_worse_gets_the_other_alarm_as_well_and_never_the_milder() -> None:
    stage = Stage()
    stage.accused = {3: accused(1)}
    stage.look()
    stage.apply()
    stage.accused = {3: unattributed(2)}
    stage.clock += AGAIN_S
    stage.look()
    stage.apply()
    assert stage.alarms == {(3, AlarmKind.DIFFERS), (3, AlarmKind.CORRUPT)}
    stage.alarms = {(3, AlarmKind.CORRUPT)}
    stage.accused = {3: accused(3)}
    stage.clock += AGAIN_S
    stage.look()
    assert stage.proposed == [], "one that says more stands, maybe an operator's"


def test_while_those_who_would_decide_do_not_tell_there_is_no_alarm() -> None:
    stage = Stage()
    stage.accused = {1: Accusation("open", 7, False, False), 2: Accusation("open", 7, False, False)}
    stage.look()
    assert stage.proposed == []


def test_members_that_do_not_know_the_milder_alarm_are_given_none() -> None:
    stage = Stage()
    stage.level = LEVEL_NUMBERED
    stage.accused = {3: accused()}
    stage.look()
    assert stage.proposed == []
    stage.accused = {3: unattributed()}
    stage.look()
    ((alarm, _),) = stage.proposed
    assert alarm.kind == AlarmKind.CORRUPT


def test_however_often_it_is_disarmed_few_entries_a_minute_come_of_it() -> None:
    stage = Stage()
    entries = times = 0
    while stage.clock < 60:
        times += 1
        stage.accused = {3: accused(times)}
        stage.look()
        if stage.proposed:
            entries += 1
            stage.apply()
            stage.look()
            stage.alarms.clear()
    assert 2 <= entries <= 60 / AGAIN_S + 1
