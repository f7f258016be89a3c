"""The log through power losses at every operation of the disk, and a real kill."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore.errors import StorageError

COMMAND, STATE = 1, 9
LAST = 120


def payload(index: int) -> bytes:
    return b"%d," % index * (index % 40)


class Story:
    """A history of appends, syncs and removals, and what of it was acknowledged."""

    def __init__(self, disk: MemoryFileSystem, first: int = 1) -> None:
        self.disk = disk
        self.appended = self.synced = first - 1
        self.state_appended = self.state_synced = 0
        self.removable = 0

    def run(self) -> None:
        log = Log("/log", filesystem=self.disk, segment_bytes=4096, sticky_kinds=[STATE])
        list(log.replay())
        for index in range(self.appended + 1, LAST + 1):
            log.append(COMMAND, index, index // 9, payload(index))
            self.appended = index
            if index % 11 == 0:
                log.append(STATE, 0, 0, b"%d" % index)
                self.state_appended = index
            if index % 4 == 1:
                log.write()
            if index % 6 == 0:
                log.sync()
                self.synced, self.state_synced = self.appended, self.state_appended
            if index % 25 == 0:
                self.removable = self.synced - 20
                log.remove_before(self.removable)
        log.close()
        self.synced, self.state_synced = self.appended, self.state_appended

    def check(self, disk: MemoryFileSystem) -> int:
        """What ``disk`` holds keeps every promise; returns the last index that is there."""
        with Log("/log", filesystem=disk, sticky_kinds=[STATE], segment_bytes=4096) as log:
            found = list(log.replay())
        commands = [(index, content) for kind, index, _, content in found if kind == COMMAND]
        states = [int(content) for kind, _, _, content in found if kind == STATE]
        indexes = [index for index, _ in commands]
        last = indexes[-1] if indexes else 0
        assert self.synced <= last <= self.appended
        if indexes:
            assert indexes == list(range(indexes[0], last + 1))
            assert indexes[0] <= max(1, self.removable)
        assert all(content == payload(index) for index, content in commands)
        assert self.state_synced <= (states[-1] if states else 0) <= self.state_appended
        return last


def operations() -> int:
    disk = MemoryFileSystem()
    Story(disk).run()
    return disk.operations


@pytest.mark.parametrize("keep", ["none", "prefix", "random", "all"])
def test_a_power_loss_at_any_operation_loses_nothing_that_was_synced(keep):
    total = operations()
    assert total > 60
    for stop in range(1, total + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        story = Story(disk)
        # What comes after the last sync of a close may fail unnoticed.
        with contextlib.suppress(StorageError):
            story.run()
        assert disk.stopped
        for seed in range(1 if keep in ("none", "all") else 4):
            left = disk.crash(random.Random(f"{stop} {seed}"), keep)
            last = story.check(left)
            # And the log that was found goes on.
            sequel = Story(left, last + 1)
            sequel.state_appended = story.state_appended
            sequel.removable = max(story.removable, 0)
            sequel.run()
            sequel.state_synced = 0
            sequel.check(left)


def test_a_power_loss_during_recovery_loses_nothing_either():
    disk = MemoryFileSystem()
    disk.stop_at(operations() * 2 // 3)
    story = Story(disk)
    with pytest.raises(StorageError):
        story.run()
    left = disk.crash(keep="all")
    stop = 0
    while True:
        stop += 1
        again = left.crash(keep="all")
        again.stop_at(stop)
        try:
            Log("/log", filesystem=again, sticky_kinds=[STATE], segment_bytes=4096).close()
        except StorageError:
            for keep in ("none", "prefix", "random"):
                story.check(again.crash(random.Random(stop), keep))  # type: ignore[arg-type]
            continue
        break
    assert stop > 3


WRITER = """
import sys
from kvstore._engine.log.native import Log
log = Log(sys.argv[1], segment_bytes=65536)
index = log.recovery.records
while True:
    index += 1
    log.append(1, index, 0, b"%d" % index * 20)
    if index % 3 == 0:
        log.sync()
        print(index, flush=True)
    else:
        log.write()
"""


def test_a_killed_process_leaves_every_record_that_it_wrote(tmp_path):
    path = tmp_path / "log"
    acknowledged = 0
    for lines in (5, 60, 300):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(lines):
                acknowledged = int(process.stdout.readline())
            process.kill()
        with Log(path, read_only=True) as log:
            found = list(log.replay())
        assert len(found) >= acknowledged
        assert found == [(1, i, 0, b"%d" % i * 20) for i in range(1, len(found) + 1)]
