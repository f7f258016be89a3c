"""Flush and compaction take the entries of many sources in one order, whatever their keys share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB

OPTIONS: dict[str, Any] = {
    "wal": False,
    "background": False,
    "compaction_trigger": 12,
    "max_file_size": 64 << 10,
    "block_size": 256,
    "max_open_files": 64,
}

Write = tuple[bytes, bytes | None]

# What orders keys by a few bytes at a time has it hardest where they end, in zeros above all, and
# where they differ just before or after the bytes looked at.
stems = st.sampled_from(
    [b"", b"\0", b"a", b"ab", b"a" * 6, b"a" * 7, b"\0" * 6, b"p" * 40, b"\xff"]
)
tails = st.one_of(
    st.lists(st.sampled_from([b"\0", b"\x01", b"a", b"\xff"]), max_size=9).map(b"".join),
    st.binary(max_size=3),
)
keys = st.tuples(stems, tails).map(b"".join)
runs = st.lists(
    st.lists(st.tuples(keys, st.none() | st.binary(max_size=4)), min_size=1, max_size=30),
    min_size=1,
    max_size=9,
)


def write_runs(db: DB, runs: Sequence[Sequence[Write]]) -> list[tuple[int, dict[bytes, bytes]]]:
    """Each run into a table of its own; what was there after each, by sequence."""
    model: dict[bytes, bytes] = {}
    seen = []
    for run in runs:
        for key, value in run:
            if value is None:
                db.delete(key)
                model.pop(key, None)
            else:
                db.put(key, value)
                model[key] = value
        db.flush()
        seen.append((db.last_sequence, dict(model)))
    return seen


def check(db: DB, sequence: int, model: dict[bytes, bytes]) -> None:
    assert list(db.iterator(sequence=sequence)) == sorted(model.items())
    for key, value in model.items():
        assert db.get(key, sequence=sequence) == value


@settings(max_examples=40, deadline=None)
@given(runs, st.booleans(), st.sampled_from([1, 4, 16]))
def test_merged_runs_hold_what_was_written(
    runs: list[list[Write]], history: bool, restart_interval: int
) -> None:
    with DB(
        "/db", filesystem=MemoryFileSystem(), block_restart_interval=restart_interval, **OPTIONS
    ) as db:
        if history:
            db.retain_from(0)
        seen = write_runs(db, runs)
        for _ in range(2):
            for sequence, model in seen if history else seen[-1:]:
                check(db, sequence, model)
            db.compact_range()
        if not history:
            assert db.stats()["table_entries"] == len(seen[-1][1])


@pytest.mark.parametrize("history", [False, True])
def test_keys_that_share_more_than_is_counted(history: bool) -> None:
    """Beyond 65,534 bytes the input doesn't know what two keys share, and they are compared."""
    chance = random.Random(7)
    family = [
        b"k" * size + tail
        for size in (65_520, 65_533, 65_534, 65_535, 65_600, 70_000)
        for tail in (b"", b"\0", b"a", b"ab", b"b" * 20)
    ]
    runs = [
        [(key, b"%d" % number) for key in sorted(chance.sample(family, 12))] for number in range(5)
    ]
    with DB("/db", filesystem=MemoryFileSystem(), **OPTIONS) as db:
        if history:
            db.retain_from(0)
        seen = write_runs(db, runs)
        db.compact_range()
        for sequence, model in seen if history else seen[-1:]:
            check(db, sequence, model)
        assert db.stats()["table_entries"] == (60 if history else len(seen[-1][1]))


def test_a_deleted_range_is_stepped_over_among_many_sources() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **OPTIONS) as db:
        model = {}
        for run in range(6):
            for number in range(run, 6000, 7):
                key = b"%05d" % number
                db.put(key, b"%d" % run)
                model[key] = b"%d" % run
            db.flush()
        for start, stop in ((b"00100", b"00900"), (b"01000", b"01001"), (b"02000", b"05999")):
            db.delete_range(start, stop)
            model = {key: value for key, value in model.items() if not start <= key < stop}
        for number in range(50, 3000, 11):
            key = b"%05d" % number
            db.put(key, b"after")
            model[key] = b"after"
        db.flush()
        db.compact_range()
        check(db, db.last_sequence, model)
        assert db.stats()["table_entries"] == len(model)


@pytest.mark.parametrize(("tables", "most_bytes"), [(2, 256 << 10), (4, 128 << 10), (8, 64 << 10)])
def test_the_tables_that_a_job_reads_share_its_windows(tables: int, most_bytes: int) -> None:
    disk = MemoryFileSystem()
    values = random.Random(1)
    options = OPTIONS | {"max_file_size": 32 << 20, "block_size": 4096}
    with DB("/db", filesystem=disk, **options) as db:
        for _ in range(tables):
            for number in range(1000):
                db.put(b"%04d" % number, values.randbytes(1024))
            db.flush()
        before = disk.counts["pread"]
        db.compact_range()
        read = db.stats()["compaction_read_bytes"]
        assert read > tables * 1_000_000
        # Beside the windows: what opening a table and finding its blocks takes.
        assert read / most_bytes <= disk.counts["pread"] - before <= read / most_bytes + 10 * tables
