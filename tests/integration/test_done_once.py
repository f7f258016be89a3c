"""Operations of etcd's API that a session numbers, over real processes: done once, whoever dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import method_shape
from kvstore.api.v1 import session_pb2, session_pb2_grpc
from kvstore.client import AsyncClient, Put
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd

ID = "kvstore-request-id"
TXN = pb.TxnRequest(
    success=[pb.RequestOp(request_put=pb.PutRequest(key=b"c", value=b"v", prev_kv=True))]
)


def call(channel: grpc.Channel, name: str, request: Any, number: str | None = None) -> Any:
    """As a client does it: what fails for a passing reason is sent again."""
    shape = method_shape("etcdserverpb.KV", name)
    method = channel.unary_unary(
        shape.path,
        request_serializer=shape.request.SerializeToString,
        response_deserializer=shape.response.FromString,
    )
    metadata = () if number is None else ((ID, number),)
    end = time.monotonic() + 60
    while True:
        try:
            return method(request, timeout=20, wait_for_ready=True, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(0.02)  # as a client's back-off


def version(channel: grpc.Channel) -> int:
    """How often the key was put."""
    found = call(channel, "Range", pb.RangeRequest(key=b"c")).kvs
    return found[0].version if found else 0


def opened(channel: grpc.Channel) -> str:
    """A session, once the cluster knows numbers of operations."""
    stub = session_pb2_grpc.SessionsStub(channel)
    end = time.monotonic() + 60
    while True:
        try:
            answer = stub.Open(session_pb2.OpenSessionRequest(), timeout=20, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
        else:
            if answer.operations:
                return answer.session
        assert time.monotonic() < end
        time.sleep(0.02)  # until the leader's next tick


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    with Kvd(tmp_path_factory.mktemp("kvd")) as kvd:
        kvd.wait_serving()
        with grpc.insecure_channel(kvd.address) as channel:
            yield channel


def test_a_kvd_without_etcds_api_offers_no_numbers_for_its_operations(tmp_path: Path) -> None:
    with Kvd(tmp_path) as kvd, grpc.insecure_channel(kvd.address) as channel:
        opened(channel)
        kvd.terminate()
    with Kvd(tmp_path, "--etcd_api=false") as kvd, grpc.insecure_channel(kvd.address) as channel:
        kvd.wait_serving()
        stub = session_pb2_grpc.SessionsStub(channel)
        answer = stub.Open(session_pb2.OpenSessionRequest(), timeout=20, wait_for_ready=True)
        assert (bool(answer.session), answer.operations) == (True, False)


def test_a_repeat_is_answered_less_what_it_read(channel: grpc.Channel) -> None:
    session = opened(channel)
    before = version(channel)
    first = call(channel, "Txn", TXN, f"kvs1/{session}/1/1")
    again = call(channel, "Txn", TXN, f"kvs1/{session}/1/1")
    assert (first.succeeded, first.repeated_request) == (True, False)
    assert (again.succeeded, again.repeated_request) == (True, True)
    assert again.header.revision == first.header.revision
    assert not again.responses
    put = pb.PutRequest(key=b"p")
    assert not call(channel, "Put", put, f"kvs1/{session}/2/1").repeated_request
    assert call(channel, "Put", put, f"kvs1/{session}/2/1").repeated_request
    delete = pb.DeleteRangeRequest(key=b"p", prev_kv=True)
    assert len(call(channel, "DeleteRange", delete, f"kvs1/{session}/3/1").prev_kvs) == 1
    repeat = call(channel, "DeleteRange", delete, f"kvs1/{session}/3/1")
    assert (repeat.deleted, repeat.repeated_request, len(repeat.prev_kvs)) == (1, True, 0)
    assert version(channel) == before + 1
    # Without a number it is another one.
    assert not call(channel, "Txn", TXN).repeated_request
    assert version(channel) == before + 2


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT, "is expected"),
        ("my own", grpc.StatusCode.INVALID_ARGUMENT, "is expected"),
        ("kvs1/{}/0/1", grpc.StatusCode.INVALID_ARGUMENT, "is expected"),
        ("kvs1/{}/1/2", grpc.StatusCode.INVALID_ARGUMENT, "the floor"),
        ("kvs1/{}/257/1", grpc.StatusCode.INVALID_ARGUMENT, "the floor"),
        ("kvs1/{}/9223372036854775808/9223372036854775808", grpc.StatusCode.INVALID_ARGUMENT, ""),
        ("kvs1/{}/9/9", grpc.StatusCode.INVALID_ARGUMENT, "used before"),
        ("kvs1/{}/8/8", grpc.StatusCode.ABORTED, "gone past"),
        (f"kvs1/{'0' * 32}/1/1", grpc.StatusCode.ABORTED, "expired"),
    ],
)
def test_a_bad_number_is_refused_and_nothing_is_done(
    channel: grpc.Channel, number: str, code: grpc.StatusCode, words: str
) -> None:
    session = opened(channel)
    call(channel, "Put", pb.PutRequest(key=b"other"), f"kvs1/{session}/9/9")
    before = version(channel)
    for name, request in (("Txn", TXN), ("Put", pb.PutRequest(key=b"c"))):
        with pytest.raises(grpc.RpcError) as refused:
            call(channel, name, request, number.format(session))
        assert refused.value.code() is code
        assert words in str(refused.value.details())
    assert version(channel) == before


def test_a_repeat_is_known_to_whoever_leads_and_after_a_restart_of_all(tmp_path: Path) -> None:
    with Cluster(tmp_path, 3, settings="forward = true") as cluster:
        cluster.start()
        leader = cluster.leader()
        follower = next(member for member in cluster.members if member != leader)
        with grpc.insecure_channel(cluster.clients[leader]) as channel:
            session = opened(channel)
            assert not call(channel, "Txn", TXN, f"kvs1/{session}/1/1").repeated_request
        with grpc.insecure_channel(cluster.clients[follower]) as channel:
            assert call(channel, "Txn", TXN, f"kvs1/{session}/1/1").repeated_request
            cluster.kill(leader)
            assert call(channel, "Txn", TXN, f"kvs1/{session}/1/1").repeated_request
            assert version(channel) == 1
        cluster.kill()
        cluster.start()
        for member in cluster.members:
            with grpc.insecure_channel(cluster.clients[member]) as channel:
                assert call(channel, "Txn", TXN, f"kvs1/{session}/1/1").repeated_request
                assert version(channel) == 1


def test_transactions_are_done_once_while_leaders_are_killed(tmp_path: Path) -> None:
    done = 0
    is_over = False

    async def write(client: AsyncClient) -> None:
        nonlocal done
        while not is_over:
            # Nothing in it would show that it was done before.
            result = await client.transaction().then(Put(b"c", b"v")).commit()
            assert result.succeeded
            done += 1

    async def kill_leaders(cluster: Cluster) -> None:
        nonlocal is_over
        try:
            for _ in range(2):
                target = done + 100
                while done < target:
                    await asyncio.sleep(0.01)
                leader = await asyncio.to_thread(cluster.leader)
                await asyncio.to_thread(cluster.kill, leader)
                target = done + 100
                while done < target:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(cluster.start, leader)
        finally:
            is_over = True

    async def test(cluster: Cluster) -> None:
        async with AsyncClient(list(cluster.clients.values()), timeout=120) as client:
            async with asyncio.timeout(240), asyncio.TaskGroup() as tasks:
                tasks.create_task(kill_leaders(cluster))
                for _ in range(32):
                    tasks.create_task(write(client))
            entry = await client.get_entry(b"c")
            assert entry is not None
            assert entry.version == done

    with Cluster(tmp_path, 3) as cluster:
        cluster.start()
        with grpc.insecure_channel(cluster.clients[cluster.leader()]) as channel:
            opened(channel)
        asyncio.run(test(cluster))
