"""What type checkers see of a program that uses the clients: everything, and nothing unknown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

SOURCES = Path(__file__).resolve().parents[3] / "src"

PROGRAM = """
import asyncio
from typing import assert_type

import kvstore
from kvstore.client import (
    AsyncDraft,
    Batch,
    Compare,
    DeleteResult,
    Draft,
    GetResult,
    LeaseStatus,
    PutResult,
    TransactionResult,
)


def blocking() -> None:
    with kvstore.Client("db1:1", user="me", password="secret") as client:
        assert_type(client.get(b"a"), bytes | None)
        assert_type(client.get_entry(b"a"), kvstore.KeyValue | None)
        for entry in client.range(prefix=b"a", limit=3):
            assert_type(entry, kvstore.KeyValue)
            assert_type(entry.value, bytes)
        for page in client.range().pages():
            assert_type(page, tuple[kvstore.KeyValue, ...])
        assert_type(client.count(), int)
        assert_type(client.delete_range(prefix=b"a"), DeleteResult)
        assert_type(client.key(b"a").mod_revision == 3, Compare)
        assert_type(client.key(b"a").value != b"x", Compare)
        put, get = kvstore.Put(b"a", b"1"), kvstore.Get(b"b")
        gone = kvstore.Delete(prefix=b"c")
        nested = client.transaction().then(kvstore.Put(b"d", b""))
        result = client.transaction().if_(client.key(b"a").absent()).then(put, get, nested).commit()
        assert_type(result, TransactionResult)
        assert_type(result[put], PutResult)
        assert_type(result[get], GetResult)
        assert_type(result[gone], DeleteResult)
        assert_type(result[nested], TransactionResult)

        def count(draft: Draft) -> int:
            left = int(draft.get(b"n") or b"0")
            draft.put(b"n", b"%d" % (left + 1))
            assert_type(draft.items(prefix=b"n"), list[tuple[bytes, bytes]])
            return left

        assert_type(client.transact(count), int)
        for event in client.history(b"a"):
            assert_type(event, kvstore.Event)
        with client.watch(prefix=b"a") as watch:
            for event in watch:
                assert_type(event.kind, kvstore.EventKind)
            for batch in watch.batches():
                assert_type(batch, Batch)
            assert_type(watch.next(timeout=1), kvstore.Event | None)
        with client.lease(5) as lease:
            assert_type(client.put(b"a", b"1", lease=lease), bool)
            assert_type(lease.status(keys=True), LeaseStatus)
        with client.lock(b"l") as lock:
            assert_type(lock.fence, int)
            assert_type(lock.held, Compare)
        election = client.election(b"e")
        with election.campaign(b"me") as leadership:
            leadership.proclaim(b"still me")
        assert_type(election.leader(), kvstore.KeyValue | None)
        for leader in election.observe():
            assert_type(leader, kvstore.KeyValue)


async def asynchronous() -> None:
    async with kvstore.AsyncClient("db1:1") as client:
        assert_type(await client.get(b"a"), bytes | None)
        assert_type(await client.range().list(), list[kvstore.KeyValue])
        async for entry in client.range(b"a", b"b"):
            assert_type(entry, kvstore.KeyValue)

        async def count(draft: AsyncDraft) -> str:
            value = await draft.get(b"n")
            assert_type(value, bytes | None)
            return "done"

        assert_type(await client.transact(count), str)
        async with client.watch(b"a") as watch:
            async for event in watch:
                assert_type(event, kvstore.Event)
        async with client.lock(b"l") as lock, client.lease(5) as lease:
            assert_type(lock.lost, bool)
            await client.put(b"a", b"1", lease=lease)
        async with client.election(b"e").campaign(b"me") as leadership:
            await leadership.resign()


try:
    blocking()
    asyncio.run(asynchronous())
except kvstore.OutcomeUnknownError as error:
    assert_type(error.outcome, kvstore.Outcome | None)
except kvstore.CompactedError as error:
    assert_type(error.oldest, int)
"""


def test_a_users_program_has_types_everywhere(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--disallow-any-expr"),
            *(f"--cache-dir={tmp_path / 'cache'}", "--follow-imports=silent", "program.py"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(SOURCES)},
    )
    assert checked.stdout.startswith("Success"), checked.stdout
