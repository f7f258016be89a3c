"""A caller that numbers its writes may repeat a sequence: of one key, the later operation stands.

Whatever the two are, put or delete, and wherever a flush, a compaction or a reopening fell between.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, WriteBatch

SMALL = {
    "wal": False,
    "background": False,
    "write_buffer_size": 64 << 10,
    "max_file_size": 64 << 10,
    "compaction_trigger": 2,
}

keys = st.sampled_from([b"a", b"b", b"c", b"d"])
operations = st.tuples(
    keys,
    st.none() | st.binary(max_size=3),
    # How far the sequence goes on: mostly not at all.
    st.sampled_from([0, 0, 0, 1]),
)
steps = st.lists(
    st.lists(operations, min_size=1, max_size=4)
    | st.sampled_from(["flush", "compact", "reopen", "snapshot"]),
    max_size=25,
)


class Model:
    """Each key's versions by sequence."""

    def __init__(self) -> None:
        self.versions: dict[bytes, dict[int, bytes | None]] = {}

    def set(self, key: bytes, sequence: int, value: bytes | None) -> None:
        self.versions.setdefault(key, {})[sequence] = value

    def at(self, sequence: int) -> dict[bytes, bytes]:
        found = {}
        for key in sorted(self.versions):
            seen = [number for number in self.versions[key] if number <= sequence]
            value = self.versions[key][max(seen)] if seen else None
            if value is not None:
                found[key] = value
        return found


def check(db: DB, model: Model, sequence: int) -> None:
    expected = model.at(sequence)
    assert list(db.iterator(sequence=sequence)) == list(expected.items())
    assert list(db.iterator(sequence=sequence, reverse=True)) == list(expected.items())[::-1]
    for key in (b"a", b"b", b"c", b"d"):
        assert db.get(key, sequence=sequence) == expected.get(key)
    assert db.multi_get([b"a", b"b", b"c", b"d"], sequence=sequence) == [
        expected.get(key) for key in (b"a", b"b", b"c", b"d")
    ]


@settings(max_examples=150, deadline=None)
@given(steps)
def test_the_later_operation_stands(
    story: list[list[tuple[bytes, bytes | None, int]] | str],
) -> None:
    disk, model, sequence, held = MemoryFileSystem(), Model(), 1, set()
    db = DB("/db", filesystem=disk, **SMALL)
    snapshots = []
    for step in story:
        if step == "flush":
            db.flush()
        elif step == "compact":
            db.compact_range()
        elif step == "reopen":
            db.flush()
            db.close()
            db = DB("/db", filesystem=disk, **SMALL)
            held, snapshots = set(), []
        elif step == "snapshot":
            snapshots.append(db.snapshot())
            held.add(snapshots[-1].sequence)
        else:
            batch, first = WriteBatch(), sequence
            for key, value, ahead in step:
                sequence += ahead
                if value is None:
                    batch.delete(key, sequence=sequence)
                else:
                    batch.put(key, value, sequence=sequence)
                model.set(key, sequence, value)
            db.write(batch, sequence=first)
        for moment in {*held, db.last_sequence}:
            check(db, model, moment)
    db.close()


@pytest.mark.parametrize("between", ["nothing", "flush", "compact"])
@pytest.mark.parametrize("last", ["put", "delete"])
def test_of_a_put_and_a_delete_at_one_sequence_the_later_stands(between: str, last: str) -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        for step in ("put", "delete") if last == "delete" else ("delete", "put"):
            batch = WriteBatch()
            if step == "put":
                batch.put(b"k", b"v")
            else:
                batch.delete(b"k")
            db.write(batch, sequence=5)
            if between == "flush":
                db.flush()
            elif between == "compact":
                db.compact_range()
        assert db.get(b"k") == (b"v" if last == "put" else None)
        assert dict(db) == ({b"k": b"v"} if last == "put" else {})


def test_a_put_after_a_deleted_range_of_the_same_sequence_stands_in_memory_and_in_tables() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), wal=False, background=False) as db:
        db.put(b"b", b"old")
        db.put(b"c", b"old")
        batch = WriteBatch()
        batch.delete_range(b"a", b"z")
        batch.put(b"b", b"new")
        db.write(batch, sequence=5)
        for place in (lambda: None, db.flush, db.compact_range):
            place()
            assert (db.get(b"b"), db.get(b"c")) == (b"new", None)
            assert db.multi_get([b"b", b"c"]) == [b"new", None]
            assert list(db) == list(db.iterator(reverse=True)) == [(b"b", b"new")]
