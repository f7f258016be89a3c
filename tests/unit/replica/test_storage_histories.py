"""Random histories of a member's log against a model: replays, and what the tail reads back."""

from __future__ import annotations

import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.raft import Bundle, Entry, EntryKind, Fetch, HardState, Membership, SnapshotMeta
from kvstore.replica.storage import Identity, MemberLog

ME = Identity("cluster-a", 1)
MEMBERS = Membership(voters=frozenset({1, 2, 3}))


class History:
    """A log, and what its entries, mark and commit index must be."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.disk = MemoryFileSystem()
        self.disk.make_directories("/d")
        self.entries: dict[int, Entry] = {}
        self.term = 1
        self.last = self.commit = self.mark = 0
        # Entries up to here came with a snapshot: nobody here knows them.
        self.base = 0
        self.open()

    def open(self) -> None:
        self.log = MemberLog("/d/log", ME, filesystem=self.disk, segment_bytes=4096)
        assert self.log.mark.index == self.mark
        expected = [self.entries[index] for index in range(self.mark + 1, self.last + 1)]
        assert self.log.entries == expected
        self.log.entries = []

    def save(self, first: int, count: int, snapshot: SnapshotMeta | None = None) -> None:
        """Entries from ``first`` on replace what was there."""
        entries = []
        for index in range(first, first + count):
            data = self.chance.randbytes(self.chance.choice((0, 10, 100, 900, 1800)))
            entries.append(Entry(self.term, index, EntryKind.COMMAND, data))
            self.entries[index] = entries[-1]
            self.last = index
        bundle = Bundle(1, must_sync=True, entries=entries, snapshot=snapshot)
        bundle.hard_state = HardState(self.term)
        self.log.save(bundle)

    def append(self) -> None:
        self.save(self.last + 1, self.chance.randint(1, 12))

    def replace(self) -> None:
        """Another leader knows better from some index on."""
        self.term += 1
        first = self.chance.randint(self.commit + 1, self.last + 1)
        self.last = first - 1
        self.save(first, self.chance.randint(1, 4))

    def commit_some(self) -> None:
        self.log.sync()
        self.commit = self.chance.randint(self.commit, self.last)

    def compact(self) -> None:
        if self.commit <= self.mark:
            return
        self.mark = self.chance.randint(self.mark + 1, self.commit)
        self.log.write_mark(SnapshotMeta(self.mark, self.entries[self.mark].term, MEMBERS))
        self.log.sync()
        if self.chance.random() < 0.7:
            self.log.remove_before(self.chance.randint(0, self.mark + 1))

    def install(self) -> None:
        """A snapshot comes that the log doesn't have."""
        self.log.sync()
        self.term += 1
        index = self.chance.randint(self.commit + 1, self.last + 2)
        self.save(index + 1, 0, SnapshotMeta(index, self.term, MEMBERS))
        self.log.sync()
        self.base = self.last = self.commit = self.mark = index
        if self.chance.random() < 0.3:
            self.log.remove_before(index + 1)
        if self.chance.random() < 0.7:
            self.reopen()

    def reopen(self) -> None:
        self.log.sync()
        keep = self.chance.choice(("close", "none", "prefix", "random", "all"))
        if keep == "close":
            self.log.close()
        else:
            self.disk = self.disk.crash(random.Random(self.chance.random()), keep)  # type: ignore[arg-type]
        self.open()

    def read_back(self) -> None:
        lowest = max(self.log.first_readable, self.base + 1)
        if lowest > self.commit:
            return
        first = self.chance.randint(lowest, self.commit)
        last = self.chance.randint(first, self.commit)
        bytes_max = self.chance.choice((1, 500, 5000, 1 << 20))
        found = self.log.read_back(Fetch(2, first, last, bytes_max))
        assert found
        assert found == [self.entries[index] for index in range(first, first + len(found))]


@pytest.mark.parametrize("seed", range(60))
def test_what_was_saved_is_there_and_what_was_replaced_is_not(seed: int) -> None:
    history = History(seed)
    steps = (
        [history.append] * 11
        + [history.replace] * 3
        + [history.commit_some] * 3
        + [history.compact]
        + [history.install, history.reopen] * 2
    )
    for _ in range(history.chance.randint(20, 120)):
        history.chance.choice(steps)()
        history.read_back()
    history.log.close()
