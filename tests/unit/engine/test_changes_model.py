"""Change feeds against a list of all that was written: any order of writes, reads and openings."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvstore import DB, Change, ChangeFeed, ChangeKind, CompactedError, WriteBatch
from kvstore._engine.files.native import MemoryFileSystem

KEYS = st.binary(max_size=2) | st.sampled_from([b"a", b"ab", b"b", b"user:1", b"user:2"])
VALUES = st.binary(max_size=3) | st.sampled_from([300, 70_000]).map(bytes)
BOUNDS = st.none() | KEYS
OPERATION = st.one_of(
    st.tuples(st.just(ChangeKind.PUT), KEYS, VALUES),
    st.tuples(st.just(ChangeKind.DELETE), KEYS, st.none()),
    st.tuples(st.just(ChangeKind.DELETE_RANGE), KEYS, KEYS),
)


class Range:
    """What a feed is to tell of."""

    def __init__(self, start: bytes | None, stop: bytes | None) -> None:
        self.start, self.stop = start or b"", stop

    def shown(self, change: Change) -> Change | None:
        if self.stop is not None and change.key >= self.stop:
            return None
        if change.kind is not ChangeKind.DELETE_RANGE:
            return change if change.key >= self.start else None
        assert change.stop is not None
        if change.stop <= self.start:
            return None
        stop = change.stop if self.stop is None else min(change.stop, self.stop)
        return change._replace(key=max(change.key, self.start), stop=stop)


class Feeds(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryFileSystem()
        self.written: list[Change] = []
        self.synced = 0
        self.feeds: list[tuple[ChangeFeed, Range, int]] = []

    @initialize(
        kept=st.sampled_from([0, 1 << 20, 1 << 40]), behind=st.sampled_from([0, 1 << 20, 1 << 40])
    )
    def open(self, kept: int, behind: int) -> None:
        self.options: dict[str, Any] = {
            "background": False,
            "write_buffer_size": 64 << 10,
            "changes_kept_size": kept,
            "changes_behind_size": behind,
        }
        self.db = DB("/db", filesystem=self.disk, **self.options)

    def teardown(self) -> None:
        self.db.close()

    @rule(
        operations=st.lists(OPERATION, min_size=1, max_size=5),
        sync=st.booleans(),
        times=st.sampled_from([1, 1, 1, 20]),
    )
    def write(
        self,
        operations: list[tuple[ChangeKind, bytes, bytes | None]],
        sync: bool,
        times: int,
    ) -> None:
        for _ in range(times):
            batch = WriteBatch()
            changes: list[Change] = []
            for kind, key, other in operations:
                sequence = len(self.written) + len(changes) + 1
                if kind is ChangeKind.PUT:
                    batch.put(key, other or b"")
                    changes.append(Change(sequence, kind, key, other or b"", None, 0))
                elif kind is ChangeKind.DELETE:
                    batch.delete(key)
                    changes.append(Change(sequence, kind, key, None, None, 0))
                elif other is not None and key < other:
                    batch.delete_range(key, other)
                    changes.append(Change(sequence, kind, key, None, other, 0))
            self.db.write(batch, sync=sync)
            last = len(self.written) + len(changes)
            self.written += [change._replace(batch=last) for change in changes]
        if sync:
            self.synced = len(self.written)

    @rule(data=st.data(), start=BOUNDS, stop=BOUNDS)
    def begin(self, data: st.DataObject, start: bytes | None, stop: bytes | None) -> None:
        since = data.draw(st.integers(0, len(self.written)))
        oldest = self.db.stats()["changes"]["oldest_sequence"]
        try:
            feed = self.db.changes(since, start=start, stop=stop, timeout=0)
        except CompactedError as error:
            assert since + 1 < oldest == error.oldest
            return
        assert since + 1 >= oldest
        self.feeds.append((feed, Range(start, stop), since))

    @precondition(lambda self: self.feeds)
    @rule(data=st.data(), by_batch=st.booleans())
    def read(self, data: st.DataObject, by_batch: bool) -> None:
        place = data.draw(st.integers(0, len(self.feeds) - 1))
        most = data.draw(st.sampled_from([1, 2, 1000]))
        feed, wanted, since = self.feeds.pop(place)
        expected = [change for change in map(wanted.shown, self.written[since:]) if change]
        found: list[Change] = []
        try:
            while len(found) < most:
                if by_batch:
                    batch = feed.poll_batch()
                    if batch is None:
                        break
                    # All of the batch that wasn't told yet.
                    last = batch[-1].batch
                    assert batch == [c for c in expected[len(found) :] if c.batch == last]
                    found += batch
                else:
                    change = feed.poll()
                    if change is None:
                        break
                    found.append(change)
        except CompactedError as error:
            assert feed.sequence + 1 < error.oldest
            feed.close()
        else:
            if len(found) < most:
                assert len(found) == len(expected)
                assert feed.sequence == len(self.written)
            self.feeds.append((feed, wanted, feed.sequence))
        assert found == expected[: len(found)]
        # What was told is durable.
        self.synced = max(self.synced, found[-1].batch if found else 0)

    @precondition(lambda self: self.feeds)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        feed, _, _ = self.feeds.pop(data.draw(st.integers(0, len(self.feeds) - 1)))
        feed.close()

    @rule()
    def flush(self) -> None:
        self.db.flush()

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.feeds.clear()
        self.db = DB("/db", filesystem=self.disk, **self.options)

    @rule(
        random=st.randoms(use_true_random=False), keep=st.sampled_from(["none", "prefix", "random"])
    )
    def lose_power(self, random: Any, keep: Any) -> None:
        after = self.disk.crash(random, keep)
        self.db.close()
        self.feeds.clear()
        self.disk = after
        self.db = DB("/db", filesystem=self.disk, **self.options)
        assert self.db.last_sequence >= self.synced
        del self.written[self.db.last_sequence :]

    @invariant()
    def newest_is_known(self) -> None:
        if hasattr(self, "db"):
            assert self.db.last_sequence == len(self.written)


TestFeeds = Feeds.TestCase
TestFeeds.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
