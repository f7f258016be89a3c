"""Each call of the disk fails in turn: with no space (once, and until there is room), and with EIO.

The story writes alone and in batches, synced and not, flushes, compacts, checkpoints and reopens.
After each failure the rest of it is told: what was acknowledged is there, what raised is not (but
for what an EIO left open until the reopening), and where only space was lacking the same database
goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import IntegrityCode, StorageError

OPTIONS: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "compaction_trigger": 2,
    "max_write_buffers": 3,
}
OPERATIONS = [
    "open",
    "pwrite",
    "datasync",
    "allocate",
    "truncate",
    "rename",
    "link",
    "unlink",
    "sync_directory",
    "make_directory",
    "lock",
]
STEPS = 24
State = dict[bytes, bytes]


class Faults:
    """Fails the ``at``-th call of ``operation``, or all from there on until :meth:`heal`."""

    def __init__(self, operation: str, code: int, at: int, *, always: bool = False) -> None:
        self._operation, self.code, self._always = operation, code, always
        self._left = at
        self.hits: list[str] = []
        self.forgets = operation == "datasync"

    def before(self, operation: str, path: str) -> None:
        if operation != self._operation or self._left < 0:
            return
        self._left -= 1
        if self._left <= 0:
            self._left = 1 if self._always else -1
            self.hits.append(path)
            raise OSError(self.code, os.strerror(self.code), path)

    def heal(self) -> None:
        self._left = -1


class Story:
    """Told step by step. ``now`` is what was acknowledged; ``states`` are all since the last sync.

    An opening after a failed sync may find any of them, else the last one or that of the write that
    was under way.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.disk = MemoryFileSystem()
        self.disk.on_operation = faults.before
        self.code = faults.code
        self.chance = random.Random(7)
        self.now: State = {}
        self.states: list[State] = [{}]
        self.db: DB | None = None
        self.failed_steps = 0

    def open(self) -> DB:
        if self.db is None:
            self.db = DB("/db", filesystem=self.disk, **OPTIONS)
        return self.db

    def close(self) -> None:
        db, self.db = self.db, None
        if db is not None:
            db.close()

    def write(self, step: int) -> None:
        db = self.open()
        state = dict(self.now)
        sync = step % 3 == 0
        with db.write_batch(sync=sync) as batch:
            for _ in range(1 if step % 4 == 0 else 60):
                key = b"%03d" % self.chance.randrange(150)
                if self.chance.random() < 0.8:
                    state[key] = self.chance.randbytes(300)
                    batch.put(key, state[key])
                else:
                    state.pop(key, None)
                    batch.delete(key)
            self.states.append(state)
        self.now = state
        if sync:
            self.states = [state]

    def step(self, step: int) -> None:
        if step in (5, 13):
            self.open().flush()
        elif step in (9, 17):
            self.open().compact_range()
        elif step == 11:
            self.close()
            self.open()
        elif step == 19:
            self.open().checkpoint(f"/copy{step}")
        else:
            self.write(step)

    def tell(self, first: int, last: int) -> None:
        for step in range(first, last):
            try:
                self.step(step)
            except StorageError as error:
                self.failed_steps += 1
                assert error.code is IntegrityCode.IO_ERROR
                assert error.errno == self.code
                self.look_and_reopen()

    def look_and_reopen(self) -> None:
        """An open database tells of nothing that failed; one that is done with is opened anew."""
        if self.db is None:
            return
        assert dict(self.db) == self.now
        if self.db.stats()["failure"] is None:
            # It never comes back.
            self.states = [state for state in self.states if state is not self.states[-1]] + [
                self.now
            ]
        else:
            with contextlib.suppress(StorageError):
                self.close()
            self.db = None
            with contextlib.suppress(StorageError):
                self.settle()

    def settle(self) -> None:
        """After an opening nothing is open any more: one of the states it is."""
        found = dict(self.open())
        assert found in (self.states if self.faults.forgets else [self.now, self.states[-1]])
        self.now = found
        self.states = [found]

    def forget(self) -> None:
        """Errors keep all this alive in a circle: the disk mustn't call while that is undone."""
        self.disk.on_operation = None
        self.close()

    def end(self) -> None:
        """What is there, on the disk as it is and as a power loss leaves it."""
        self.settle()
        db = self.open()
        db.verify()
        db.put(b"last", b"words", sync=True)
        wanted = self.now | {b"last": b"words"}
        after = self.disk.crash(random.Random(1), "random")
        with DB("/db", filesystem=after, **OPTIONS) as found:
            assert dict(found) == wanted
            found.verify()
        self.close()
        with DB("/db", filesystem=self.disk, **OPTIONS) as found:
            assert dict(found) == wanted


def lack_is_for_good(operation: str, path: str) -> bool:
    """A failed sync is, whatever its number; and the log's space is reserved before it writes."""
    return "sync" in operation or (operation in ("pwrite", "rename") and "/wal" in path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_call_that_fails_once(operation: str, code: int) -> None:
    at = failures = refused = 0
    while True:
        at += 1
        faults = Faults(operation, code, at)
        story = Story(faults)
        story.tell(0, STEPS)
        if not faults.hits:
            story.forget()
            break
        failures += 1
        refused += story.failed_steps
        if code == errno.ENOSPC and not lack_is_for_good(operation, faults.hits[0]):
            if story.db is not None:
                assert story.db.stats()["failure"] is None, (at, faults.hits)
            assert story.failed_steps <= 1
        story.end()
        story.forget()
    print(f"{operation} {errno.errorcode[code]}: {failures} calls failed, {refused} steps raised")
    assert failures


@pytest.mark.parametrize("operation", ["create", "pwrite", "allocate"])
def test_no_space_from_some_call_on_until_there_is_room(operation: str) -> None:
    at = failures = 0
    while True:
        at += 1
        faults = Faults(operation, errno.ENOSPC, at, always=True)
        story = Story(faults)
        for step in range(STEPS):
            story.tell(step, step + 1)
            if len(faults.hits) > 3:
                break
        if not faults.hits:
            story.forget()
            break
        failures += 1
        for_good = any(lack_is_for_good(operation, path) for path in faults.hits)
        faults.heal()
        db = story.db
        if db is not None and not for_good:
            db.resume()
            assert db.stats()["background_error"] is None
            assert db.stats()["failure"] is None
        before = story.failed_steps
        story.tell(step + 1, STEPS)
        assert story.failed_steps == before
        story.end()
        story.forget()
    print(f"{operation} until there is room: {failures} beginnings")
    assert failures
