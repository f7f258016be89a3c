"""Where it is noted how far history went at which time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.replica.work import AtOnce
from kvstore.server.config.sealed_file import write_sealed
from kvstore.server.nodes.history import FILE, HistoryFile


class Later:
    """Work that is under way until it is told to be done."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        self.jobs.append((job, then))

    def do(self) -> None:
        for job, then in self.jobs:
            job()
            then()
        self.jobs = []


def test_marks_are_there_again(tmp_path: Path) -> None:
    HistoryFile(tmp_path, "me", AtOnce()).save([(5, 1), (1000, 7)])
    assert HistoryFile(tmp_path, "me", AtOnce()).load() == [(5, 1), (1000, 7)]


@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b'{"marks": [[1]]}\ncrc32=00000000\n', b"\xff" * 100]
)
def test_what_is_broken_is_as_good_as_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    assert HistoryFile(tmp_path, "me", AtOnce()).load() == []


def test_a_directory_that_takes_nothing_loses_the_marks_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    kept = HistoryFile(tmp_path, "me", AtOnce())
    kept.save([(5, 1)])
    assert kept.load() == []


def test_a_disk_that_hangs_gets_no_more_to_do(tmp_path: Path) -> None:
    work = Later()
    kept = HistoryFile(tmp_path, "me", work)
    kept.save([(5, 1)])
    kept.save([(5, 1), (6, 2)])
    assert len(work.jobs) == 1
    work.do()
    kept.save([(7, 3)])
    work.do()
    assert kept.load() == [(7, 3)]


def test_the_marks_of_another_history_are_none_and_those_without_an_owner_are_its_own(
    tmp_path: Path,
) -> None:
    HistoryFile(tmp_path, "other", AtOnce()).save([(5, 1)])
    assert HistoryFile(tmp_path, "me", AtOnce()).load() == []
    write_sealed(tmp_path / FILE, {"marks": [[5, 1]]})
    assert HistoryFile(tmp_path, "me", AtOnce()).load() == [(5, 1)]
