"""What type checkers see of a program that uses the library: everything, and nothing unknown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

SOURCES = Path(__file__).resolve().parents[3] / "src"

PROGRAM = """
from typing import assert_type

import kvstore

assert_type(kvstore.__version__, str)
with kvstore.open("db", create_if_missing=True, compression="lz4", read_only=False) as db:
    assert_type(db, kvstore.DB)
    assert_type(db.path, str)
    assert_type(db.get(b"a"), bytes | None)
    assert_type(db.get(b"a", b""), bytes)
    assert_type(db.get(b"a", 0), bytes | int)
    assert_type(db[b"a"], bytes)
    assert_type(b"a" in db, bool)
    db[b"a"] = b"1"
    db.put(b"a", memoryview(b"1"), sync=True)
    assert_type(db.multi_get([b"a"]), list[bytes | None])
    assert_type(db.multi_get([b"a"], b""), list[bytes])
    for key, value in db:
        assert_type(key, bytes)
        assert_type(value, bytes)
    assert_type([*db.items()], list[tuple[bytes, bytes]])
    assert_type([*db.keys()], list[bytes])
    assert_type([*db.values()], list[bytes])
    assert_type(dict(db), dict[bytes, bytes])
    assert_type(next(db.iterator(prefix=b"a", reverse=True, limit=1)), tuple[bytes, bytes])
    assert_type(next(db.iterator(start=b"a", include_value=False)), bytes)
    assert_type(next(db.iterator(include_key=False, fill_cache=False)), bytes)
    assert_type(db.iterator(include_sequence=True).prev(), tuple[bytes, bytes, int])
    assert_type(next(db.iterator(include_value=False, include_sequence=True)), tuple[bytes, int])
    flag = bool(value)
    assert_type(next(db.iterator(include_key=flag)), object)
    assert_type(db.count(prefix=b"a"), int)
    assert_type(db.raw_iterator().item(), tuple[bytes, bytes])
    with db.snapshot() as snapshot:
        assert_type(snapshot.get(b"a"), bytes | None)
        assert_type(snapshot.get(b"a", b""), bytes)
        assert_type(snapshot.multi_get([b"a"]), list[bytes | None])
        assert_type(list(snapshot), list[tuple[bytes, bytes]])
        assert_type([*snapshot.iterator(include_value=False)], list[bytes])
    view = db.prefixed_db(b"a")

    async def awaiting() -> None:
        assert_type(await db.put_async(b"a", memoryview(b"1")), None)
        assert_type(await db.delete_async(b"a", sync=False), None)
        assert_type(await db.write_async(db.write_batch()), int)
        assert_type(await db.sync_async(), None)
        assert_type(db.put_async(b"a", b"1").cancel(), bool)
        assert_type(await view.put_async(b"a", b"1"), None)
        assert_type(await view.delete_async(b"a"), None)

    assert_type(view.get(b"a"), bytes | None)
    assert_type(view.multi_get([b"a"], b""), list[bytes])
    assert_type([*view.keys()], list[bytes])
    assert_type([*view.iterator(include_key=False)], list[bytes])
    with db.write_batch(transaction=True) as batch:
        batch.put(b"a", b"1")
        batch.delete(b"b")
    assert_type(batch, kvstore.WriteBatch)
    for change in db.changes(timeout=0):
        assert_type(change, kvstore.Change)
        assert_type(change.kind, kvstore.ChangeKind)
    assert_type(db.write(batch), int)
try:
    kvstore.open("other")
except kvstore.AlreadyOpenError as error:
    assert_type(error.path, str | None)
except kvstore.StorageError as error:
    assert_type(error.code, kvstore.IntegrityCode)
    assert_type(error.retryable, bool)
except kvstore.Error as error:
    assert_type(error.outcome, kvstore.Outcome | None)
    assert_type(error.attempts, int)
    assert_type(error.request_id, str | None)
"""

WRONG = """
import kvstore

db = kvstore.open("db", compresion="lz4")
db.put("a", b"1")
db.iterator(prefixx=b"a")
length = len(db.get(b"a"))
"""


def check(directory: Path, program: str) -> str:
    (directory / "program.py").write_text(program)
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--disallow-any-expr"),
            *(f"--cache-dir={directory / 'cache'}", "--follow-imports=silent", "program.py"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, "MYPYPATH": str(SOURCES)},
    )
    return checked.stdout


def test_a_users_program_has_types_everywhere(tmp_path: Path) -> None:
    assert check(tmp_path, PROGRAM).startswith("Success"), check(tmp_path, PROGRAM)


def test_mistakes_are_seen(tmp_path: Path) -> None:
    said = check(tmp_path, WRONG)
    for line in (4, 5, 6, 7):
        assert f"program.py:{line}: error" in said, said
