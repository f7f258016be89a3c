"""What lacks memory after tables have become current."""

from __future__ import annotations

import pytest

from kvstore import DB
from kvstore._engine.database import native
from kvstore._engine.files.native import MemoryFileSystem, TwoCopies


def lack_memory_once(monkeypatch: pytest.MonkeyPatch) -> object:
    """In noting the manifest's end: along with the edit that names tables, and right behind it."""
    note_end, begin = native.note_end, TwoCopies.begin

    def lacking_before(*_given: object) -> None:
        monkeypatch.setattr(TwoCopies, "begin", begin)
        raise MemoryError

    def lacking(*_given: object) -> None:
        monkeypatch.setattr(native, "note_end", note_end)
        raise MemoryError

    monkeypatch.setattr(TwoCopies, "begin", lacking_before)
    monkeypatch.setattr(native, "note_end", lacking)
    return note_end


@pytest.mark.parametrize("job", ["flush", "compact_range"])
def test_tables_that_are_current_stay_where_memory_is_lacking_after_that(
    job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, background=False) as db:
        db.put(b"a", b"1")
        db.flush()
        db.put(b"b", b"2")
        if job == "compact_range":
            db.delete(b"a")
            db.flush()
        noted = lack_memory_once(monkeypatch)
        getattr(db, job)()
        assert native.note_end is noted
        assert db.get(b"b") == b"2"
        db.put(b"c", b"3")
        db.flush()
    with DB("/db", filesystem=disk) as db:
        db.verify()
        assert db.get(b"b") == b"2"
        assert db.get(b"c") == b"3"
