"""A library's database, written in every way, at each of its after-crash disks."""

from __future__ import annotations

import hashlib
import random

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch
from tests.crash.states.moments import Case, Moments, Taken, Tally

__all__ = ["LibraryStates"]

OPTIONS = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "level_size_multiplier": 2,
    "compaction_trigger": 2,
    "block_size": 1024,
    "max_open_files": 16,
}
KEYS = 60
STEPS = 90
ROOM = 90 << 10
"""Values of which one fills a memtable, so that it is flushed while a write is under way."""

Content = dict[bytes, bytes]
Promise = list[bytes]
"""Fingerprints of what may be there, the oldest first."""


def fingerprint(content: Content) -> bytes:
    """Of keys and values."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(content):
        digest.update(b"%d %d " % (len(key), len(content[key])) + key + content[key])
    return digest.digest()


class LibraryStates:
    """Puts, deletes, batches, deleted ranges, flushes, compactions, new log segments, checkpoints,
    closings and openings; synced and not."""

    def __init__(self, seed: int, ways: int, tally: Tally, only: Case | None = None) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.disk = MemoryFileSystem()
        self.content: Content = {}
        self.promise: Promise = [fingerprint({})]
        self.seen: dict[int, bytes] = {}
        self.moments = Moments(self.disk, seed, ways, self.promise.copy, self._check, tally, only)

    def run(self) -> None:
        """Raises AssertionError that tells the case."""
        db = self._opened()
        for step in range(STEPS):
            db = self._do(db, step)
            self.moments.check()
        db.close()
        self._settle()
        self.moments.check()
        self.moments.stop()

    def _do(self, db: DB, step: int) -> DB:
        kind = self.chance.choice(
            ["put", "put", "batch", "batch", "delete", "range", "large", "flush", "compact"]
            + (["reopen", "checkpoint"] if step > 5 else [])
        )
        if kind == "flush":
            db.flush()
        elif kind == "compact":
            db.compact_range()
        elif kind == "checkpoint":
            db.checkpoint(f"/copy-{step}")
        elif kind == "reopen":
            db.close()
            db = self._opened()
        else:
            self._write(db, kind)
            return db
        self._settle()
        return db

    def _write(self, db: DB, kind: str) -> None:
        batch = WriteBatch()
        content = dict(self.content)
        for _ in range(20 if kind == "batch" else 1):
            key = b"%03d" % self.chance.randrange(KEYS)
            if kind == "range":
                stop = b"%03d" % (int(key) + self.chance.choice([3, 30]))
                content = {k: v for k, v in content.items() if not key <= k < stop}
                batch.delete_range(key, stop)
            elif kind == "delete" or (kind == "batch" and self.chance.random() < 0.3):
                content.pop(key, None)
                batch.delete(key)
            else:
                size = ROOM if kind == "large" else self.chance.choice([0, 20, 600])
                content[key] = self.chance.randbytes(size)
                batch.put(key, content[key])
        self.content = content
        self.promise.append(fingerprint(content))
        sync = self.chance.random() < 0.4
        db.write(batch, sync=sync)
        if sync:
            self._settle()

    def _settle(self) -> None:
        """What was written last is durable."""
        del self.promise[:-1]

    def _opened(self) -> DB:
        return kvstore.open("/db", filesystem=self.disk, **OPTIONS)

    def _check(self, taken: Taken[Promise]) -> None:
        try:
            self._check_one(taken)
        except Exception as error:
            raise AssertionError(
                f"python -m tests.crash.states library --seed {self.seed} "
                f"--case {taken.case.moment}:{taken.case.way}"
            ) from error

    def _check_one(self, taken: Taken[Promise]) -> None:
        found = self.seen.get(taken.digest)
        if found is None:
            found = self.seen[taken.digest] = self._found(taken.disk)
        assert found in taken.promise, f"none of the {len(taken.promise)} that may be there"

    @staticmethod
    def _found(disk: MemoryFileSystem) -> bytes:
        """What a restart finds; it must go on from there, and find the same once more."""
        with kvstore.open("/db", filesystem=disk, **OPTIONS) as db:
            db.verify()
            content = dict(db)
            db.put(b"after", b"it", sync=True)
        with kvstore.open("/db", filesystem=disk, **OPTIONS) as db:
            assert dict(db) == content | {b"after": b"it"}
        return fingerprint(content)
