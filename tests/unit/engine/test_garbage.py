"""Versions that nobody needs any more go, also from tables that nothing is merged with."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.version.native import Edit, TableEntry, decode_edit, encode_edit
from kvstore.engine import DB

SMALL: dict[str, Any] = {
    "background": False,
    "wal": False,
    "max_file_size": 64 << 10,
    "block_size": 1024,
}
KEYS = 2000
ROUNDS = 4


def with_history(db: DB) -> None:
    """Each key some times over, all of it in the lowest level."""
    db.retain_from(0)
    for number in range(ROUNDS):
        for key in range(KEYS):
            db.put(b"%05d" % key, b"%d" % number)
    for key in range(0, KEYS, 2):
        db.delete(b"%05d" % key)
    db.compact_range()
    stats = db.stats()
    assert stats["table_entries"] == KEYS * ROUNDS + KEYS // 2
    assert stats["table_superseded"] == KEYS * ROUNDS - KEYS // 2
    assert [level["tables"] > 0 for level in stats["levels"]] == [False, True, *[False] * 5]


def left(db: DB) -> tuple[int, int, int]:
    stats = db.stats()
    return stats["table_entries"], stats["table_superseded"], stats["table_tombstones"]


def test_compact_range_writes_the_lowest_level_anew_where_history_was_let_go_of() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        with_history(db)
        before = db.stats()["compactions"]
        db.compact_range(start=b"00000", stop=b"00500")
        # History is kept from the first write on: what was written anew could let go of nothing.
        assert left(db) == (KEYS * ROUNDS + KEYS // 2, KEYS * ROUNDS - KEYS // 2, KEYS // 2)
        db.retain_from(db.last_sequence)
        db.compact_range(start=b"00000", stop=b"00100")
        # Of the range alone.
        assert KEYS // 2 < left(db)[0] < KEYS * ROUNDS
        db.compact_range()
        assert left(db) == (KEYS // 2, 0, 0)
        assert db.count() == KEYS // 2
        compactions = db.stats()["compactions"]
        assert compactions > before
        # Nothing is left to be done.
        db.compact_range()
        assert db.stats()["compactions"] == compactions
        db.verify()


def test_a_snapshot_keeps_what_it_sees_until_it_is_closed() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        with_history(db)
        snapshot = db.snapshot(sequence=KEYS)
        db.retain_from(db.last_sequence)
        db.compact_range()
        assert list(snapshot.values()) == [b"0"] * KEYS
        # The first version of each, and the newest or its delete.
        assert left(db)[0] == 2 * KEYS
        snapshot.close()
        db.compact_range()
        assert left(db) == (KEYS // 2, 0, 0)


def test_flushes_see_to_it_by_themselves_where_most_of_a_table_is_garbage() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        with_history(db)
        db.put(b"elsewhere", b"")
        db.retain_from(db.last_sequence)
        db.flush()
        assert left(db) == (KEYS // 2 + 1, 0, 0)
        # In their own level: to sink would bring them nothing but further merges.
        assert db.stats()["levels"][1]["tables"] > 0
        assert db.stats()["compaction_score"] < 1


def test_few_large_values_count_as_well() -> None:
    options = SMALL | {"max_file_size": 8 << 20}
    with DB("/db", filesystem=MemoryFileSystem(), **options) as db:
        db.retain_from(0)
        for number in range(4):
            db.put(b"k", bytes(300_000) + b"%d" % number)
        db.compact_range()
        assert left(db) == (4, 3, 0)
        db.retain_from(db.last_sequence)
        db.put(b"elsewhere", b"")
        db.flush()
        assert left(db) == (2, 0, 0)


def test_so_does_the_background_once_history_is_let_go_of() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL | {"background": True}) as db:
        with_history(db)
        db.retain_from(db.last_sequence)
        # Waits for the job that is under way, and does what is left.
        db.compact_range()
        assert left(db) == (KEYS // 2, 0, 0)


def test_what_is_still_to_be_read_is_not_rewritten_for_it() -> None:
    with DB("/db", filesystem=MemoryFileSystem(), **SMALL) as db:
        with_history(db)
        before = db.stats()["compactions"]
        db.retain_from(KEYS)
        db.put(b"elsewhere", b"")
        db.flush()
        assert db.stats()["compactions"] == before


def test_the_lowest_level_of_all_is_cleaned_too() -> None:
    """Tables that have sunk to it are merged with nothing that is written elsewhere."""
    options = SMALL | {
        "level_size_base": 256 << 10,
        "level_size_multiplier": 2,
        "compaction_trigger": 2,
        "write_buffer_size": 64 << 10,
    }
    with DB("/db", filesystem=MemoryFileSystem(), **options) as db:
        db.retain_from(0)
        for number in range(8):
            for key in range(50_000):
                db.put(b"%05d" % key, b"%016d" % number)
            db.flush()
        db.compact_range()
        assert db.stats()["levels"][6]["tables"] > 0
        db.retain_from(db.last_sequence)
        db.put(b"elsewhere", b"")
        db.flush()
        # The tables that two compactions ended with may hold too little to be worth it.
        entries, superseded, tombstones = left(db)
        assert entries - superseded == 50_001
        assert superseded < 2 * 1024
        assert tombstones == 0
        assert db.count() == 50_001
        db.verify()


def test_how_much_of_a_table_is_superseded_is_noted_in_the_manifest() -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **SMALL) as db:
        with_history(db)
        before = left(db)
    with DB("/db", filesystem=disk, **SMALL) as db:
        assert left(db) == before
        db.checkpoint("/copy")
    with DB("/copy", filesystem=disk, **SMALL) as db:
        assert left(db) == before


@pytest.mark.parametrize("superseded", [0, 1, 1 << 40])
def test_the_note_takes_no_byte_where_there_are_none(superseded: int) -> None:
    entry = (1, 2, 300, 4, 0, 1, 4, b"a" + bytes(8), b"b" + bytes(8), bytes(16), 0, superseded)
    edit = Edit(added=[TableEntry(*entry)])
    payload = encode_edit(edit)
    assert decode_edit(payload) == edit
    assert (b"\x4c" in payload) == bool(superseded)
