"""A process that writes a database is killed at its nth system call, and another one opens it.

What was acknowledged is there, or that and a beginning without a hole of the rest; a checkpoint
is whole or not there. So it is where the process that opens it again is killed as well.
``KVSTORE_KILL_SWEEP=all`` takes every call, on the disk.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kvstore.engine import DB
from tests.crash.kill_story import STEPS, states, steps
from tests.crash.killed_library import OPTIONS
from tests.crash.killing import (
    ALL,
    KINDS,
    Call,
    Wrapped,
    build,
    by_library,
    by_strace,
    calls_in,
    needs_strace,
    quick_directory,
    some_of,
    without_sanitizers,
)
from tests.integration.process import environment

pytestmark = [without_sanitizers, pytest.mark.timeout(3600 if ALL else 300)]

TOLD = steps()
STATES = states(TOLD)
NONE = -1


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as directory:
        yield directory


def run(directory: Path, wrapped: Wrapped, background: bool) -> tuple[int, int]:
    """The exit status, and the last step that was told of."""
    directory.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "tests.crash.killed_library", directory, str(int(background))]
    ended = subprocess.run(
        [*wrapped, *map(str, words)],
        cwd=Path(__file__).parents[2],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    lines = ended.stdout.splitlines()
    return ended.returncode, int(lines[-1]) if lines else NONE


def check(directory: Path, last: int) -> None:
    """What was left behind, after step ``last`` was told of."""
    durable = max((number for number in range(last + 1) if TOLD[number].sync), default=NONE)
    # STATES[n] is after step n - 1; the step after the last one may be done as well.
    allowed = STATES[durable + 1 : min(last + 1, STEPS - 1) + 2]
    with DB(directory / "db", **OPTIONS) as db:
        db.verify()
        found = dict(db)
        assert found in allowed
        db.put(b"after", b"", sync=True)
    with DB(directory / "db", **OPTIONS) as db:
        assert dict(db) == found | {b"after": b""}
    for number, step in enumerate(TOLD):
        copy = directory / f"copy{number}"
        if step.kind == "checkpoint" and number <= last:
            assert copy.exists()
        if copy.exists():
            with DB(copy, create_if_missing=False) as db:
                db.verify()
                assert dict(db) == STATES[number + 1]


def traced(directory: Path, background: bool) -> list[Call]:
    """The calls of a telling that nobody disturbs."""
    trace = directory / "trace"
    wrapped = ("strace", "-f", "-y", "--seccomp-bpf", "-s", "0", "-o", str(trace))
    wrapped += ("-e", f"trace={','.join(KINDS)}")
    assert run(directory / "all", wrapped, background) == (0, STEPS - 1)
    check(directory / "all", STEPS - 1)
    return calls_in(trace.read_text(), directory / "all")


def counted(directory: Path, library: Path, background: bool) -> int:
    """How many calls a telling makes that nobody disturbs."""
    wrapped = by_library(library, directory / "counted", 0, directory / "count")
    assert run(directory / "counted", wrapped, background) == (0, STEPS - 1)
    return int((directory / "count").read_text())


def sweep(directory: Path, name: str, wrapped: Wrapped, background: bool) -> bool:
    """One telling that is ended by ``wrapped``; whether it was."""
    one = directory / name
    status, last = run(one, wrapped, background)
    try:
        check(one, last)
    except BaseException as error:
        error.add_note(f"killed by {' '.join(wrapped)}, after step {last}")
        raise
    shutil.rmtree(one)
    return status != 0


@needs_strace
@pytest.mark.parametrize("background", [False, True])
def test_killed_at_the_nth_call_of_each_kind(place: Path, background: bool) -> None:
    # Of several threads the first to make so many calls is killed: each number once.
    calls = sorted(set(traced(place, background)))
    # Reserving, cutting and linking are rare: some of each kind.
    chosen = [
        call
        for kind in KINDS
        for call in some_of(
            reached([c for c in calls if c.kind == kind], background), 3 - background
        )
    ]
    killed = sum(
        sweep(place, f"{call.kind}{call.at}", by_strace(call), background) for call in chosen
    )
    print(f"strace, background {background}: killed {killed} times at {len(chosen)} calls")
    assert is_enough(killed, len(chosen), background)


@pytest.mark.parametrize("background", [False, True])
def test_killed_at_the_nth_call_of_all(place: Path, library: Path, background: bool) -> None:
    total = counted(place, library, background)
    chosen = some_of([Call("any", at) for at in range(1, total + 1)], 20)
    killed = 0
    for _, at in chosen:
        wrapped = by_library(library, place / str(at), at)
        killed += sweep(place, str(at), wrapped, background)
    print(f"library, background {background}: killed {killed} times at {len(chosen)} calls")
    assert is_enough(killed, len(chosen), background)


def reached(calls: Sequence[Call], background: bool) -> Sequence[Call]:
    """Those that threads make however they share the work: one may make fewer another time."""
    return calls[: max(1, len(calls) * 2 // 3)] if background and not ALL else calls


def is_enough(killed: int, chosen: int, background: bool) -> bool:
    """Whose threads share the work in another way may have ended before the last calls."""
    return killed == chosen or (background and killed >= chosen * 0.8)


@needs_strace
def test_no_call_passes_the_library_by(place: Path, library: Path) -> None:
    assert counted(place, library, False) == len(traced(place, False))


def test_killed_again_while_it_opens_what_was_left(place: Path, library: Path) -> None:
    """At each call of the opening, where a deed had been under way."""
    moments = range(60, 400, 10) if ALL else (150, 290)
    killed = 0
    for moment in moments:
        left = place / "left"
        status, last = run(left, by_library(library, left, moment), False)
        assert status
        opening = range(1, 60) if ALL else range(1, 60, 6)
        for at in opening:
            again = place / "again"
            shutil.copytree(left, again)
            # It begins its steps anew once it has opened the database: killed before that, or at
            # the first of them, which are no news to who looks.
            status, began = run(again, by_library(library, again, at), False)
            if began != NONE:
                shutil.rmtree(again)
                break
            killed += status != 0
            check_opened(again, last)
            shutil.rmtree(again)
        shutil.rmtree(left)
    print(f"opening: killed {killed} times")
    assert killed


def check_opened(directory: Path, last: int) -> None:
    """As :func:`check`, or the first step has been done once more on top of that."""
    with DB(directory / "db", **OPTIONS) as db:
        db.verify()
        found = dict(db)
    durable = max((number for number in range(last + 1) if TOLD[number].sync), default=NONE)
    allowed = STATES[durable + 1 : min(last + 1, STEPS - 1) + 2]
    first = TOLD[0].rows
    assert found in allowed or found in [_with(state, first) for state in allowed]


def _with(state: dict[bytes, bytes], rows: dict[bytes, bytes | None]) -> dict[bytes, bytes]:
    merged = {**state, **rows}
    return {key: value for key, value in merged.items() if value is not None}
