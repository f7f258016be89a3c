"""What type checkers see of a program that uses the clients: everything, and nothing unknown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.test_faces import PAIRS, public

pytest.importorskip("mypy")

SOURCES = Path(__file__).resolve().parents[3] / "src"

PROGRAM = """
import asyncio
import tempfile
from pathlib import Path
from typing import assert_type

import kvstore
from kvstore.client import (
    TLS,
    Access,
    Alarm,
    AsyncDraft,
    AuthStatus,
    Batch,
    ClusterStatus,
    Compare,
    DeleteResult,
    Draft,
    GetResult,
    Health,
    Leadership,
    LeaseStatus,
    Members,
    Permission,
    PutResult,
    Repairs,
    SlowCall,
    StateHash,
    TransactionResult,
)
from kvstore.client.otel import OpenTelemetry
from kvstore.testing import AsyncMemoryClient, Cluster, MemoryClient, MemoryStore, Server


def upkeep() -> None:
    client = kvstore.Client(
        "kv://db1?timeout=5",
        tls=TLS(ca="ca.pem"),
        timeout=3,
        retry=kvstore.RetryPolicy(delay_max_s=0.5),
        transport="native",
        namespace=b"app/",
        telemetry=OpenTelemetry(),
    )
    assert_type(client.health(timeout=1), tuple[Health, ...])
    assert_type(client.health()[0].error, kvstore.Error | None)
    assert_type(client.status(), ClusterStatus)
    assert_type(client.members(), Members)
    assert_type(client.slow_calls(), tuple[SlowCall, ...])
    assert_type(client.add_member(4, "db4:1", "db4:2"), Members)
    assert_type(client.promote_member(4), Members)
    assert_type(client.remove_member(4, force=True), Members)
    assert_type(client.transfer_leadership(), int)
    assert_type(client.forget_introduction(4), bool)
    assert_type(client.repair(begin=True), tuple[Repairs, ...])
    for piece in client.save_snapshot(stale=True):
        assert_type(piece, bytes)
    client.compact(7, physical=True)
    assert_type(client.delete(b"a", request_id="once", retry=True), bool)
    assert_type(client.put_many({b"a": b"1"}), int)
    assert_type(dict(client.get_many([b"a"])), dict[bytes, bytes | None])
    pipe = client.pipeline().put(b"a", b"1").get(b"a").delete(b"a")
    assert_type(pipe.execute(raise_on_error=False), list[bool | bytes | None | kvstore.Error])
    assert_type(client.keys(prefix=b"a").lease == 0, Compare)
    assert_type(client.keys(prefix=b"a").version > 1, Compare)
    assert_type(client.keys(prefix=b"a").create_revision < 1, Compare)
    assert_type(client.key(b"a").exists(), Compare)
    transaction = client.transaction().else_(kvstore.Get(b"a"))
    assert_type(transaction.message.ByteSize(), int)
    assert_type(transaction.reads_only, bool)
    assert_type(client.leases(), list[int])
    assert_type(client.renew_lease(7), int)
    client.revoke_lease(7)
    assert_type(client.lease_status(7, keys=True), LeaseStatus | None)
    auth = client.auth
    auth.enable()
    auth.disable()
    assert_type(auth.status(), AuthStatus)
    auth.add_user("me", "secret")
    auth.change_password("me", "another")
    auth.delete_user("me")
    assert_type(auth.users(), list[str])
    auth.add_role("jobs")
    auth.delete_role("jobs")
    assert_type(auth.roles(), list[str])
    auth.grant_role("me", "jobs")
    auth.revoke_role("me", "jobs")
    assert_type(auth.roles_of("me"), list[str])
    auth.grant_permission("jobs", Access.READ, prefix=b"jobs/")
    auth.revoke_permission("jobs", b"a")
    assert_type(auth.permissions_of("jobs"), list[Permission])
    assert_type(client.maintenance.alarms(), list[Alarm])
    assert_type(client.maintenance.disarm(), list[Alarm])
    client.maintenance.defragment()
    assert_type(client.maintenance.hash(7), StateHash)
    client.close()


def testing(directory: Path) -> None:
    with MemoryClient(MemoryStore(), namespace=b"app/") as client:
        client.advance(3.0)
        assert_type(client.get(b"a"), bytes | None)
        other: kvstore.Client = MemoryClient(client.store)
        other.close()
    with Server(directory) as server, server.client(namespace=b"app/", timeout=3) as client_of_it:
        assert_type(client_of_it, kvstore.Client)
        assert_type(server.url, str)
    with Cluster(directory) as cluster:
        cluster.kill(cluster.leader())


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
            assert_type(draft.revision, int)
            draft.delete(b"m")
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
            assert_type(watch.revision, int)
            watch.ask_progress()
            watch.start().close()
        assert_type(client.range().list(), list[kvstore.KeyValue])
        assert_type(client.range().revision, int)
        with client.lease(5) as lease:
            assert_type((lease.id, lease.ttl, lease.left, lease.lost), tuple[int, int, float, bool])
            assert_type(lease.renew(), float)
            assert_type(lease.wait_lost(timeout=1), bool)
            lease.check()
            lease.let_go()
            lease.revoke()
            lease.grant()
            assert_type(client.put(b"a", b"1", lease=lease), bool)
            assert_type(lease.status(keys=True), LeaseStatus)
        with client.lock(b"l") as lock:
            assert_type(lock.fence, int)
            assert_type(lock.held, Compare)
            assert_type((lock.key, lock.lost), tuple[bytes, bool])
            assert_type(lock.wait_lost(timeout=1), bool)
            assert_type(lock.acquire(wait=1), bool)
            lock.check()
            lock.release()
        election = client.election(b"e")
        with election.campaign(b"me") as leadership:
            assert_type(leadership, Leadership)
            leadership.proclaim(b"still me")
            leadership.resign()
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
        async for key, value in client.get_many([b"a"]):
            assert_type((key, value), tuple[bytes, bytes | None])
        assert_type(await client.health(), tuple[Health, ...])
        assert_type((await client.status()).members[0].role, str)
        async for piece in client.save_snapshot():
            assert_type(piece, bytes)
        assert_type(await client.auth.users(), list[str])
        assert_type(await client.maintenance.alarms(), list[Alarm])
    async with AsyncMemoryClient() as memory:
        await memory.advance(3)


try:
    blocking()
    upkeep()
    testing(Path(tempfile.gettempdir()))
    asyncio.run(asynchronous())
except kvstore.OutcomeUnknownError as error:
    assert_type(error.outcome, kvstore.Outcome | None)
except kvstore.CompactedError as error:
    assert_type(error.oldest, int)
"""


# For clients alone: from the wire.
INTERNAL = {"result"}


@pytest.mark.parametrize("kind", [pair[1] for pair in PAIRS], ids=lambda kind: kind.__name__)
def test_the_program_uses_all_that_there_is(kind: type[Any]) -> None:
    used = set(re.findall(r"\.(\w+)", PROGRAM))
    assert set(public(kind)) - INTERNAL <= used


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
