"""Change feeds through power losses at every operation of the disk: no double, no gap."""

from __future__ import annotations

import contextlib
import random

import pytest

from kvstore import DB, Change, WriteBatch
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import StorageError

OPTIONS = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "changes_kept_size": 1 << 30,
}
STEPS = 40


class Story:
    """Writes, and a consumer that keeps what a feed told it, in memory that survives."""

    def __init__(self, disk: MemoryFileSystem, seed: int) -> None:
        self.disk = disk
        self.chance = random.Random(seed)
        self.written: list[bytes] = []
        self.acknowledged = 0
        self.told: list[Change] = []

    def run(self) -> None:
        with DB("/db", filesystem=self.disk, **OPTIONS) as db:
            feed = db.changes(0, timeout=0)
            for step in range(STEPS):
                batch = WriteBatch()
                for _ in range(self.chance.randrange(1, 4)):
                    self.written.append(self.chance.randbytes(self.chance.choice([5, 9000])))
                    batch.put(b"%d" % self.chance.randrange(5), self.written[-1])
                sync = self.chance.random() < 0.3
                db.write(batch, sync=sync)
                if sync:
                    self.acknowledged = len(self.written)
                if self.chance.random() < 0.4:
                    self.listen(feed)
                if step % 15 == 14:
                    db.flush()

    def listen(self, feed: object) -> None:
        for change in feed:  # type: ignore[attr-defined]
            self.told.append(change)
        self.acknowledged = max(self.acknowledged, len(self.told))

    def run_until_the_power_goes(self) -> None:
        with contextlib.suppress(StorageError):
            self.run()
        assert self.disk.stopped

    def check(self, disk: MemoryFileSystem) -> None:
        with DB("/db", filesystem=disk, **OPTIONS) as db:
            # What was told is there, synced by its writer or not; what comes is what follows.
            assert len(self.written) >= db.last_sequence >= max(self.acknowledged, len(self.told))
            rest = list(db.changes(len(self.told), timeout=0))
            everything = self.told + rest
            assert [change.sequence for change in everything] == list(
                range(1, db.last_sequence + 1)
            )
            assert [change.value for change in everything] == self.written[: db.last_sequence]
            # A batch is there whole or not at all.
            assert not everything or everything[-1].batch == everything[-1].sequence
            assert list(db.changes(0, timeout=0)) == everything


def operations(seed: int) -> int:
    disk = MemoryFileSystem()
    Story(disk, seed).run()
    return disk.operations


@pytest.mark.parametrize("seed", range(2))
def test_a_power_loss_at_any_operation_takes_back_nothing_that_was_told(seed: int) -> None:
    for operation in range(1, operations(seed) + 1):
        disk = MemoryFileSystem()
        story = Story(disk, seed)
        disk.stop_at(operation)
        story.run_until_the_power_goes()
        story.check(disk.crash())
        for keep in ("prefix", "random", "all"):
            story.check(disk.crash(random.Random(operation), keep))
