"""A native server with handlers that echo, for scenes that clients play on it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import pytest
import uvloop

pytest.importorskip("kvstore._wire.native", reason="built without nghttp2", exc_type=ImportError)

from kvstore.wire.server import Server, ServerLimits

LIMITS = ServerLimits(connections_max=100)
TIMEOUT_S = 30.0


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Each method answers with what it was sent, in its own way."""

    def __init__(self) -> None:
        self.contexts: list[Any] = []
        self.cancelled = asyncio.Event()
        self.began = asyncio.Event()
        self.open = asyncio.Event()

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        unary = getattr(self, method, None)
        match method:
            case "unary" | "metadata" | "refuse" | "raise_" | "wait" | "late_status":
                return grpc.unary_unary_rpc_method_handler(unary)
            case "streamed" | "written":
                return grpc.unary_stream_rpc_method_handler(unary)
            case "gathered" | "delivered":
                return grpc.stream_unary_rpc_method_handler(unary)
            case "both":
                return grpc.stream_stream_rpc_method_handler(unary)
        return None

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.contexts.append(context)
        return request

    async def metadata(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xff\x00")))
        return repr(tuple(map(tuple, context.invocation_metadata()))).encode()

    async def refuse(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "nö: 100 %\n", (("why", "so"),))
        raise AssertionError("abort raises")

    async def raise_(self, request: bytes, context: Any) -> bytes:
        raise KeyError("a defect")

    async def late_status(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.ABORTED)
        context.set_details("changed its mind")
        return b""

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.began.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return request

    async def streamed(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(int(request)):
            yield b"x" * 1000

    async def written(self, request: bytes, context: Any) -> None:
        size, _, count = request.partition(b" ")
        for _ in range(int(count)):
            await context.write(bytes(int(size)))

    async def gathered(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b",".join([request async for request in requests])

    async def delivered(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        taken: list[bytes] = []

        def take(request: bytes) -> None:
            if request == b"bad":
                raise ValueError("bad")
            taken.append(request)

        try:
            await context.deliver(take)
        except ValueError:
            taken.append(b"and stopped")
        return b",".join(taken)

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


Scene = Callable[[Server, str, Echo], Coroutine[Any, Any, None]]


def play(scene: Scene, limits: ServerLimits = LIMITS) -> None:
    """Run ``scene`` against a server at an address; it must be over in time."""

    async def main() -> None:
        server, echo = Server(limits), Echo()
        server.add_generic_rpc_handlers((echo,))
        port = server.bind("127.0.0.1", 0)
        await server.start()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await scene(server, f"127.0.0.1:{port}", echo)
        finally:
            await server.stop(grace=None)
        assert (server.calls, server.streaming) == (0, 0)
        assert (server.received.used, server.unsent.used) == (0, 0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def scene(played: Scene) -> Callable[[], None]:
    """A test of ``played`` with the usual bounds."""
    return with_limits()(played)


def with_limits(**limits: Any) -> Callable[[Scene], Callable[[], None]]:
    """A test of a scene with bounds of its own."""

    def test_of(played: Scene) -> Callable[[], None]:
        def test() -> None:
            play(played, dataclasses.replace(LIMITS, **limits))

        # Not functools.wraps: pytest would look for fixtures of the scene's names.
        test.__name__, test.__doc__ = played.__name__, played.__doc__
        return test

    return test_of
