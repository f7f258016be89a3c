"""What a running server hears: HTTP/1.1 on the native front, and every call of a real kvd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import structlog
import uvloop

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import SERVICES
from kvstore.api.v1 import admin_pb2, kv_pb2
from kvstore.wire.http import HttpLimits
from tests.fuzz.targets.target import Run, Target
from tests.fuzz.test_http import DEFECTS, Anything
from tests.integration.process import Kvd
from tests.unit.wire.stage import LIMITS, Echo, Server
from tests.unit.wire.test_http import Raw, request

__all__ = ["TARGETS"]

ANSWER_S = 0.05
CALL_S = 5.0


# --- HTTP ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _http() -> Iterator[Run]:
    """A server that goes on serving; each input is a connection of its own."""
    with (
        structlog.testing.capture_logs() as logs,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        server, address = runner.run(_serving())

        def run(data: bytes) -> object:
            said = runner.run(_conversation(address, data))
            defects = [line for line in logs if line["event"] in DEFECTS]
            assert not defects, defects
            logs.clear()
            return said

        try:
            yield run
            good = runner.run(_conversation(address, request("/", b"good")))
            assert b" 200 " in good, "others are served"
        finally:
            runner.run(server.stop(grace=None))


async def _serving() -> tuple[Server, str]:
    server = Server(LIMITS)
    server.add_generic_rpc_handlers((Echo(),))
    server.serve_http(Anything(), HttpLimits())
    port = server.bind("127.0.0.1", 0)
    await server.start()
    return server, f"127.0.0.1:{port}"


async def _conversation(address: str, data: bytes) -> bytes:
    """What comes back first: a line."""
    raw = await Raw.open(address, data)
    said = b""
    with contextlib.suppress(OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            said = (await raw.reader.read(1 << 16))[:40]
    raw.writer.transport.abort()
    return said.split(b"\r\n")[0]


def _http_seeds() -> list[bytes]:
    return [
        request("/echo?a=%20&b", b"hello"),
        request("/", b"", "GET", "Connection: close") + request("/flood", b""),
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ]


# --- kvd -----------------------------------------------------------------------------------------

# A defect shows as one of these; what was asked is refused with others.
DEFECT_CODES = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)

_OWN = {
    "/kvstore.v1.KV/Put": kv_pb2.PutRequest(key=b"key", value=b"value", request_id="r"),
    "/kvstore.v1.KV/Get": kv_pb2.GetRequest(key=b"key"),
    "/kvstore.v1.KV/Delete": kv_pb2.DeleteRequest(key=b"key", request_id="d"),
    "/kvstore.v1.Admin/Status": admin_pb2.StatusRequest(),
    "/kvstore.v1.Admin/Members": admin_pb2.MembersRequest(),
    "/kvstore.v1.Admin/ChangeMembers": admin_pb2.ChangeMembersRequest(),
    "/kvstore.v1.Admin/TransferLeadership": admin_pb2.TransferLeadershipRequest(),
    "/kvstore.v1.Admin/ForgetIntroduction": admin_pb2.ForgetIntroductionRequest(),
    "/kvstore.v1.Admin/Repair": admin_pb2.RepairRequest(begin=True),
}
# Streams would wait for more, and leases and locks for time to pass.
_ETCD = sorted(
    shape.path
    for methods in SERVICES.values()
    for shape in methods.values()
    if not shape.streams_in
    and not shape.streams_out
    and "v3lockpb" not in shape.path
    and "v3electionpb" not in shape.path
)
METHODS = [*_OWN, *_ETCD]


def _same_build() -> dict[str, str]:
    """kvd is to be of the sanitized build if this process is."""
    path = os.environ.get("PYTHONPATH")
    return {} if path is None else {"PYTHONPATH": path}


@contextlib.contextmanager
def _kvd() -> Iterator[Run]:
    """A real process; the first byte of an input chooses the method, the rest is the message."""
    with (
        tempfile.TemporaryDirectory(prefix="kvstore-fuzz-") as name,
        Kvd(Path(name) / "data", admin="everybody", env=_same_build()) as kvd,
    ):
        kvd.wait_serving()
        with grpc.insecure_channel(kvd.address) as channel:
            calls = [channel.unary_unary(method) for method in METHODS]

            def run(data: bytes) -> object:
                at = (data[0] if data else 0) % len(calls)
                try:
                    calls[at](data[1:], timeout=CALL_S)
                except grpc.RpcError as error:
                    code = error.code()
                    assert code not in DEFECT_CODES, f"{METHODS[at]}: {error.details()}"
                    return METHODS[at], code, error.details()[:20]
                return METHODS[at]

            yield run
        assert "Traceback" not in kvd.stderr, kvd.stderr[-3000:]


def _kvd_seeds() -> list[bytes]:
    seeds = [
        bytes([METHODS.index(method)]) + message.SerializeToString()
        for method, message in _OWN.items()
    ]
    put = pb.PutRequest(key=b"k", value=b"v", lease=7)
    seeds += [bytes([METHODS.index(method)]) + put.SerializeToString() for method in _ETCD]
    return seeds


TARGETS = [Target("http", _http_seeds, _http), Target("kvd-calls", _kvd_seeds, _kvd)]
