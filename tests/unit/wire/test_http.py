"""HTTP/1.1 on the native server: beside HTTP/2, with its bounds, for good and bad clients."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import socket
import struct
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
import uvloop

from kvstore.wire.http import Exchange, HttpLimits
from kvstore.wire.server.connection import LASTING_SOCKET_BYTES
from tests.unit.wire import frames
from tests.unit.wire.stage import LIMITS, TIMEOUT_S, Echo, Server
from tests.unit.wire.test_server_bounds import HELLO, Raw

MIB = 1 << 20


class Site:
    """An app: each path answers in its own way."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.began = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        try:
            await getattr(self, exchange.path.strip("/") or "echo")(exchange)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def echo(self, exchange: Exchange) -> None:
        said = f"{exchange.method} {exchange.path} ".encode() + exchange.body
        exchange.respond(200, said, (("Content-Type", "text/plain"),))

    async def wait(self, exchange: Exchange) -> None:
        self.began.set()
        await self.open.wait()
        exchange.respond(200, b"waited")

    async def silent(self, exchange: Exchange) -> None:
        pass

    async def defect(self, exchange: Exchange) -> None:
        raise KeyError("a defect")

    async def flood(self, exchange: Exchange) -> None:
        exchange.start(200, lasts=False)
        self.began.set()
        for _ in range(1000):
            await exchange.write(bytes(64 * 1024))

    async def stream(self, exchange: Exchange) -> None:
        exchange.start(200, lasts=True)
        await exchange.write(b"first\n")
        self.began.set()
        await self.open.wait()
        while True:
            await exchange.write(bytes(64 * 1024))

    async def call(self, exchange: Exchange) -> None:
        taken = exchange.enter(streams=False) and exchange.enter(streams=True)
        if taken:
            self.began.set()
            await self.open.wait()
        exchange.respond(200 if taken else 503)

    async def held(self, exchange: Exchange) -> None:
        exchange.respond(200 if exchange.hold(MIB) else 503)


Scene = Callable[[Server, str, Site], Coroutine[Any, Any, None]]


def scene(site: type[Site] = Site, **bounds: Any) -> Callable[[Scene], Callable[[], None]]:
    """A test of a scene, with bounds of its own; nothing may be left after it."""
    # What either has, it has by itself.
    ours = {field.name for field in dataclasses.fields(HttpLimits)}
    of_http = {name: value for name, value in bounds.items() if name in ours}
    shared = {name: value for name, value in bounds.items() if name not in ours}
    limits = dataclasses.replace(LIMITS, **shared)

    def test_of(played: Scene) -> Callable[[], None]:
        async def main() -> None:
            server, app = Server(limits), site()
            server.add_generic_rpc_handlers((Echo(),))
            server.serve_http(app, HttpLimits(**of_http))
            port = server.bind("127.0.0.1", 0)
            await server.start()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await played(server, f"127.0.0.1:{port}", app)
            finally:
                await server.stop(grace=None)
            assert (server.calls, server.streaming) == (0, 0)
            assert (server.received.used, server.unsent.used) == (0, 0)

        def test() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())

        test.__name__, test.__doc__ = played.__name__, played.__doc__
        return test

    return test_of


def request(path: str = "/", body: bytes = b"", method: str = "POST", *more: str) -> bytes:
    """A whole request; ``more`` are lines of its head."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Reply:
    """Status, fields by names in lower case, and the body."""

    def __init__(self, status: int, fields: dict[str, str], body: bytes) -> None:
        self.status, self.fields, self.body = status, fields, body


async def reply(raw: Raw, *, head_only: bool = False) -> Reply:
    """The next answer of known length, or the head of one that is chunked."""
    first = await raw.reader.readline()
    assert first.startswith(b"HTTP/1.1 "), first
    fields = {}
    while (line := await raw.reader.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        fields[name.lower()] = value.strip()
    size = 0 if head_only else int(fields.get("content-length", "0"))
    return Reply(int(first.split()[1]), fields, await raw.reader.readexactly(size))


async def asked(address: str, said: bytes) -> Reply:
    """What the first answer to ``said`` is; the server closes after it."""
    raw = await Raw.open(address, said)
    found = await reply(raw)
    assert await raw.reader.read() == b""
    raw.writer.close()
    return found


@scene()
async def test_both_protocols_share_the_port(server: Server, address: str, site: Site) -> None:
    raw = await Raw.open(address, request(body=b"one"))
    async with grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary("/e/unary")(b"two") == b"two"
    first = await reply(raw)
    assert (first.status, first.body) == (200, b"POST / one")
    assert first.fields["date"].endswith(" GMT")
    assert first.fields["x-content-type-options"] == "nosniff"
    raw.say(request("/echo?a=1&a=%202", b"three", "PUT", "X-Y: z"))
    assert (await reply(raw)).body == b"PUT /echo three"
    seen = site.seen[-1]
    assert seen.query == {"a": ["1", " 2"]}
    assert (seen.field("x-y"), seen.field("none")) == ("z", None)
    assert seen.peer.startswith("ipv4:127.0.0.1:")
    raw.writer.close()


@scene()
async def test_they_are_told_apart_byte_by_byte(server: Server, address: str, site: Site) -> None:
    one, two = await Raw.open(address, b""), await Raw.open(address, b"")
    for first, second in zip(HELLO, request(method="PROPFIND"), strict=False):
        one.say(bytes((first,)))
        two.say(bytes((second,)))
        await asyncio.sleep(0.001)
    two.say(request(method="PROPFIND")[len(HELLO) :])
    assert (await one.frame(frames.SETTINGS))[0] == frames.SETTINGS
    assert (await reply(two)).body == b"PROPFIND / "
    one.writer.close()
    two.writer.close()


@scene()
async def test_nothing_is_said_before_it_is_known_what_is_spoken(
    server: Server, address: str, site: Site
) -> None:
    raw = await Raw.open(address, b"PR")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await raw.reader.read(1)
    raw.say(HELLO[2:])
    assert (await raw.frame(frames.SETTINGS))[0] == frames.SETTINGS
    raw.writer.close()


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"what is this\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (HEAD + b"A : b\r\n\r\n", 400),
        (HEAD + b"A: b\x00\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\naXX", 400),
        (HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 4000000\r\n\r\n", 413),
        (HEAD + b"A: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (HEAD + b"A: " + b"a" * 100_000, 431),
        (HEAD + b"a: b\r\n" * 5000 + b"\r\n", 431),
        (b"GET /" + b"a" * 50_000, 431),
        # What one takes for a line's end, or its going on, another doesn't.
        (b"POST / HTTP/1.1\nHost: x\r\n\r\n", 400),
        (HEAD + b"A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"A: b\n\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (HEAD + b"A: b\r\n c\r\n\r\n", 400),
        (HEAD + b"A: b\r\n\tc: d\r\n\r\n", 400),
    ],
    ids=itertools.count(),
)
def test_what_is_no_request_is_answered_and_the_end(said: bytes, status: int) -> None:
    @scene()
    async def play(server: Server, address: str, site: Site) -> None:
        refused = await asked(address, said)
        assert refused.status == status
        assert refused.fields["connection"] == "close"
        assert not site.seen
        assert (await asked(address, request("/", b"", "GET", "Connection: close"))).status == 200

    play()


def test_line_ends_of_a_body_are_its_own() -> None:
    @scene()
    async def play(server: Server, address: str, site: Site) -> None:
        body = b"a\n b\n\n\tc"
        said = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert (await asked(address, said + body)).body.endswith(body)
        # And what comes a byte at a time is seen all the same.
        raw = await Raw.open(address, b"")
        for byte in HEAD + b"A: b\n\r\n":
            raw.say(bytes([byte]))
            await asyncio.sleep(0)
        assert (await reply(raw)).status == 400
        await raw.end()

    play()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (HEAD + b"Authorization : SECRET\r\n\r\n", "illegal header line"),
        (HEAD + b"Authorization: SECRET\x00'\r\n\r\n", "illegal header line"),
        (HEAD + b"SECRET'\r\n\r\n", "illegal header line"),
        (b"SECRET \x01\"'\r\n\r\n", "illegal request line"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nSECRET\r\n", "illegal chunk header"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\naSECRET", "malformed chunk footer"),
    ],
)
def test_neither_log_nor_answer_quotes_what_is_no_request(said: bytes, why: str) -> None:
    @scene()
    async def play(server: Server, address: str, site: Site) -> None:
        with structlog.testing.capture_logs() as logs:
            assert (await asked(address, said)).body == f"{why}\n".encode()
        assert [entry["reason"] for entry in logs] == [why]

    play()


@scene()
async def test_a_body_has_a_bound_however_it_comes(
    server: Server, address: str, site: Site
) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    raw = await Raw.open(address, chunked + b"100000\r\n" + bytes(MIB) + b"\r\n")
    # Much more, while the server answers: it isn't kept from saying so.
    raw.say((b"100000\r\n" + bytes(MIB) + b"\r\n") * 8)
    assert (await reply(raw)).status == 413
    await raw.end()
    raw = await Raw.open(address, chunked + b"1\r\na\r\n" * 3000)
    refused = await reply(raw)
    assert (refused.status, refused.body) == (400, b"the body comes in too many small chunks\n")
    await raw.end()
    # Some small ones are fine.
    raw = await Raw.open(address, chunked + b"1\r\na\r\n" * 900 + b"0\r\n\r\n")
    assert (await reply(raw)).body == b"POST / " + b"a" * 900
    largest = bytes(3 * MIB)
    raw.say(request("/", largest))
    assert (await reply(raw)).body == b"POST / " + largest
    raw.writer.close()


@scene(half_open_s=0.3)
async def test_who_begins_with_half_a_request_is_cut(
    server: Server, address: str, site: Site
) -> None:
    for said in (b"", b"P", b"GET / HTTP/1.1\r\nHo"):
        await (await Raw.open(address, said)).end()
    assert server.counters.cut == {"half-open": 3}


@scene(headers_s=0.4, request_s=0.8)
async def test_requests_that_come_too_slowly_are_refused(
    server: Server, address: str, site: Site
) -> None:
    for late in (b"GET / HTTP/1.1\r\nHost:", request(body=b"x" * 100)[:-1]):
        raw = await Raw.open(address, request())
        assert (await reply(raw)).status == 200
        raw.say(late)
        refused = await reply(raw)
        assert (refused.status, refused.body) == (408, b"the request took too long to come\n")
        await raw.end()
    assert server.counters.slow_requests == 2


@scene(idle_s=0.5, headers_s=1.0)
async def test_a_silent_connection_is_closed(server: Server, address: str, site: Site) -> None:
    raw = await Raw.open(address, request())
    assert (await reply(raw)).status == 200
    assert await raw.reader.read() == b""
    assert server.counters.slow_requests == 0


@scene(age_s=0.2)
async def test_an_old_connection_is_closed_after_its_answer(
    server: Server, address: str, site: Site
) -> None:
    raw = await Raw.open(address, request("/wait"))
    await site.began.wait()
    await asyncio.sleep(1.5)
    site.open.set()
    answered = await reply(raw)
    assert (answered.body, answered.fields["connection"]) == (b"waited", "close")
    assert await raw.reader.read() == b""


@scene()
async def test_requests_that_follow_each_other_at_once_are_answered_in_turn(
    server: Server, address: str, site: Site
) -> None:
    count, most = 3000, HttpLimits().ahead_bytes_max
    said = b"".join(request(body=b"%0200d" % n) for n in range(count))
    assert len(said) > 8 * most
    raw = await Raw.open(address, said)
    for n in range(count):
        assert (await reply(raw)).body == b"POST / %0200d" % n
        (connection,) = server._connections
        assert connection.http is not None
        # What one read of a socket brings comes on top.
        assert len(connection.http._h11.trailing_data[0]) <= 2 * most
    raw.writer.close()


@scene()
async def test_who_says_much_while_a_stream_lasts_is_cut(
    server: Server, address: str, site: Site
) -> None:
    raw = await Raw.open(address, request("/stream"))
    await site.began.wait()
    raw.say(bytes(200_000))
    await raw.end()
    assert server.counters.cut == {"ahead": 1}
    await site.cancelled.wait()
    # The same, all of it before the stream began.
    raw = await Raw.open(address, request("/stream") + bytes(60_000) * 3)
    await raw.end()


@scene()
async def test_heads_old_versions_and_asking_first(
    server: Server, address: str, site: Site
) -> None:
    raw = await Raw.open(address, request(method="HEAD"))
    head = await reply(raw, head_only=True)
    assert (head.status, head.fields["content-length"]) == (200, "7")
    raw.say(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert (await reply(raw)).status == 100
    raw.say(b"ok")
    assert (await reply(raw)).body == b"POST / ok"
    raw.writer.close()
    old = await asked(address, b"GET /echo HTTP/1.0\r\n\r\n")
    assert old.body == b"GET /echo "
    # Who offers something else gets HTTP/1.1 all the same.
    upgrade = request("/", b"", "GET", "Upgrade: h2c, websocket", "Connection: Upgrade, close")
    assert (await asked(address, upgrade)).status == 200


@scene()
async def test_a_client_that_says_no_more_gets_its_answer(
    server: Server, address: str, site: Site
) -> None:
    raw = await Raw.open(address, request("/wait"))
    await site.began.wait()
    raw.writer.write_eof()
    await asyncio.sleep(0.05)
    site.open.set()
    assert (await reply(raw)).body == b"waited"
    assert await raw.reader.read() == b""


@pytest.mark.parametrize("said", [HELLO, request()], ids=["http2", "http1"])
def test_one_that_went_while_others_were_tended_is_passed_over(said: bytes) -> None:
    @scene()
    async def play(server: Server, address: str, site: Site) -> None:
        raw = await Raw.open(address, said)
        await raw.reader.readexactly(1)
        (connection,) = server._connections
        while not connection.established:
            await asyncio.sleep(0.001)
        raw.writer.transport.abort()
        while server.connections:
            await asyncio.sleep(0.001)
        connection.tend(monotonic())
        assert not server.counters.cut

    play()


@pytest.mark.parametrize("path", ["/wait", "/stream"])
def test_who_hangs_up_is_answered_no_more(path: str) -> None:
    @scene()
    async def play(server: Server, address: str, site: Site) -> None:
        raw = await Raw.open(address, request(path, bytes(100_000)))
        await site.began.wait()
        assert server.received.used == 100_000
        raw.writer.transport.abort()
        await site.cancelled.wait()
        while server.connections:
            await asyncio.sleep(0.01)

    play()


@scene()
async def test_defects_end_their_connection_alone(server: Server, address: str, site: Site) -> None:
    with structlog.testing.capture_logs() as logs:
        await (await Raw.open(address, request("/defect"))).end()
        assert server.counters.cut == {"defect": 1}
    assert [entry["event"] for entry in logs] == ["a request failed"]
    raw = await Raw.open(address, request("/silent"))
    assert (await reply(raw)).status == 500
    raw.say(request())
    assert (await reply(raw)).status == 200
    raw.writer.close()


@scene(received_bytes_max=MIB, connection_received_bytes_max=MIB)
async def test_bodies_share_the_memory_of_all_requests(
    server: Server, address: str, site: Site
) -> None:
    # One has half of what is left at most.
    body = bytes(200_000)
    first = await Raw.open(address, request("/wait", body))
    await site.began.wait()
    raw = await Raw.open(address, request("/", bytes(500_000)))
    refused = await reply(raw)
    assert refused.status == 503
    assert refused.body == b"too many bytes of requests wait already; try again\n"
    await raw.end()
    assert server.received.used == len(body)
    site.open.set()
    assert (await reply(first)).status == 200
    first.say(request("/", body))
    assert (await reply(first)).status == 200
    first.writer.close()


@scene(unsent_bytes_max=MIB, connection_unsent_bytes_max=MIB)
async def test_answers_share_the_memory_of_what_nobody_has_read(
    server: Server, address: str, site: Site
) -> None:
    # One has half of what is left at most.
    raw = await Raw.open(address, request("/held"))
    assert (await reply(raw)).status == 503
    raw.writer.close()


@scene(calls_max=2, streaming_max=2)
async def test_calls_count_among_those_of_grpc(server: Server, address: str, site: Site) -> None:
    both = [await Raw.open(address, request("/call")) for _ in range(2)]
    while server.streaming < 2:
        await asyncio.sleep(0.01)
    third = await Raw.open(address, request("/call"))
    assert (await reply(third)).status == 503
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/e/unary")(b"")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        site.open.set()
        for raw in both:
            assert (await reply(raw)).status == 200
        assert await channel.unary_unary("/e/unary")(b"x") == b"x"
    for raw in (*both, third):
        raw.writer.close()


@scene(answer_s=0.6)
async def test_an_answer_that_nobody_takes_is_cut(server: Server, address: str, site: Site) -> None:
    raw = await Raw.open(address, request("/flood"))
    await site.cancelled.wait()
    assert server.counters.cut == {"unread": 1}
    raw.writer.close()


@scene(answer_s=0.2, stalled_s=0.8)
async def test_a_stream_may_last_but_not_stand_still(
    server: Server, address: str, site: Site
) -> None:
    raw = await Raw.open(address, request("/stream"))
    await site.began.wait()
    await asyncio.sleep(1.5)
    assert not site.cancelled.is_set()
    site.open.set()
    await site.cancelled.wait()
    assert server.counters.cut == {"stalled": 1}
    raw.writer.close()


@scene(connections_max=8, connections_per_address_max=3)
async def test_connections_count_whatever_they_speak(
    server: Server, address: str, site: Site
) -> None:
    one, two = await Raw.open(address, HELLO), await Raw.open(address, request())
    three = await Raw.open(address, b"")
    await reply(two)
    four = await Raw.open(address, request())
    await four.end()
    assert server.counters.refused_connections == 1
    for raw in (one, two, three):
        raw.writer.close()


@scene()
async def test_a_stop_waits_for_answers_and_for_nothing_else(
    server: Server, address: str, site: Site
) -> None:
    idle, busy = await Raw.open(address, request()), await Raw.open(address, request("/wait"))
    beginning = await Raw.open(address, HEAD)
    assert (await reply(idle)).status == 200
    await site.began.wait()
    while server.connections < 3:
        await asyncio.sleep(0.01)
    stopping = asyncio.create_task(server.stop(grace=TIMEOUT_S))
    for raw in (idle, beginning):
        assert await raw.reader.read() == b""
    site.open.set()
    answered = await reply(busy)
    assert (answered.body, answered.fields["connection"]) == (b"waited", "close")
    busy.writer.close()
    await stopping


def test_without_an_app_nobody_is_listened_to_but_in_http2() -> None:
    async def main() -> None:
        server = Server(LIMITS)
        port = server.bind("127.0.0.1", 0)
        await server.start()
        try:
            # SETTINGS come at once.
            raw = await Raw.open(f"127.0.0.1:{port}", b"")
            assert (await raw.frame(frames.SETTINGS))[0] == frames.SETTINGS
            raw.say(request())
            await raw.end()
        finally:
            await server.stop(None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@scene(half_open_s=TIMEOUT_S)
async def test_resets_at_any_moment_leave_nothing(server: Server, address: str, site: Site) -> None:
    said = request("/", bytes(3000)) + request("/wait", b"x")
    for end in range(0, len(said), 97):
        raw = await Raw.open(address, said[:end])
        linger = struct.pack("ii", 1, 0)
        raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            raw.writer.transport.abort()
    while server.connections:
        await asyncio.sleep(0.01)


@scene()
async def test_little_of_a_stream_waits_in_the_system(
    server: Server, address: str, site: Site
) -> None:
    """For one who doesn't read it a socket would take megabytes."""
    raw = await Raw.open(address, request("/stream"))
    await reply(raw, head_only=True)
    await site.began.wait()
    (connection,) = server._connections
    assert connection._transport is not None
    connected = connection._transport.get_extra_info("socket")
    # Linux says twice what was asked for; a system may have its own least.
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 4 * LASTING_SOCKET_BYTES
    raw.writer.close()
