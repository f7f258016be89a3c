"""Walks backwards through tables read as much at a time as those forwards, and see the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB

COUNT = 20_000
SMALL: dict[str, Any] = {"background": False, "wal": False, "block_size": 1024}


def key_of(number: int) -> bytes:
    return b"%06d" % number


@pytest.fixture(scope="module")
def tables() -> MemoryFileSystem:
    """A table of many partitions, and a smaller one above it that hides some of it."""
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        for number in range(COUNT):
            db.put(key_of(number), b"value" * (number % 40))
        db.compact_range()
        for number in range(0, COUNT, 7):
            db.delete(key_of(number))
        db.delete_range(key_of(9_000), key_of(9_500))
        for number in range(0, COUNT, 101):
            db.put(key_of(number), b"newer")
        db.flush()
    return disk


@pytest.fixture(scope="module")
def model() -> list[tuple[bytes, bytes]]:
    entries = {}
    for number in range(COUNT):
        if number % 7 and not 9_000 <= number < 9_500:
            entries[key_of(number)] = b"value" * (number % 40)
        if number % 101 == 0:
            entries[key_of(number)] = b"newer"
    return sorted(entries.items())


@pytest.fixture(params=[0, 128 << 10], ids=["no cache", "small cache"])
def db(request: pytest.FixtureRequest, tables: MemoryFileSystem) -> Iterator[DB]:
    options = SMALL | {"lru_cache_size": request.param, "max_open_files": 16}
    with DB("/db", filesystem=tables, **options, read_only=True) as opened:
        yield opened


def test_a_walk_backwards_reads_as_seldom_as_one_forwards(
    db: DB, tables: MemoryFileSystem, model: list[tuple[bytes, bytes]]
) -> None:
    reads = {}
    for reverse in (False, False, True):
        before = tables.counts["pread"]
        assert list(db.iterator(reverse=reverse)) == (model[::-1] if reverse else model)
        reads[reverse] = tables.counts["pread"] - before
    # More than 2,000 blocks; a window of 128 KiB has a hundred of them and more.
    assert 10 < reads[True] <= 2 * reads[False] < 300


def test_bounds_and_prefixes_show_the_same_backwards(
    db: DB, model: list[tuple[bytes, bytes]]
) -> None:
    draw = random.Random(5)
    for _ in range(100):
        low, high = sorted(draw.sample(range(COUNT), 2))
        expected = [pair for pair in model if key_of(low) <= pair[0] < key_of(high)]
        bounded = db.iterator(start=key_of(low), stop=key_of(high), reverse=True)
        assert list(bounded) == expected[::-1]
    for prefix in (b"", b"00", b"0090", b"01", b"01234", b"019999", b"2"):
        expected = [pair for pair in model if pair[0].startswith(prefix)]
        assert list(db.iterator(prefix=prefix, reverse=True)) == expected[::-1]


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_that_turns_shows_what_lies_beside_it(
    db: DB, model: list[tuple[bytes, bytes]], seed: int
) -> None:
    """Runs of any length in either direction, and jumps between them."""
    draw = random.Random(seed)
    keys = [key for key, _ in model]
    with db.iterator() as walk:
        at = 0
        for _ in range(150):
            if draw.random() < 0.3:
                number = draw.randrange(COUNT)
                walk.seek(key_of(number))
                at = next((i for i, key in enumerate(keys) if key >= key_of(number)), len(keys))
            length = draw.choice((1, 2, 30, 300))
            for _ in range(length):
                if draw.random() < 0.02:
                    break
                if at == len(model):
                    break
                assert next(walk) == model[at]
                at += 1
            for _ in range(draw.choice((1, 2, 30, 600))):
                if at == 0:
                    break
                at -= 1
                assert walk.prev() == model[at]


def test_stepping_to_and_fro_reads_no_windows(tables: MemoryFileSystem, db: DB) -> None:
    """A walk that turns begins with one block again, however far it had gone before."""
    sizes = []

    def look(operation: str, path: str) -> None:
        if operation == "pread" and path.endswith(".sst"):
            sizes.append(path)

    with db.iterator(start=key_of(1)) as walk:
        for _ in range(5_000):
            next(walk)
        tables.on_operation = look
        for _ in range(100):
            for _ in range(40):
                walk.prev()
            for _ in range(40):
                next(walk)
        tables.on_operation = None
    # Three blocks or so in either direction, those of the upper table too.
    assert len(sizes) <= 100 * 12
