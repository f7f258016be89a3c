"""Memory that runs out anywhere: a call does what it says, or raises MemoryError and nothing else.

Every allocation of the workloads of ``memory_sweep`` is refused in turn, alone and with those after
it. ``KVSTORE_ALLOCATION_SWEEP=all`` takes every one of them, else a part is taken, another one in
each of the cases below.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.primitives import native as memory
from tests.crash import memory_sweep as sweep

ALL = os.environ.get("KVSTORE_ALLOCATION_SWEEP") == "all"
PASSES_OF_A_CASE = 120

Passage = Callable[[int, int], list[str]]


def count_and_stride(passage: Passage) -> tuple[int, int]:
    count = sweep.allocations(passage)
    return count, 1 if ALL else max(1, count // PASSES_OF_A_CASE)


@pytest.mark.parametrize("times", [1, 3, 40, 400])
@pytest.mark.parametrize("passage", [sweep.pass_database, sweep.pass_log])
def test_every_allocation_may_be_refused(passage: Passage, times: int) -> None:
    count, stride = count_and_stride(passage)
    assert count > 20
    refused: Counter[str] = Counter()
    passes = 0
    for n in range(1 + times % stride, count + 1, stride):
        try:
            refused.update(passage(n, times))
        except BaseException as error:
            error.add_note(f"allocation {n} of {count} was refused, {times} in all")
            raise
        passes += 1
    assert refused
    print(
        f"\n{passage.__name__}: {count} allocations, {passes} passes with {times} refused, ", end=""
    )
    print(f"MemoryError from {sum(refused.values())} calls: {dict(refused.most_common())}")


@pytest.mark.parametrize("times", [1, 60])
def test_allocations_of_background_threads_may_be_refused(times: int) -> None:
    count, stride = count_and_stride(sweep.pass_threads)
    for n in range(1, count + 1, 3 * stride):
        sweep.pass_threads(n, times)


def test_a_numbered_batch_that_lacks_memory_is_not_applied_in_part() -> None:
    options = {"background": False, "wal": False}
    with kvstore.open("/db", filesystem=MemoryFileSystem(), **options) as db:
        for i in range(2000):
            first = kvstore.WriteBatch()
            first.put(b"old%05d" % i, b"1" * 20)
            db.write(first, sequence=5)
        before = list(db)
        batch = kvstore.WriteBatch()
        for i in range(3000):
            batch.put(b"new%05d" % i, b"2" * 30)
        refused = 0
        for n in range(1, 50):
            memory.fail_allocation(n)
            try:
                # At the last sequence that is seen: whatever was applied would be seen, too.
                db.write(batch, sequence=5)
            except MemoryError:
                refused += 1
                memory.reset()
                assert list(db) == before
            else:
                break
            finally:
                memory.reset()
        assert refused
        assert len(list(db)) == 5000
