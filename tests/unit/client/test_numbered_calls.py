"""Calls of etcd's API that a session numbers, against a server that does what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2
from kvstore.api.v1 import session_pb2
from kvstore.client import AsyncClient, Delete, Get, Put, sessions
from kvstore.errors import AnswerLostError, ForgottenError, Outcome, OutcomeUnknownError, Refusal
from kvstore.etcd_errors import Reason
from tests.unit.client.fake_etcd import FakeEtcd, answer, header, refuse

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
TIMED_OUT = refuse(UNAVAILABLE, Reason.TIMED_OUT.text)
FORGOTTEN = refuse(grpc.StatusCode.ABORTED, Reason.SESSION_FORGOTTEN.text)
ID = "kvstore-request-id"


def session(
    name: str = "ab", window: int = 256, operations: bool = True
) -> session_pb2.OpenSessionResponse:
    return session_pb2.OpenSessionResponse(
        session=name, idle_timeout_ms=3_600_000, window=window, operations=operations
    )


def done(*responses: etcd_pb2.ResponseOp, **fields: Any) -> Any:
    return answer(etcd_pb2.TxnResponse(header=header(8), responses=responses, **fields))


PUT = etcd_pb2.ResponseOp(response_put=etcd_pb2.PutResponse())


def run(server: FakeEtcd, test: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def both() -> None:
        async with server, AsyncClient(server.address, timeout=30) as client:
            await test(client)

    asyncio.run(both())


def test_a_transaction_is_sent_again_under_its_number_until_it_is_answered() -> None:
    cut = refuse(UNAVAILABLE, "transport is closing")
    server = FakeEtcd(
        Txn=[TIMED_OUT, cut, done(PUT, succeeded=True), done(PUT, succeeded=True)],
        DeleteRange=[TIMED_OUT, answer(etcd_pb2.DeleteRangeResponse(header=header(9), deleted=2))],
        opens=[session()],
    )

    async def test(client: AsyncClient) -> None:
        assert (await client.transaction().then(Put(b"a", b"1")).commit()).revision == 8
        assert (await client.delete_range(prefix=b"a")).deleted == 2
        assert await client.put(b"a", b"1", lease=7) is False

    run(server, test)
    ids = [metadata[ID] for metadata in server.metadata]
    assert ids == ["kvs1/ab/1/1"] * 3 + ["kvs1/ab/2/2"] * 2 + ["kvs1/ab/3/3"]
    assert [m.get("kvstore-attempt") for m in server.metadata[:3]] == [None, "2", "3"]


def test_reads_have_no_number() -> None:
    read = etcd_pb2.ResponseOp(response_range=etcd_pb2.RangeResponse(count=1))
    server = FakeEtcd(Txn=done(read, succeeded=True), opens=[])

    async def test(client: AsyncClient) -> None:
        assert (await client.transaction().then(Get(b"a")).commit()).succeeded

    run(server, test)
    assert ID not in server.metadata[0]


def test_an_answer_to_a_repeat_says_what_puts_and_deletions_came_to() -> None:
    server = FakeEtcd(
        Txn=[done(succeeded=True, repeated_request=True, deleted=3)],
        DeleteRange=answer(
            etcd_pb2.DeleteRangeResponse(header=header(9), deleted=4, repeated_request=True)
        ),
        opens=[session()],
    )

    async def test(client: AsyncClient) -> None:
        put, delete = Put(b"a", b"1"), Delete(prefix=b"b")
        result = await client.transaction().then(put, delete).else_(Get(b"a")).commit()
        assert (result.succeeded, result.revision) == (True, 8)
        assert (result[put].revision, result[put].previous) == (8, None)
        assert (result[delete].deleted, result[delete].previous) == (3, ())
        assert (await client.delete_range(prefix=b"a")).deleted == 4

    run(server, test)


@pytest.mark.parametrize(
    "operations",
    [
        [Put(b"a", b"1"), Get(b"b")],
        [Put(b"a", b"1", previous=True)],
        [Delete(b"a", previous=True)],
        [Delete(b"a"), Delete(b"b")],
    ],
)
def test_what_a_repeat_cannot_say_is_not_made_up(operations: list[Any]) -> None:
    server = FakeEtcd(
        Txn=done(succeeded=True, repeated_request=True, deleted=1),
        DeleteRange=answer(
            etcd_pb2.DeleteRangeResponse(header=header(8), deleted=4, repeated_request=True)
        ),
        opens=[session()],
    )

    async def test(client: AsyncClient) -> None:
        with pytest.raises(AnswerLostError) as lost:
            await client.transaction().then(*operations).commit()
        assert (lost.value.revision, lost.value.succeeded) == (8, True)
        assert lost.value.outcome is Outcome.APPLIED
        with pytest.raises(AnswerLostError):
            await client.delete_range(prefix=b"a", previous=True)

    run(server, test)


def test_a_function_of_transact_need_not_know_what_was_deleted() -> None:
    server = FakeEtcd(Txn=done(succeeded=True, repeated_request=True, deleted=2), opens=[session()])

    async def remove(draft: Any) -> str:
        draft.delete(b"a")
        draft.delete(b"b")
        return "removed"

    async def test(client: AsyncClient) -> None:
        assert await client.transact(remove) == "removed"

    run(server, test)


def test_a_session_that_was_forgotten_before_it_was_used_is_replaced() -> None:
    server = FakeEtcd(Txn=[FORGOTTEN, done(PUT, succeeded=True)], opens=[session(), session("cd")])

    async def test(client: AsyncClient) -> None:
        await client.transaction().then(Put(b"a", b"1")).commit()

    run(server, test)
    assert [metadata[ID] for metadata in server.metadata] == ["kvs1/ab/1/1", "kvs1/cd/1/1"]


def test_a_session_that_was_forgotten_meanwhile_leaves_the_outcome_unknown() -> None:
    server = FakeEtcd(Txn=[TIMED_OUT, FORGOTTEN], opens=[session()])

    async def test(client: AsyncClient) -> None:
        with pytest.raises(ForgottenError) as forgotten:
            await client.transaction().then(Put(b"a", b"1")).commit()
        assert forgotten.value.refusal is Refusal.SESSION_EXPIRED
        assert forgotten.value.outcome is Outcome.UNKNOWN

    run(server, test)


def test_a_server_whose_cluster_does_not_know_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = FakeEtcd(
        Txn=[TIMED_OUT, TIMED_OUT, done(PUT, succeeded=True)],
        opens=[session(operations=False), session("cd")],
    )

    async def test(client: AsyncClient) -> None:
        with pytest.raises(OutcomeUnknownError):
            await client.transaction().then(Put(b"a", b"1")).commit()
        monkeypatch.setattr(sessions, "REFUSED_S", 0.0)
        await client.transaction().then(Put(b"a", b"1")).commit()

    run(server, test)
    assert [m.get(ID) for m in server.metadata] == [None, "kvs1/cd/1/1", "kvs1/cd/1/1"]


def test_what_finds_the_window_full_waits_for_a_number() -> None:
    under_way = most = 0

    async def slowly(request: Any, context: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return etcd_pb2.TxnResponse(header=header(8), succeeded=True, responses=[PUT])

    server = FakeEtcd(Txn=slowly, opens=[session(window=3)])

    async def test(client: AsyncClient) -> None:
        commits = [client.transaction().then(Put(b"a", b"1")).commit() for _ in range(20)]
        assert all(result.succeeded for result in await asyncio.gather(*commits))

    run(server, test)
    assert most <= 3
    numbers = [int(str(metadata[ID]).split("/")[2]) for metadata in server.metadata]
    assert sorted(numbers) == [*range(1, 21)]


def test_who_waits_for_a_number_waits_no_longer_than_it_likes() -> None:
    async def never(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    server = FakeEtcd(Txn=never, opens=[session(window=1)])

    async def test(client: AsyncClient) -> None:
        first = asyncio.ensure_future(client.transaction().then(Put(b"a", b"1")).commit())
        while not server.asked:
            await asyncio.sleep(0.001)
        with pytest.raises(Exception, match="no answer within") as late:
            await client.transaction(timeout=0.2).then(Put(b"a", b"1")).commit()
        assert late.value.outcome is Outcome.NOT_APPLIED  # type: ignore[attr-defined]
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    run(server, test)
