"""Bulk calls beside the loops of single calls that they replace, rows in NumPy arrays.

Run: pytest benchmarks/test_bulk.py --benchmark-enable --benchmark-only --benchmark-group-by=func
"""

from __future__ import annotations

import numpy
import pytest

import kvstore

ROWS = 300_000
CHANCE = numpy.random.default_rng(1)
KEYS = CHANCE.integers(0, 256, (ROWS, 16), dtype=numpy.uint8)
VALUES = CHANCE.integers(0, 256, (ROWS, 100), dtype=numpy.uint8)


def put_loop(db):
    for key, value in zip(KEYS, VALUES, strict=True):
        db.put(key, value)


def put_many(db):
    db.put_many(KEYS, VALUES)


def get_loop(db):
    values = numpy.empty_like(VALUES)
    for row, key in enumerate(KEYS):
        values[row] = numpy.frombuffer(db.get(key), numpy.uint8)
    return values


def multi_get(db):
    found = db.multi_get([key.tobytes() for key in KEYS])
    return numpy.frombuffer(b"".join(found), numpy.uint8).reshape(VALUES.shape)


def get_many(db):
    found, values = db.get_many(KEYS, value_width=100)
    assert found.all()
    return values


def scan_loop(db):
    keys = numpy.empty_like(KEYS)
    values = numpy.empty_like(VALUES)
    for row, (key, value) in enumerate(db):
        keys[row] = numpy.frombuffer(key, numpy.uint8)
        values[row] = numpy.frombuffer(value, numpy.uint8)
    return values


def scan_and_join(db):
    keys, values = zip(*db, strict=True)
    numpy.frombuffer(b"".join(keys), numpy.uint8).reshape(KEYS.shape)
    return numpy.frombuffer(b"".join(values), numpy.uint8).reshape(VALUES.shape)


def scan(db):
    ((_, values),) = db.scan(rows=ROWS, key_width=16, value_width=100)
    return values


@pytest.mark.parametrize("call", [put_loop, put_many])
def test_writing(benchmark, tmp_path, call):
    made = []

    def fresh():
        for db in made:
            db.close()
        made.append(kvstore.DB(tmp_path / str(len(made)), write_buffer_size=256 << 20))
        return (made[-1],), {}

    benchmark.pedantic(call, setup=fresh, rounds=9)
    assert made[-1].last_sequence == ROWS
    made[-1].close()


@pytest.fixture(scope="module", params=["memory", "tables"])
def filled(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    with kvstore.DB(path / "db", write_buffer_size=256 << 20) as db:
        db.put_many(KEYS, VALUES)
        if request.param == "tables":
            db.compact_range()
        yield db


@pytest.mark.parametrize("call", [get_loop, multi_get, get_many])
def test_reading_random_keys(benchmark, filled, call):
    assert (benchmark.pedantic(call, (filled,), rounds=3, warmup_rounds=1) == VALUES).all()


@pytest.mark.parametrize("call", [scan_loop, scan_and_join, scan])
def test_scanning(benchmark, filled, call):
    assert len(benchmark.pedantic(call, (filled,), rounds=3, warmup_rounds=1)) == ROWS
