"""Ranges, transactions, leases and logins against a server that does what a test says."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2
from kvstore.client import AsyncClient, Client, Delete, Get, Put, channels, renewals, scanning
from kvstore.errors import (
    CompactedError,
    ConfigurationError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    LeaseLostError,
    LeaseNotFoundError,
    NoSpaceError,
    Outcome,
    OutcomeUnknownError,
    UnauthenticatedError,
    UnavailableError,
)
from kvstore.wire import available
from tests.unit.client.fake_etcd import FakeEtcd, answer, event, header, refuse

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
TIMED_OUT = refuse(UNAVAILABLE, "etcdserver: request timed out")
NO_LEADER = refuse(UNAVAILABLE, "etcdserver: no leader")

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture(params=["native", "grpcio"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native" and not available():
        pytest.skip("built without the native wire")
    monkeypatch.setattr(channels, "default_transport", lambda: request.param)
    return str(request.param)


def client_of(server: FakeEtcd, **options: Any) -> AsyncClient:
    return AsyncClient(server.address, timeout=30, **options)


def store(entries: list[etcd_pb2.KeyValue], revision: int, bytes_max: int = 1 << 30) -> Any:
    """Range as a server has it, which refuses answers that are too large."""

    async def read(request: etcd_pb2.RangeRequest, context: Any) -> etcd_pb2.RangeResponse:
        end = request.range_end
        found = [
            entry
            for entry in entries
            if entry.key == request.key
            or (end and entry.key >= request.key and (end == b"\0" or entry.key < end))
        ]
        if request.sort_order == etcd_pb2.RangeRequest.DESCEND:
            found.reverse()
        page = found[: request.limit] if request.limit else found
        answered = etcd_pb2.RangeResponse(
            header=header(revision), kvs=page, more=len(page) < len(found), count=len(found)
        )
        if answered.ByteSize() > bytes_max:
            size = answered.ByteSize()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Sent message larger than max ({size} vs. {bytes_max})",
            )
        return answered

    return read


def entries(count: int, size: int = 10) -> list[etcd_pb2.KeyValue]:
    return [event(5, b"k%05d" % number, bytes(size)).kv for number in range(count)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [None, 0, 1, 32, 33, 200, 1000])
def test_pages_show_one_revision_and_nothing_twice(limit: int | None, reverse: bool) -> None:
    async def test() -> None:
        stored = entries(300)
        async with FakeEtcd(Range=store(stored, 77)) as server, client_of(server) as client:
            found = client.range(prefix=b"k", limit=limit, reverse=reverse, page=50)
            wanted = [entry.key for entry in stored]
            if reverse:
                wanted.reverse()
            assert [entry.key async for entry in found] == wanted[:limit]
            asked = [request for _, request in server.asked]
            assert all(0 < request.limit <= 50 for request in asked)
            assert {request.revision for request in asked[1:]} <= {77}

    asyncio.run(test())


def test_pages_are_as_large_as_values_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "PAGE_BYTES", 10_000)

    async def test() -> None:
        async with (
            FakeEtcd(Range=store(entries(500, 1000), 7)) as server,
            client_of(server) as client,
        ):
            assert len(await client.range(prefix=b"k").list()) == 500
        limits = [request.limit for _, request in server.asked]
        assert limits[0] == scanning.FIRST_KEYS
        assert set(limits[1:]) == {9}

    asyncio.run(test())


def test_a_page_that_is_too_large_is_asked_for_in_parts() -> None:
    async def test() -> None:
        stored = entries(40) + entries(300, 5000)[40:]
        async with (
            FakeEtcd(Range=store(stored, 7, bytes_max=40_000)) as server,
            client_of(server) as client,
        ):
            found = await client.range(prefix=b"k").list()
            assert [entry.key for entry in found] == [entry.key for entry in stored]

    asyncio.run(test())


def test_one_key_that_is_too_large_is_an_error() -> None:
    async def test() -> None:
        async with (
            FakeEtcd(Range=store(entries(1, 5000), 7, bytes_max=100)) as server,
            client_of(server) as client,
        ):
            with pytest.raises(InvalidArgumentError, match="larger than max"):
                await client.get_entry(b"k00000")

    asyncio.run(test())


def test_large_answers_are_taken() -> None:
    async def test() -> None:
        async with (
            FakeEtcd(Range=store(entries(30, 1 << 20), 7)) as server,
            client_of(server) as client,
        ):
            found = await client.range(prefix=b"k").list()
            assert len(found) == 30
            assert len(found[-1].value) == 1 << 20

    asyncio.run(test())


def test_a_transaction_is_sent_as_it_was_built() -> None:
    responses = [
        etcd_pb2.ResponseOp(response_put=etcd_pb2.PutResponse(prev_kv=event(3, b"a", b"0").kv)),
        etcd_pb2.ResponseOp(
            response_range=etcd_pb2.RangeResponse(kvs=[event(4, b"b").kv], count=9)
        ),
        etcd_pb2.ResponseOp(response_delete_range=etcd_pb2.DeleteRangeResponse(deleted=2)),
        etcd_pb2.ResponseOp(response_txn=etcd_pb2.TxnResponse(succeeded=False)),
    ]
    txn = answer(etcd_pb2.TxnResponse(header=header(8), succeeded=True, responses=responses))

    async def test() -> None:
        async with FakeEtcd(Txn=txn) as server, client_of(server) as client:
            put = Put(b"a", b"1", lease=7, previous=True)
            get, delete = Get(prefix=b"b", limit=1), Delete(start=b"c", end=b"d")
            inner = client.transaction().if_(client.key(b"x").exists()).then(Put(b"x", b"2"))
            other = Get(b"a")
            result = await (
                client.transaction()
                .if_(client.key(b"a").mod_revision == 3, client.keys(prefix=b"p").value != b"v")
                .then(put, get, delete)
                .then(inner)
                .else_(other)
                .commit()
            )
            assert result.succeeded
            assert result.revision == 8
            before = result[put].previous
            assert before is not None
            assert before.value == b"0"
            assert (result[get].value, result[get].count) == (b"v", 9)
            assert result[delete].deleted == 2
            assert result[inner].succeeded is False
            assert result.results[3] is result[inner]
            with pytest.raises(KeyError):
                result[other]
        ((_, sent),) = server.asked
        assert [(one.key, one.range_end, one.target, one.result) for one in sent.compare] == [
            (b"a", b"", etcd_pb2.Compare.MOD, etcd_pb2.Compare.EQUAL),
            (b"p", b"q", etcd_pb2.Compare.VALUE, etcd_pb2.Compare.NOT_EQUAL),
        ]
        assert sent.compare[0].mod_revision == 3
        assert sent.compare[1].value == b"v"
        assert [one.WhichOneof("request") for one in sent.success] == [
            "request_put",
            "request_range",
            "request_delete_range",
            "request_txn",
        ]
        assert sent.success[0].request_put.lease == 7
        assert sent.failure[0].request_range.key == b"a"

    asyncio.run(test())


def test_an_answer_to_something_else_is_a_defect() -> None:
    async def test() -> None:
        odd = answer(etcd_pb2.TxnResponse(header=header(8), succeeded=True))
        async with FakeEtcd(Txn=odd) as server, client_of(server) as client:
            with pytest.raises(InternalError, match="other operations"):
                await client.transaction().then(Put(b"a", b"1")).commit()

    asyncio.run(test())


def test_a_write_that_surely_did_nothing_is_sent_again() -> None:
    async def test() -> None:
        done = answer(etcd_pb2.DeleteRangeResponse(header=header(8), deleted=3))
        learner = refuse(
            grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"
        )
        async with (
            FakeEtcd(DeleteRange=[NO_LEADER, learner, done]) as server,
            client_of(server) as client,
        ):
            assert (await client.delete_range(prefix=b"a")).deleted == 3

    asyncio.run(test())


@pytest.mark.parametrize(
    "refusal",
    [
        TIMED_OUT,
        refuse(UNAVAILABLE, "etcdserver: leader changed"),
        refuse(UNAVAILABLE, "transport is closing"),
        refuse(grpc.StatusCode.CANCELLED, ""),
        refuse(grpc.StatusCode.UNKNOWN, "context deadline exceeded"),
    ],
)
def test_a_write_that_may_have_been_applied_is_not_sent_again(refusal: Any) -> None:
    async def test() -> None:
        async with (
            FakeEtcd(Txn=refusal, DeleteRange=refusal) as server,
            client_of(server) as client,
        ):
            with pytest.raises(OutcomeUnknownError) as caught:
                await client.transaction().then(Put(b"a", b"1")).commit()
            assert caught.value.outcome is Outcome.UNKNOWN
            assert len(server.asked) == 1
            with pytest.raises(OutcomeUnknownError):
                await client.delete_range(prefix=b"a")
            with pytest.raises(OutcomeUnknownError):
                await client.put(b"a", b"1", lease=7)
            with pytest.raises(OutcomeUnknownError):
                await client.transact(write)
        assert len(server.asked) == 4

    async def write(draft: Any) -> None:
        draft.put(b"a", b"1")

    asyncio.run(test())


def test_a_write_whose_time_is_up_may_have_been_applied() -> None:
    async def never(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        async with FakeEtcd(Txn=never) as server, client_of(server) as client:
            with pytest.raises(OutcomeUnknownError):
                await client.transaction(timeout=1).then(Put(b"a", b"1")).commit()
        assert len(server.asked) == 1

    asyncio.run(test())


def test_a_transaction_that_only_reads_is_sent_again() -> None:
    async def test() -> None:
        read = etcd_pb2.ResponseOp(response_range=etcd_pb2.RangeResponse(count=1))
        done = answer(etcd_pb2.TxnResponse(header=header(8), succeeded=True, responses=[read]))
        async with FakeEtcd(Txn=[TIMED_OUT, done]) as server, client_of(server) as client:
            get = Get(b"a")
            assert (await client.transaction().then(get).commit())[get].count == 1

    asyncio.run(test())


def test_a_refused_write_was_not_applied() -> None:
    full = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")

    async def test() -> None:
        async with FakeEtcd(Txn=full) as server, client_of(server) as client:
            with pytest.raises(NoSpaceError, match="database space exceeded") as caught:
                await client.transaction().then(Put(b"a", b"1")).commit()
            assert caught.value.outcome is Outcome.NOT_APPLIED

    asyncio.run(test())


def test_compacting_again_after_a_lost_answer_is_no_error() -> None:
    compacted = refuse(
        grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"
    )

    async def test() -> None:
        async with (
            FakeEtcd(Compact=[TIMED_OUT, compacted, compacted]) as server,
            client_of(server) as client,
        ):
            await client.compact(5)
            with pytest.raises(CompactedError):
                await client.compact(5)

    asyncio.run(test())


def test_overtaken_for_good_is_a_conflict() -> None:
    async def test() -> None:
        never = answer(etcd_pb2.TxnResponse(header=header(9), succeeded=False))
        async with (
            FakeEtcd(Range=store(entries(1), 8), Txn=never) as server,
            client_of(server) as client,
        ):
            calls = 0

            async def write(draft: Any) -> None:
                nonlocal calls
                calls += 1
                assert await draft.get(b"k00000") == bytes(10)
                draft.put(b"k00000", b"x")
                assert await draft.get(b"k00000") == b"x"

            with pytest.raises(ConflictError, match="3 times") as caught:
                await client.transact(write, tries=3)
            assert calls == 3
            assert caught.value.outcome is Outcome.NOT_APPLIED

    asyncio.run(test())


def test_a_transaction_reads_so_much_and_no_more() -> None:
    async def test() -> None:
        async with FakeEtcd(Range=store(entries(200), 8)) as server, client_of(server) as client:

            async def read_all(draft: Any) -> Any:
                return await draft.items(prefix=b"k")

            async def write_many(draft: Any) -> None:
                for number in range(129):
                    draft.put(b"%d" % number, b"")

            with pytest.raises(InvalidArgumentError, match="more than 128 keys read"):
                await client.transact(read_all)
            with pytest.raises(InvalidArgumentError, match="more than 128 keys written"):
                await client.transact(write_many)

    asyncio.run(test())


async def lives(lease: int) -> int:
    return 60


def grants(ttl: int) -> Any:
    async def grant(request: Any, context: Any) -> Any:
        return etcd_pb2.LeaseGrantResponse(ID=request.ID, TTL=ttl)

    return grant


REVOKED = answer(etcd_pb2.LeaseRevokeResponse())
NO_LEASE = refuse(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")


def test_a_lease_is_granted_once_however_often_it_is_asked_for() -> None:
    exists = refuse(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists")
    status = answer(etcd_pb2.LeaseTimeToLiveResponse(ID=1, TTL=9, grantedTTL=10))

    async def test() -> None:
        async with (
            FakeEtcd(
                LeaseGrant=[TIMED_OUT, exists, exists],
                LeaseTimeToLive=status,
                LeaseRevoke=[TIMED_OUT, NO_LEASE],
                keep_alive=lives,
            ) as server,
            client_of(server) as client,
        ):
            async with client.lease(9.5) as lease:
                assert lease.ttl == 10
                assert not lease.lost
            first, second = (ask for name, ask in server.asked if name == "LeaseGrant")
            assert first == second
            assert first.TTL == 10
            with pytest.raises(ConflictError):
                await client.lease(10, lease_id=5).grant()

    asyncio.run(test())


def test_a_lease_is_kept_alive_and_says_when_it_is_gone() -> None:
    renewed = 0

    async def dies(lease: int) -> int:
        nonlocal renewed
        renewed += 1
        return 1 if renewed < 3 else 0

    async def test() -> None:
        async with (
            FakeEtcd(LeaseGrant=grants(1), LeaseRevoke=NO_LEASE, keep_alive=dies) as server,
            client_of(server) as client,
        ):
            lease = await client.lease(1).grant()
            await lease.wait_lost()
            assert lease.lost
            with pytest.raises(LeaseLostError):
                lease.check()
            with pytest.raises(LeaseLostError, match="had expired"):
                await lease.__aexit__(None, None, None)
        assert renewed == 3

    asyncio.run(test())


def test_a_lease_that_nobody_renews_is_lost_in_time() -> None:
    async def never(lease: int) -> int:
        await asyncio.Event().wait()
        return 0

    async def test() -> None:
        async with (
            FakeEtcd(LeaseGrant=grants(1), keep_alive=never) as server,
            client_of(server) as client,
        ):
            lease = await client.lease(1).grant()
            assert 0 < lease.left <= 1
            await lease.wait_lost()
            assert lease.left == 0
            lease.let_go()

    asyncio.run(test())


def test_what_the_block_raises_matters_more_than_the_lease() -> None:
    async def test() -> None:
        async with (
            FakeEtcd(LeaseGrant=grants(60), LeaseRevoke=NO_LEASE, keep_alive=lives) as server,
            client_of(server) as client,
        ):
            with pytest.raises(ZeroDivisionError):
                async with client.lease(60):
                    raise ZeroDivisionError

    asyncio.run(test())


def test_leases_that_are_due_are_renewed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewals, "DUE_PART", 0.01)
    streams = 0
    real = renewals._Renewing.__call__

    async def counted(self: Any, request: Any, **rest: Any) -> Any:
        nonlocal streams
        streams += 1
        return await real(self, request, **rest)

    monkeypatch.setattr(renewals._Renewing, "__call__", counted)

    async def test() -> None:
        all_renewed = asyncio.Event()
        seen: set[int] = set()

        async def renew(lease: int) -> int:
            seen.add(lease)
            if len(seen) == 50:
                all_renewed.set()
            return 60

        async with (
            FakeEtcd(LeaseGrant=grants(60), keep_alive=renew) as server,
            client_of(server) as client,
        ):
            leases = [client.lease(60) for _ in range(50)]
            await asyncio.gather(*(lease.grant() for lease in leases))
            await all_renewed.wait()
        assert streams < 10

    asyncio.run(test())


def test_somebody_elses_lease_is_renewed_and_looked_at() -> None:
    async def ttl(lease: int) -> int:
        return 9 if lease == 5 else 0

    statuses = [
        answer(etcd_pb2.LeaseTimeToLiveResponse(ID=5, TTL=8, grantedTTL=9, keys=[b"b", b"a"])),
        answer(etcd_pb2.LeaseTimeToLiveResponse(ID=6, TTL=-1)),
    ]
    leases = answer(
        etcd_pb2.LeaseLeasesResponse(leases=[etcd_pb2.LeaseStatus(ID=n) for n in (7, -2)])
    )

    async def test() -> None:
        async with (
            FakeEtcd(
                keep_alive=ttl, LeaseTimeToLive=statuses, LeaseLeases=leases, LeaseRevoke=NO_LEASE
            ) as server,
            client_of(server) as client,
        ):
            assert await client.renew_lease(5) == 9
            with pytest.raises(LeaseNotFoundError):
                await client.renew_lease(6)
            status = await client.lease_status(5, keys=True)
            assert status == (5, 8, 9, (b"a", b"b"))
            assert await client.lease_status(6) is None
            assert await client.leases() == [-2, 7]
            with pytest.raises(LeaseNotFoundError):
                await client.revoke_lease(6)

    asyncio.run(test())


def test_who_has_no_user_sends_no_token() -> None:
    async def test() -> None:
        async with FakeEtcd(Range=store([], 3)) as server, client_of(server) as client:
            await client.count()
        assert "token" not in server.metadata[0]

    asyncio.run(test())


def test_one_token_serves_all_calls_until_it_is_refused() -> None:
    tokens = iter(["one", "two"])

    async def authenticate(request: Any, context: Any) -> Any:
        return etcd_pb2.AuthenticateResponse(token=next(tokens))

    async def read(request: Any, context: Any) -> Any:
        token = dict(context.invocation_metadata())["token"]
        if token != "two" and request.count_only:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        return etcd_pb2.RangeResponse(header=header(5), count=1)

    async def test() -> None:
        async with (
            FakeEtcd(Authenticate=authenticate, Range=read) as server,
            client_of(server, user="me", password="secret") as client,
        ):
            await asyncio.gather(*(client.get_entry(b"a") for _ in range(5)))
            assert [name for name, _ in server.asked].count("Authenticate") == 1
            assert await asyncio.gather(*(client.count() for _ in range(5))) == [1] * 5
        assert [name for name, _ in server.asked].count("Authenticate") == 2

    asyncio.run(test())


def test_a_write_that_is_refused_for_its_token_is_sent_again() -> None:
    old = refuse(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
    done = answer(etcd_pb2.TxnResponse(header=header(8), succeeded=True))
    token = answer(etcd_pb2.AuthenticateResponse(token="t"))

    async def test() -> None:
        async with (
            FakeEtcd(Authenticate=token, Txn=[old, done]) as server,
            client_of(server, user="me", password="secret") as client,
        ):
            assert (await client.transaction().commit()).succeeded

    asyncio.run(test())


def test_a_wrong_password_is_told_and_the_write_was_not_applied() -> None:
    wrong = refuse(
        grpc.StatusCode.INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password",
    )

    async def test() -> None:
        async with (
            FakeEtcd(Authenticate=wrong) as server,
            client_of(server, user="me", password="wrong") as client,
        ):
            with pytest.raises(UnauthenticatedError, match="invalid user ID") as caught:
                await client.transaction().then(Put(b"a", b"1")).commit()
            assert caught.value.outcome is Outcome.NOT_APPLIED
            with pytest.raises(UnauthenticatedError):
                await client.watch(b"a").start()
            with pytest.raises(UnauthenticatedError):
                await client.put(b"a", b"1")

    asyncio.run(test())


def test_a_server_that_asks_for_nobody_is_no_trouble() -> None:
    off = refuse(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")

    async def test() -> None:
        async with (
            FakeEtcd(Authenticate=off, Range=store([], 3)) as server,
            client_of(server, user="me", password="secret") as client,
        ):
            assert await client.count() == 0
            assert await client.count() == 0
        assert [name for name, _ in server.asked] == ["Authenticate", "Range", "Range"]
        assert "token" not in server.metadata[1]

    asyncio.run(test())


def test_authenticating_takes_no_longer_than_the_call() -> None:
    async def never(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    async def test() -> None:
        async with (
            FakeEtcd(Authenticate=never) as server,
            client_of(server, user="me", password="secret") as client,
        ):
            with pytest.raises(TimeoutError):
                await client.count(timeout=1)

    asyncio.run(test())


def test_a_user_without_a_password_is_no_user() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigurationError, match="needs a password"):
            kind("127.0.0.1:1", user="me")


def test_all_keys_are_not_deleted_by_a_slip() -> None:
    async def test() -> None:
        async with AsyncClient() as client:
            with pytest.raises(InvalidArgumentError, match="prefix"):
                await client.delete_range()

    asyncio.run(test())


def test_a_closed_client_says_so() -> None:
    async def test() -> None:
        async with FakeEtcd(LeaseGrant=grants(60), keep_alive=lives) as server:
            client = client_of(server)
            lease = await client.lease(60).grant()
            await client.close()
            assert not lease.lost
            with pytest.raises(RuntimeError, match="closed"):
                await client.count()

    asyncio.run(test())


def test_no_server_is_unavailable() -> None:
    async def test() -> None:
        async with FakeEtcd() as server:
            address = server.address
        async with AsyncClient(address, timeout=1) as client:
            with pytest.raises(UnavailableError, match="cannot connect"):
                await client.lease(5).grant()

    asyncio.run(test())
