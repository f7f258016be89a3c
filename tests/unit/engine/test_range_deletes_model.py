"""The database with deleted ranges against a list of all versions: every read at every sequence.

Each seed is a story of puts, deletes, batches and deleted ranges, with flushes, compactions, moves
of iterators, snapshots, history, reopenings and power losses between. Buffers and tables are so
small that several levels form, and range tombstones are cut at the ends of tables.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Iterator, WriteBatch

SMALL = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
    "level_size_multiplier": 2,
    "compaction_trigger": 2,
    "block_size": 256,
    "max_open_files": 16,
}

State = dict[bytes, bytes]


class Versions:
    """All that was ever written, by sequence."""

    def __init__(self) -> None:
        self.points: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self.ranges: list[tuple[bytes, bytes | None, int]] = []
        self.ends = [0]  # the sequences at which a write ended

    def set(self, key: bytes, sequence: int, value: bytes | None) -> None:
        self.points.setdefault(key, []).append((sequence, value))

    def at(self, sequence: int) -> State:
        found = {}
        for key in sorted(self.points):
            seen = [version for version in self.points[key] if version[0] <= sequence]
            if not seen or seen[-1][1] is None:
                continue
            if not any(
                seen[-1][0] < number <= sequence and start <= key and (stop is None or key < stop)
                for start, stop, number in self.ranges
            ):
                found[key] = seen[-1][1]
        return found

    def cut(self, sequence: int) -> None:
        """Forget what is newer: it was lost."""
        self.points = {
            key: [version for version in versions if version[0] <= sequence]
            for key, versions in self.points.items()
        }
        self.ranges = [each for each in self.ranges if each[2] <= sequence]
        self.ends = [end for end in self.ends if end <= sequence]


class Walk:
    """An iterator beside the list that it walks, and its place between two entries."""

    def __init__(self, iterator: Iterator, entries: list[tuple[bytes, bytes]]) -> None:
        self.iterator = iterator
        self.entries = entries
        self.place = 0

    def move(self, chance: random.Random, keys: list[bytes]) -> None:
        how = chance.choice("ffffbbbbs")
        if how == "f":
            expected = self.entries[self.place] if self.place < len(self.entries) else None
            assert next(self.iterator, None) == expected
            self.place += expected is not None
        elif how == "b":
            expected = self.entries[self.place - 1] if self.place else None
            try:
                found = self.iterator.prev()
            except StopIteration:
                found = None
            assert found == expected
            self.place -= expected is not None
        else:
            key = chance.choice(keys)
            self.iterator.seek(key)
            self.place = sum(1 for entry in self.entries if entry[0] < key)


class Story:
    def __init__(self, seed: int, **options: Any) -> None:
        self.chance = random.Random(seed)
        self.keys = sorted(
            b"%04d" % number
            for number in self.chance.sample(range(2000), self.chance.choice([8, 60, 300]))
        )
        self.options = (
            SMALL
            | options
            | {
                "lru_cache_size": self.chance.choice([0, 1 << 14, 1 << 20]),
                "bloom_filter_bits": self.chance.choice([0, 10]),
                "block_restart_interval": self.chance.choice([1, 16]),
            }
        )
        self.holds = self.chance.random() < 0.8  # snapshots and history, ever
        self.size = self.chance.choice([4, 100, 900])
        self.disk = MemoryFileSystem()
        self.model = Versions()
        self.durable = 0
        self.retained: int | None = None
        self.held = False  # a snapshot was
        self.open()

    def open(self) -> None:
        self.db = DB("/db", filesystem=self.disk, **self.options)
        self.snapshots: list[Any] = []
        self.walks: list[Walk] = []

    # --- writing ---

    def bounds(self) -> tuple[bytes, bytes]:
        if self.chance.random() < 0.5:
            at = self.chance.randrange(len(self.keys))
            width = self.chance.choice([1, 3, 20])
            return self.keys[at], self.keys[min(len(self.keys) - 1, at + width)] + b"+"
        low, high = sorted(b"%04d" % self.chance.randrange(2000) for _ in range(2))
        return low, high

    def write(self, chance: random.Random) -> None:
        before = sequence = self.db.last_sequence
        sync = self.options.get("wal", True) and chance.random() < 0.2
        if chance.random() < 0.15:
            low, high = self.bounds()
            start = None if chance.random() < 0.1 else low
            stop = None if chance.random() < 0.1 else high
            assert self.db.delete_range(start, stop, sync=sync) is None
            if self.db.last_sequence > before:
                assert self.db.last_sequence == before + 1
                self.model.ranges.append((start or b"", stop, before + 1))
        else:
            batch = WriteBatch()
            for _ in range(chance.choice([1, 1, 5, 40])):
                what = chance.random()
                key = chance.choice(self.keys)
                if what < 0.07:
                    low, high = self.bounds()
                    batch.delete_range(low, high)
                    if low < high:
                        sequence += 1
                        self.model.ranges.append((low, high, sequence))
                elif what < 0.25:
                    sequence += 1
                    batch.delete(key)
                    self.model.set(key, sequence, None)
                else:
                    sequence += 1
                    value = b"%d/" % sequence + bytes(chance.randrange(self.size))
                    batch.put(key, value)
                    self.model.set(key, sequence, value)
            assert self.db.write(batch, sync=sync) == sequence
        self.model.ends.append(self.db.last_sequence)
        if sync:
            self.durable = self.db.last_sequence

    # --- reading ---

    def check(self) -> None:
        sequences = {self.db.last_sequence, *(snapshot.sequence for snapshot in self.snapshots)}
        # After a power loss it may lie ahead of what is left.
        if self.retained is not None and self.retained <= self.db.last_sequence:
            sequences.update(
                self.chance.sample(
                    range(self.retained, self.db.last_sequence + 1),
                    min(3, self.db.last_sequence + 1 - self.retained),
                )
            )
        for sequence in sequences:
            self.check_at(sequence)

    def check_at(self, sequence: int) -> None:
        state = self.model.at(sequence)
        entries = list(state.items())
        assert list(self.db.iterator(sequence=sequence)) == entries
        assert list(self.db.iterator(sequence=sequence, reverse=True)) == entries[::-1]
        asked = self.chance.sample(self.keys, min(20, len(self.keys)))
        expected = [state.get(key) for key in asked]
        assert [self.db.get(key, sequence=sequence) for key in asked] == expected
        assert self.db.multi_get(asked, sequence=sequence) == expected
        low, high = self.bounds()
        within = [entry for entry in entries if low <= entry[0] < high]
        for reverse in (False, True):
            found = list(self.db.iterator(sequence=sequence, start=low, stop=high, reverse=reverse))
            assert found == (within[::-1] if reverse else within)

    # --- everything else ---

    def step(self) -> None:
        chance = self.chance
        what = chance.choices(
            [
                "write",
                "flush",
                "compact",
                "check",
                "walk",
                "snapshot",
                "history",
                "reopen",
                "crash",
            ],
            [60, 8, 5, 10, 12, 6 * self.holds, 2 * self.holds, 2, 2],
        )[0]
        if what == "write":
            self.write(chance)
        elif what == "flush":
            self.db.flush()
            self.durable = self.db.last_sequence
        elif what == "compact":
            low, high = self.bounds()
            if chance.random() < 0.5:
                self.db.compact_range()
            else:
                self.db.compact_range(start=low, stop=max(low, high))
            self.durable = self.db.last_sequence
        elif what == "check":
            self.check()
        elif what == "walk":
            if len(self.walks) < 3 and chance.random() < 0.4:
                entries = list(self.model.at(self.db.last_sequence).items())
                self.walks.append(Walk(self.db.iterator(), entries))
            elif self.walks and chance.random() < 0.2:
                self.walks.pop(chance.randrange(len(self.walks))).iterator.close()
            for walk in self.walks:
                for _ in range(chance.randrange(10)):
                    walk.move(chance, self.keys)
        elif what == "snapshot":
            if len(self.snapshots) < 3 and chance.random() < 0.6:
                self.snapshots.append(self.db.snapshot())
                self.held = True
            elif self.snapshots:
                self.snapshots.pop(chance.randrange(len(self.snapshots))).close()
        elif what == "history":
            self.db.retain_from(max(0, self.db.last_sequence - chance.choice([0, 5, 100])))
            self.retained = self.db.retained_sequence
        else:
            self.restart(what)

    def restart(self, how: str) -> None:
        if how == "reopen":
            self.db.close()
            if self.options.get("wal", True):
                self.durable = self.model.ends[-1]
        else:
            keep = self.chance.choice(["none", "prefix", "random", "all"])
            self.disk = self.disk.crash(self.chance, keep)  # type: ignore[arg-type]
        self.open()
        self.db.verify()
        reached = self.db.last_sequence
        assert reached >= self.durable
        assert reached in self.model.ends
        self.model.cut(reached)
        self.durable = reached
        self.retained = self.db.retained_sequence
        self.check()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        self.check()
        self.db.verify()
        self.finish()

    def finish(self) -> None:
        """Without readers of the past, a compaction of everything leaves the present alone."""
        for walk in self.walks:
            walk.iterator.close()
        for snapshot in self.snapshots:
            snapshot.close()
        self.walks, self.snapshots = [], []
        # What was kept for a snapshot in the lowest level stays there.
        if self.retained is None and not (self.held or self.options["background"]):
            self.db.compact_range()
            state = self.model.at(self.db.last_sequence)
            stats = self.db.stats()
            assert stats["range_tombstones"] == stats["memtable_entries"] == 0
            assert stats["table_entries"] == len(state)
        self.check()
        self.db.close()


@pytest.mark.parametrize("seed", range(25))
def test_a_story_with_deleted_ranges(seed: int) -> None:
    Story(seed).run(150)


@pytest.mark.parametrize("seed", range(100, 110))
def test_a_story_without_a_log(seed: int) -> None:
    Story(seed, wal=False).run(150)


@pytest.mark.parametrize("seed", range(200, 205))
def test_a_story_with_threads_that_flush_and_compact(seed: int) -> None:
    Story(seed, background=True, compaction_threads=2).run(150)
