"""The bounds of the client listener, as they are told to whoever connects."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import ConfigurationError
from kvstore.server.listeners import grpcio_server as listener
from kvstore.server.listeners.calls_bound import CallsBound

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
STREAMS_MAX, HEADER_BYTES_MAX = 3, 6  # RFC 9113, 6.5.2


async def settings_of(address: str) -> dict[int, int]:
    """The first frame that a server sends: what it allows."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(PREFACE)
        head = await reader.readexactly(9)
        assert head[3] == 4, "SETTINGS"
        body = await reader.readexactly(int.from_bytes(head[:3], "big"))
        return dict(struct.iter_unpack(">HI", body))
    finally:
        writer.close()


def test_streams_and_headers_are_bounded() -> None:
    async def main() -> None:
        server = listener.new_server(connections_max=10)
        kv_pb2_grpc.add_KVServicer_to_server(kv_pb2_grpc.KVServicer(), server)
        address = listener.bind(server, "127.0.0.1:0", None)
        await server.start()
        async with asyncio.timeout(30):
            told = await settings_of(address)
        assert told[STREAMS_MAX] == 256 + 4096
        # gRPC refuses by chance from the bound on, and surely at a quarter more.
        assert told[HEADER_BYTES_MAX] == 16 * 1024 * 5 // 4
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await kv_pb2_grpc.KVStub(channel).Get(
                    kv_pb2.GetRequest(key=b"k"), timeout=30, metadata=(("x", "y" * 40_000),)
                )
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await server.stop(grace=None)

    asyncio.run(main())


def test_an_address_that_can_not_be_had_says_why() -> None:
    async def main() -> None:
        server = listener.new_server(connections_max=10)
        for address, why in (
            ("nonsense", "malformed address"),
            ("name.invalid:1", "cannot resolve 'name.invalid'"),
            ("192.0.2.1:0", "no such address on this machine"),
        ):
            with pytest.raises(ConfigurationError, match=why):
                listener.bind(server, address, None)

    asyncio.run(main())


class Waiting(kv_pb2_grpc.KVServicer):
    """Answers once it is told to, and echoes a stream."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = 0

    async def Get(self, request: kv_pb2.GetRequest, context: Any) -> kv_pb2.GetResponse:
        self.begun += 1
        await self.go_on.wait()
        return kv_pb2.GetResponse(found=True)


async def _echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


def test_calls_that_stream_take_no_place_of_the_others() -> None:
    async def main() -> None:
        waiting = Waiting()
        server = grpc.aio.server(interceptors=[CallsBound(calls_max=2, streaming_max=1)])
        kv_pb2_grpc.add_KVServicer_to_server(waiting, server)
        echo = {"Echo": grpc.stream_stream_rpc_method_handler(_echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("e", echo),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with asyncio.timeout(30), grpc.aio.insecure_channel(address) as channel:
            stub: Any = kv_pb2_grpc.KVStub(channel)
            stream = channel.stream_stream("/e/Echo")()
            await stream.write(b"x")
            assert await stream.read() == b"x"
            calls = [asyncio.ensure_future(stub.Get(kv_pb2.GetRequest())) for _ in range(2)]
            while waiting.begun < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(grpc.aio.AioRpcError, match="too many calls") as refused:
                await stub.Get(kv_pb2.GetRequest())
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await channel.stream_stream("/e/Echo")().code() is grpc.StatusCode.UNAVAILABLE
            waiting.go_on.set()
            assert all(answer.found for answer in await asyncio.gather(*calls))
            assert (await stub.Get(kv_pb2.GetRequest())).found
            await stream.done_writing()
            assert await stream.code() is grpc.StatusCode.OK
        await server.stop(grace=None)

    asyncio.run(main())
