"""Files that were written when a format was released, and that every later version must read.

tools/make_golden_files.py made them; they are not made anew when the program changes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import PosixFileSystem
from kvstore._engine.log.native import Log
from kvstore._engine.table.native import TableFile
from tests.unit.engine.format2_database import BATCH, SYNC_MARK, read_database, read_log
from tests.unit.engine.format2_reader import read_table

GOLDEN = Path(__file__).parents[2] / "golden"
FORMAT = GOLDEN / "format2"
EXPECTED: dict[str, Any] = json.loads((FORMAT / "expected.json").read_text())
CONTENTS = {bytes.fromhex(k): bytes.fromhex(v) for k, v in EXPECTED["database"].items()}
VERSIONS = [(bytes.fromhex(k), s, kind, bytes.fromhex(v)) for k, s, kind, v in EXPECTED["tables"]]
RECORDS = [(kind, index, term, bytes.fromhex(p)) for kind, index, term, p in EXPECTED["log"]]
NEWEST = (1 << 56) - 1


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMAT / "database", tmp_path / "db"))


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd", "snappy"])
def test_golden_tables_are_read(codec: str) -> None:
    with TableFile(PosixFileSystem(), str(FORMAT / f"tables/{codec}.sst"), 7) as table:
        table.verify()
        cursor, found = table.cursor(), []
        entry = cursor.first()
        while entry is not None:
            found.append(entry)
            entry = cursor.next()
        assert found == VERSIONS
        assert table.get(b"many", 50) == (50, None)
        assert table.get(b"many", 49) == (49, b"version 49")
        assert table.get(b"absent", NEWEST) is None


def test_a_golden_database_is_read_and_goes_on(database: Path) -> None:
    with kvstore.open(database) as db:
        assert dict(db) == CONTENTS
        assert list(reversed(list(db))) == list(db.iterator(reverse=True))
        for key, value in CONTENTS.items():
            assert db.get(key) == value
        db.verify()
        db.put(b"one more", b"!", sync=True)
        db.compact_range()
    with kvstore.open(database) as db:
        assert dict(db) == CONTENTS | {b"one more": b"!"}


def test_a_golden_database_is_read_without_being_touched(database: Path) -> None:
    with kvstore.open(database, read_only=True) as db:
        assert dict(db) == CONTENTS
    now = files_of(database)
    assert {name: now[name] for name in files_of(FORMAT / "database")} == files_of(
        FORMAT / "database"
    )


def test_a_golden_log_is_read() -> None:
    log = Log(FORMAT / "log", sticky_kinds=(8, 9, 10), read_only=True)
    assert [(kind, index, term, bytes(p)) for kind, index, term, p in log.replay()] == RECORDS
    assert log.recovery.clean
    assert log.recovery.segments > 1
    log.close()


def test_the_reader_made_from_the_document_reads_them_all() -> None:
    found = read_database(files_of(FORMAT / "database"))
    assert found.contents == CONTENTS
    assert len(found.tables) == 2
    assert found.log is not None
    assert any(record.kind == BATCH for record in found.log.records)
    assert read_table((FORMAT / "tables/none.sst").read_bytes()).versions == VERSIONS
    log = read_log(files_of(FORMAT / "log"))
    assert log is not None
    users = [(r.kind, r.index, r.term, r.payload) for r in log.records if r.kind < SYNC_MARK]
    assert users == RECORDS


@pytest.mark.parametrize("flushed", [True, False])
def test_the_reader_made_from_the_document_reads_what_is_written_now(
    tmp_path: Path, flushed: bool
) -> None:
    with kvstore.open(tmp_path / "db", write_buffer_size=64 << 10) as db:
        for k in range(2000):
            db.put(b"%05d" % (k % 500), b"%d" % k * 8)
        db.compact_range()
        for k in range(100):
            db.delete(b"%05d" % (k * 3))
        with db.write_batch() as batch:
            for k in range(50):
                batch.put(b"batch%d" % k, b"v" * k)
        if flushed:
            db.flush()
        contents = dict(db)
    found = read_database(files_of(tmp_path / "db"))
    assert found.contents == contents
    assert found.manifest.tables
