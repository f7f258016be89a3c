"""The seam of the engine's C memory: what tests can refuse, and what it counts."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore._engine.primitives import native as memory


@pytest.fixture(autouse=True)
def counts_end_with_the_test() -> Iterator[None]:
    yield
    memory.reset()


def test_a_refused_allocation_is_a_memory_error_and_the_next_one_is_not(tmp_path: Path) -> None:
    with kvstore.open(tmp_path / "db") as db:
        memory.fail_allocation(1)
        with pytest.raises(MemoryError):
            db.put(b"key", b"value" * 10_000)
        assert memory.refused() == 1
        db.put(b"key", b"value" * 10_000)
        assert db.get(b"key") == b"value" * 10_000


def test_the_count_is_one_for_all_modules_of_the_process(tmp_path: Path) -> None:
    memory.watch_allocations()
    with kvstore.open(tmp_path / "db") as db:
        opened = memory.count()
        db.put(b"key", b"value")
        db.flush()
        flushed = memory.count()
        assert list(db) == [(b"key", b"value")]
    assert 0 < opened < flushed < memory.count()


def test_all_memory_is_given_back(tmp_path: Path) -> None:
    gc.collect()
    memory.watch_allocations()
    with kvstore.open(tmp_path / "db") as db:
        for i in range(1000):
            db.put(b"%06d" % i, b"value" * 200)
        db.flush()
        assert sum(1 for _ in db) == 1000
        db.compact_range()
        assert memory.live() > 0
    del db
    gc.collect()
    assert memory.live() == 0


def test_failing_stops_after_as_many_times_as_were_asked_for(tmp_path: Path) -> None:
    with kvstore.open(tmp_path / "db") as db:
        memory.fail_allocation(1, times=2)
        for _ in range(2):
            with pytest.raises(MemoryError):
                db.put(b"key", b"value" * 10_000)
        db.put(b"key", b"value" * 10_000)
        memory.fail_allocation(1, times=None)
        for _ in range(5):
            with pytest.raises(MemoryError):
                db.put(b"key", b"value" * 50_000)


def test_off_is_off() -> None:
    memory.fail_allocation(3)
    memory.reset()
    assert (memory.count(), memory.refused(), memory.live()) == (0, 0, 0)
    with pytest.raises(ValueError, match="times"):
        memory.fail_allocation(1, times=-1)
