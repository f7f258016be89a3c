"""What goes along when a follower passes a call on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc.aio

from kvstore.api.handlers.failures import Failure
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc, session_pb2, session_pb2_grpc
from kvstore.server.peers.forwarding import Forwarder
from kvstore.server.peers.introductions import Introductions
from kvstore.server.peers.wire import Dialler

SAID = (("kvstore-attempt", "3"), ("kvstore-age-ms", "1200"))


class Leader(kv_pb2_grpc.KVServicer, session_pb2_grpc.SessionsServicer):
    """Remembers what it was told, and refuses writes."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}

    async def Put(self, request: kv_pb2.PutRequest, context: Any) -> kv_pb2.PutResponse:
        self.metadata = dict(context.invocation_metadata())
        refusal = (("kvstore-refusal", "REQUEST_FORGOTTEN"), ("kvstore-outcome", "not-applied"))
        await context.abort(grpc.StatusCode.ABORTED, "forgotten", (*refusal, ("other", "x")))
        raise AssertionError("abort raises")

    async def Open(
        self, request: session_pb2.OpenSessionRequest, context: Any
    ) -> session_pb2.OpenSessionResponse:
        return session_pb2.OpenSessionResponse(session="ab")


class Introduced:
    def to(self, receiver: int) -> tuple[tuple[str, bytes], ...]:
        return (("introduction-bin", b"member %d" % receiver),)


class Dials:
    def dial(self, member: int, address: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address)


def test_metadata_of_retries_goes_along_and_refusals_come_back() -> None:
    async def main() -> None:
        leader = Leader()
        server = grpc.aio.server()
        kv_pb2_grpc.add_KVServicer_to_server(leader, server)
        session_pb2_grpc.add_SessionsServicer_to_server(leader, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        forwarder = Forwarder(
            cast(Introductions, Introduced()), cast(Dialler, Dials()), lambda member: address
        )
        try:
            request = kv_pb2.PutRequest(key=b"k", value=b"v", request_id="r")
            answer = await forwarder.forward("Put", request, 2, 5.0, SAID)
            assert answer == Failure(
                grpc.StatusCode.ABORTED,
                "forgotten",
                (("kvstore-refusal", "REQUEST_FORGOTTEN"), ("kvstore-outcome", "not-applied")),
            )
            assert tuple((key, leader.metadata[key]) for key, _ in SAID) == SAID
            assert leader.metadata["introduction-bin"] == b"member 2"
            opened = await forwarder.forward("Open", session_pb2.OpenSessionRequest(), 2, 5.0, ())
            assert opened.session == "ab"
        finally:
            await forwarder.close()
            await server.stop(grace=None)

    asyncio.run(main())
