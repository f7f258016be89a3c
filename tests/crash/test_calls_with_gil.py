"""A disk that hangs or is slow stops whoever opens or closes a database, and nobody else."""

from __future__ import annotations

from pathlib import Path

from tests.crash.gil_story import PARTS
from tests.crash.killing import build, told_by


def test_opening_and_closing_let_go_of_the_gil_over_each_call_of_the_disk(tmp_path: Path) -> None:
    directory = tmp_path / "watched"
    directory.mkdir()
    lines = told_by(build(tmp_path), "tests.crash.gil_story", str(directory)).splitlines()
    told = [line.split("|") for line in lines]
    assert all(int(calls) > 10 for calls, _, _ in told)
    assert {name: kinds.split() for _, name, kinds in told} == {part: [] for part in PARTS}
