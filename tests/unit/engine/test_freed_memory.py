"""What a reader is given doesn't lie in memory that was freed: freed memory is overwritten here.

The C library does that where ``MALLOC_PERTURB_`` asks for it; the sanitizers see more and take
minutes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import kvstore
from kvstore._engine.files.native import MemoryFileSystem

for options in ({"lru_cache_size": 0}, {"lru_cache_size": 1 << 20}):
    db = kvstore.open("/db", filesystem=MemoryFileSystem(), compression=None, **options)
    expected = {}
    for number in range(300):
        key, value = b"%05d" % number, b"%05d" % number * 40
        db.put(key, value)
        expected[key] = value
    with db.snapshot() as before:
        db.flush()
        for key, value in expected.items():
            assert db.get(key) == value, key
            assert before.get(key) == value, key
        assert db.multi_get(list(expected)) == list(expected.values())
        with db.iterator() as entries:
            assert dict(entries) == expected
        with db.iterator(reverse=True) as entries:
            assert dict(entries) == expected
    # Cursors and values outlive the tables that compactions replace.
    with db.iterator() as entries:
        first = next(entries)
        for key in expected:
            db.put(key, b"new")
        db.compact_range()
        assert [first, *entries] == sorted(expected.items())
    db.close()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc overwrites freed memory")
def test_nothing_that_is_read_lies_in_freed_memory() -> None:
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "MALLOC_PERTURB_": "165"},
        check=True,
        timeout=60,
    )
