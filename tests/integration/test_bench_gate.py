"""The acceptance gate (``make bench-gate``) can fail, and finds what it says it looks for."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from benchmarks.gate import RUNS, Run, Way, document, reasons_to_fail
from tests.integration.disk_trouble import COMPILER

GOOD = Run("good", put_p99_ms=20.0, get_p99_ms=10.0, acknowledged=301, lost=[], back_after_s=1.0)


def test_figures_at_the_limits_pass() -> None:
    told = document([GOOD, GOOD])
    assert told["passed"]
    assert told["no_acknowledged_write_loss"]
    assert told["failed"] == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"put_p99_ms": 20.1}, "p99 of puts is 20.10 ms, more than 20"),
        ({"get_p99_ms": 10.1}, "p99 of gets is 10.10 ms, more than 10"),
        ({"put_p99_ms": math.nan}, "p99 of puts is nan ms, more than 20"),
        ({"lost": ["gate/last"]}, "1 acknowledged writes are lost, gate/last first"),
        ({"acknowledged": 0}, "nothing was acknowledged"),
    ],
)
def test_one_bad_figure_of_one_run_fails_it_all(bad: dict[str, object], reason: str) -> None:
    run = dataclasses.replace(GOOD, name="bad", **bad)  # type: ignore[arg-type]
    assert reasons_to_fail(run) == [reason]
    told = document([GOOD, run, GOOD])
    assert not told["passed"]
    assert told["failed"] == {"bad": [reason]}
    assert told["no_acknowledged_write_loss"] == (run.lost == [])


def test_no_run_is_no_pass() -> None:
    assert not document([])["passed"]


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
@pytest.mark.parametrize("way", RUNS, ids=lambda way: way.__name__)
def test_a_small_gate_loses_nothing(tmp_path: Path, way: Way) -> None:
    run = way(tmp_path, 20, [])
    assert run.acknowledged == 21
    assert run.lost == []
    assert 0 < run.put_p99_ms < math.inf
    assert 0 < run.get_p99_ms < math.inf
