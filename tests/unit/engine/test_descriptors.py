"""Where the process may have few descriptors: tables give theirs back before anything fails."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore

SMALL = {
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "level_size_base": 256 << 10,
}
KEYS = [b"%06d" % (number * 7919 % 20_000) for number in range(20_000)]


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """A limit of 120 more than what is open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 121
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_more_tables_are_open_than_the_process_may_have_descriptors(
    tmp_path: Path, few_descriptors: int
) -> None:
    with kvstore.DB(tmp_path / "db") as db:
        assert db.stats()["max_open_files"] == few_descriptors - 64
    with kvstore.DB(tmp_path / "db", max_open_files=20) as db:
        assert db.stats()["max_open_files"] == 20


def test_tables_give_descriptors_back(tmp_path: Path, few_descriptors: int) -> None:
    """Someone else takes all the rest of them, and nothing fails for that."""
    with kvstore.DB(tmp_path / "db", **SMALL) as db:
        for key in KEYS:
            db.put(key, key * 15)
        db.compact_range()
        assert all(db.get(key) == key * 15 for key in KEYS)
        assert db.stats()["open_tables"] > 20
        taken = []
        try:
            for _ in range(few_descriptors):
                try:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
            assert all(db.get(key) == key * 15 for key in KEYS)
            assert sum(1 for _ in db) == len(KEYS)
            for key in KEYS:
                db.put(key, key)
            db.flush()
            db.compact_range()
            db.checkpoint(tmp_path / "copy")
            assert all(db.get(key) == key for key in KEYS)
            db.verify()
            assert db.stats()["background_error"] is None
        finally:
            for descriptor in taken:
                os.close(descriptor)
    with kvstore.DB(tmp_path / "db") as db:
        assert dict(db) == {key: key for key in KEYS}
        db.verify()
