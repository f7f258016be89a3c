"""The memtable: order, versions, cursors that survive additions, memory."""

from __future__ import annotations

import bisect
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.memtable.native import MemTableFace
from kvstore._engine.primitives import native as memory

DELETE, PUT = 0, 1
NEWEST = (1 << 56) - 1

Version = tuple[bytes, int, int, bytes]


def order(version: Version) -> tuple[bytes, int, int]:
    key, sequence, kind, _ = version
    return key, -sequence, -kind


class Model:
    """What a memtable must be: versions sorted by key, then newest first; one for each sequence."""

    def __init__(self) -> None:
        self.versions: list[Version] = []

    def add(self, key: bytes, sequence: int, kind: int, value: bytes) -> None:
        at = bisect.bisect_left(self.versions, (key, -sequence, -PUT), key=order)
        if at < len(self.versions) and self.versions[at][:2] == (key, sequence):
            del self.versions[at]
        bisect.insort(self.versions, (key, sequence, kind, value), key=order)

    def get(self, key: bytes, sequence: int) -> tuple[int, bytes | None] | None:
        at = bisect.bisect_left(self.versions, (key, -sequence, -PUT), key=order)
        if at == len(self.versions) or self.versions[at][0] != key:
            return None
        _, found, kind, value = self.versions[at]
        return found, value if kind == PUT else None


def forwards(table: MemTableFace) -> list[Version]:
    cursor, found = table.cursor(), []
    entry = cursor.first()
    while entry is not None:
        found.append(entry)
        entry = cursor.next()
    return found


def backwards(table: MemTableFace) -> list[Version]:
    cursor, found = table.cursor(), []
    entry = cursor.last()
    while entry is not None:
        found.append(entry)
        entry = cursor.prev()
    return found


def test_an_empty_table_has_nothing() -> None:
    table = MemTableFace()
    cursor = table.cursor()
    assert table.get(b"a", NEWEST) is None
    assert len(table) == 0
    assert [cursor.first(), cursor.last(), cursor.seek(b"", NEWEST)] == [None] * 3
    assert [cursor.next(), cursor.prev()] == [None] * 2


def path(chance: random.Random, projects: int, number: bytes) -> bytes:
    numbers = [chance.randrange(n) for n in (5, projects, 9)]
    numbers = [numbers[0], 10 * numbers[0] + numbers[1], numbers[2]]
    return b"/organisations/%s/workspaces/%s/documents/by-owner/%s/%04x" % (
        *(number % ((n,) * number.count(b"%")) for n in numbers),
        chance.randrange(1 << 16),
    )


SHAPES: dict[str, Callable[[random.Random], list[bytes]]] = {
    "ascending": lambda _: [b"%016d" % i for i in range(3000)],
    "descending": lambda _: [b"%016d" % i for i in reversed(range(3000))],
    "shuffled": lambda r: r.sample([b"%016d" % i for i in range(3000)], 3000),
    "outside in": lambda _: [b"%08d" % (i if i % 2 else 9000 - i) for i in range(3000)],
    "inside out": lambda _: [b"%08d" % (5000 + (i if i % 2 else -i)) for i in range(3000)],
    "two rising runs": lambda _: [b"%c%08d" % (97 + i % 2, i) for i in range(3000)],
    "random bytes": lambda r: [r.randbytes(r.randrange(20)) for _ in range(3000)],
    "one long prefix": lambda r: [b"p" * 300 + b"%d" % r.randrange(10**6) for _ in range(3000)],
    "prefixes of each other": lambda r: r.sample([b"a" * i for i in range(1000)], 1000),
    "zero bytes": lambda r: r.sample([b"\0" * i for i in range(1000)], 1000),
    "high bytes": lambda r: r.sample([b"\xff" * i for i in range(1000)], 1000),
    "few keys": lambda r: [b"%d" % r.randrange(3) for _ in range(3000)],
    "one key": lambda _: [b"only"] * 3000,
    "paths": lambda r: [path(r, 12, b"%02d") for _ in range(3000)],
    "paths of many widths": lambda r: [path(r, 12, b"%d" * r.randrange(1, 4)) for _ in range(3000)],
    "paths and what is above them": lambda r: [
        path(r, 30, b"%02d")[: r.choice((4, 8, 20, 31, 40, 99))] for _ in range(3000)
    ],
    "paths written again and again": lambda r: [path(r, 12, b"0%d") for _ in range(3000)],
    "parts of zeros": lambda r: [
        b"\0" * r.randrange(30) + r.choice((b"", b"a", b"b")) + b"\0" * r.randrange(30)
        for _ in range(3000)
    ],
    "parts in common": lambda r: [
        r.choice((b"a", b"ab", b"b\0")) + b"x" * r.choice((20, 21, 40)) + b"%03d" % r.randrange(999)
        for _ in range(3000)
    ],
    "shrinking common prefix": lambda _: [b"x" * (200 - i) + b"y" * i for i in range(200)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_any_order_of_insertion_reads_back_sorted(shape: str) -> None:
    chance = random.Random(shape)
    table, model = MemTableFace(), Model()
    for sequence, key in enumerate(SHAPES[shape](chance), start=1):
        kind = PUT if chance.random() < 0.9 else DELETE
        value = b"%d" % sequence if kind == PUT else b""
        table.add(key, sequence, kind, value)
        model.add(key, sequence, kind, value)
    assert len(table) == len(model.versions)
    assert forwards(table) == model.versions
    assert backwards(table) == model.versions[::-1]
    for key, sequence, _, _ in chance.sample(model.versions, 200):
        for at in (NEWEST, sequence, sequence - 1):
            assert table.get(key, at) == model.get(key, at)
        for other in (key + b"\0", key[:-1], key + b"\xff", b"", b"\xff" * 30):
            assert table.get(other, NEWEST) == model.get(other, NEWEST)


@pytest.mark.parametrize("shape", SHAPES)
def test_sorted_runs_are_merged_in(shape: str) -> None:
    chance = random.Random(shape)
    table, model = MemTableFace(), Model()
    keys = SHAPES[shape](chance) * 2
    sequence = 0
    while keys:
        run, keys = sorted(keys[:400]), keys[400:]
        for at, key in enumerate(run):
            sequence += 1
            table.add(key, sequence, PUT, b"%d" % sequence, ascending=at > 0)
            model.add(key, sequence, PUT, b"%d" % sequence)
        # Between runs, single additions may split the leaf that the last run ended in.
        for key in chance.choices(run, k=50):
            sequence += 1
            table.add(key + b"+", sequence, DELETE, b"")
            model.add(key + b"+", sequence, DELETE, b"")
    assert forwards(table) == model.versions
    assert backwards(table) == model.versions[::-1]
    for key, at, _, _ in chance.sample(model.versions, 200):
        assert table.get(key, at) == model.get(key, at)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([b"aaaaaaaa", b"aaaaaaaab", b"aaaaaaaa\0", b"\xff" * 9]),
                st.lists(
                    st.sampled_from([b"a", b"b", b"\0", b"x" * 20, b"\0" * 20]), max_size=5
                ).map(b"".join),
            ),
            st.integers(0, 50),
            st.sampled_from([PUT, DELETE]),
            st.binary(max_size=4),
        ),
        max_size=300,
    ),
    st.binary(max_size=12),
    st.integers(0, 50),
)
def test_agrees_with_a_sorted_list(versions: list[Version], probe: bytes, at: int) -> None:
    table, model = MemTableFace(), Model()
    for version in versions:
        table.add(*version)
        model.add(*version)
    assert forwards(table) == model.versions
    for key in {probe, *(key for key, *_ in versions)}:
        assert table.get(key, at) == model.get(key, at)
    found = bisect.bisect_left(model.versions, (probe, -at, -PUT), key=order)
    expected = model.versions[found] if found < len(model.versions) else None
    cursor = table.cursor()
    assert cursor.seek(probe, at) == expected
    if expected is not None:
        assert cursor.prev() == (model.versions[found - 1] if found else None)


@pytest.mark.parametrize("direction", ["next", "prev"])
def test_a_cursor_keeps_its_place_while_entries_are_added_around_it(direction: str) -> None:
    chance = random.Random(7)
    table = MemTableFace()
    known = sorted(b"%06d" % i for i in range(0, 4000, 10))
    for sequence, key in enumerate(known):
        table.add(key, sequence, PUT, key)
    cursor = table.cursor()
    entry = cursor.first() if direction == "next" else cursor.last()
    seen, sequence = [], 10_000
    while entry is not None:
        seen.append(entry[0])
        standing = entry[0]
        for _ in range(8):
            # Anywhere but ahead of the cursor, so that what it must still see is known.
            key = b"%06d" % chance.randrange(4000)
            if (key < standing) == (direction == "next") and key != standing:
                table.add(key, sequence, PUT, b"")
                sequence += 1
        entry = cursor.next() if direction == "next" else cursor.prev()
    assert sequence > 11_000
    assert seen == (known if direction == "next" else known[::-1])


def test_a_cursor_sees_what_is_added_ahead_of_it() -> None:
    table = MemTableFace()
    table.add(b"a", 1, PUT, b"1")
    cursor = table.cursor()
    assert cursor.first() == (b"a", 1, PUT, b"1")
    table.add(b"b", 2, PUT, b"2")
    assert cursor.next() == (b"b", 2, PUT, b"2")


def test_the_same_version_added_again_replaces_its_value() -> None:
    table = MemTableFace()
    for i in range(500):
        table.add(b"%03d" % i, 1, PUT, b"old")
    cursor = table.cursor()
    cursor.seek(b"100", 1)
    for i in range(500):
        table.add(b"%03d" % i, 1, PUT, b"new")
    assert len(table) == 500
    assert table.get(b"000", 1) == table.get(b"499", 1) == (1, b"new")
    assert cursor.next() == (b"101", 1, PUT, b"new")


@pytest.mark.parametrize("kinds", [(PUT, DELETE), (DELETE, PUT)])
def test_of_a_put_and_a_delete_at_one_sequence_the_later_stands(kinds: tuple[int, int]) -> None:
    table = MemTableFace()
    # Enough of them to be bounds of leaves, of inner nodes and of the whole table.
    for kind in kinds:
        for i in range(5000):
            table.add(b"%04d" % i, 7, kind, b"%d" % kind)
    assert len(table) == 5000
    expected = [(b"%04d" % i, 7, kinds[1], b"%d" % kinds[1]) for i in range(5000)]
    assert forwards(table) == expected
    assert backwards(table) == expected[::-1]
    for i in range(5000):
        assert table.get(b"%04d" % i, 7) == (7, b"1" if kinds[1] == PUT else None)
        assert table.get(b"%04d" % i, 6) is None


@pytest.mark.parametrize("size", [0, 1, 100, 65_535, 65_536, 1 << 20, 3 << 20])
def test_values_and_keys_of_any_size(size: int) -> None:
    table = MemTableFace()
    before = table.memory_bytes
    key = b"k" * min(size, 1 << 18)
    value = random.Random(size).randbytes(size)
    table.add(key, 1, PUT, value)
    assert table.get(key, 1) == (1, value)
    assert before + len(key) + size <= table.memory_bytes + 16_384
    assert table.memory_bytes <= before + len(key) + size + 200


def test_memory_is_accounted_for_to_the_chunk() -> None:
    table = MemTableFace()
    payload = 0
    for i in range(100_000):
        table.add(b"%016d" % (i * 7919 % 100_000), i, PUT, b"v" * 100)
        payload += 16 + 8 + 100
    # Entry headers, slots at the fill of random insertion, and a last chunk of 2 MiB.
    assert payload < table.memory_bytes < payload + 100_000 * (8 + 26) + (2 << 20)


@pytest.mark.parametrize("meant_for", [1 << 20, 4 << 20, 64 << 20])
def test_memory_comes_by_no_more_than_an_eighth_of_what_it_is_meant_for(meant_for: int) -> None:
    table = MemTableFace(meant_for)
    grown = set()
    for i in range(2 * 16_384):
        before = table.memory_bytes
        table.add(b"%016d" % i, i, PUT, b"v" * 100)
        grown.add(table.memory_bytes - before)
    assert max(grown) == min(meant_for // 8, 2 << 20)


def test_running_out_of_memory_is_reported_and_loses_nothing() -> None:
    script = textwrap.dedent(
        """
        import resource
        from kvstore._engine.memtable.native import MemTableFace

        now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        table = MemTableFace()
        resource.setrlimit(resource.RLIMIT_AS, (now + (24 << 20), now + (24 << 20)))
        added = 0
        try:
            while added < 1_000_000:
                table.add(b"%016d" % (added * 7919 % 1_000_003), added, 1, b"v" * 100)
                added += 1
        except MemoryError:
            pass
        assert 10_000 < added < 1_000_000, added
        assert len(table) == added
        for i in range(added):
            assert table.get(b"%016d" % (i * 7919 % 1_000_003), added) == (i, b"v" * 100), i
        print("kept", added)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("kept")


def shuffled(count: int, rng: random.Random) -> list[int]:
    numbers = list(range(count))
    rng.shuffle(numbers)
    return numbers


PATTERNS: dict[str, Callable[[int, random.Random], list[int]]] = {
    "ascending": lambda count, rng: list(range(count)),
    "descending": lambda count, rng: list(range(count, 0, -1)),
    "random": shuffled,
    "in the gaps": lambda count, rng: [rng.randrange(count) * 100 + 50 for _ in range(count)],
    "one key": lambda count, rng: [5900] * count,
}


@pytest.mark.parametrize("batch", [1, 3, 100, 3000])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("before", [0, 61, 6000])
def test_what_room_was_provided_for_cannot_lack_memory(
    before: int, pattern: str, batch: int
) -> None:
    rng = random.Random(f"{before} {pattern} {batch}")
    table, sequence = MemTableFace(), 0
    for i in range(before):
        sequence += 1
        table.add(b"%08d" % (i * 100), sequence, PUT, b"v" * 10)
    for _ in range(3 if batch > 100 else 30):
        keys = [b"%08d" % n for n in PATTERNS[pattern](batch, rng)]
        values = [b"v" * rng.choice((0, 1, 100, 5000) if batch < 1000 else (0, 10)) for _ in keys]
        table.provide(len(keys), sum(map(len, keys)) + sum(map(len, values)))
        memory.fail_allocation(1, times=None)
        try:
            for key, value in zip(keys, values, strict=True):
                sequence += 1
                table.add(key, sequence, PUT, value)
        finally:
            memory.reset()
    assert forwards(table) == list(reversed(backwards(table)))
    assert len(forwards(table)) == len(table)


def test_room_is_provided_for_a_batch_that_splits_every_leaf() -> None:
    """Far more of it than what an arena has left by chance."""
    table = MemTableFace()
    for i in range(240_000):
        table.add(b"%08d" % (2 * i), i + 1, PUT, b"")
    keys = [b"%08d" % (120 * leaf + 61) for leaf in range(4000)]  # ascending: leaves of 60, full
    table.provide(len(keys), 8 * len(keys))
    memory.fail_allocation(1, times=None)
    try:
        for number, key in enumerate(keys):
            table.add(key, 240_001 + number, PUT, b"")
    finally:
        memory.reset()


def test_room_that_cannot_be_had_changes_nothing() -> None:
    table = MemTableFace()
    table.add(b"a", 1, PUT, b"1")
    before = table.memory_bytes
    memory.fail_allocation(1)
    try:
        with pytest.raises(MemoryError):
            table.provide(100_000, 10_000_000)
    finally:
        memory.reset()
    assert (table.memory_bytes, forwards(table)) == (before, [(b"a", 1, PUT, b"1")])


def test_versions_of_a_key_at_the_edge_of_a_full_leaf_do_not_get_a_leaf_each() -> None:
    table = MemTableFace()
    # The 60 keys of the first leaf, and the one that begins the next.
    for i in range(61):
        table.add(b"%04d" % i, i + 1, PUT, b"")
    before = table.memory_bytes
    for version in range(10_000):
        table.add(b"0060", 100 + version, PUT, b"")
    # An entry is 28 bytes, a leaf a kilobyte for 30 at least.
    assert table.memory_bytes - before < 10_000 * (28 + 2 * 1088 / 30) + (4 << 20)
