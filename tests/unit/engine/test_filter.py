"""The filter: no false negatives, few false positives, for any kind of key."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore._engine.table.native import FilterFace

KEYS: dict[str, Callable[[int], bytes]] = {
    "decimal": lambda i: b"%016d" % i,
    "big-endian": lambda i: i.to_bytes(8, "big"),
    "little-endian": lambda i: i.to_bytes(8, "little"),
    "long and alike": lambda i: b"x" * 100 + b"%d" % i + b"y" * 100,
    "random": lambda i: random.Random(i).randbytes(20),
    "runs of zeros": lambda i: b"\0" * i,
}


@pytest.mark.parametrize("shape", KEYS)
def test_one_key_in_a_hundred_passes_at_ten_bits(shape: str) -> None:
    count = 2_000 if shape == "runs of zeros" else 20_000
    make = KEYS[shape]
    found = FilterFace([make(i) for i in range(count)], 10)
    assert all(make(i) in found for i in range(count))
    passed = sum(make(i) in found for i in range(count, 2 * count))
    assert passed / count < 0.014
    assert len(found) * 8 / count < 10.3


@pytest.mark.parametrize(
    ("bits", "most"),
    [(1, 0.75), (4, 0.18), (6, 0.075), (8, 0.028), (12, 0.007), (16, 0.002), (20, 0.001)],
)
def test_more_bits_let_fewer_pass(bits: int, most: float) -> None:
    found = FilterFace([b"%016d" % i for i in range(20_000)], bits)
    assert all(b"%016d" % i in found for i in range(20_000))
    assert sum(b"%016d" % i in found for i in range(20_000, 60_000)) / 40_000 < most


@given(st.sets(st.binary(max_size=40), min_size=1, max_size=50), st.integers(1, 32))
def test_no_key_is_ever_missed(keys: set[bytes], bits: int) -> None:
    found = FilterFace(sorted(keys), bits)
    assert all(key in found for key in keys)
