"""The native channel against grpcio's server: what stubs of generated code get of it."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

pytest.importorskip("kvstore._wire.native")

from kvstore.wire import RpcError
from kvstore.wire.channel import Channel
from kvstore.wire.channel_options import ChannelOptions, ChannelTLS
from kvstore.wire.tls import client_context

WAIT_S = 10.0
PREFIX = "/test.Calls/"


class Calls(grpc.GenericRpcHandler):
    """Methods on bytes, named after what they do."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.under_way = 0
        self.most = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.removeprefix(PREFIX)
        method = getattr(self, name, None)
        if method is None:
            return None
        kind = {
            "count": grpc.unary_stream_rpc_method_handler,
            "sum": grpc.stream_unary_rpc_method_handler,
            "twice": grpc.stream_stream_rpc_method_handler,
            "unread": grpc.stream_unary_rpc_method_handler,
            "refuse_stream": grpc.stream_stream_rpc_method_handler,
        }.get(name, grpc.unary_unary_rpc_method_handler)
        return kind(method)

    async def echo(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff")))
        for name, value in context.invocation_metadata():
            if name.startswith("told"):
                context.set_trailing_metadata(((f"last-{name}", value),))
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("kvstore-reason", "so"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "nicht gefunden: ä%")
        return b""

    async def remaining(self, request: bytes, context: Any) -> bytes:
        return str(context.time_remaining()).encode()

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.under_way -= 1
        return request

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number * 10_000

    async def sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"%d" % sum([int(request) async for request in requests])

    async def twice(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request * 2

    async def unread(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await context.send_initial_metadata((("begun", "yes"),))
        await self.release.wait()
        return b"%d" % len([request async for request in requests])

    async def refuse_stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no more")


class Served:
    """A server of grpcio's with :class:`Calls`, and channels to it."""

    def __init__(self, *, options: Any = (), address: str = "127.0.0.1:0") -> None:
        self.calls = Calls()
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *options])
        self.server.add_generic_rpc_handlers((self.calls,))
        port = self.server.add_insecure_port(address)
        self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"

    async def __aenter__(self) -> Served:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.calls.release.set()
        await self.server.stop(None)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S * 2):
            await test()

    asyncio.run(bounded())


def unary(channel: Channel, name: str) -> Any:
    return channel.unary_unary(PREFIX + name)


def test_a_unary_call_has_metadata_both_ways() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            call = unary(channel, "echo")(
                b"hello", metadata=(("told-text", "x"), ("told-bin", b"\x01\xfe"))
            )
            assert await call == b"hello"
            assert await call.code() is grpc.StatusCode.OK
            assert dict(await call.initial_metadata())["first-bin"] == b"\x00\xff"
            assert dict(await call.trailing_metadata())["last-told-bin"] == b"\x01\xfe"

    run(test)


def test_an_error_is_grpc_aios_with_details_and_trailer() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            call = unary(channel, "fail")(b"")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert caught.value.details() == "nicht gefunden: ä%"
            assert ("kvstore-reason", "so") in tuple(caught.value.trailing_metadata())
            assert await call.code() is grpc.StatusCode.NOT_FOUND
            with pytest.raises(RpcError) as caught_again:
                await unary(channel, "nothing_here")(b"")
            assert caught_again.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(test)


def test_an_error_can_be_pickled() -> None:
    error = RpcError(grpc.StatusCode.ABORTED, "why", (("a", "b"),), unsent=True)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code(), copy.details(), copy.trailing_metadata(), copy.unsent) == (
        grpc.StatusCode.ABORTED,
        "why",
        (("a", "b"),),
        True,
    )


def test_a_deadline_is_told_and_kept() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            assert 4 < float(await unary(channel, "remaining")(b"", timeout=5)) <= 5
            begun = asyncio.get_running_loop().time()
            with pytest.raises(RpcError) as caught:
                await unary(channel, "wait")(b"", timeout=0.2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert 0.15 < asyncio.get_running_loop().time() - begun < 5
            assert await unary(channel, "echo")(b"still") == b"still"

    run(test)


def test_a_call_without_time_is_not_sent() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            with pytest.raises(RpcError) as caught:
                await unary(channel, "echo")(b"", timeout=0)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert caught.value.unsent

    run(test)


def test_many_large_messages_wait_for_the_servers_windows() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            messages = [bytes([number]) * (1 << 20) for number in range(40)]
            echo = unary(channel, "echo")
            assert await asyncio.gather(*map(echo, messages)) == messages

    run(test)


def test_of_many_deadlines_each_is_kept() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            wait = unary(channel, "wait")
            calls = [wait(b"", timeout=0.1 + 0.1 * number) for number in (4, 2, 3, 0, 1)]
            ended: list[int] = []
            for place, call in enumerate(calls):
                call.add_done_callback(lambda _, place=place: ended.append(place))
            await asyncio.wait(calls)
            await asyncio.sleep(0)
            assert ended == [3, 4, 1, 2, 0]

    run(test)


def test_a_cancelled_task_cancels_its_call_at_the_server() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            task = asyncio.ensure_future(unary(channel, "wait")(b""))
            while not served.calls.under_way:
                await asyncio.sleep(0.001)
            task.cancel()
            await served.calls.cancelled.wait()
            assert task.cancelled() or task.done()

    run(test)


def test_streams_of_each_kind() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d" % number

    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            count = channel.unary_stream(PREFIX + "count")(b"300")
            assert [int(piece[:1]) async for piece in count] == [
                int(str(number)[0]) for number in range(300)
            ]
            assert await channel.stream_unary(PREFIX + "sum")(numbers()) == b"10"
            both = channel.stream_stream(PREFIX + "twice")()
            await both.write(b"ab")
            assert await both.read() == b"abab"
            await both.done_writing()
            assert await both.read() is grpc.aio.EOF  # type: ignore[attr-defined]
            assert await both.code() is grpc.StatusCode.OK
            refused = channel.stream_stream(PREFIX + "refuse_stream")()
            assert await refused.read() == b"one"
            with pytest.raises(RpcError, match="no more"):
                await refused.read()

    run(test)


def test_writing_waits_for_a_server_that_does_not_read() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            call = channel.stream_unary(PREFIX + "unread")()
            assert dict(await call.initial_metadata())["begun"] == "yes"
            written = 0

            async def write() -> None:
                nonlocal written
                for _ in range(64):
                    await call.write(bytes(1 << 20))
                    written += 1
                await call.done_writing()

            writing = asyncio.create_task(write())
            await unary(channel, "echo")(b"others go on")
            await asyncio.wait([writing], timeout=0.3)
            assert written < 32
            served.calls.release.set()
            assert await call == b"64"
            await writing

    run(test)


def test_who_does_not_want_to_wait_is_told_when_it_can_write() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            call = channel.stream_unary(PREFIX + "unread")()
            told = asyncio.Event()
            call.on_writable = told.set
            written = 0

            def write() -> None:
                nonlocal written
                while written < 32 and call.try_write(bytes(1 << 20)):
                    written += 1

            write()
            assert not written  # there is no connection yet
            await told.wait()
            told.clear()
            write()
            assert 0 < written < 32
            served.calls.release.set()
            while written < 32:
                await told.wait()
                told.clear()
                write()
            await call.done_writing()
            told.clear()
            assert await call == b"32"
            await told.wait()  # the end is told as well
            assert not call.try_write(b"")

    run(test)


def test_a_cancelled_stream_raises_where_it_is_awaited() -> None:
    async def test() -> None:
        async with Served() as served, Channel(served.address) as channel:
            call = channel.stream_unary(PREFIX + "unread")()
            await call.initial_metadata()
            seen: list[object] = []
            call.add_done_callback(seen.append)
            assert call.cancel()
            assert not call.cancel()
            assert call.done()
            assert call.cancelled()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await call.code() is grpc.StatusCode.CANCELLED
            with pytest.raises(asyncio.InvalidStateError):
                await call.write(b"")
            await asyncio.sleep(0)
            assert seen == [call]

    run(test)


def test_more_calls_than_the_server_allows_wait_their_turn() -> None:
    async def test() -> None:
        options = [("grpc.max_concurrent_streams", 3)]
        async with Served(options=options) as served, Channel(served.address) as channel:
            await unary(channel, "echo")(b"")  # its settings have come
            wait = unary(channel, "wait")
            calls = [asyncio.ensure_future(wait(b"%d" % number)) for number in range(10)]
            while served.calls.under_way < 3:
                await asyncio.sleep(0.001)
            served.calls.release.set()
            assert await asyncio.gather(*calls) == [b"%d" % number for number in range(10)]
            assert served.calls.most == 3

    run(test)


def test_what_waits_is_bounded() -> None:
    async def test() -> None:
        bounds = ChannelOptions(waiting_calls_max=2)
        settings = [("grpc.max_concurrent_streams", 1)]
        async with Served(options=settings) as served, Channel(served.address, bounds) as channel:
            await unary(channel, "echo")(b"")
            wait = unary(channel, "wait")
            calls = [wait(b"") for _ in range(3)]
            with pytest.raises(RpcError) as caught:
                await wait(b"")
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.unsent
            served.calls.release.set()
            await asyncio.gather(*calls)

    run(test)


def test_sizes_of_messages_are_bounded_both_ways() -> None:
    async def test() -> None:
        bounds = ChannelOptions(message_bytes_max=1 << 20, send_bytes_max=2 << 20)
        async with Served() as served, Channel(served.address, bounds) as channel:
            echo = unary(channel, "echo")
            assert await echo(bytes(1 << 20)) == bytes(1 << 20)
            for size in ((1 << 20) + 1, (2 << 20) + 1):
                with pytest.raises(RpcError) as caught:
                    await echo(bytes(size))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(test)


def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    async def test() -> None:
        address = f"unix:{tmp_path}/socket"
        async with Served(address=address), Channel(address) as channel:
            assert await unary(channel, "echo")(b"x") == b"x"

    run(test)


def test_closing_gives_calls_their_grace_and_then_cancels_them() -> None:
    async def test() -> None:
        async with Served() as served:
            channel = Channel(served.address)
            ends, stays = unary(channel, "wait")(b"1"), None
            while not served.calls.under_way:
                await asyncio.sleep(0.001)
            closing = asyncio.create_task(channel.close(WAIT_S))
            await asyncio.sleep(0)
            with pytest.raises(grpc.aio.UsageError):
                unary(channel, "echo")(b"")
            served.calls.release.set()
            assert await ends == b"1"
            await closing
            served.calls.release.clear()
            channel = Channel(served.address)
            stays = unary(channel, "wait")(b"2")
            while not served.calls.under_way:
                await asyncio.sleep(0.001)
            await channel.close(0.05)
            assert stays.cancelled()

    run(test)


class Certified:
    """A server with TLS that may ask for its callers' certificates, or talk no HTTP/2."""

    def __init__(self, name: str, *, mutual: bool = False) -> None:
        self.ca = trustme.CA()
        self.cert = self.ca.issue_cert(name)
        self.ca_pem = self.ca.cert_pem.bytes()
        credentials = grpc.ssl_server_credentials(
            [(self.cert.private_key_pem.bytes(), self.cert.cert_chain_pems[0].bytes())],
            self.ca_pem if mutual else None,
            mutual,
        )
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((Calls(),))
        self.address = f"127.0.0.1:{self.server.add_secure_port('127.0.0.1:0', credentials)}"

    async def __aenter__(self) -> Certified:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(None)


async def said(channel: Channel) -> str:
    with pytest.raises(RpcError) as caught:
        await unary(channel, "echo")(b"", timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.unsent
    return caught.value.details() or ""


def test_tls_knows_its_server_by_name_and_authority() -> None:
    async def test() -> None:
        async with Certified("member-1.test") as served:
            context = client_context(served.ca_pem)
            async with Channel(served.address, tls=ChannelTLS(context, "member-1.test")) as channel:
                assert await unary(channel, "echo")(b"x") == b"x"
            async with Channel(served.address, tls=ChannelTLS(context, "member-2.test")) as channel:
                assert "certificate can't be trusted: Hostname mismatch" in await said(channel)
            other = client_context(trustme.CA().cert_pem.bytes())
            async with Channel(served.address, tls=ChannelTLS(other, "member-1.test")) as channel:
                assert "certificate can't be trusted" in await said(channel)
            async with Channel(served.address) as channel:
                assert (await said(channel)).startswith(f"cannot connect to {served.address}: ")

    run(test)


def test_mutual_tls_shows_a_certificate() -> None:
    async def test() -> None:
        async with Certified("127.0.0.1", mutual=True) as served:
            mine = served.ca.issue_cert("me.test")
            cert, key = mine.cert_chain_pems[0].bytes(), mine.private_key_pem.bytes()
            tls = ChannelTLS(client_context(served.ca_pem, cert, key))
            async with Channel(served.address, tls=tls) as channel:
                assert await unary(channel, "echo")(b"x") == b"x"
            stranger = ChannelTLS(client_context(served.ca_pem))
            async with Channel(served.address, tls=stranger) as channel:
                assert (await said(channel)).startswith(f"cannot connect to {served.address}: ")

    run(test)
