"""A disk that hangs or is slow stops whoever opens or closes a database, and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.crash.gil_story import PARTS
from tests.crash.killing import build
from tests.integration.process import environment


def test_opening_and_closing_let_go_of_the_gil_over_each_call_of_the_disk(tmp_path: Path) -> None:
    # A sanitizer's runtime, if there is one, wants to be the first.
    preloaded = [*os.environ.get("LD_PRELOAD", "").split(), str(build(tmp_path))]
    directory = tmp_path / "watched"
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.gil_story", str(directory)],
        env=environment(LD_PRELOAD=" ".join(preloaded)),
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = [line.split("|") for line in done.stdout.splitlines()]
    assert all(int(calls) > 10 for calls, _, _ in told)
    assert {name: kinds.split() for _, name, kinds in told} == {part: [] for part in PARTS}
