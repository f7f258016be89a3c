"""Awaitable writes through power losses: what was acknowledged is there, and all before it."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.errors import Error, StorageError

COROUTINES = 12
ROUNDS = 12
SMALL = {"write_buffer_size": 64 << 10, "max_file_size": 64 << 10, "compaction_trigger": 2}

State = dict[bytes, bytes]


class Story:
    """Coroutines that put, delete and write batches, each awaiting one before its next."""

    def __init__(self, disk: MemoryFileSystem, seed: int) -> None:
        self.disk = disk
        self.chance = random.Random(seed)
        self.calls: list[State] = []
        """What each call, in their order, set: empty is deleted."""
        self.acknowledged = 0
        """So many of them, and all before the last of them."""

    def run(self) -> None:
        with contextlib.suppress(StorageError), DB("/db", filesystem=self.disk, **SMALL) as db:
            asyncio.run(asyncio.wait_for(self.main(db), 60))

    async def main(self, db: DB) -> None:
        await asyncio.gather(*(self.go_on(db) for _ in range(COROUTINES)))

    async def go_on(self, db: DB) -> None:
        for number in range(ROUNDS):
            changes = {
                b"%02d" % self.chance.randrange(40): self.chance.randbytes(
                    self.chance.choice([0, 20, 3000])
                )
                for _ in range(1 + 2 * (number % 3 == 0))
            }
            self.calls.append(changes)
            call = len(self.calls)
            try:
                await self.begin(db, changes)
            except Error:
                assert self.disk.stopped
                return
            self.acknowledged = max(self.acknowledged, call)

    def begin(self, db: DB, changes: State) -> asyncio.Future[None] | asyncio.Future[int]:
        if len(changes) == 1:
            ((key, value),) = changes.items()
            return db.put_async(key, value) if value else db.delete_async(key)
        batch = WriteBatch()
        for key, value in changes.items():
            if value:
                batch.put(key, value)
            else:
                batch.delete(key)
        return db.write_async(batch)

    def check(self, left: MemoryFileSystem) -> None:
        with DB("/db", filesystem=left) as db:
            db.verify()
            found = dict(db.items())
        state: State = {}
        states = [dict(state)]
        for changes in self.calls:
            state.update(changes)
            states.append({key: value for key, value in state.items() if value})
        assert found in states[self.acknowledged :]


@pytest.mark.parametrize("seed", range(3))
def test_a_power_loss_loses_nothing_that_was_awaited(seed: int) -> None:
    whole = Story(MemoryFileSystem(), seed)
    whole.run()
    assert whole.acknowledged == len(whole.calls) == COROUTINES * ROUNDS
    whole.check(whole.disk.crash())
    # Threads write and flush beside: how many operations there are differs from run to run.
    for stop in range(1, whole.disk.operations, 1 + whole.disk.operations // 40):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        story = Story(disk, seed)
        story.run()
        for keep in ("none", "prefix", "random"):
            story.check(disk.crash(random.Random(stop), keep))  # type: ignore[arg-type]
