"""The database through power losses and errors at every operation of the disk, and a real kill."""

from __future__ import annotations

import contextlib
import errno
import random
import subprocess
import sys

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from kvstore.errors import ClosedError, IntegrityCode, StorageError

SMALL = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "level_size_multiplier": 2,
    "compaction_trigger": 2,
    "block_size": 1024,
    "max_open_files": 16,
}

State = dict[bytes, bytes]


def opened(disk: MemoryFileSystem) -> DB:
    return DB("/db", filesystem=disk, **SMALL)


class Story:
    """Writes of all kinds; ``states`` are those that a power loss now may leave, newest last.

    While a write is under way it may be there or not.
    """

    def __init__(self, disk: MemoryFileSystem, seed: int) -> None:
        self.disk = disk
        self.chance = random.Random(seed)
        self.states: list[State] = [{}]
        self.db: DB | None = None

    def run(self) -> None:
        self.db = db = opened(self.disk)
        for step in range(14):
            self.write(500, sync=step % 3 == 1)
            self.one(sync=step % 4 == 0)
            if step in (5, 9):
                db.flush()
                self.states = self.states[-1:]
            if step == 10:
                db.compact_range()
                self.states = self.states[-1:]
            if step == 11:
                db.checkpoint("/copy")
        db.close()
        self.states = self.states[-1:]

    def run_until_the_power_goes(self) -> None:
        with contextlib.suppress(StorageError):
            self.run()
        assert self.disk.stopped
        if self.db is not None:
            with contextlib.suppress(StorageError):
                self.db.close()

    def one(self, *, sync: bool) -> None:
        assert self.db is not None
        key = b"%03d" % self.chance.randrange(200)
        state = dict(self.states[-1])
        if self.chance.random() < 0.5:
            state[key] = b"one"
            self.states.append(state)
            self.db.put(key, b"one", sync=sync)
        else:
            state.pop(key, None)
            self.states.append(state)
            self.db.delete(key, sync=sync)
        if self.chance.random() < 0.3:
            state = dict(state)
            self.states.append(state)
            self.delete_range(self.db, state)
            if sync:
                self.db.sync()
        if sync:
            self.states = self.states[-1:]

    def delete_range(self, of: DB | WriteBatch, state: State) -> None:
        low = self.chance.randrange(200)
        start, stop = b"%03d" % low, b"%03d" % (low + self.chance.choice([5, 60]))
        for key in [key for key in state if start <= key < stop]:
            del state[key]
        of.delete_range(start, stop)

    def write(self, size: int, *, sync: bool) -> None:
        assert self.db is not None
        batch = WriteBatch()
        state = dict(self.states[-1])
        for _ in range(40):
            key = b"%03d" % self.chance.randrange(200)
            if self.chance.random() < 0.7:
                state[key] = self.chance.randbytes(size)
                batch.put(key, state[key])
            else:
                state.pop(key, None)
                batch.delete(key)
        if self.chance.random() < 0.3:
            self.delete_range(batch, state)
        self.states.append(state)
        self.db.write(batch, sync=sync)
        if sync:
            self.states = self.states[-1:]

    def check(self, disk: MemoryFileSystem) -> State:
        with opened(disk) as db:
            db.verify()
            now = dict(db)
            assert now in self.states
            # And it goes on.
            db.put(b"after", b"", sync=True)
        with opened(disk) as db:
            assert dict(db) == now | {b"after": b""}
        return now


def operations(seed: int) -> int:
    disk = MemoryFileSystem()
    Story(disk, seed).run()
    return disk.operations


@pytest.mark.parametrize("seed", [1, 2])
def test_a_power_loss_at_any_operation_loses_nothing_acknowledged(seed):
    total = operations(seed)
    assert total > 100
    for stop in range(1, total + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        story = Story(disk, seed)
        story.run_until_the_power_goes()
        for keep in ("none", "prefix", "random", "all"):
            story.check(disk.crash(random.Random(stop), keep))  # type: ignore[arg-type]


def test_a_directory_that_a_killed_process_made_has_its_name_for_good():
    disk = MemoryFileSystem()
    disk.make_directory("/db")  # and was killed before it synced the one above
    with DB("/db", filesystem=disk, background=False) as db:
        db.put(b"a", b"1", sync=True)
        left = disk.crash()
    with DB("/db", filesystem=left, create_if_missing=False) as db:
        assert dict(db) == {b"a": b"1"}


def test_a_checkpoint_that_was_cut_off_never_has_its_name():
    seed = 3
    seen = set()
    for stop in range(1, operations(seed) + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        Story(disk, seed).run_until_the_power_goes()
        left = disk.crash(random.Random(stop), "prefix")
        if not left.exists("/copy"):
            continue
        try:
            with DB("/copy", create_if_missing=False, filesystem=left) as copy:
                copy.verify()
                seen.add(len(dict(copy)))
        except (StorageError, ValueError):
            seen.add(-1)
    assert -1 not in seen
    assert len(seen) == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(
    "operation",
    ["open", "pwrite", "datasync", "allocate", "rename", "link", "sync_directory", "unlink"],
)
def test_an_error_of_the_disk_is_told_and_nothing_acknowledged_is_lost(operation, code):
    at = 0
    failed = 0
    while True:
        at += 1
        disk = MemoryFileSystem()
        disk.fail(operation, code, at=at)
        story = Story(disk, 1)
        try:
            story.run()
        except StorageError as error:
            failed += 1
            assert error.errno == code
            assert error.code == IntegrityCode.IO_ERROR
        db = story.db
        if db is not None and not db.closed:
            # What was acknowledged is read, and nothing of what failed.
            assert dict(db) in story.states
            with contextlib.suppress(StorageError):
                db.close()
        if db is not None:
            with pytest.raises(ClosedError):
                db.get(b"")
        reached = disk.counts[operation] >= at
        disk.heal()
        story.check(disk.crash(random.Random(at), "random"))
        story.check(disk)
        if not reached:
            break
    # A segment for which there is no space is tried again, half as large.
    assert failed or operation == "unlink" or (operation, code) == ("allocate", errno.ENOSPC)


WRITER = """
import sys, threading
import kvstore
db = kvstore.open(sys.argv[1], write_buffer_size=1 << 16, max_file_size=1 << 16)
first = int(sys.argv[2])
lock = threading.Lock()
def work(thread):
    number = first
    while True:
        number += 1
        db.put(b"%d/%06d" % (thread, number), b"%d" % number * 40, sync=True)
        with lock:
            print(thread, number, flush=True)
for thread in range(4):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
threading.Event().wait()
"""


def test_a_killed_process_loses_nothing_acknowledged(tmp_path):
    path = tmp_path / "db"
    acknowledged: dict[int, int] = dict.fromkeys(range(4), 0)
    for lines in (10, 200, 600):
        begin = max(acknowledged.values()) + 1000
        firsts = dict.fromkeys(range(4), begin)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(begin)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(lines):
                thread, number = map(int, process.stdout.readline().split())
                acknowledged[thread] = number
            process.kill()
        with DB(path, write_buffer_size=1 << 16) as db:
            db.verify()
            for thread, last in acknowledged.items():
                for number in range(firsts[thread] + 1, last + 1):
                    assert db.get(b"%d/%06d" % (thread, number)) == b"%d" % number * 40
