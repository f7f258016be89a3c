"""The filter: no false negatives, few false positives, for any kind of key."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.table.native import FilterFace, TableWriter

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


def fold(a: int, b: int) -> int:
    product = a * b
    return (product ^ product >> 64) % (1 << 64)


def hash_1(key: bytes) -> int:
    """The hash of the format, in plain Python: a table of another program has to agree with it."""
    state = 0x6A09E667F3BCC909 ^ len(key) * 0xBB67AE8584CAA73B % (1 << 64)
    while len(key) > 16:
        first, second = struct.unpack_from("<QQ", key)
        state = fold(first ^ 0x3C6EF372FE94F82B, second ^ state)
        key = key[16:]
    first, second = struct.unpack("<QQ", key.ljust(16, b"\0"))
    return fold(fold(first ^ 0xA54FF53A5F1D36F1, second ^ state), 0x510E527FADE682D1)


@pytest.mark.parametrize("size", [*range(20), 23, 24, 25, 31, 32, 33, 40, 48, 49])
def test_the_bits_of_a_key_are_those_of_the_format(size: int) -> None:
    key = bytes(range(1, size + 1))
    disk = MemoryFileSystem()
    writer = TableWriter(disk, "/1.sst", 1, bloom_bits=10)
    writer.add(key, 1, 1, b"")
    writer.finish()
    line, walk = bytearray(64), hash_1(key) % (1 << 32)
    for _ in range(6):
        walk = walk * 0x9E3779B9 % (1 << 32)
        line[walk >> 26] |= 1 << (walk >> 23 & 7)
    header = struct.pack("<IIQ", 64, 6, 96) + bytes(32)
    written = disk.read_file("/1.sst").partition(header)[2][:64]
    assert written == line
