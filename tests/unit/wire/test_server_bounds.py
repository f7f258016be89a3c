"""Bounds of the native server in connections, bytes and time, as bad clients meet them."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import grpc
import grpc.aio
import pytest

from tests.unit.wire import frames
from tests.unit.wire.stage import Echo, Server, with_limits

HELLO = frames.PREFACE + frames.frame(frames.SETTINGS, 0)
EVERYTHING = frames.frame(frames.WINDOW, 0, struct.pack(">I", (1 << 30)))


def settings(**values: int) -> bytes:
    numbers = {"window": 4}
    return b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items())


class Raw:
    """A connection whose frames are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address: str, say: bytes = HELLO) -> Self:
        host, _, port = address.rpartition(":")
        raw = cls(*await asyncio.open_connection(host, int(port)))
        raw.say(say)
        return raw

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def frame(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """The next frame of one of the kinds: kind, stream, flags, payload."""
        while True:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] in kinds:
                return head[3], int.from_bytes(head[5:], "big"), head[4], payload

    async def end(self) -> None:
        """Returns once the server has closed or cut the connection."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except ConnectionError:
            pass
        finally:
            self.writer.close()


@asynccontextmanager
async def good_client(address: str) -> AsyncIterator[Callable[[], grpc.aio.UnaryUnaryCall]]:
    """Somebody else, who must notice nothing."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/e/unary")
        await call(b"before")
        yield lambda: call(b"x")
        assert await call(b"after") == b"after"


@with_limits(connections_max=8)
async def test_one_address_gets_a_quarter_of_all_connections(
    server: Server, address: str, echo: Echo
) -> None:
    async with good_client(address):
        held = await Raw.open(address)
        await held.frame(frames.SETTINGS)
        await (await Raw.open(address)).end()
        assert server.counters.refused_connections == 1
        held.writer.close()


@with_limits(connections_max=2, connections_per_address_max=10)
async def test_connections_beyond_all_are_closed_at_once(
    server: Server, address: str, echo: Echo
) -> None:
    async with good_client(address):
        held = await Raw.open(address)
        await held.frame(frames.SETTINGS)
        await (await Raw.open(address)).end()
        held.writer.close()


@with_limits(half_open_s=0.2)
async def test_who_says_nothing_is_cut(server: Server, address: str, echo: Echo) -> None:
    async with good_client(address):
        silent = await Raw.open(address, b"")
        half = await Raw.open(address, frames.PREFACE)
        await silent.end()
        await half.end()
    assert server.counters.cut == {"half-open": 2}


@with_limits(half_open_max=2, half_open_s=60.0)
async def test_the_oldest_of_too_many_half_open_ones_gives_way(
    server: Server, address: str, echo: Echo
) -> None:
    async with good_client(address):
        silent = [await Raw.open(address, b"") for _ in range(3)]
        await silent[0].end()
        assert server.half_open == 2
        silent[2].say(HELLO)
        await silent[2].frame(frames.SETTINGS)
        for one in silent[1:]:
            one.writer.close()


@with_limits(headers_s=0.2)
async def test_headers_that_never_end_end_the_connection(
    server: Server, address: str, echo: Echo
) -> None:
    async with good_client(address):
        slow = await Raw.open(address)
        slow.say(frames.headers(1, frames.request("/e/unary"), flags=0))

        async def dribble() -> None:
            while True:
                slow.say(frames.frame(frames.CONTINUATION, 1, frames.block([("x", "y")])))
                await asyncio.sleep(0.06)

        dribbling = asyncio.create_task(dribble())
        await slow.end()
        dribbling.cancel()
    assert server.counters.cut == {"slow-headers": 1}


@with_limits(request_s=0.2)
async def test_a_request_that_never_comes_whole_ends_the_call_alone(
    server: Server, address: str, echo: Echo
) -> None:
    async with good_client(address):
        slow = await Raw.open(address)
        slow.say(frames.headers(1, frames.request("/e/unary")))
        slow.say(frames.frame(frames.DATA, 1, frames.message(b"x", declared=100)))
        # A stream of requests may be open for long.
        slow.say(frames.headers(3, frames.request("/e/both")))
        _, stream, flags, _ = await slow.frame(frames.HEADERS)
        assert (stream, flags & frames.END_STREAM) == (1, 1)
        slow.say(frames.frame(frames.DATA, 3, frames.message(b"still there")))
        assert (await slow.frame(frames.DATA))[3].endswith(b"still there")
        slow.writer.close()
    assert server.counters.slow_requests == 1


@with_limits(answer_s=0.2)
async def test_an_answer_that_is_not_taken_is_given_up(
    server: Server, address: str, echo: Echo
) -> None:
    async with good_client(address) as ask:
        deaf = await Raw.open(
            address, frames.PREFACE + frames.frame(frames.SETTINGS, 0, settings(window=0))
        )
        deaf.say(frames.headers(1, frames.request("/e/unary")))
        data = frames.message(bytes(50_000))
        for at in range(0, len(data), 16_384):
            end = frames.END_STREAM if at + 16_384 >= len(data) else 0
            deaf.say(frames.frame(frames.DATA, 1, data[at : at + 16_384], end))
        assert (await deaf.frame(frames.HEADERS))[1] == 1
        assert server.unsent.used > 50_000
        assert await deaf.frame(frames.RST_STREAM) == (frames.RST_STREAM, 1, 0, b"\0\0\0\x08")
        assert server.unsent.used == 0
        assert await ask() == b"x"
        deaf.writer.close()
    assert server.counters.unread == 1


@with_limits(stalled_s=0.3, headers_s=1.0)
async def test_a_stream_that_nobody_reads_ends(server: Server, address: str, echo: Echo) -> None:
    async with good_client(address):
        deaf = await Raw.open(
            address, frames.PREFACE + frames.frame(frames.SETTINGS, 0, settings(window=0))
        )
        deaf.say(frames.headers(1, frames.request("/e/written")))
        deaf.say(frames.frame(frames.DATA, 1, frames.message(b"1000 1000"), frames.END_STREAM))
        assert (await deaf.frame(frames.RST_STREAM))[1] == 1
        deaf.writer.close()
    assert server.counters.unread == 1


@with_limits(stalled_s=0.3, answer_s=60.0, headers_s=1.0)
async def test_a_socket_that_takes_nothing_is_cut(server: Server, address: str, echo: Echo) -> None:
    async with good_client(address):
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, _, port = address.rpartition(":")
            deaf.connect((host, int(port)))
            wide = frames.frame(frames.SETTINGS, 0, settings(window=(1 << 31) - 1))
            ask = frames.frame(frames.DATA, 1, frames.message(b"100000 1000"), frames.END_STREAM)
            head = frames.headers(1, frames.request("/e/written"))
            deaf.sendall(frames.PREFACE + wide + EVERYTHING + head + ask)
            while server.counters.accepted < 2 or server.connections > 1:
                await asyncio.sleep(0.01)
    assert server.counters.cut == {"stalled": 1}


@with_limits(keepalive_s=0.2, keepalive_timeout_s=1.5)
async def test_who_does_not_answer_pings_is_cut(server: Server, address: str, echo: Echo) -> None:
    async with good_client(address):
        gone = await Raw.open(address)
        assert (await gone.frame(frames.PING))[2] == 0
        await gone.end()
    assert server.counters.cut == {"keepalive": 1}


@with_limits(age_s=0.3, headers_s=1.0)
async def test_an_old_connection_is_exchanged_without_a_failed_call(
    server: Server, address: str, echo: Echo
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        waiting = asyncio.ensure_future(channel.unary_unary("/e/wait")(b"long"))
        call = channel.unary_unary("/e/unary")
        while server.counters.accepted < 3:
            assert await call(b"x") == b"x"
        echo.open.set()
        assert await waiting == b"long"


@with_limits(age_s=0.2, age_grace_s=0.2, headers_s=1.0)
async def test_an_old_connection_whose_calls_go_on_is_cut(
    server: Server, address: str, echo: Echo
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/e/wait")(b"long")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.counters.cut == {"age": 1}


@with_limits(idle_s=0.2, headers_s=1.0)
async def test_an_idle_connection_is_asked_to_go(server: Server, address: str, echo: Echo) -> None:
    idle = await Raw.open(address)
    _, _, _, ping = await idle.frame(frames.PING)
    _, _, _, notice = await idle.frame(frames.GOAWAY)
    assert notice[:8] == b"\x7f\xff\xff\xff\0\0\0\0"
    idle.say(frames.frame(frames.PING, 0, ping, frames.ACK))
    _, _, _, last = await idle.frame(frames.GOAWAY)
    assert last[:8] == bytes(8)
    await idle.end()


@with_limits()
async def test_want_of_descriptors_is_survived(server: Server, address: str, echo: Echo) -> None:
    host, _, port = address.rpartition(":")
    async with good_client(address):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = [socket.socket() for _ in range(3)]
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        spare = []
        try:
            while True:  # those that are free below
                try:
                    spare.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    break
            for one in waiting:
                one.setblocking(False)
                one.connect_ex((host, int(port)))
            for one in waiting:
                # Let go, not kept waiting.
                assert await asyncio.get_running_loop().sock_recv(one, 100) == b""
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for descriptor in spare:
                os.close(descriptor)
            for one in waiting:
                one.close()
        late = await Raw.open(address)
        await late.frame(frames.SETTINGS)
        late.writer.close()


@with_limits()
async def test_who_breaks_the_protocol_is_told_and_closed(
    server: Server, address: str, echo: Echo
) -> None:
    async with good_client(address):
        stranger = await Raw.open(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await stranger.end()
        flood = await Raw.open(address)
        for _ in range(100):
            flood.say(frames.frame(frames.PING, 0, bytes(8)))
        assert (await flood.frame(frames.GOAWAY))[3][4:8] == b"\0\0\0\x0b"
        await flood.end()
    assert server.counters.cut == {"protocol": 2}


@with_limits(request_s=0.2)
async def test_a_hot_call_that_never_comes_whole_is_refused_as_well(
    server: Server, address: str, echo: Echo
) -> None:
    server.add_hot_methods(frames.PATHS, lambda calls: None)
    slow = await Raw.open(address)
    slow.say(frames.headers(1, frames.request(frames.PATHS[0])))
    slow.say(frames.frame(frames.DATA, 1, frames.message(b"x", declared=100)))
    _, stream, flags, _ = await slow.frame(frames.HEADERS)
    assert (stream, flags & frames.END_STREAM) == (1, 1)
    assert server.counters.slow_requests == 1
    slow.writer.close()


@with_limits(idle_s=60.0)
async def test_a_connection_with_short_calls_is_not_idle(
    server: Server, address: str, echo: Echo
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/e/unary")
        await call(b"x")
        (connection,) = server._connections
        since = connection._busy_at
        await call(b"x")
        while connection.session.streams:  # the client may have its answer before it is closed
            await asyncio.sleep(0.001)
        connection.tend(since + 60.0)
        assert connection._noticed_at is None
        connection.tend(connection._busy_at + 60.0)
        assert connection._noticed_at is not None


@with_limits(streaming_max=3, connection_streaming_max=2)
async def test_calls_that_last_leave_room_for_the_others(
    server: Server, address: str, echo: Echo
) -> None:
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        good_client(address) as ask,
        grpc.aio.insecure_channel(address, own) as one,
        grpc.aio.insecure_channel(address, own) as two,
    ):
        open_ones = []
        for channel, fits in ((one, 2), (two, 1)):
            for _ in range(fits):
                call = channel.stream_stream("/e/both")()
                await call.write(b"x")
                assert await call.read() == b"x"
                open_ones.append(call)
            refused = channel.stream_stream("/e/both")()
            assert await refused.code() is grpc.StatusCode.UNAVAILABLE
        assert await ask() == b"x"
        for call in open_ones:
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
    assert server.counters.refused_calls == 2


@with_limits()
async def test_a_connection_that_comes_as_the_server_stops_keeps_it_from_nothing(
    server: Server, address: str, echo: Echo
) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as late:
        (listener,) = server._listening._sockets
        server._listening._accept(listener)
        await server.stop(grace=0.5)
        assert server.connections == 0
        assert late.recv(100) == b""


@with_limits(streams_max=4, connection_streaming_max=200)
async def test_calls_that_last_take_nobodys_place_on_their_connection(
    server: Server, address: str, echo: Echo
) -> None:
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, own) as channel:
        open_ones = []
        # More than the room grows by in one step, and each beyond streams_max.
        for _ in range(150):
            call = channel.stream_stream("/e/both")()
            await call.write(b"x")
            assert await call.read() == b"x"
            open_ones.append(call)
        assert await channel.unary_unary("/e/unary")(b"x", timeout=10) == b"x"
        assert server.streaming == 150
        for call in open_ones:
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
        # The room shrinks again: what is left is for calls that don't last.
        assert await channel.unary_unary("/e/unary")(b"x", timeout=10) == b"x"
        assert server.streaming == 0


@with_limits(age_s=0.2, age_grace_s=0.1)
async def test_a_connection_with_an_open_stream_does_not_end_for_its_age(
    server: Server, address: str, echo: Echo
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/e/both")()
        await call.write(b"x")
        assert await call.read() == b"x"
        (connection,) = server._connections
        until = connection._ends_at + 1
        for now in (until, until + 1):
            connection.tend(now)
        await call.write(b"y")
        assert await call.read() == b"y"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        connection.tend(until + 2)
        assert connection._noticed_at is not None
