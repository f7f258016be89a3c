"""Deleting a range beside the loop that it replaces, and reads where many ranges were deleted.

Run: pytest benchmarks/test_delete_range.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import random

import pytest

import kvstore

ROWS = 100_000
KEYS = [b"%08d" % number for number in range(ROWS)]
VALUE = bytes(100)
READS = random.Random(1).sample(KEYS, 10_000)


def opened(path, ranges=0, *, tables=False):
    """ROWS keys, then `ranges` deleted ranges of four keys each, all over them."""
    db = kvstore.open(path, background=False, wal=False)
    for key in KEYS:
        db.put(key, VALUE)
    db.compact_range()
    for number in range(ranges):
        at = number * (ROWS // ranges)
        db.delete_range(KEYS[at], KEYS[at + 4])
    if tables:
        db.flush()
    return db


def loop(db):
    with db.write_batch() as batch:
        for key in db.iterator(include_value=False):
            batch.delete(key)


def delete_range(db):
    db.delete_range()


@pytest.mark.benchmark(group="delete 100,000 keys")
@pytest.mark.parametrize("how", [loop, delete_range])
def test_delete(benchmark, tmp_path, how):
    paths = iter(range(1_000))
    databases = []

    def setup():
        databases.append(opened(tmp_path / str(next(paths))))
        return (databases[-1],), {}

    benchmark.pedantic(how, setup=setup, rounds=5)
    for db in databases:
        db.close()


@pytest.mark.benchmark(group="then the first key")
@pytest.mark.parametrize("how", [loop, delete_range])
def test_first_key_after(benchmark, tmp_path, how):
    with opened(tmp_path / "db") as db:
        how(db)
        db.put(b"last", b"")

        def first():
            with db.iterator() as entries:
                return next(entries)

        assert benchmark(first) == (b"last", b"")


def get(db):
    for key in READS:
        db.get(key)


def iterate(db):
    for _ in db:
        pass


def iterate_back(db):
    for _ in db.iterator(reverse=True):
        pass


@pytest.mark.parametrize("tables", [False, True], ids=["memory", "tables"])
@pytest.mark.parametrize("ranges", [0, 1, 100, 10_000])
@pytest.mark.parametrize("read", [get, iterate, iterate_back])
def test_read(benchmark, tmp_path, read, ranges, tables):
    benchmark.group = read.__name__
    with opened(tmp_path / "db", ranges, tables=tables) as db:
        read(db)
        benchmark.pedantic(read, (db,), rounds=5)
