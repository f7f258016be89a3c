"""A story of a database, told step by step while calls of its disk fail; what must hold is checked.

It writes alone and in batches, synced and not, reads, flushes, compacts, checkpoints and reopens.
After each failure the rest of it is told: what was acknowledged is there, what raised is not (but
for what an EIO left open until the reopening), and where only space was lacking the same database
goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable
from typing import Any

from kvstore._engine.files.native import FileSystem
from kvstore.engine import DB
from kvstore.errors import IntegrityCode, StorageError
from tests.crash.disk_sweep import ALL

__all__ = ["OPTIONS", "ROUND", "STEPS", "Faults", "Story", "lack_is_for_good"]

OPTIONS: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "compaction_trigger": 2,
    "max_write_buffers": 3,
}
ROUND = 24
STEPS = 4 * ROUND if ALL else ROUND
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
    """``now`` is what was acknowledged; ``states`` are all since the last sync.

    An opening after a failed sync (``forgets``) may find any of them, else the last one or that of
    the write that was under way.
    """

    def __init__(
        self, disk: FileSystem, code: int, *, path: str = "/db", forgets: bool = False
    ) -> None:
        """On ``disk``, where ``path`` is to be the database and names like it are free."""
        self.disk = disk
        self.path = path
        self.code = code
        self.forgets = forgets
        self.chance = random.Random(7)
        self.now: State = {}
        self.states: list[State] = [{}]
        self.db: DB | None = None
        self.failed_steps = 0

    def open(self) -> DB:
        if self.db is None:
            self.db = DB(self.path, filesystem=self.disk, **OPTIONS)
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

    def read(self) -> None:
        """Right, or an error."""
        db = self.open()
        for number in range(0, 150, 15):
            key = b"%03d" % number
            assert db.get(key) == self.now.get(key)
        assert dict(db) == self.now

    def step(self, step: int) -> None:
        place = step % ROUND
        if place in (5, 13):
            self.open().flush()
        elif place in (9, 17):
            self.open().compact_range()
        elif place == 11:
            self.close()
            self.open()
        elif place == 19:
            self.open().checkpoint(f"{self.path}-copy{step}")
        elif place in (6, 12, 18):
            self.read()
        else:
            self.write(step)

    def tell(self, first: int, last: int) -> None:
        for step in range(first, last):
            try:
                self.step(step)
            except StorageError as error:
                self.failed_steps += 1
                assert error.code is IntegrityCode.IO_ERROR, error
                assert error.errno == self.code, error
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
        assert found in (self.states if self.forgets else [self.now, self.states[-1]])
        self.now = found
        self.states = [found]

    def end(self, after: Callable[[], FileSystem] | None = None) -> None:
        """What is there on the disk as it is, and as ``after``, a power loss, leaves it."""
        self.settle()
        db = self.open()
        db.verify()
        db.put(b"last", b"words", sync=True)
        wanted = self.now | {b"last": b"words"}
        if after is not None:
            with DB(self.path, filesystem=after(), **OPTIONS) as found:
                assert dict(found) == wanted
                found.verify()
        self.close()
        with DB(self.path, filesystem=self.disk, **OPTIONS) as found:
            assert dict(found) == wanted


def lack_is_for_good(operation: str, code: int, path: str) -> bool:
    """Whether what a call lacked ends the writing: a failed sync does, whatever its number.

    The log's space is reserved before it writes. A directory's sync that lacks a descriptor never
    began.
    """
    if operation == "sync_directory":
        return code not in (errno.EMFILE, errno.ENFILE)
    return operation == "datasync" or (operation == "pwrite" and "/wal" in path)
