"""History against a model of all versions: every read, at every sequence that is kept.

As a replica's state machine uses it: several keys at one sequence, records that repeat the newest
one, deleted ranges at a used sequence, history of some prefixes only, `retain_from(C - 1)` when
everything before C is let go of.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Snapshot, WriteBatch
from kvstore.errors import InvalidArgumentError

SMALL: dict[str, Any] = {
    "background": False,
    "wal": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "level_size_multiplier": 2,
    "compaction_trigger": 2,
    "block_size": 256,
    "max_open_files": 16,
}
SYSTEM, USER, EVENTS = b"\x00", b"\x01", b"\x02"
Pair = tuple[bytes, int]


class Model:
    """All versions of all keys."""

    def __init__(self) -> None:
        self.versions: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self.ranges: list[tuple[bytes, bytes, int]] = []

    def set(self, key: bytes, sequence: int, value: bytes | None) -> None:
        versions = self.versions.setdefault(key, [])
        if versions and versions[-1][0] == sequence:
            versions.pop()
        versions.append((sequence, value))

    def at(self, key: bytes, sequence: int) -> Pair | None:
        for number, value in reversed(self.versions.get(key, [])):
            if number <= sequence:
                if value is None or any(
                    number < deleted <= sequence and start <= key < stop
                    for start, stop, deleted in self.ranges
                ):
                    return None
                return value, number
        return None

    def all_at(self, sequence: int, low: bytes, high: bytes) -> list[tuple[bytes, bytes, int]]:
        keys = (key for key in sorted(self.versions) if low <= key < high)
        found = ((key, self.at(key, sequence)) for key in keys)
        return [(key, *pair) for key, pair in found if pair is not None]


class Story:
    """A database and its model, and what is done to both."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = MemoryFileSystem()
        # Of the users' keys history is kept in any case.
        self.prefixes = self.rng.choice([None, (USER,), (USER, EVENTS), (b"\x01u",)])
        self.options = SMALL | {
            "history_prefixes": self.prefixes,
            "bloom_filter_bits": self.rng.choice([0, 10]),
            "write_buffer_size": self.rng.choice([64 << 10, 1 << 20]),
        }
        self.db = DB("/db", filesystem=self.disk, **self.options)
        self.db.retain_from(0)
        self.model = Model()
        self.compacted = 0  # what the caller says may go: all before it
        self.snapshots: list[Snapshot] = []
        self.revision = 0
        self.index = 0
        self.copies = 0

    def key(self) -> bytes:
        return b"\x01u%03d" % (self.rng.randrange(150) ** 2 // 150)

    def write(self) -> None:
        """One entry of the log: some revisions, and the records that repeat the last of them."""
        batch = WriteBatch()
        first = self.revision
        for _ in range(self.rng.randint(0, 8)):
            self.revision += 1
            changes = {self.key() for _ in range(self.rng.choice([1, 1, 1, 5, 40]))}
            for sub, key in enumerate(sorted(changes)):
                value = (
                    None
                    if self.rng.random() < 0.3
                    else self.rng.randbytes(self.rng.choice([2, 90]))
                )
                self.put(batch, key, value)
                self.put(batch, EVENTS + b"%08d.%04d" % (self.revision, sub), key)
        self.put(batch, SYSTEM + b"state", b"%d" % self.index)
        self.put(batch, SYSTEM + b"lease%d" % self.rng.randrange(5), self.rng.choice([b"", None]))
        self.index += 1
        self.db.write(batch, sequence=first, applied_index=self.index)

    def put(self, batch: WriteBatch, key: bytes, value: bytes | None) -> None:
        if value is None:
            batch.delete(key, sequence=self.revision)
        else:
            batch.put(key, value, sequence=self.revision)
        self.model.set(key, self.revision, value)

    def compact(self) -> None:
        """What is before C goes: its events by one deleted range, the history by retain_from."""
        if self.revision == 0:
            return
        self.compacted = self.rng.randint(max(self.compacted, 1), self.revision)
        batch = WriteBatch()
        self.put(batch, SYSTEM + b"state", b"compacted")
        bounds = EVENTS, EVENTS + b"%08d" % self.compacted
        batch.delete_range(*bounds, sequence=self.revision)
        self.model.ranges.append((*bounds, self.revision))
        self.index += 1
        self.db.write(batch, sequence=self.revision, applied_index=self.index)
        self.db.retain_from(self.compacted - 1)

    def step(self) -> None:
        draw = self.rng.random()
        if draw < 0.6:
            self.write()
        elif draw < 0.7:
            self.compact()
        elif draw < 0.8:
            self.db.flush()
        elif draw < 0.86:
            self.db.compact_range(
                start=self.rng.choice([None, USER]), stop=self.rng.choice([None, EVENTS])
            )
        elif draw < 0.9 and len(self.snapshots) < 3:
            self.snapshots.append(self.db.snapshot())
        elif draw < 0.95 and self.snapshots:
            self.snapshots.pop(self.rng.randrange(len(self.snapshots))).close()
        else:
            self.reopen()

    def reopen(self) -> None:
        """By way of a checkpoint, perhaps: as a snapshot is installed."""
        self.snapshots.clear()
        self.db.flush()
        if self.rng.random() < 0.5:
            self.copies += 1
            name = f"/copy{self.copies}"
            self.db.checkpoint(name)
        else:
            name = self.db.path
        self.db.close()
        self.db = DB(name, filesystem=self.disk, **self.options)
        assert self.db.last_sequence == self.revision
        assert self.db.flushed_index == self.index
        # Each opening says anew what it needs; a jump ahead may have been forgotten.
        self.db.retain_from(max(self.compacted - 1, 0))

    def check(self) -> None:
        now = self.revision
        self.check_at(now, b"", b"\xff")
        for snapshot in self.snapshots:
            found = list(snapshot.iterator(include_sequence=True))
            assert found == self.model.all_at(snapshot.sequence, b"", b"\xff")
            assert snapshot.count() == len(found)
        # C - 1 too: what was there before the versions at C.
        oldest = max(self.compacted - 1, 0)
        moments = {oldest, oldest + 1, self.rng.randint(oldest, now), self.rng.randint(oldest, now)}
        for moment in sorted(moment for moment in moments if moment <= now):
            self.check_at(moment, b"\x01u", b"\x01v")

    def check_at(self, moment: int, low: bytes, high: bytes) -> None:
        db = self.db
        expected = self.model.all_at(moment, low, high)
        bounds: dict[str, Any] = {"start": low, "stop": high, "sequence": moment}
        assert list(db.iterator(**bounds, include_sequence=True)) == expected
        assert list(db.iterator(**bounds, include_sequence=True, reverse=True)) == expected[::-1]
        assert db.count(low, high, moment) == len(expected)
        for key in self.rng.choices(sorted(self.model.versions) or [b"none"], k=10):
            if low <= key < high:
                found = self.model.at(key, moment)
                assert db.get_versioned(key, moment) == found
                assert db.get(key, sequence=moment) == (None if found is None else found[0])
                assert db.multi_get([key], sequence=moment) == [None if found is None else found[0]]


@pytest.mark.parametrize("seed", range(24))
def test_every_read_at_every_sequence_that_is_kept(seed: int) -> None:
    story = Story(seed)
    for number in range(150):
        story.step()
        if number % 5 == 0:
            story.check()
    story.check()
    # All is let go of: nothing is left but what is there.
    for snapshot in story.snapshots:
        snapshot.close()
    story.write()
    story.db.retain_from(story.revision)
    if story.revision:
        batch = WriteBatch()
        story.put(batch, SYSTEM + b"state", b"")
        batch.delete_range(EVENTS, EVENTS + b"%08d" % story.revision, sequence=story.revision)
        story.model.ranges.append((EVENTS, EVENTS + b"%08d" % story.revision, story.revision))
        story.db.write(batch, sequence=story.revision)
    story.db.compact_range()
    story.check_at(story.revision, b"", b"\xff")
    stats = story.db.stats()
    assert stats["table_entries"] == story.db.count()
    assert stats["table_tombstones"] == stats["table_superseded"] == stats["range_tombstones"] == 0
    story.db.verify()
    story.db.close()


def test_one_below_keeps_deletes_and_what_was_replaced() -> None:
    """Why whoever lets go of everything before C asks for C - 1."""
    for retained, kept in ((3, True), (4, False)):
        with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
            db.retain_from(0)
            db.put(b"deleted", b"1")
            db.put(b"replaced", b"2")
            db.put(b"other", b"3")
            batch = WriteBatch()
            batch.delete(b"deleted")
            batch.put(b"replaced", b"4")
            db.write(batch, sequence=4)
            db.retain_from(retained)
            db.compact_range()
            assert db.stats()["table_entries"] == (5 if kept else 2)
            if kept:
                assert db.get(b"deleted", sequence=3) == b"1"
                assert db.get_versioned(b"replaced", 3) == (b"2", 2)
            else:
                with pytest.raises(InvalidArgumentError, match="history"):
                    db.get(b"deleted", sequence=3)
            assert db.get(b"deleted", sequence=4) is None
            assert db.get_versioned(b"replaced", 4) == (b"4", 4)
