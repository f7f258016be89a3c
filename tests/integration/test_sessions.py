"""Sessions over real sockets and processes: failover, restart, forwarding, and at full speed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc, session_pb2, session_pb2_grpc
from kvstore.client import AsyncClient
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd


def opened(channel: grpc.Channel) -> str:
    stub = session_pb2_grpc.SessionsStub(channel)
    answer = stub.Open(session_pb2.OpenSessionRequest(), timeout=10)
    assert len(bytes.fromhex(answer.session)) == 16
    assert (answer.idle_timeout_ms, answer.window) == (3_600_000, 256)
    return answer.session


def put(
    channel: grpc.Channel,
    request_id: str,
    value: bytes,
    metadata: tuple[tuple[str, str], ...] = (),
) -> bool:
    """As a client does it: what fails for a passing reason is sent again, with the same id."""
    request = kv_pb2.PutRequest(key=b"k", value=value, request_id=request_id)
    stub = kv_pb2_grpc.KVStub(channel)
    end = time.monotonic() + 30
    while True:
        try:
            return stub.Put(request, timeout=10, wait_for_ready=True, metadata=metadata).overwritten
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(0.02)  # as a client's back-off


def refused(channel: grpc.Channel, request_id: str, value: bytes) -> str:
    """Why the put is refused, from the trailer of its ABORTED."""
    with pytest.raises(grpc.RpcError) as caught:
        put(channel, request_id, value)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    trailer = dict(caught.value.trailing_metadata() or ())
    assert trailer["kvstore-outcome"] == "not-applied"
    return str(trailer["kvstore-refusal"])


def test_a_session_survives_its_leader_and_a_restart_of_all(tmp_path: Path) -> None:
    with Cluster(tmp_path, 3, settings="forward = true") as cluster:
        cluster.start()
        leader = cluster.leader()
        follower = next(member for member in cluster.members if member != leader)
        with grpc.insecure_channel(cluster.clients[follower]) as channel:
            # All of it through a follower, which passes it on.
            session = opened(channel)
            assert not put(channel, f"kvs1/{session}/1/1", b"v1")
            cluster.kill(leader)
            cluster.running[follower].wait_serving()
            assert not put(channel, f"kvs1/{session}/1/1", b"v1")
            assert put(channel, f"kvs1/{session}/2/2", b"v2")
            assert refused(channel, f"kvs1/{session}/1/1", b"v1") == "SEQUENCE_PASSED"
            assert refused(channel, f"kvs1/{'0' * 32}/1/1", b"v3") == "SESSION_EXPIRED"
        cluster.kill()
        cluster.start()
        with grpc.insecure_channel(cluster.clients[follower]) as channel:
            assert put(channel, f"kvs1/{session}/2/2", b"v2")
            assert refused(channel, f"kvs1/{session}/1/1", b"v1") == "SEQUENCE_PASSED"
        with cluster.client() as client:
            assert client.get(b"k") == b"v2"


def test_the_late_retry_of_a_write_is_refused_at_full_speed(tmp_path: Path) -> None:
    """While a client writes as fast as it can, another one's first write comes again and again."""
    with Kvd(tmp_path / "data") as kvd, kvd.channel() as channel:
        kvd.wait_serving()
        session = opened(channel)
        assert not put(channel, f"kvs1/{session}/1/1", b"v1")
        assert put(channel, f"kvs1/{session}/2/2", b"v2")
        plain = (("kvstore-attempt", "2"), ("kvstore-age-ms", "1"))

        async def others() -> int:
            async with AsyncClient(kvd.address) as client:

                async def writer(number: int) -> int:
                    count = 0
                    while time.monotonic() < end:
                        await client.put(b"other-%d" % number, b"%d" % count)
                        count += 1
                    return count

                return sum(await asyncio.gather(*map(writer, range(32))))

        end = time.monotonic() + 2
        writing = asyncio.run(others())
        assert writing > 100
        assert refused(channel, f"kvs1/{session}/1/1", b"v1") == "SEQUENCE_PASSED"
        assert put(channel, f"kvs1/{session}/2/2", b"v2")
        # Nothing was forgotten yet, so a retry of what never came is new.
        assert put(channel, "never-came", b"v3", plain)
        assert put(channel, "never-came", b"v3", plain)
        with kvd.client() as client:
            assert client.get(b"k") == b"v3"
