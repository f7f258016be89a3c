"""Calls on their way to a leader that leads no more: each ends, and the next one doesn't wait."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from kvstore.api.handlers.calls import DEFAULT_DEADLINE_S
from kvstore.api.handlers.failures import Failure
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import NotLeaderError
from kvstore.server.peers.forwarding import ForwardedCalls, Forwarder
from kvstore.server.peers.identity import MemberIdentity, Stage
from kvstore.server.peers.introductions import Introductions
from kvstore.server.peers.registry import PeerRegistry
from kvstore.server.peers.wire import PeerWire, choose_wire

# What followers dial over.
_wire: contextvars.ContextVar[PeerWire] = contextvars.ContextVar("wire")


@pytest.fixture(params=["native", "grpcio"], autouse=True)
def wire(request: pytest.FixtureRequest) -> Iterator[None]:
    token = _wire.set(choose_wire(request.param))
    yield
    _wire.reset(token)


class Leader(kv_pb2_grpc.KVServicer):
    """Answers, unless it hangs."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs
        self.asked = asyncio.Event()

    async def Get(self, request: kv_pb2.GetRequest, context: Any) -> kv_pb2.GetResponse:
        self.asked.set()
        if self._hangs:
            await asyncio.Event().wait()
        return kv_pb2.GetResponse(found=True, value=b"v")

    async def serve(self, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        kv_pb2_grpc.add_KVServicer_to_server(self, server)
        port = server.add_insecure_port(address)
        await server.start()
        return server, f"127.0.0.1:{port}"


def forwarder(directory: Path, addresses: dict[int, str]) -> Forwarder:
    identity = MemberIdentity("c", 1, 7, 1, "f", Stage.MEMBER)
    introductions = Introductions(identity, PeerRegistry(directory), (1, 2, 3))
    return Forwarder(introductions, _wire.get().dialler("c", None), addresses.get)


def test_a_change_of_leader_ends_hung_calls_and_holds_nobody_up(tmp_path: Path) -> None:
    async def test() -> None:
        old, new = Leader(hangs=True), Leader()
        (old_server, old_address), (new_server, new_address) = await old.serve(), await new.serve()
        forward = forwarder(tmp_path, {2: old_address, 3: new_address})
        request = kv_pb2.GetRequest(key=b"k")
        hung = asyncio.create_task(forward.forward("Get", request, 2, 60, ()))
        await old.asked.wait()
        began = asyncio.get_running_loop().time()
        answer = await forward.forward("Get", request, 3, 60, ())
        assert answer.value == b"v"
        assert asyncio.get_running_loop().time() - began < 0.9
        async with asyncio.timeout(20):
            failure = await hung
        assert isinstance(failure, Failure)
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        await forward.close()
        await old_server.stop(grace=None)
        await new_server.stop(grace=None)

    asyncio.run(test())


def test_a_broken_way_is_dialled_anew(tmp_path: Path) -> None:
    """With the certificates of that day: a channel keeps those that it was made with."""

    async def test() -> None:
        server, address = await Leader().serve()
        forward = forwarder(tmp_path, {2: address})
        request = kv_pb2.GetRequest(key=b"k")
        assert (await forward.forward("Get", request, 2, 60, ())).found
        before = forward._channel
        assert (await forward.forward("Get", request, 2, 60, ())).found
        assert forward._channel is before
        await server.stop(grace=None)
        failure = await forward.forward("Get", request, 2, 5, ())
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        server, _ = await Leader().serve(address)
        assert (await forward.forward("Get", request, 2, 60, ())).found
        assert forward._channel is not before
        await forward.close()
        await server.stop(grace=None)

    asyncio.run(test())


def test_a_leader_that_can_not_be_reached_is_unavailable(tmp_path: Path) -> None:
    async def test() -> None:
        server, address = await Leader().serve()
        await server.stop(grace=None)
        forward = forwarder(tmp_path, {2: address})
        request = kv_pb2.GetRequest(key=b"k")
        failure = await forward.forward("Get", request, 2, 30, ())
        assert isinstance(failure, Failure)
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        assert await forward.forward("Get", request, 3, 30, ()) is None, "its address isn't known"
        await forward.close()

    asyncio.run(test())


@contextlib.asynccontextmanager
async def led_by(directory: Path, service: Any) -> AsyncIterator[Forwarder]:
    """A way to member 2, where ``service`` answers what members pass on.

    Ended whatever a test finds: a server that is left behind breaks others when it is collected.
    """

    async def admit(context: Any) -> int:
        return 1

    server = grpc.aio.server()
    kv_pb2_grpc.add_KVServicer_to_server(ForwardedCalls(service, admit), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    forward = forwarder(directory, {2: address})
    try:
        yield forward
    finally:
        await forward.close()
        await server.stop(grace=None)


def test_the_leader_never_passes_a_call_on_again(tmp_path: Path) -> None:
    """Who was asked as the leader and isn't any more says who is, and that comes back."""

    class Service:
        def submit(self, operations: Any, deadline: float, done: Any) -> None:
            done([NotLeaderError(3, "three:1")])

    async def test() -> None:
        async with led_by(tmp_path, Service()) as forward:
            failure = await forward.forward("Get", kv_pb2.GetRequest(key=b"k"), 2, 30, ())
        assert isinstance(failure, Failure)
        assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
        assert dict(failure.trailer) == {
            "kvstore-leader-hint": "3",
            "kvstore-leader-address": "three:1",
        }

    asyncio.run(test())


def test_what_is_left_of_the_deadline_goes_along_and_ends_the_call(tmp_path: Path) -> None:
    left: list[float] = []

    class Service:
        """Answers nothing."""

        def submit(self, operations: Any, deadline: float, done: Any) -> None:
            left.append(deadline - time.monotonic())

    async def test() -> None:
        async with led_by(tmp_path, Service()) as forward:
            failure = await forward.forward("Get", kv_pb2.GetRequest(key=b"k"), 2, 2, ())
        assert isinstance(failure, Failure)
        assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
        # The service's own deadline, of calls that have none, is longer; gRPC rounds up.
        assert 0 < left[0] < DEFAULT_DEADLINE_S / 2

    asyncio.run(test())
