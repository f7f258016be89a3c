"""Where the process may have few descriptors: tables give theirs back before anything fails."""

from __future__ import annotations

import contextlib
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


def open_segments() -> int:
    """Of logs, by descriptors of this process."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{descriptor}").endswith(".wal")
    return count


def test_of_many_feeds_those_that_have_caught_up_hold_nothing(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db") as db:
        db.put(b"first", b"v")
        before = open_segments()
        feeds = [db.changes() for _ in range(200)]
        for number in range(3):
            db.put(b"k%d" % number, b"v")
            told = [feed.poll(0) for feed in feeds]
            assert [change.sequence for change in told if change] == [number + 2] * 200
            assert open_segments() == before
        # What is behind has its place at hand, and what it has yet to tell.
        db.put(b"k3", b"v")
        with db.write_batch() as batch:
            for number in range(100):
                batch.put(b"b%d" % number, b"v")
        assert feeds[0].poll(0)
        assert open_segments() == before + 1
        rest = [feeds[0].poll(0) for _ in range(100)]
        assert [change.sequence for change in rest if change] == [*range(6, 106)]
        assert open_segments() == before
        for feed in feeds:
            feed.close()


def test_few_feeds_keep_their_place_at_hand(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db") as db:
        db.put(b"first", b"v")
        before = open_segments()
        feed = db.changes()
        db.put(b"k", b"v")
        assert feed.poll(0)
        assert feed.poll(0) is None
        assert open_segments() == before + 1


def test_feeds_give_descriptors_back_before_a_write_fails(
    tmp_path: Path, few_descriptors: int
) -> None:
    with kvstore.DB(tmp_path / "db", **SMALL) as db:
        feeds = [db.changes(timeout=0) for _ in range(few_descriptors)]
        db.put(KEYS[0], KEYS[0])
        db.put(KEYS[1], KEYS[1])
        for feed in feeds:
            change = feed.poll(0)
            assert change is not None
            assert change.key == KEYS[0], "and it is behind"
        for key in KEYS[2:]:
            db.put(key, key)
        db.compact_range()
        for feed in (feeds[0], feeds[-1]):
            assert sum(1 for _ in feed) == len(KEYS) - 1
