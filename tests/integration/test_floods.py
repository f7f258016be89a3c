"""Connections and calls in numbers that one client can make: others are served all the same."""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
from pathlib import Path

import grpc
import grpc.aio
import pytest

from kvstore.api.v1 import admin_pb2, kv_pb2, kv_pb2_grpc
from tests.integration.process import FRONTS, Kvd
from tests.unit.wire import frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("front", FRONTS)
def test_idle_connections_take_no_descriptor_that_the_log_needs(tmp_path: Path, front: str) -> None:
    few = ("sh", "-c", 'ulimit -n 640; exec "$@"', "sh")
    with Kvd(tmp_path / "data", wrapper=few, front=front) as kvd, kvd.client() as client:
        kvd.wait_serving()
        assert "few file descriptors" in kvd.stderr
        client.put(b"k", b"v")
        host, _, port = kvd.address.rpartition(":")
        with contextlib.ExitStack() as stack:
            sockets = []
            for _ in range(700):
                one = stack.enter_context(socket.socket())
                one.settimeout(10)
                one.connect((host, int(port)))
                with contextlib.suppress(OSError):
                    one.sendall(PREFACE)
                sockets.append(one)
            # Who was here before goes on, and the log gets its next segments.
            for number in range(60):
                client.put(b"%d" % number, bytes(500_000))
            closed = 0
            for one in sockets:
                with contextlib.suppress(OSError):
                    while select.select([one], [], [], 0.05)[0]:
                        if not one.recv(4096):
                            break
                    else:
                        continue
                closed += 1
            assert closed >= 700 - 160
        with kvd.client() as other:
            assert other.get(b"k") == b"v"


def test_the_soft_limit_on_descriptors_is_raised(tmp_path: Path) -> None:
    low = ("sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh")
    with Kvd(tmp_path / "data", wrapper=low) as kvd:
        limits = Path(f"/proc/{kvd.pid}/limits").read_text()
        found = re.search(r"Max open files\s+(\d+)\s+(\d+)", limits)
        assert found is not None
        assert int(found[1]) == min(int(found[2]), 1 << 20) > 256


@pytest.mark.parametrize("front", FRONTS)
def test_a_burst_of_calls_is_answered_or_told_to_come_later(tmp_path: Path, front: str) -> None:
    async def burst(address: str) -> dict[str, int]:
        codes: dict[str, int] = {}
        async with contextlib.AsyncExitStack() as stack:
            stubs = []
            for number in range(8):
                channel = grpc.aio.insecure_channel(
                    address, options=[("grpc.use_local_subchannel_pool", 1), ("n", number)]
                )
                stubs.append(kv_pb2_grpc.KVStub(await stack.enter_async_context(channel)))

            async def get(number: int) -> None:
                try:
                    await stubs[number % 8].Get(kv_pb2.GetRequest(key=b"k"), timeout=50)
                    code = "OK"
                except grpc.aio.AioRpcError as error:
                    code = error.code().name
                codes[code] = codes.get(code, 0) + 1

            await asyncio.gather(*(get(number) for number in range(6000)))
        return codes

    with Kvd(tmp_path / "data", front=front) as kvd:
        kvd.wait_serving()
        codes = asyncio.run(burst(kvd.address))
        # CANCELLED, which gRPC's own queue gave, is tried again by nobody.
        assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}, codes
        assert codes["OK"] > 1000


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    "method",
    ["KV/Get", "KV/Put", "KV/Delete", "Admin/Status", "Admin/ChangeMembers", "Admin/SaveSnapshot"],
)
def test_what_is_no_message_is_an_invalid_argument_and_no_traceback(
    tmp_path: Path, method: str, front: str
) -> None:
    with Kvd(tmp_path / "data", front=front) as kvd:
        kvd.wait_serving()
        with kvd.channel() as channel:
            call = channel.unary_unary(f"/kvstore.v1.{method}")
            for _ in range(20):
                with pytest.raises(grpc.RpcError) as refused:
                    call(b"\xff\xff\xff", timeout=10)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            status = channel.unary_unary("/kvstore.v1.Admin/Status")
            assert admin_pb2.StatusResponse.FromString(status(b"", timeout=10)).members
        assert "Traceback" not in kvd.stderr
        assert "DecodeError" not in kvd.stderr


def resident_mib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.skipif("native" not in FRONTS, reason="built without nghttp2")
def test_answers_that_nobody_reads_take_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    gets = 200
    no_window = frames.frame(frames.SETTINGS, 0, b"\0\4\0\0\0\0")
    body = frames.message(kv_pb2.GetRequest(key=b"large").SerializeToString())
    asked = b"".join(
        frames.headers(stream, frames.request()) + frames.frame(frames.DATA, stream, body, 1)
        for stream in range(1, 2 * gets, 2)
    )
    with Kvd(tmp_path / "data", front="native") as kvd, kvd.client() as client:
        kvd.wait_serving()
        client.put(b"large", bytes(1 << 20))
        assert client.get(b"large") is not None
        before = resident_mib(kvd.pid)
        host, _, port = kvd.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as deaf:
            deaf.sendall(frames.PREFACE + no_window + asked)
            answered = refused = 0
            with deaf.makefile("rb") as heard:
                while answered < gets:
                    head = heard.read(9)
                    heard.read(int.from_bytes(head[:3], "big"))
                    if head[3] == frames.HEADERS:
                        answered += 1
                        refused += head[4] & frames.END_STREAM
            # 80 MiB of one connection, and as many are refused as don't fit.
            assert refused >= gets - 80
            assert resident_mib(kvd.pid) - before < 170
            assert client.get(b"large") == bytes(1 << 20)
            client.put(b"k", b"v")


@pytest.mark.parametrize("front", FRONTS)
def test_sixty_four_large_values_are_under_way_on_one_connection(
    tmp_path: Path, front: str
) -> None:
    async def use(address: str) -> None:
        value = bytes(1 << 20)
        async with grpc.aio.insecure_channel(
            address, [("grpc.max_receive_message_length", 2 << 20)]
        ) as channel:
            kv = kv_pb2_grpc.KVStub(channel)
            puts = [
                kv.Put(kv_pb2.PutRequest(key=b"%d" % n, value=value, request_id=f"{n}"), timeout=60)
                for n in range(64)
            ]
            await asyncio.gather(*puts)
            gets = [kv.Get(kv_pb2.GetRequest(key=b"%d" % n), timeout=60) for n in range(64)]
            assert all(answer.value == value for answer in await asyncio.gather(*gets))

    with Kvd(tmp_path / "data", front=front) as kvd:
        kvd.wait_serving()
        asyncio.run(use(kvd.address))
