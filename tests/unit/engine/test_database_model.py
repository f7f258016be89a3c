"""The database against a sorted dict: whatever is done to both, they say the same.

On a memory disk, with buffers and tables so small that several levels form; now and then the power
goes. A failure prints the shortest story that hypothesis finds.
"""

from __future__ import annotations

import bisect
import itertools
import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Iterator, Snapshot, WriteBatch

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
OPEN_MAX = 4

keys = st.integers(0, 600).map(lambda number: b"%04d" % (number * number % 601))
values = st.tuples(st.integers(0, 255), st.sampled_from([0, 1, 30, 400, 5000])).map(
    lambda drawn: bytes([drawn[0]]) * drawn[1]
)
operations = st.lists(st.tuples(keys, st.none() | values), min_size=1, max_size=60)

State = dict[bytes, bytes]


class Walk:
    """An iterator beside the sorted list that it walks, and its place between two entries."""

    def __init__(self, iterator: Iterator, entries: list[tuple[bytes, bytes]]) -> None:
        self.iterator = iterator
        self.entries = entries
        self.place = 0

    def forward(self) -> None:
        expected = self.entries[self.place] if self.place < len(self.entries) else None
        assert next(self.iterator, None) == expected
        self.place += expected is not None

    def backward(self) -> None:
        expected = self.entries[self.place - 1] if self.place else None
        try:
            found = self.iterator.prev()
        except StopIteration:
            found = None
        assert found == expected
        self.place -= expected is not None

    def seek(self, key: bytes) -> None:
        self.iterator.seek(key)
        self.place = bisect.bisect_left([entry[0] for entry in self.entries], key)


class DatabaseMachine(RuleBasedStateMachine):
    """``states``: what a power loss may leave, the last one being the present."""

    wal = True

    @initialize(
        cache=st.sampled_from([0, 1 << 14, 1 << 20]),
        interval=st.sampled_from([1, 2, 16]),
        bloom=st.sampled_from([0, 10]),
    )
    def begin(self, cache: int, interval: int, bloom: int) -> None:
        self.options = dict(
            SMALL,
            lru_cache_size=cache,
            block_restart_interval=interval,
            bloom_filter_bits=bloom,
            wal=self.wal,
        )
        self.disk = MemoryFileSystem()
        self.numbers = itertools.count(1)
        self.states: list[tuple[int, State]] = [(0, {})]
        self.open()

    def open(self) -> None:
        self.db = DB("/db", filesystem=self.disk, **self.options)
        self.snapshots: list[tuple[Snapshot, State]] = []
        self.walks: list[Walk] = []

    @property
    def state(self) -> State:
        return self.states[-1][1]

    def wrote(self, state: State, *, durable: bool) -> None:
        number = next(self.numbers)
        self.states = [*([] if durable else self.states), (number, state)]

    # --- writing ---

    @rule(key=keys, value=values, sync=st.booleans())
    def put(self, key: bytes, value: bytes, sync: bool) -> None:
        self.write([(key, value)], sync)

    @rule(key=keys, sync=st.booleans())
    def delete(self, key: bytes, sync: bool) -> None:
        self.write([(key, None)], sync)

    @rule(changes=operations, sync=st.booleans())
    def write(self, changes: list[tuple[bytes, bytes | None]], sync: bool) -> None:
        state = dict(self.state)
        batch = WriteBatch()
        for key, value in changes:
            if value is None:
                batch.delete(key)
                state.pop(key, None)
            else:
                batch.put(key, value)
                state[key] = value
        if self.wal:
            if len(changes) > 1:
                self.db.write(batch, sync=sync)
            elif changes[0][1] is None:
                self.db.delete(changes[0][0], sync=sync)
            else:
                self.db.put(*changes[0], sync=sync)
            self.wrote(state, durable=sync)
        else:
            self.wrote(state, durable=False)
            self.db.write(batch, applied_index=self.states[-1][0])

    @rule(seed=st.integers(0, 1 << 16))
    def write_much(self, seed: int) -> None:
        """What it takes for tables to sink into the lower levels."""
        chance = random.Random(seed)
        for _ in range(4):
            changes = [
                (b"%04d" % chance.randrange(601), chance.randbytes(chance.choice([20, 900])))
                for _ in range(80)
            ]
            self.write([(key, value if value[0] > 20 else None) for key, value in changes], False)

    @precondition(lambda self: self.wal)
    @rule(first=keys, second=keys)
    def delete_range(self, first: bytes, second: bytes) -> None:
        first, second = sorted((first, second))
        state = {key: value for key, value in self.state.items() if not first <= key < second}
        assert self.db.delete_range(first, second) is None
        if first < second:
            self.wrote(state, durable=False)

    # --- reading ---

    @rule(wanted=st.lists(keys, max_size=10))
    def get(self, wanted: list[bytes]) -> None:
        expected = [self.state.get(key) for key in wanted]
        assert [self.db.get(key) for key in wanted] == expected
        assert self.db.multi_get(wanted) == expected

    @rule(
        first=keys, second=keys, reverse=st.booleans(), ends=st.tuples(st.booleans(), st.booleans())
    )
    def scan(self, first: bytes, second: bytes, reverse: bool, ends: tuple[bool, bool]) -> None:
        first, second = sorted((first, second))
        found = list(
            self.db.iterator(
                start=first,
                stop=second,
                reverse=reverse,
                include_start=ends[0],
                include_stop=ends[1],
            )
        )
        expected = [
            (key, self.state[key])
            for key in sorted(self.state, reverse=reverse)
            if (first < key < second)
            or (ends[0] and key == first and (first < second or ends[1]))
            or (ends[1] and key == second and (first < second or ends[0]))
        ]
        assert found == expected

    @precondition(lambda self: len(self.walks) < OPEN_MAX)
    @rule()
    def begin_walk(self) -> None:
        self.walks.append(Walk(self.db.iterator(), sorted(self.state.items())))

    @precondition(lambda self: self.walks)
    @rule(data=st.data(), moves=st.lists(st.sampled_from("ffffbbb") | keys, max_size=15))
    def move(self, data: st.DataObject, moves: list[str | bytes]) -> None:
        walk = data.draw(st.sampled_from(self.walks))
        for how in moves:
            if how == "f":
                walk.forward()
            elif how == "b":
                walk.backward()
            else:
                walk.seek(how)  # type: ignore[arg-type]

    @precondition(lambda self: self.walks)
    @rule(data=st.data())
    def end_walk(self, data: st.DataObject) -> None:
        self.walks.pop(data.draw(st.integers(0, len(self.walks) - 1))).iterator.close()

    @precondition(lambda self: len(self.snapshots) < OPEN_MAX)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshots.append((self.db.snapshot(), self.state))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), wanted=st.lists(keys, max_size=5))
    def use_snapshot(self, data: st.DataObject, wanted: list[bytes]) -> None:
        snapshot, state = data.draw(st.sampled_from(self.snapshots))
        assert [snapshot.get(key) for key in wanted] == [state.get(key) for key in wanted]
        assert list(snapshot.iterator(reverse=True)) == sorted(state.items(), reverse=True)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def end_snapshot(self, data: st.DataObject) -> None:
        self.snapshots.pop(data.draw(st.integers(0, len(self.snapshots) - 1)))[0].close()

    # --- upkeep, restarts and power losses ---

    @rule()
    def flush(self) -> None:
        self.db.flush()
        self.states = self.states[-1:]

    @rule(ends=st.none() | st.tuples(keys, keys))
    def compact(self, ends: tuple[bytes, bytes] | None) -> None:
        if ends is None:
            self.db.compact_range()
        else:
            self.db.compact_range(start=min(ends), stop=max(ends))
        self.states = self.states[-1:]

    @rule()
    def reopen(self) -> None:
        self.db.close()
        if self.wal:
            self.states = self.states[-1:]
        self.open()
        self.found()

    @rule(keep=st.sampled_from(["none", "prefix", "random", "all"]), seed=st.integers(0, 1 << 16))
    def lose_power(self, keep: str, seed: int) -> None:
        self.disk = self.disk.crash(random.Random(seed), keep)  # type: ignore[arg-type]
        self.open()
        self.db.verify()
        self.found()

    def found(self) -> None:
        """The database is in one of the states that it may be in; go on from there."""
        now = dict(self.db)
        if self.wal:
            possible = [state for state in self.states if state[1] == now]
        else:
            # It knows itself which one it is in.
            index = self.db.flushed_index
            possible = [state for state in self.states if state[0] == index and state[1] == now]
        assert possible, f"{len(now)} keys, none of {len(self.states)} states"
        self.states = possible[-1:]

    @invariant()
    def the_number_of_entries_is_right(self) -> None:
        if hasattr(self, "db"):
            assert sum(1 for _ in self.db.iterator(include_value=False)) == len(self.state)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()


class UnloggedMachine(DatabaseMachine):
    """Without a log: what was flushed is left, and its applied index says which state that is."""

    wal = False


HOW = settings(
    max_examples=60,
    stateful_step_count=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TestDatabase = DatabaseMachine.TestCase
TestDatabase.settings = HOW
TestUnlogged = UnloggedMachine.TestCase
TestUnlogged.settings = HOW
