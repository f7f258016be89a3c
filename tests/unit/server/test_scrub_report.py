"""What operators are told of the scrub."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from kvstore.replica.scrub import ScrubFigures
from kvstore.server.nodes.scrub_report import TOLD_EVERY_S, ScrubReport


class Fixture:
    def __init__(self) -> None:
        self.rounds = 0
        self.damages = 0
        self.now = 5.0
        self.ended = 0
        replica: Any = SimpleNamespace(
            member=1, scrub=SimpleNamespace(figures=self.figures, damage="damage")
        )
        self.report = ScrubReport(lambda: [replica], self.end, clock=lambda: self.now)
        self.report.tick()

    def figures(self) -> ScrubFigures:
        return ScrubFigures(0.5, self.rounds, 0.0, 0, self.damages)

    def end(self) -> None:
        self.ended += 1

    def tick(self) -> list[tuple[str, str]]:
        with capture_logs() as lines:
            self.report.tick()
        return [(line["log_level"], line["event"]) for line in lines]


def test_rounds_without_damage_are_told_once_a_day() -> None:
    fixture = Fixture()
    assert fixture.tick() == []
    for after, level in (
        (0.0, "info"),
        (10.0, "debug"),
        (TOLD_EVERY_S - 11, "debug"),
        (1.0, "info"),
    ):
        fixture.now += after
        fixture.rounds += 1
        assert fixture.tick() == [(level, "scrub has checked all")]
    assert fixture.ended == 4


def test_damage_and_the_round_that_found_it_are_told_at_once() -> None:
    fixture = Fixture()
    fixture.rounds = 1
    assert fixture.tick() == [("info", "scrub has checked all")]
    fixture.damages = 1
    assert fixture.tick() == [("error", "scrub found damage")]
    fixture.rounds = 2
    assert fixture.tick() == [("info", "scrub has checked all")]
    fixture.rounds = 3
    assert fixture.tick() == [("debug", "scrub has checked all")]
