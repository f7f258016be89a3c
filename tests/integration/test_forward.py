"""Followers with ``forward = true`` answer as the leader does, over real sockets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from tests.integration.cluster import Cluster

Stub = Callable[[str], kv_pb2_grpc.KVStub]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """One address alone, without the client's habit of following hints."""
    with contextlib.ExitStack() as channels:
        yield lambda address: kv_pb2_grpc.KVStub(
            channels.enter_context(grpc.insecure_channel(address))
        )


@pytest.mark.parametrize("mutual_tls", [False, True])
def test_a_follower_passes_every_call_on_and_gives_the_leaders_answer(
    tmp_path: Path, stub: Stub, mutual_tls: bool
) -> None:
    with Cluster(tmp_path, 3, settings="forward = true", mutual_tls=mutual_tls) as cluster:
        cluster.start()
        follower = next(m for m in cluster.members if m != cluster.leader())
        calls = stub(cluster.clients[follower])
        put = kv_pb2.PutRequest(key=b"k", value=b"v", request_id="1")
        assert not calls.Put(put, timeout=10).overwritten
        assert not calls.Put(put, timeout=10).overwritten  # the same id: the first result
        assert calls.Get(kv_pb2.GetRequest(key=b"k"), timeout=10).value == b"v"
        assert calls.Delete(kv_pb2.DeleteRequest(key=b"k", request_id="2"), timeout=10).deleted
        assert not calls.Get(kv_pb2.GetRequest(key=b"k"), timeout=10).found
        with pytest.raises(grpc.RpcError) as reused:
            calls.Put(kv_pb2.PutRequest(key=b"k", value=b"w", request_id="2"), timeout=10)
        assert reused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "request" in (reused.value.details() or "")


def test_many_calls_through_followers_survive_the_leaders_death(tmp_path: Path, stub: Stub) -> None:
    with Cluster(tmp_path, 3, settings="forward = true") as cluster:
        cluster.start()
        leader = cluster.leader()
        follower = next(m for m in cluster.members if m != leader)

        def write(number: int) -> None:
            # As a client does: a retry has the same id, and the first one may have been done.
            request = kv_pb2.PutRequest(key=b"%03d" % number, value=b"v", request_id=f"w{number}")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    stubs[number % 8].Put(request, timeout=10, wait_for_ready=True)
                    return
                except grpc.RpcError as error:
                    assert error.code() in (
                        grpc.StatusCode.UNAVAILABLE,
                        grpc.StatusCode.FAILED_PRECONDITION,
                    ), error
                    time.sleep(0.02)  # as a client's back-off
            raise AssertionError("never done")

        stubs = [stub(cluster.clients[follower]) for _ in range(8)]
        with ThreadPoolExecutor(32) as pool:
            first = pool.map(write, range(200))
            cluster.kill(leader)
            assert len(list(first)) == 200
        with cluster.client() as client:
            assert all(client.get(b"%03d" % number) == b"v" for number in range(200))


def test_without_forward_a_follower_names_the_leader(tmp_path: Path, stub: Stub) -> None:
    with Cluster(tmp_path, 3) as cluster:
        cluster.start()
        leader = cluster.leader()
        follower = next(m for m in cluster.members if m != leader)
        with pytest.raises(grpc.RpcError) as refused:
            stub(cluster.clients[follower]).Get(kv_pb2.GetRequest(key=b"k"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        trailer = dict(refused.value.trailing_metadata() or ())
        assert trailer["kvstore-leader-hint"] == str(leader)
        assert trailer["kvstore-leader-address"] == cluster.clients[leader]


def test_who_is_no_member_can_not_call_the_peer_listener(tmp_path: Path, stub: Stub) -> None:
    with Cluster(tmp_path, 3) as cluster:
        cluster.start()
        peer = stub(cluster.peers[1])
        with pytest.raises(grpc.RpcError) as refused:
            peer.Put(kv_pb2.PutRequest(key=b"k", value=b"v", request_id="1"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
