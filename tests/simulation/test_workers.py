"""Simulated worker threads: jobs that stand still at calls of the disk."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import StorageError
from tests.simulator import workers as module
from tests.simulator.agenda import SECOND, Agenda
from tests.simulator.trace import Violation
from tests.simulator.workers import STANDSTILLS_MAX, Workers


@pytest.fixture
def agenda() -> Agenda:
    return Agenda()


@pytest.fixture
def disk() -> MemoryFileSystem:
    return MemoryFileSystem()


@pytest.fixture
def workers(agenda: Agenda, disk: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Every job stands still at every call, as often as it may."""
    monkeypatch.setattr(module, "STANDING", 1.0)
    monkeypatch.setattr(module, "STANDSTILLS", (1.0,))
    workers = Workers(agenda.after, agenda, random.Random(1))
    workers.watch(disk)
    return workers


def writes(disk: MemoryFileSystem, name: str, count: int) -> Callable[[], None]:
    def job() -> None:
        for number in range(count):
            disk.write(f"/{name}", number, b"x")

    return job


def at_work() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "simulated-worker"]


def test_jobs_take_turns_at_their_calls_of_the_disk(
    agenda: Agenda, disk: MemoryFileSystem, workers: Workers
) -> None:
    ended: list[str] = []
    for name in ("a", "b"):
        workers.run("job", writes(disk, name, 2), lambda name=name: ended.append(name))  # type: ignore[misc]
    seen = set()
    while agenda.step():
        seen.add(tuple(disk.size(f"/{name}") if disk.exists(f"/{name}") else 0 for name in "ab"))
    assert sorted(ended) == ["a", "b"]
    assert 2 < workers.stood_still <= 2 * STANDSTILLS_MAX
    # Neither waited for the other one to end.
    assert not seen.isdisjoint({(1, 1), (1, 2), (2, 1)})
    assert agenda.now < 10 * SECOND
    assert not at_work()


def test_a_job_ends_with_its_process_and_nothing_more_of_it_is_done(
    agenda: Agenda, disk: MemoryFileSystem, workers: Workers
) -> None:
    caught: list[StorageError] = []

    def job() -> None:
        try:
            writes(disk, "a", 5)()
        except StorageError as error:
            caught.append(error)

    workers.run("job", job, lambda: None)
    while not disk.exists("/a"):
        agenda.step()
    size = disk.size("/a")
    workers.end()
    assert len(caught) == 1
    assert disk.size("/a") == size < 5
    assert not at_work()


def test_a_job_that_waits_for_one_that_stands_still_ends_the_run(
    agenda: Agenda, disk: MemoryFileSystem, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    lock = threading.Lock()

    def job() -> None:
        with lock, contextlib.suppress(StorageError):
            disk.write("/a", 0, b"x")

    for _ in range(2):
        workers.run("job", job, lambda: None)
    with pytest.raises(Violation, match="lock"):
        all(iter(agenda.step, False))
    # The one has its lock taken away, and the other one ends by itself.
    workers.end()


def test_those_that_keep_a_lock_of_the_engine_are_done_in_one_go(
    agenda: Agenda, disk: MemoryFileSystem, workers: Workers
) -> None:
    workers.run("checkpoint for 2", writes(disk, "a", 5), lambda: None)
    while agenda.step():
        pass
    assert disk.size("/a") == 5
    assert workers.stood_still == 0
