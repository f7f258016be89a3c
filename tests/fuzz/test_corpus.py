"""Each target of ``make fuzz``: what is right, what is kept, a few mistakes; and the hunt."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fuzz import __main__ as command
from tests.fuzz import hunt, resealing
from tests.fuzz.corpus_files import CORPUS, kept
from tests.fuzz.mutation import INPUT_BYTES_MAX, mutated
from tests.fuzz.targets.every import TARGETS
from tests.fuzz.targets.target import Target, plain

ROUNDS = {"http": 30, "kvd-calls": 60, "entries": 60, "batch": 60, "table": 60}


def test_what_is_kept_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)


# A kvd takes half a minute to start with sanitizers: `make fuzz` waits for it.
CHOSEN = [name for name in TARGETS if name != "kvd-calls" or "ASAN_OPTIONS" not in os.environ]


@pytest.mark.parametrize("name", CHOSEN)
def test_seeds_and_kept_inputs_and_a_few_mistakes_do_no_harm(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(name)
    inputs = [*target.seeds(), *(path.read_bytes() for path in kept(name))]
    with target.opened() as run:
        for data in inputs:
            run(data)
        for _ in range(ROUNDS.get(name, 150)):
            run(mutated(chance.choice(inputs), inputs, chance))


@pytest.mark.parametrize("name", ["log", "manifest", "table", "backup", "peer-packets", "log-note"])
def test_resealing_leaves_what_is_right_as_it_is(name: str) -> None:
    reseal = {
        "log": resealing.log,
        "manifest": resealing.manifest,
        "table": resealing.table,
        "backup": resealing.backup,
        "peer-packets": resealing.packet,
        "log-note": resealing.two_copies,
    }[name]
    for data in TARGETS[name].seeds():
        assert reseal(data) == data
        # And makes right what isn't, where nothing else is wrong.
        for at in range(len(data)):
            reseal(data[:at])


def test_mistakes_are_drawn_from_the_seed_alone_and_have_a_bound() -> None:
    data = bytes(range(256))
    made = [mutated(data, [data], random.Random(seed)) for seed in range(200)]
    assert made == [mutated(data, [data], random.Random(seed)) for seed in range(200)]
    assert len(set(made)) > 190
    assert len(mutated(bytes(2 * INPUT_BYTES_MAX), [data], random.Random(1))) <= INPUT_BYTES_MAX


def test_a_failing_input_is_found_and_made_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a worker that is a target of its own, since the real ones don't fail."""

    def run(data: bytes) -> object:
        assert b"\xff" not in data
        return len(data) // 16

    target = plain("planted", lambda: [bytes(200)], run)

    def watched(words: list[str], scratch: Path) -> tuple[int | None, str]:
        path = Path(words[1])
        if len(words) > 2:
            return hunt.work(target, path, float(words[2]), int(words[3])), "0 0"
        try:
            hunt.replayed(target, path.read_bytes())
        except AssertionError:
            return hunt.FAILED, ""
        return 0, ""

    monkeypatch.setattr(hunt, "_watched", watched)
    monkeypatch.setattr(hunt, "_bound_memory", lambda: None)
    found = hunt.hunt(target, tmp_path / "scratch", 20, 1)
    assert found.data == b"\xff"
    assert found.said.startswith("raises")


@pytest.mark.parametrize(
    ("code", "said"),
    [("os.kill(os.getpid(), 9)", "ends with status -9"), ("time.sleep(600)", "hangs")],
)
def test_a_worker_that_dies_or_hangs_leaves_the_input_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, time\n"
        "from tests.fuzz.hunt import work\n"
        "from tests.fuzz.targets.target import plain\n"
        "from pathlib import Path\n"
        f"def run(data):\n    if data == b'bad': {code}\n"
        "target = plain('planted', lambda: [b'good', b'bad'], run)\n"
        "path, *rest = sys.argv[2:]\n"
        "if rest: sys.exit(work(target, Path(path), 10.0, 1))\n"
        "run(Path(path).read_bytes())\n"
    )
    popen = subprocess.Popen

    @contextlib.contextmanager
    def ours(words: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with popen([sys.executable, str(script), *words[3:]], env=environment, **options) as one:  # type: ignore[call-overload]
            yield one

    monkeypatch.setattr(hunt.subprocess, "Popen", ours)
    monkeypatch.setattr(hunt, "HANG_SECONDS", 3.0)
    monkeypatch.setattr(hunt, "MINIMISE_SECONDS", 0.0)
    target = Target("planted", list, lambda: contextlib.nullcontext(lambda data: None))
    found = hunt.hunt(target, tmp_path / "scratch", 10, 1)
    assert found.data == b"bad"
    assert found.said.startswith(said)


def test_a_target_without_a_turn_is_named_and_makes_the_run_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hunted(target: Target, *_: object) -> hunt.Found:
        return hunt.Found(0 if target.name == "manifest" else 7, 3)

    monkeypatch.setattr(command, "hunt", hunted)
    asked = ["--minutes", "0.01", "--only", "log", "--only", "manifest"]
    ended = CliRunner().invoke(command.main, asked)
    assert "2 of 3 targets had a turn; none: manifest" in ended.stdout
    assert ended.exit_code == 1
    ended = CliRunner().invoke(command.main, [*asked[:2], "--only", "log"])
    assert "2 of 2 targets had a turn\n" in ended.stdout
    assert ended.exit_code == 0
