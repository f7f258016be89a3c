"""What a peer's start changes is noted beside the loop, and the peer waits for it, nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.errors import StorageError
from kvstore.server.peers import registry as module
from kvstore.server.peers.noting import judged
from kvstore.server.peers.registry import Known, NotNotedYetError, PeerRegistry, StaleMemberError


class HeldWork:
    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        self.jobs.append((job, then))

    def do(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job, then in jobs:
            job()
            then()


def aside(directory: Path) -> tuple[PeerRegistry, HeldWork]:
    registry, work = PeerRegistry(directory), HeldWork()
    registry.save_aside(work)
    return registry, work


def test_a_peer_is_let_in_once_it_is_noted_durably(tmp_path: Path) -> None:
    registry, work = aside(tmp_path)
    registry.admit(9, Known(1, 1), present=False)
    with pytest.raises(NotNotedYetError):
        registry.admit(2, Known(7, 1), present=True)
    with pytest.raises(NotNotedYetError):
        registry.admit(2, Known(7, 1), present=True)
    assert PeerRegistry(tmp_path).known() == {}
    assert len(work.jobs) == 1
    work.do()
    registry.admit(2, Known(7, 1), present=True)
    assert not work.jobs
    assert PeerRegistry(tmp_path).known() == {2: Known(7, 1)}


def test_what_is_being_noted_counts_for_those_who_come_next(tmp_path: Path) -> None:
    registry, work = aside(tmp_path)
    with pytest.raises(NotNotedYetError):
        registry.admit(2, Known(7, 5), present=True)
    for stale in (Known(8, 6), Known(7, 4)):
        with pytest.raises(StaleMemberError):
            registry.admit(2, stale, present=True)
    with pytest.raises(NotNotedYetError):
        registry.admit(3, Known(1, 1), present=True)
    registry.remove([4])
    assert registry.is_removed(4)
    while work.jobs:
        work.do()
    registry.admit(2, Known(7, 5), present=True)
    registry.admit(3, Known(1, 1), present=True)
    again = PeerRegistry(tmp_path)
    assert again.known() == {2: Known(7, 5), 3: Known(1, 1)}
    assert again.is_removed(4)


def test_a_change_that_is_written_at_once_isnt_taken_back_by_an_older_one(tmp_path: Path) -> None:
    registry, work = aside(tmp_path)
    with pytest.raises(NotNotedYetError):
        registry.admit(2, Known(7, 5), present=True)
    registry.learn([(3, Known(1, 1))])
    work.do()
    assert registry.known() == PeerRegistry(tmp_path).known()
    assert registry.known() == {2: Known(7, 5), 3: Known(1, 1)}


def test_who_has_become_a_member_is_noted_aside_and_again_where_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, work = aside(tmp_path)
    registry.admit(3, Known(1, 1), present=False)
    with monkeypatch.context() as patch:

        def fail(path: Path, fields: object) -> None:
            raise StorageError("no disk", path=str(path))

        patch.setattr(module, "write_sealed", fail)
        registry.settle([2, 3])
        work.do()
    assert not work.jobs
    assert PeerRegistry(tmp_path).known() == {}
    registry.save_again()
    registry.save_again()
    assert len(work.jobs) == 1
    work.do()
    assert PeerRegistry(tmp_path).known() == {3: Known(1, 1)}
    registry.save_again()
    assert not work.jobs


def test_who_has_a_member_forgotten_waits_until_that_is_durable(tmp_path: Path) -> None:
    async def scenario() -> None:
        registry, work = aside(tmp_path)
        registry.learn([(2, Known(7, 5))])
        registry.admit(3, Known(1, 1), present=False)
        registry.forget(3)
        assert not registry.knows(3)
        task = asyncio.create_task(judged(registry, lambda: registry.forget(2)))
        await asyncio.sleep(0)
        assert not registry.knows(2)
        assert not task.done()
        work.do()
        await task
        assert PeerRegistry(tmp_path).known() == {}
        assert not registry.knows(2)

    asyncio.run(scenario())


def test_a_task_waits_for_it_and_learns_why_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        registry, work = aside(tmp_path)
        tasks = [
            asyncio.create_task(
                judged(registry, lambda: registry.admit(2, Known(7, 1), present=True))
            )
            for _ in range(3)
        ]
        tasks[2].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not tasks[0].done()
        work.do()
        await asyncio.gather(*tasks[:2])
        assert registry._waiting == []
        with monkeypatch.context() as patch:

            def fail(path: Path, fields: object) -> None:
                raise StorageError("no disk", path=str(path))

            patch.setattr(module, "write_sealed", fail)
            task = asyncio.create_task(
                judged(registry, lambda: registry.admit(2, Known(7, 2), present=True))
            )
            await asyncio.sleep(0)
            work.do()
            with pytest.raises(StorageError, match="no disk"):
                await task
        # The next one that comes has it tried again.
        task = asyncio.create_task(
            judged(registry, lambda: registry.admit(2, Known(7, 2), present=True))
        )
        await asyncio.sleep(0)
        work.do()
        await task
        assert PeerRegistry(tmp_path).known() == {2: Known(7, 2)}

    asyncio.run(scenario())


def test_who_comes_while_it_is_being_forgotten_is_noted_after_that(tmp_path: Path) -> None:
    registry, work = aside(tmp_path)
    registry.learn([(2, Known(7, 5))])
    with pytest.raises(NotNotedYetError):
        registry.forget(2)
    registry.admit(2, Known(7, 5), present=True)
    while work.jobs:
        work.do()
    assert PeerRegistry(tmp_path).known() == {2: Known(7, 5)}


def test_what_was_written_before_and_is_told_later_takes_nothing_back(tmp_path: Path) -> None:
    registry, work = aside(tmp_path)
    with pytest.raises(NotNotedYetError):
        registry.admit(2, Known(7, 5), present=True)
    ((job, then),) = work.jobs
    job()
    registry.learn([(3, Known(1, 1))])
    then()
    assert registry.known() == {2: Known(7, 5), 3: Known(1, 1)}
