"""Walks begin behind what an earlier walk found deleted, and see all that is put there since."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch

OFTEN = ["put", "delete", "run", "run", "pop", "pop", "back", "batch", "range", "flush"]
RARELY = ["compact", "snapshot", "drop", "reopen"]


def small(disk: MemoryFileSystem) -> kvstore.DB:
    return kvstore.DB(
        "/db",
        filesystem=disk,
        background=False,
        write_buffer_size=64 << 10,
        max_file_size=64 << 10,
    )


def passed(db: kvstore.DB) -> int:
    return int(db.stats()["passed_entries"])


def first(db: kvstore.DB, **range_: Any) -> bytes | None:
    keys: Iterator[bytes]
    with db.iterator(include_value=False, **range_) as keys:
        return next(keys, None)


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("named", [{}, {"prefix": b"q"}, {"start": b"a", "stop": b"z"}])
def test_pops_from_the_front_pass_over_what_is_deleted_once(
    tmp_path: Path, flushed: bool, named: dict[str, bytes]
) -> None:
    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(2000):
            db.put(b"q%06d" % number, b"v")
        for number in range(1000):
            db.delete(b"q%06d" % number)
        if flushed:
            db.flush()
        assert first(db, **named) == b"q001000"
        before = passed(db)
        for number in range(1000, 1900):
            assert first(db, **named) == b"q%06d" % number
            db.delete(b"q%06d" % number)
        assert passed(db) - before < 3000
        # Also of a queue that is empty, which somebody asks again and again.
        for number in range(1900, 2000):
            db.delete(b"q%06d" % number)
        assert first(db, **named) is None
        before = passed(db)
        for _ in range(100):
            assert first(db, **named) is None
        assert passed(db) - before < 200
        db.put(b"q000500", b"again")
        assert first(db, **named) == b"q000500"


def test_pops_from_the_back_do_as_well(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(1000):
            db.put(b"q%06d" % number, b"v")
        for number in range(500, 1000):
            db.delete(b"q%06d" % number)
        before = 0
        for number in range(499, 99, -1):
            assert first(db, prefix=b"q", reverse=True) == b"q%06d" % number
            before = before or passed(db)
            db.delete(b"q%06d" % number)
        assert passed(db) - before < 1500
        db.put(b"q000800", b"again")
        assert first(db, prefix=b"q", reverse=True) == b"q000800"


def test_readers_of_an_earlier_moment_see_what_was_there(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(100):
            db.put(b"%03d" % number, b"v")
        with db.snapshot() as snapshot:
            for number in range(90):
                db.delete(b"%03d" % number)
            assert first(db) == b"090"
            assert first(db) == b"090"
            with snapshot.iterator(include_value=False) as keys:
                assert next(keys) == b"000"
            assert first(db) == b"090"


def test_a_walk_that_began_before_a_put_notes_nothing_that_hides_it(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(100):
            db.put(b"%03d" % number, b"v")
        for number in range(90):
            db.delete(b"%03d" % number)
        with db.iterator(include_value=False) as earlier:
            db.put(b"050", b"again")
            assert next(earlier) == b"090"
        assert first(db) == b"050"
        batch = WriteBatch()
        batch.put(b"040", b"in a batch")
        assert first(db) == b"050"
        db.write(batch)
        assert first(db) == b"040"


def test_walks_at_an_earlier_sequence_note_nothing(tmp_path: Path) -> None:
    """What they don't see may be there for others: history isn't kept of all keys."""
    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(100):
            db.put(b"%03d" % number, b"v")
        for number in range(90):
            db.delete(b"%03d" % number)
        with db.snapshot() as snapshot:
            db.delete(b"095")
            for walk in (1, 2):
                with snapshot.iterator(include_value=False) as keys:
                    assert next(keys) == b"090"
                # A put and its deletion of each key, each time.
                assert passed(db) == walk * 180
            # But they gain by what others noted, at that moment or before.
            with db.iterator(include_value=False) as newest:
                assert next(newest) == b"090"
            before = passed(db)
            with db.snapshot() as later, later.iterator(include_value=False) as keys:
                assert next(keys) == b"090"
            assert passed(db) == before


def test_a_put_cuts_what_was_noted_and_an_older_walk_does_not_note_it_again(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(100):
            db.put(b"%03d" % number, b"v")
        for number in range(90):
            db.delete(b"%03d" % number)
        with db.iterator(include_value=False) as one, db.iterator(include_value=False) as other:
            assert next(one) == b"090"  # notes it
            db.put(b"050", b"again")  # cuts it
            assert next(other) == b"090"  # its moment is before that
        assert first(db) == b"050"
        db.delete(b"050")
        assert first(db) == b"090"


def test_a_write_that_awaits_its_sync_is_found_once_it_is_seen(tmp_path: Path) -> None:
    async def run(db: kvstore.DB) -> None:
        for number in range(40, 0, -1):
            key = b"%03d" % number
            write = db.put_async(key, b"v", sync=True)
            # Perhaps it is unseen as yet: then the walk passes over all that is deleted.
            assert first(db) in (key, b"%03d" % (number + 1), b"090")
            await write
            assert first(db) == key

    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(100):
            db.put(b"%03d" % number, b"v")
        for number in range(90):
            db.delete(b"%03d" % number)
        asyncio.run(run(db))


def test_numbered_batches_end_a_range_as_well(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db", background=False, wal=False) as db:
        batch = WriteBatch()
        for number in range(100):
            batch.put(b"%03d" % number, b"v", sequence=5)
        for number in range(90):
            batch.delete(b"%03d" % number, sequence=7)
        db.write(batch, sequence=5)
        with db.iterator(include_value=False) as earlier:
            assert first(db) == b"090"
            batch = WriteBatch()
            # Of the sequence that the newest state has already.
            batch.put(b"095", b"v")
            batch.put(b"020", b"v")
            db.write(batch, sequence=7)
            next(earlier)
        found = first(db)
        # A lookup and a walk say the same of it.
        assert found == (b"020" if db.get(b"020") is not None else b"090")
        batch = WriteBatch()
        batch.put(b"030", b"v", sequence=9)
        db.write(batch, sequence=8)
        expected = [key for key in (b"020", b"030") if db.get(key) is not None]
        assert b"030" in expected
        assert first(db) == expected[0]


def test_a_walk_that_rests_while_others_put_notes_nothing_that_hides_it(tmp_path: Path) -> None:
    with kvstore.DB(tmp_path / "db", background=False) as db:
        for number in range(20_000):
            db.put(b"%06d" % number, b"v")
        for number in range(19_999):
            db.delete(b"%06d" % number)
        once = iter([b"000100"])

        def interrupt() -> None:
            for key in once:
                db.put(key, b"meanwhile")

        with db.iterator(interrupt=interrupt) as keys:
            assert next(keys)[0] == b"019999"
        assert first(db) == b"000100"


def parted(there: bool) -> DB:
    """Two of these were written to the same sequence; one has what the other has deleted."""
    disk = MemoryFileSystem()
    disk.make_directories("/db")
    db = DB("/db", filesystem=disk, background=False, wal=False)
    batch = WriteBatch()
    for number in range(100):
        batch.put(b"%03d" % number, b"v", sequence=1)
    for number in range(0 if there else 90):
        batch.delete(b"%03d" % number, sequence=2)
    batch.put(b"last", b"v", sequence=3)
    db.write(batch, sequence=1, applied_index=3)
    db.flush()
    return db


def replace(db: DB, other: DB) -> None:
    export = other.export_range(sequence=3, keep_from=3)
    assert export is not None
    replacement = db.replace_range(b"0", b"1", keep_from=3)
    part, after = export.part(b"0", b"1", 1 << 20)
    assert after is None
    replacement.add(b"0", None, part)
    assert replacement.install()
    export.close()


@pytest.mark.parametrize("there", [False, True])
def test_a_range_that_is_replaced_is_walked_as_it_came(there: bool) -> None:
    with parted(there) as db, parted(not there) as other:
        before, after = (b"000", b"090") if there else (b"090", b"000")
        assert first(db) == before
        with db.iterator(include_value=False) as one, db.iterator(include_value=False) as two:
            replace(db, other)
            # What began before notes nothing that hides what came.
            assert next(one) == before
            assert first(db) == after
            # Nor is what it sees hidden by what a later one noted.
            assert next(two) == before
        assert first(db) == after


def test_whatever_is_done_walks_find_what_lookups_do() -> None:
    for seed in range(12):
        chance = random.Random(seed)
        disk = MemoryFileSystem()
        db = small(disk)
        content: dict[bytes, bytes] = {}
        snapshots: list[tuple[kvstore.Snapshot, dict[bytes, bytes]]] = []
        for step in range(400):
            kind = chance.choice(OFTEN if step % 7 else RARELY)
            key = b"%03d" % chance.randrange(300)
            if kind == "put":
                content[key] = b"%d" % step
                db.put(key, content[key])
            elif kind == "delete":
                content.pop(key, None)
                db.delete(key)
            elif kind == "run":
                start = chance.randrange(300)
                for number in range(start, min(300, start + chance.choice([5, 60]))):
                    content.pop(b"%03d" % number, None)
                    db.delete(b"%03d" % number)
            elif kind in ("pop", "back"):
                found = first(
                    db,
                    reverse=kind == "back",
                    **chance.choice(
                        [{}, {"stop": b"zz"}, {"start": key}, {"start": b"0", "stop": b"3"}]
                        if kind == "pop"
                        else [{"stop": b"zz"}, {"start": b"0", "stop": key}, {}]
                    ),
                )
                if found is not None:
                    del content[found]
                    db.delete(found)
            elif kind == "batch":
                with db.write_batch() as batch:
                    for _ in range(5):
                        key = b"%03d" % chance.randrange(300)
                        content[key] = b"%d" % step
                        batch.put(key, content[key])
            elif kind == "range":
                stop = b"%03d" % (int(key) + 40)
                db.delete_range(key, stop)
                content = {k: v for k, v in content.items() if not key <= k < stop}
            elif kind == "flush":
                db.flush()
            elif kind == "compact":
                db.compact_range()
            elif kind == "snapshot":
                snapshots.append((db.snapshot(), dict(content)))
            elif kind == "drop" and snapshots:
                snapshots.pop()[0].close()
            elif kind == "reopen":
                for snapshot, _ in snapshots:
                    snapshot.close()
                snapshots.clear()
                db.close()
                db = small(disk)
            expected = sorted(content)
            low, high = b"%03d" % chance.randrange(300), b"%03d" % chance.randrange(300)
            within = [k for k in expected if low <= k < high]
            assert first(db) == (expected[0] if expected else None)
            assert first(db, start=low, stop=high) == (within[0] if within else None)
            assert first(db, start=low, stop=high, reverse=True) == (within[-1] if within else None)
            if step % 20 == 0:
                assert list(db.iterator(include_value=False)) == expected
                assert (
                    list(db.iterator(stop=b"zz", include_value=False, reverse=True))
                    == (expected[::-1])
                )
                for snapshot, then in snapshots:
                    with snapshot.iterator(include_value=False) as keys:
                        assert list(keys) == sorted(then)
        db.close()
