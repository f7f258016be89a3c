"""The native server as stock grpcio clients meet it: all four kinds of calls, and their ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import grpc
import grpc.aio
import pytest

from kvstore.wire.server.call import Call
from kvstore.wire.server.connection import Connection
from tests.unit.wire.conversation import native
from tests.unit.wire.stage import Echo, Server, ServerLimits, play, scene


@scene
async def test_a_unary_call_is_answered(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        for size in (0, 1, 100_000, 1_000_000):
            assert await channel.unary_unary("/e/unary")(bytes(size)) == bytes(size)
    assert echo.contexts[0].peer().startswith("ipv4:127.0.0.1:")
    assert echo.contexts[0].auth_context()["transport_security_type"] == [b"insecure"]
    assert echo.contexts[0].time_remaining() is None


@scene
async def test_metadata_travel_both_ways(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/e/metadata")(b"", metadata=(("a", "b"), ("c-bin", b"\x01")))
        seen = eval(await call)
        assert ("a", "b") in seen
        assert ("c-bin", b"\x01") in seen
        assert tuple(map(tuple, await call.initial_metadata())) == (
            ("first", "1"),
            ("first-bin", b"\x00\xff"),
        )
        assert tuple(map(tuple, await call.trailing_metadata())) == (
            ("last", "2"),
            ("last-bin", b"\xff\x00"),
        )


@pytest.mark.parametrize(
    ("method", "code", "details"),
    [
        ("refuse", grpc.StatusCode.NOT_FOUND, "nö: 100 %\n"),
        ("raise_", grpc.StatusCode.UNKNOWN, "Unexpected <class 'KeyError'>: 'a defect'"),
        ("late_status", grpc.StatusCode.ABORTED, "changed its mind"),
        ("nowhere", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
    ],
)
def test_a_call_ends_with_its_status(method: str, code: grpc.StatusCode, details: str) -> None:
    async def refused(server: Server, address: str, echo: Echo) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(f"/e/{method}")(b"")
        assert (raised.value.code(), raised.value.details()) == (code, details)
        if method == "refuse":
            assert ("why", "so") in map(tuple, raised.value.trailing_metadata())

    play(refused)


@scene
async def test_responses_are_streamed(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        streamed = channel.unary_stream("/e/streamed")
        assert [len(one) async for one in streamed(b"100")] == [1000] * 100
        assert [one async for one in streamed(b"0")] == []
        written = channel.unary_stream("/e/written")
        assert [len(one) async for one in written(b"500000 8")] == [500_000] * 8


@scene
async def test_requests_are_streamed(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        requests = [b"%d" % n * 3000 for n in range(300)]
        gathered = channel.stream_unary("/e/gathered")
        assert await gathered(iter(requests)) == b",".join(requests)
        assert await gathered(iter([])) == b""


@scene
async def test_requests_are_delivered_as_they_come(
    server: Server, address: str, echo: Echo
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        requests = [b"%d" % n * 3000 for n in range(300)]
        delivered = channel.stream_unary("/e/delivered")
        assert await delivered(iter(requests)) == b",".join(requests)
        assert await delivered(iter([])) == b""
        assert await delivered(iter([b"1", b"bad", b"2"])) == b"1,and stopped"


@scene
async def test_both_sides_stream_in_turns(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/e/both")()
        for n in range(50):
            await call.write(b"%d" % n)
            assert await call.read() == b"%d" % n
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@scene
async def test_a_sync_client_is_answered(server: Server, address: str, echo: Echo) -> None:
    def ask() -> list[bytes]:
        with grpc.insecure_channel(address) as channel:
            unary = channel.unary_unary("/e/unary")(b"question")
            return [unary, *channel.stream_stream("/e/both")(iter([b"1", b"2"]))]

    assert await asyncio.to_thread(ask) == [b"question", b"1", b"2"]


@scene
async def test_a_deadline_ends_the_handler(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary("/e/unary")(b"")  # connected: the call below is sent at once
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/e/wait")(b"", timeout=1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await echo.cancelled.wait()


@scene
async def test_a_cancelled_call_ends_the_handler(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/e/wait")(b"")
        await echo.began.wait()
        call.cancel()
        await echo.cancelled.wait()


@scene
async def test_a_connection_that_is_lost_ends_its_handlers(
    server: Server, address: str, echo: Echo
) -> None:
    channel = grpc.aio.insecure_channel(address)
    asking = asyncio.ensure_future(channel.unary_unary("/e/wait")(b""))
    await echo.began.wait()
    await channel.close(grace=None)
    await echo.cancelled.wait()
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await asking


@scene
async def test_calls_under_way_are_finished_in_the_time_given(
    server: Server, address: str, echo: Echo
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        asking = asyncio.ensure_future(channel.unary_unary("/e/wait")(b"answer"))
        await echo.began.wait()
        stopping = asyncio.create_task(server.stop(grace=10.0))
        # A new connection is refused at once.
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with grpc.aio.insecure_channel(address, [("other", 1)]) as other:
                await other.unary_unary("/e/unary")(b"")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        echo.open.set()
        assert await asking == b"answer"
        await stopping


@scene
async def test_after_that_time_they_are_cut(server: Server, address: str, echo: Echo) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        asking = asyncio.ensure_future(channel.unary_unary("/e/wait")(b""))
        await echo.began.wait()
        await server.stop(grace=0.2)
        await echo.cancelled.wait()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asking
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


@scene
async def test_a_writer_waits_for_a_reader(server: Server, address: str, echo: Echo) -> None:
    options = [("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        call = channel.unary_stream("/e/written")(b"100000 500")
        most = 0
        async for _ in call:
            most = max(most, server.unsent.used)
        assert most < 1_000_000


def test_calls_beyond_the_bound_are_refused_with_a_hint() -> None:
    async def refused(server: Server, address: str, echo: Echo) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            wait = channel.unary_unary("/e/wait")
            asking = [asyncio.ensure_future(wait(b"")) for _ in range(2)]
            await echo.began.wait()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await wait(b"")
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(map(tuple, raised.value.trailing_metadata()))["grpc-retry-pushback-ms"]
            echo.open.set()
            await asyncio.gather(*asking)

    play(refused, ServerLimits(connections_max=10, calls_max=2))


@scene
async def test_nothing_is_left_for_the_garbage_collector(
    server: Server, address: str, echo: Echo
) -> None:
    async def use() -> None:
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as c:
            assert await c.unary_unary("/e/unary")(b"x") == b"x"
            assert await c.stream_unary("/e/gathered")(iter([b"1", b"2"])) == b"1,2"
            with pytest.raises(grpc.aio.AioRpcError):
                await c.unary_unary("/e/refuse")(b"")
            with pytest.raises(grpc.aio.AioRpcError):
                await c.unary_unary("/e/wait")(b"", timeout=0.05)

    def alive() -> int:
        kinds = (Connection, Call, native.ServerSession)
        return sum(isinstance(one, kinds) for one in gc.get_objects())

    gc.collect()
    before = alive()
    gc.disable()
    try:
        for _ in range(5):
            await use()
        echo.contexts.clear()
        while server.connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert alive() <= before
    finally:
        gc.enable()
