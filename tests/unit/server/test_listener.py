"""The bounds of the client listener, as they are told to whoever connects."""

from __future__ import annotations

import asyncio
import struct

import grpc
import grpc.aio
import pytest

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import ConfigurationError
from kvstore.server.listeners import grpcio_server as listener

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
        assert told[STREAMS_MAX] == 256
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
