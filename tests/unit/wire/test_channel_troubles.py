"""The native channel and servers that aren't there, hang, talk nonsense or go away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

import grpc
import pytest
import uvloop

native = pytest.importorskip("kvstore._wire.native")

# ruff: noqa: E402
from kvstore.wire import RpcError
from kvstore.wire.channel import Channel
from kvstore.wire.channel_connection import REPEATS_MAX
from kvstore.wire.channel_options import ChannelOptions

WAIT_S = 10.0
ECHO = "/test.Calls/echo"


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S * 2):
            await test()

    asyncio.run(bounded())


class Peer(asyncio.Protocol):
    """One connection of a :class:`Server`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.session = native.ServerSession(
            native.Limits(), native.Budget(1 << 30), native.Budget(1 << 30)
        )
        self.transport: asyncio.Transport
        self.number = len(server.peers)
        server.peers.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.connected(self)

    def data_received(self, data: bytes) -> None:
        if not self.server.deaf:
            for event in self.session.receive(data, 0.0):
                if event[0] == native.MESSAGE:
                    self.server.asked(self, event[1], event[2])
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.close()
        self.server.lost.set()

    def flush(self) -> None:
        while not self.server.deaf and (data := self.session.send(1 << 20)):
            self.transport.write(data)


class Server:
    """Answers each call with its request, unless a test says otherwise."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.calls = 0
        self.deaf = False
        self.lost = asyncio.Event()

    def connected(self, peer: Peer) -> None: ...

    def asked(self, peer: Peer, stream: int, message: bytes) -> None:
        self.calls += 1
        self.answer(peer, stream, message)

    def answer(self, peer: Peer, stream: int, message: bytes) -> None:
        peer.session.respond(stream, message)

    async def __aenter__(self) -> Server:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Peer(self), "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for peer in self.peers:
            peer.transport.abort()


async def failure(call: Awaitable[object]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value


def test_who_is_not_there_is_named_and_asked_again_after_a_pause() -> None:
    async def test() -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{reserved.getsockname()[1]}"
            async with Channel(address) as channel:
                echo = channel.unary_unary(ECHO)
                for _ in range(2):  # of the second one is known that it can't be
                    error = await failure(echo(b""))
                    assert error.details() == f"cannot connect to {address}: Connection refused"
                    assert error.unsent
                waits = echo(b"x", wait_for_ready=True)
                ready = asyncio.create_task(channel.channel_ready())
                await asyncio.wait([waits], timeout=0.2)
                assert not waits.done()
                loop = asyncio.get_running_loop()
                server = Server()
                reserved.close()
                host, _, port = address.rpartition(":")
                listener = await loop.create_server(
                    lambda: Peer(server), host, int(port), reuse_address=True
                )
                assert await waits == b"x"
                await ready
                listener.close()

    run(test)


def test_a_defect_while_dialling_is_told_to_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    async def test() -> None:
        monkeypatch.setattr("kvstore.wire.channel.dial", broken)
        async with Channel("127.0.0.1:1") as channel:
            error = await failure(channel.unary_unary(ECHO)(b""))
            assert error.details() == "cannot connect to 127.0.0.1:1: ZeroDivisionError()"

    run(test)


def test_a_server_that_only_listens_costs_the_deadline() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            async with Channel(address, ChannelOptions(connect_timeout_s=0.4)) as channel:
                echo = channel.unary_unary(ECHO)
                error = await failure(echo(b"", timeout=0.1))
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert error.unsent
                error = await failure(echo(b"", timeout=WAIT_S))
                assert error.details() == f"cannot connect to {address}: no answer within 0.4 s"

    run(test)


@pytest.mark.parametrize(
    "words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46", bytes(100)]
)
def test_a_server_of_another_kind_is_told_as_one_that_cannot_be_connected_to(words: bytes) -> None:
    class Other(Server):
        def connected(self, peer: Peer) -> None:
            self.deaf = True
            peer.transport.write(words)
            peer.transport.close()

    async def test() -> None:
        async with Other() as server, Channel(server.address) as channel:
            error = await failure(channel.unary_unary(ECHO)(b"", timeout=WAIT_S))
            assert (error.details() or "").startswith(f"cannot connect to {server.address}: ")
            assert error.unsent

    run(test)


def test_a_connection_lost_in_the_middle_ends_its_calls_and_the_next_one_gets_another() -> None:
    class Leaves(Server):
        def answer(self, peer: Peer, stream: int, message: bytes) -> None:
            if message == b"leave":
                peer.transport.abort()
            else:
                super().answer(peer, stream, message)

    async def test() -> None:
        async with Leaves() as server, Channel(server.address) as channel:
            echo = channel.unary_unary(ECHO)
            assert await echo(b"1") == b"1"
            error = await failure(echo(b"leave"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert not error.unsent
            assert f"the connection to {server.address} was lost: " in (error.details() or "")
            assert await echo(b"2") == b"2"
            assert len(server.peers) == 2

    run(test)


def test_calls_on_a_connection_that_was_reset_a_moment_ago_fail_as_calls_do() -> None:
    """uvloop's transports refuse to be written to before the loop has told of their end."""

    async def test() -> None:
        async with Server() as server, Channel(server.address) as channel:
            echo = channel.unary_unary(ECHO)
            assert await echo(b"1") == b"1"
            raw = server.peers[0].transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.peers[0].transport.abort()
            calls = []
            for _ in range(50):
                calls += [echo(b"2"), echo(b"3")]
                await asyncio.sleep(0)
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, bytes | RpcError), outcome
            assert await echo(b"4") == b"4"

    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S * 2):
            await test()

    uvloop.run(bounded())


def test_garbage_in_the_middle_ends_the_connection() -> None:
    class Garbles(Server):
        def answer(self, peer: Peer, stream: int, message: bytes) -> None:
            if len(self.peers) == 1 and message == b"?":
                peer.transport.write(b"\xff" * 4096)
            else:
                super().answer(peer, stream, message)

    async def test() -> None:
        async with Garbles() as server, Channel(server.address) as channel:
            echo = channel.unary_unary(ECHO)
            assert await echo(b"1") == b"1"
            error = await failure(echo(b"?"))
            assert "was lost: the server broke the protocol: " in (error.details() or "")
            assert await echo(b"?") == b"?"

    run(test)


def test_calls_that_a_leaving_server_did_not_take_go_to_the_next_connection() -> None:
    class Drains(Server):
        first: tuple[Peer, int, bytes] | None = None

        def answer(self, peer: Peer, stream: int, message: bytes) -> None:
            if self.first is None:
                self.first = (peer, stream, message)
            else:
                super().answer(peer, stream, message)

    async def test() -> None:
        async with Drains() as server, Channel(server.address) as channel:
            echo = channel.unary_unary(ECHO)
            calls = [echo(b"0")]
            while server.first is None:
                await asyncio.sleep(0)
            # These cross the GOAWAY, which doesn't name them.
            calls += [echo(b"%d" % number) for number in range(1, 20)]
            peer, stream, message = server.first
            peer.session.goaway()
            peer.session.respond(stream, message)
            peer.flush()
            assert await asyncio.gather(*calls) == [b"%d" % number for number in range(20)]
            assert server.calls == 20
            assert len(server.peers) == 2
            await server.lost.wait()  # the first connection ends by itself

    run(test)


def test_a_call_that_is_always_refused_is_not_sent_for_ever() -> None:
    class Refuses(Server):
        def answer(self, peer: Peer, stream: int, message: bytes) -> None:
            peer.session.reset(stream, 7)  # REFUSED_STREAM

    async def test() -> None:
        async with Refuses() as server, Channel(server.address) as channel:
            error = await failure(channel.unary_unary(ECHO)(b""))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert server.calls == 1 + REPEATS_MAX

    run(test)


def test_calls_under_way_finish_after_a_goaway() -> None:
    class Slow(Server):
        asked_of: tuple[Peer, int, bytes] | None = None

        def answer(self, peer: Peer, stream: int, message: bytes) -> None:
            if message == b"slow":
                self.asked_of = (peer, stream, message)
                peer.session.goaway()
            else:
                super().answer(peer, stream, message)

    async def test() -> None:
        async with Slow() as server, Channel(server.address) as channel:
            echo = channel.unary_unary(ECHO)
            slow = echo(b"slow")
            while server.asked_of is None:
                await asyncio.sleep(0)
            assert await echo(b"other") == b"other"
            assert len(server.peers) == 2
            peer, stream, message = server.asked_of
            peer.session.respond(stream, message)
            peer.flush()
            assert await slow == b"slow"

    run(test)


def test_a_server_gone_silent_is_found_out_while_calls_wait() -> None:
    async def test() -> None:
        keepalive = ChannelOptions(keepalive_s=0.1, keepalive_timeout_s=1)
        async with Server() as server, Channel(server.address, keepalive) as channel:
            echo = channel.unary_unary(ECHO)
            assert await echo(b"1") == b"1"
            server.deaf = True
            error = await failure(echo(b"2"))
            assert "no sign of life within 1 s" in (error.details() or "")
            server.deaf = False
            assert await echo(b"3") == b"3"

    run(test)


def test_a_server_that_answers_pings_is_waited_for() -> None:
    class Silent(Server):
        def answer(self, peer: Peer, stream: int, message: bytes) -> None: ...

    async def test() -> None:
        keepalive = ChannelOptions(keepalive_s=0.02, keepalive_timeout_s=5)
        async with Silent() as server, Channel(server.address, keepalive) as channel:
            error = await failure(channel.unary_unary(ECHO)(b"", timeout=1))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert not error.unsent

    run(test)


def test_a_name_with_a_dead_address_is_reached_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        async with Server() as server:
            port = int(server.address.rpartition(":")[2])
            with socket.create_server(("127.0.0.2", port)):  # listens, and says nothing
                found = [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
                    for host in ("127.0.0.3", "127.0.0.2", "127.0.0.1")
                ]
                monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kinds: found)
                async with Channel(f"name.test:{port}") as channel:
                    assert await channel.unary_unary(ECHO)(b"x", timeout=WAIT_S) == b"x"

    run(test)


def test_closing_while_it_connects_ends_the_calls() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            channel = Channel(f"127.0.0.1:{listener.getsockname()[1]}")
            call = channel.unary_unary(ECHO)(b"")
            await asyncio.sleep(0)
            await channel.close()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            assert call.cancelled()

    run(test)


class ClosedHandle:
    """uvloop's, of a socket that was closed: it refuses, and doesn't say that it will."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")

    def close(self) -> None: ...

    def abort(self) -> None: ...


def test_a_transport_that_is_closed_without_a_word_is_a_lost_connection() -> None:
    async def test() -> None:
        async with Server() as server, Channel(server.address) as channel:
            echo = channel.unary_unary(ECHO)
            assert await echo(b"1") == b"1"
            (connection,) = channel._connections
            transport, connection._transport = connection._transport, ClosedHandle()  # type: ignore[assignment]
            error = await failure(echo(b"2"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == f"the connection to {server.address} was lost: Socket closed"
            assert await echo(b"3") == b"3"
            assert transport is not None
            transport.abort()

    run(test)
