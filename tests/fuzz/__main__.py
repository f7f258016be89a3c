"""Fuzz every parser, the wire and the calls of a real kvd, for as long as it is given.

The time is shared equally among the targets, and those tests of tests/fuzz that take their rounds
from tests.fuzz.budget. What fails is made small, kept in tests/fuzz/corpus, where ``make test``
replays it, and told with the command that repeats it. Ends with 1 then, and where a target had no
turn: what wasn't tried isn't known to be well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tests.fuzz import budget
from tests.fuzz.corpus_files import keep
from tests.fuzz.hunt import Found, hunt
from tests.fuzz.targets.every import TARGETS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def timed_tests() -> list[str]:
    """Test files that go on for as long as :mod:`tests.fuzz.budget` says."""
    files = sorted(HERE.glob("test_*.py"))
    asks = ("from tests.fuzz.budget import", "from tests.fuzz import budget")
    return [
        str(path.relative_to(ROOT))
        for path in files
        if path.name != "test_corpus.py" and any(word in path.read_text() for word in asks)
    ]


def run_test(path: str, seconds: float, seed: int) -> Found:
    """A test file, each of whose tests gets so many seconds; ``runs`` are those that passed."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0", path],
        cwd=ROOT,
        env={**os.environ, budget.VARIABLE: str(seconds), budget.FRESH: str(seed)},
        check=False,
        capture_output=True,
        text=True,
    )
    said = ended.stdout + ended.stderr
    passed = re.search(r"\b(\d+) passed", said)
    return Found(int(passed[1]) if passed else 0, 0, ended.returncode != 0, None, said[-3000:])


def table(found: Sequence[tuple[str, Found, float]]) -> str:
    """Markdown: a line for each target. Of test files the tests count as inputs."""
    lines = ["| target | inputs | inputs a second | outcomes | failed |", "|---|---|---|---|---|"]
    for name, came, took in found:
        figures = f"{came.runs} | {came.runs / took:.0f} | {came.outcomes or ''}"
        if name not in TARGETS:
            figures = f"{came.runs} tests | | "
        lines.append(f"| {name} | {figures} | {int(came.failed)} |")
    return "\n".join(lines)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=float, default=5.0, show_default=True, help="For all together.")
@click.option("--only", multiple=True, help="Targets whose name contains this.")
@click.option("--seed", type=int, help="By default another one each time; it is printed.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
def main(minutes: float, only: tuple[str, ...], seed: int | None, jobs: int) -> None:
    if seed is None:
        seed = int.from_bytes(os.urandom(3))
    names = [
        name
        for name in (*TARGETS, *timed_tests())
        if not only or any(part in name for part in only)
    ]
    if not names:
        raise click.UsageError(f"no target has such a name; there are {', '.join(TARGETS)}")
    each = minutes * 60 * jobs / len(names)
    click.echo(f"seed {seed}, {each:.0f} s for each of {len(names)} targets", err=True)
    with (
        tempfile.TemporaryDirectory(prefix="kvstore-fuzz-") as scratch,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def one(place: int) -> tuple[str, Found, float]:
            name, began = names[place], time.monotonic()
            if name in TARGETS:
                found = hunt(TARGETS[name], Path(scratch) / str(place), each, seed + place)
            else:
                found = run_test(name, each, seed)
            took = time.monotonic() - began
            click.echo(f"{name}: {found.runs} inputs, {took:.0f} s", err=True)
            return name, found, took

        found = list(pool.map(one, range(len(names))))
    click.echo(table(found))
    idle = [name for name, came, _ in found if not came.runs]
    said = f"; none: {', '.join(idle)}" if idle else ""
    click.echo(f"\n{len(names) - len(idle)} of {len(names)} targets had a turn{said}")
    for name, came, _ in found:
        if not came.failed:
            continue
        click.echo(f"\n{name} {came.said}")
        if came.data is not None:
            path = keep(name, came.data).relative_to(ROOT)
            click.echo(f"kept; again: python -m tests.fuzz.worker {name} {path}")
        elif name not in TARGETS:
            click.echo(f"again: {budget.FRESH}={seed} {budget.VARIABLE}={each:.0f} pytest {name}")
    sys.exit(bool(idle) or any(came.failed for _, came, _ in found))


if __name__ == "__main__":
    main()
