"""Range tombstones in a memtable, against a list of all of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.memtable.native import MemTableFace
from kvstore._engine.primitives import native as memory

DELETE, PUT = 0, 1

keys = st.binary(max_size=3) | st.integers(0, 30).map(lambda number: b"%02d" % number)
steps = st.lists(
    st.tuples(st.just("put"), keys)
    | st.tuples(st.just("delete"), keys)
    | st.tuples(st.just("range"), keys, keys),
    max_size=80,
)


class Model:
    def __init__(self) -> None:
        self.points: list[tuple[bytes, int, bool]] = []
        self.ranges: list[tuple[bytes, bytes, int]] = []

    def get(self, key: bytes, sequence: int) -> tuple[int, bool] | None:
        seen = [
            (number, put)
            for point, number, put in self.points
            if point == key and number <= sequence
        ]
        seen += [
            (number, False)
            for start, stop, number in self.ranges
            if start <= key < stop and number <= sequence
        ]
        return max(seen, default=None)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_a_lookup_at_any_sequence_agrees_with_a_list_of_all(story: list[tuple[bytes, ...]]) -> None:
    table, model, asked = MemTableFace(), Model(), {b"", b"\xff" * 4}
    for sequence, (what, *given_keys) in enumerate(story, start=1):
        asked.update(given_keys)
        if what == "range":
            start, stop = sorted(given_keys)
            if start < stop:
                table.delete_range(start, stop, sequence)
                model.ranges.append((start, stop, sequence))
        else:
            table.add(given_keys[0], sequence, PUT if what == "put" else DELETE, b"")
            model.points.append((given_keys[0], sequence, what == "put"))
    for key in asked:
        for at in range(len(story) + 2):
            found = table.get(key, at)
            assert (found and (found[0], found[1] is not None)) == model.get(key, at)


SHAPES = {
    "one after another": lambda chance, i: (2 * i, 2 * i + 1),
    "one inside the other": lambda chance, i: (i, 4000 - i),
    "one around the other": lambda chance, i: (2000 - i, 2000 + i + 1),
    "a growing head": lambda chance, i: (0, i + 1),
    "the same again": lambda chance, i: (7, 1000),
    "at random": lambda chance, i: sorted(chance.sample(range(4000), 2)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_many_ranges_are_found_at_every_sequence(shape: str) -> None:
    chance = random.Random(shape)
    table, model = MemTableFace(), Model()
    for i in range(1500):
        low, high = SHAPES[shape](chance, i)
        table.delete_range(b"%06d" % low, b"%06d" % high, i + 1)
        model.ranges.append((b"%06d" % low, b"%06d" % high, i + 1))
    for _ in range(400):
        key, at = b"%06d" % chance.randrange(4100), chance.randrange(1600)
        found = table.get(key, at)
        assert (found and (found[0], False)) == model.get(key, at)
    assert len(table) == 0
    assert table.memory_bytes < 1500 * 150 + (64 << 10)


def test_without_memory_a_range_changes_nothing() -> None:
    table = MemTableFace()
    table.add(b"k", 1, PUT, b"v")
    for sequence in range(2, 40):
        before = [table.get(b"k", at) for at in range(45)]
        for refused in range(1, 10):
            memory.fail_allocation(refused)
            try:
                table.delete_range(b"a", b"z", sequence)
            except MemoryError:
                assert [table.get(b"k", at) for at in range(45)] == before
                continue
            finally:
                memory.reset()
            break
        assert table.get(b"k", 45) == (sequence, None)
        assert table.get(b"k", 1) == (1, b"v")
