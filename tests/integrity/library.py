"""The library's form: a database that was closed, and one whose process died."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from kvstore.errors import StorageError
from tests.integrity.sources import Source
from tests.integrity.trees import Tree, disk_of, tree_of
from tests.integrity.verdicts import Outcome, Verdict, refused

__all__ = ["judge", "sources"]

PATH = "/db"
OPTIONS: dict[str, Any] = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "block_size": 512,
    "compaction_trigger": 8,
}
KEYS = 160
UNSYNCED = 12
ABSENT = (b"", b"key", b"key0000x", b"zzz")


@dataclass(frozen=True)
class Truth:
    """What may be read: one of ``states``.

    The last one is of all that was written; those before lack what was written since the end of the
    log was last noted outside it: that of a process that died may look like after a power loss.
    """

    options: dict[str, Any]
    states: list[dict[bytes, bytes]]
    ever: frozenset[bytes]


def sources() -> list[Source]:
    """One for each way in which a database may lie there."""
    return [
        _source("library-closed", None, closed=True),
        _source("library-zstd", "zstd", closed=True),
        _source("library-died", None, closed=False),
    ]


def _source(name: str, compression: str | None, *, closed: bool) -> Source:
    story = _Story(compression, seed=1)
    story.tell(closed=closed)
    other = _Story(compression, seed=2)
    other.tell(closed=closed)
    truth = Truth(story.options, story.states, frozenset(story.ever))
    return Source(
        name,
        "library",
        tree_of(story.found, PATH),
        tree_of(story.older, PATH),
        tree_of(other.found, PATH),
        truth,
        (("gone", f"{PATH}/wal"), ("foreign", f"{PATH}/wal", f"{PATH}/wal")),
    )


class _Story:
    """Three openings of a database: tables in two levels, a log of several segments."""

    def __init__(self, compression: str | None, seed: int) -> None:
        self.options = {**OPTIONS, "compression": compression}
        self.chance = random.Random(seed)
        self.disk = MemoryFileSystem()
        self.found = self.older = self.disk
        self.model: dict[bytes, bytes] = {}
        self.ever: set[bytes] = set(ABSENT)
        self.states: list[dict[bytes, bytes]] = []

    def tell(self, *, closed: bool) -> None:
        """The whole story; then ``found`` is the disk as it lies there."""
        with self._open() as db:
            self._puts(db, KEYS)
            db.flush()
            db.compact_range()
            db.delete_range(b"key0020", b"key0024")
            for number in range(20, 24):
                self.model.pop(b"key%04d" % number, None)
            self._puts(db, KEYS // 4)
            db.flush()
        with self._open() as db:
            self._puts(db, 20)
        db = self._open()
        self._puts(db, 10)
        db.put(b"synced", b"1", sync=True)
        self.model[b"synced"] = b"1"
        self.ever.add(b"synced")
        self.older = self.disk.crash(keep="none")
        self._puts(db, KEYS // 4)
        db.flush()
        self.states.append(dict(self.model))
        for _ in range(20):
            self._puts(db, 1)
            self.states.append(dict(self.model))
        db.put(b"synced", b"2", sync=True)
        self.model[b"synced"] = b"2"
        self.states.append(dict(self.model))
        if closed:
            db.close()
            self.found = self.disk
            del self.states[:-1]
        else:
            # No flush or close has noted since how far the log is durable.
            for _ in range(UNSYNCED):
                self._puts(db, 1)
                self.states.append(dict(self.model))
            self.found = self.disk.crash(keep="all")
            db.close()

    def _open(self) -> DB:
        return DB(PATH, filesystem=self.disk, write_through=True, **self.options)

    def _puts(self, db: DB, count: int) -> None:
        chance = self.chance
        for _ in range(count):
            key = b"key%04d" % chance.randrange(KEYS)
            self.ever.add(key)
            if chance.random() < 0.1:
                db.delete(key)
                self.model.pop(key, None)
            else:
                value = b"%d " % chance.randrange(10**6) * chance.randrange(1, 12)
                db.put(key, value)
                self.model[key] = value


def judge(source: Source, tree: Tree) -> Verdict:
    """Open, read everything in every way, verify, and do so once more."""
    truth: Truth = source.truth
    disk = disk_of(tree, PATH)
    reading = _Reading(truth)
    for _ in range(2):
        try:
            db = DB(PATH, filesystem=disk, create_if_missing=False, **truth.options)
        except StorageError as error:
            return refused(error, after=reading.verdict())
        with db:
            reading.read(db)
            cut_bytes = db.stats()["log_cut_bytes"]
        verdict = reading.verdict()
        if verdict.outcome is not Outcome.NO_EFFECT:
            return verdict
        if truth.states[-1] not in reading.candidates:
            return Verdict(Outcome.CUT if cut_bytes else Outcome.LEGAL, "", f"{cut_bytes} bytes")
    return reading.verdict()


class _Reading:
    """All answers together must be of one state that may be."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.candidates = list(truth.states)
        self.error: StorageError | None = None
        self.wrong = ""

    def verdict(self) -> Verdict:
        if self.wrong:
            return Verdict(Outcome.WRONG, "", self.wrong)
        if self.error is not None:
            return refused(self.error)
        return Verdict(Outcome.NO_EFFECT)

    def read(self, db: DB) -> None:
        for key in sorted(self.truth.ever):
            self._ask(partial(db.get, key), f"get {key!r}", methodcaller("get", key))
        self._ask(lambda: list(db), "forwards", lambda state: sorted(state.items()))
        self._ask(
            lambda: list(db.iterator(reverse=True)),
            "backwards",
            lambda state: sorted(state.items(), reverse=True),
        )
        try:
            db.verify()
        except StorageError as error:
            self.error = self.error or error

    def _ask(
        self,
        ask: Callable[[], object],
        what: str,
        told: Callable[[dict[bytes, bytes]], object],
    ) -> None:
        try:
            answer = ask()
        except StorageError as error:
            self.error = self.error or error
            return
        left = [state for state in self.candidates if told(state) == answer]
        if left:
            self.candidates = left
        elif not self.wrong:
            self.wrong = f"{what} gave {str(answer)[:200]}"
