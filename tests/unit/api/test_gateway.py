"""Calls in JSON: what handlers get, and what clients are told of whatever these do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

pytest.importorskip("kvstore._wire.native", reason="built without nghttp2", exc_type=ImportError)

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.entrance import Entrance
from kvstore.api.handlers.etcd.register import register
from kvstore.api.handlers.gateway.gateway import Gateway
from kvstore.api.operator_access import is_operator
from kvstore.errors import OverloadedError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.wire.server import Server, ServerLimits
from tests.unit.wire.test_http import Raw, Reply, reply, request

TIMEOUT_S = 30.0
MESSAGE_BYTES_MAX = 100_000


class Member:
    """A :class:`kvstore.api.handlers.etcd.entrance.Member`."""

    has_leader = True
    is_learner = False
    election_timeout_s = 1000.0


class Handlers:
    """Of every service: each does what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.response: Any = pb.RangeResponse(count=7)
        self.contexts: list[Any] = []
        self.requests: list[Any] = []
        self.entered = asyncio.Event()
        self.free = asyncio.Event()
        self.gone = asyncio.Event()

    async def Range(self, request: pb.RangeRequest, context: Any) -> Any:
        self.contexts.append(context)
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return self.response

    async def Put(self, request: pb.PutRequest, context: Any) -> Any:
        context.add_done_callback(lambda ended: self.gone.set())
        self.entered.set()
        await self.free.wait()
        return pb.PutResponse()

    async def Lock(self, request: pb.LockRequest, context: Any) -> Any:
        self.entered.set()
        await self.free.wait()
        return pb.LockResponse(key=request.name)

    async def Watch(self, requests: AsyncIterator[pb.WatchRequest], context: Any) -> None:
        async for asked in requests:
            watch_id = asked.create_request.watch_id
            response = pb.WatchResponse(watch_id=watch_id, created=True)
            await context.write(response if watch_id % 2 else response.SerializeToString())
        if self.error is not None:
            raise self.error
        self.entered.set()
        try:
            await self.free.wait()
            await context.write_all([pb.WatchResponse(watch_id=9)] * 2)
        finally:
            self.gone.set()

    async def LeaseKeepAlive(self, requests: AsyncIterator[Any], context: Any) -> None:
        async for asked in requests:
            await context.write(pb.LeaseKeepAliveResponse(ID=asked.ID, TTL=1))


class Stage:
    """A server of HTTP/1.1 with the handlers behind the gateway."""

    def __init__(self, server: Server, address: str, handlers: Handlers, entrance: Entrance):
        self.server, self.address = server, address
        self.handlers, self.entrance = handlers, entrance

    async def say(self, path: str, body: bytes, *more: str) -> Raw:
        return await Raw.open(self.address, request(path, body, "POST", *more))

    async def post(self, path: str, body: bytes, *more: str) -> Reply:
        raw = await self.say(path, body, *more)
        found = await reply(raw)
        raw.writer.close()
        return found


Scene = Callable[[Stage], Coroutine[Any, Any, None]]


def scene(**limits: Any) -> Callable[[Scene], Callable[[], None]]:
    def test_of(played: Scene) -> Callable[[], None]:
        async def main() -> None:
            server = Server(ServerLimits(connections_max=100, **limits))
            handlers, entrance = Handlers(), Entrance(Member())
            gateway = Gateway(MESSAGE_BYTES_MAX)
            for service in ("KV", "Watch", "Lease"):
                register(gateway, f"etcdserverpb.{service}", handlers, entrance)
            register(gateway, "v3lockpb.Lock", handlers, entrance)
            server.serve_http(gateway.answer)
            address = f"127.0.0.1:{server.bind('127.0.0.1', 0)}"
            await server.start()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await played(Stage(server, address, handlers, entrance))
            finally:
                await server.stop(None)
                gateway.close()
            assert (server.calls, server.streaming) == (0, 0)
            assert (server.received.used, server.unsent.used) == (0, 0)

        def test() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())

        test.__name__ = played.__name__
        return test

    return test_of


async def lines(raw: Raw, count: int | None = None) -> list[Any]:
    """So many parts of a body in chunks, which are lines; None: all, to the end."""
    found: list[Any] = []
    text = b""
    while count is None or len(found) < count:
        size = int(await raw.reader.readline(), 16)
        text += (await raw.reader.readexactly(size + 2))[:-2]
        while b"\n" in text:
            line, _, text = text.partition(b"\n")
            found.append(json.loads(line))
        if size == 0:
            assert text == b""
            return found
    return found


@scene()
async def test_a_handler_gets_what_grpc_would_give_it(stage: Stage) -> None:
    answered = await stage.post(
        "/v3/kv/range",
        b'{"key": "YQ=="}',
        "Authorization: Bearer secret",
        "Grpc-Metadata-HasLeader: true",
        "Grpc-Metadata-Odd-Bin: AA==",
        "Grpc-Metadata-Grpc-Timeout: 1n",
        "Grpc-Timeout: 60S",
        "Cookie: no",
    )
    assert (answered.status, answered.body) == (200, b'{"count":"7"}')
    assert answered.fields["content-type"] == "application/json"
    (context,) = stage.handlers.contexts
    assert stage.handlers.requests == [pb.RangeRequest(key=b"a")]
    assert context.invocation_metadata() == (
        ("authorization", "Bearer secret"),
        ("hasleader", "true"),
    )
    assert 50 < context.time_remaining() <= 60
    assert context.done()
    assert not context.cancelled()
    # Nobody is an operator, or a user, by the certificate of what asks here.
    assert "x509_common_name" not in context.auth_context()
    assert not is_operator(context)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EtcdError(Reason.EMPTY_KEY), 400, 3),
        (EtcdError(Reason.COMPACTED), 400, 11),
        (EtcdError(Reason.LEASE_EXISTS), 400, 9),
        (EtcdError(Reason.LEASE_NOT_FOUND), 404, 5),
        (EtcdError(Reason.PERMISSION_DENIED), 403, 7),
        (EtcdError(Reason.NO_LEADER), 503, 14),
        (EtcdError(Reason.DEADLINE), 504, 4),
        (EtcdError(Reason.CORRUPT), 500, 15),
        (OverloadedError("too much"), 429, 8),
        (KeyError("a defect"), 500, 13),
    ],
)
def test_errors_have_etcds_words_and_https_statuses(
    error: Exception, status: int, code: int
) -> None:
    @scene()
    async def play(stage: Stage) -> None:
        stage.handlers.error = error
        refused = await stage.post("/v3/kv/range", b"{}")
        told = json.loads(refused.body)
        assert (refused.status, told["code"]) == (status, code)
        assert told["error"] == told["message"]
        if isinstance(error, EtcdError):
            assert told["message"] == error.reason.text
        # A stream that began has said 200; one that didn't says it.
        at_once = await stage.say("/v3/watch", b"")
        assert (await reply(at_once, head_only=True)).status == status
        at_once.writer.close()
        raw = await stage.say("/v3/watch", b'{"create_request": {}}')
        assert (await reply(raw, head_only=True)).status == 200
        created, ended = await lines(raw)
        assert created == {"result": {"created": True}}
        assert ended["error"]["grpc_code"] == code
        assert ended["error"]["http_code"] == status
        raw.writer.close()

    play()


@scene()
async def test_what_is_not_served_says_so(stage: Stage) -> None:
    refused = await stage.post("/v3/kv/txn", b"{}")
    assert (refused.status, json.loads(refused.body)["code"]) == (501, 12)


@scene()
async def test_a_stream_has_a_line_for_each_answer(stage: Stage) -> None:
    said = b'{"create_request": {"watch_id": 1}} {"create_request": {"watch_id": 2}}'
    raw = await stage.say("/v3/watch", said)
    head = await reply(raw, head_only=True)
    assert head.fields["transfer-encoding"] == "chunked"
    first, second = await lines(raw, 2)
    assert first == {"result": {"watch_id": "1", "created": True}}
    assert second == {"result": {"watch_id": "2", "created": True}}
    assert stage.server.streaming == 1
    stage.handlers.free.set()
    assert await lines(raw) == [{"result": {"watch_id": "9"}}] * 2
    # The connection goes on.
    raw.say(request("/v3/lease/keepalive", b'{"ID": 5}{"ID": 6}'))
    await reply(raw, head_only=True)
    assert [line["result"]["ID"] for line in await lines(raw)] == ["5", "6"]
    raw.say(request("/v3/lease/keepalive", b""))
    nothing = await reply(raw)
    assert (nothing.status, nothing.body) == (200, b"")
    raw.writer.close()


@scene()
async def test_one_that_waits_has_one_answer(stage: Stage) -> None:
    raw = await stage.say("/v3/lock/lock", b'{"name": "bg=="}')
    await stage.handlers.entered.wait()
    assert (stage.server.calls, stage.server.streaming) == (0, 1)
    stage.handlers.free.set()
    assert (await reply(raw)).body == b'{"key":"bg=="}'
    raw.writer.close()


@scene()
async def test_who_hangs_up_ends_its_call(stage: Stage) -> None:
    for path, body in (("/v3/kv/put", b"{}"), ("/v3/watch", b'{"create_request": {}}')):
        raw = await stage.say(path, body)
        await stage.handlers.entered.wait()
        raw.writer.transport.abort()
        await stage.handlers.gone.wait()
        stage.handlers.entered.clear()
        stage.handlers.gone.clear()


@scene()
async def test_a_deadline_ends_its_call(stage: Stage) -> None:
    late = await stage.post("/v3/kv/put", b"{}", "Grpc-Timeout: 50m")
    assert late.status == 504
    assert json.loads(late.body)["message"] == "context deadline exceeded"
    await stage.handlers.gone.wait()
    raw = await stage.say("/v3/watch", b'{"create_request": {}}', "Grpc-Timeout: 200m")
    assert (await reply(raw, head_only=True)).status == 200
    assert [*map(list, await lines(raw))] == [["result"], ["error"]]
    raw.writer.close()
    for wrong in ("1", "S", "-1S", "1s", "123456789S", "1.5S"):
        refused = await stage.post("/v3/kv/range", b"{}", f"Grpc-Timeout: {wrong}")
        assert refused.status == 400


@scene(calls_max=1, streaming_max=1)
async def test_calls_beyond_the_bounds_are_refused(stage: Stage) -> None:
    put = await stage.say("/v3/kv/put", b"{}")
    await stage.handlers.entered.wait()
    busy = await stage.post("/v3/kv/range", b"{}")
    assert (busy.status, json.loads(busy.body)["code"]) == (429, 8)
    watch = await stage.say("/v3/watch", b'{"create_request": {}}')
    assert (await reply(watch, head_only=True)).status == 200
    busy = await stage.post("/v3/lock/lock", b"{}")
    assert (busy.status, json.loads(busy.body)["code"]) == (503, 14)
    stage.handlers.free.set()
    assert (await reply(put)).status == 200
    for raw in (put, watch):
        raw.writer.close()


@scene()
async def test_messages_have_the_bounds_that_grpc_has(stage: Stage) -> None:
    large = json.dumps({"key": "A" * 80_000}).encode()
    # Read beside the loop, and within the bounds.
    assert (await stage.post("/v3/kv/range", large)).status == 200
    assert len(stage.handlers.requests[0].key) == 60_000
    refused = await stage.post("/v3/kv/range", large.replace(b"A" * 80_000, b"A" * 160_000))
    assert refused.status == 429
    assert "larger than max (120004 vs. 100000)" in json.loads(refused.body)["message"]
    # What follows one too many isn't read.
    refused = await stage.post("/v3/lease/keepalive", b"{}" * 16_385 + b"x")
    assert (refused.status, json.loads(refused.body)["code"]) == (400, 3)
    assert json.loads(refused.body)["message"] == "at most 16384 requests of one stream"


@scene()
async def test_a_large_answer_comes_in_parts_and_a_larger_one_not_at_all(stage: Stage) -> None:
    kv = pb.KeyValue(key=b"k" * 1000, value=bytes(9000))
    stage.handlers.response = pb.RangeResponse(kvs=[kv] * 1000).SerializeToString()
    raw = await stage.say("/v3/kv/range", b"{}")
    assert (await reply(raw, head_only=True)).status == 200
    text = b""
    while size := int(await raw.reader.readline(), 16):
        assert size < 64 * 1024
        text += (await raw.reader.readexactly(size + 2))[:-2]
    assert len(json.loads(text)["kvs"]) == 1000
    raw.writer.close()
    stage.handlers.response = pb.RangeResponse(kvs=[kv] * 2000).SerializeToString()
    refused = await stage.post("/v3/kv/range", b"{}")
    assert (refused.status, json.loads(refused.body)["code"]) == (429, 8)


@scene()
async def test_an_answer_that_is_being_taken_is_kept_once(stage: Stage) -> None:
    freed = asyncio.Event()

    class Encoded(bytes):
        def __del__(self) -> None:
            freed.set()

    kv = pb.KeyValue(value=bytes(9000))
    size = 1000 * (kv.ByteSize() + 4)
    stage.handlers.response = Encoded(pb.RangeResponse(kvs=[kv] * 1000).SerializeToString())
    raw = await stage.say("/v3/kv/range", b"{}")
    while not stage.handlers.requests:
        await asyncio.sleep(0.001)
    stage.handlers.response = None
    await freed.wait()
    assert stage.server.unsent.used == pytest.approx(2 * size, rel=0.01)
    assert (await reply(raw, head_only=True)).status == 200
    raw.writer.close()


@scene(unsent_bytes_max=1 << 20, connection_unsent_bytes_max=1 << 20)
async def test_answers_beyond_the_memory_for_them_wait_or_are_refused(stage: Stage) -> None:
    stage.handlers.response = pb.RangeResponse(kvs=[pb.KeyValue(value=bytes(700_000))])
    refused = await stage.post("/v3/kv/range", b"{}")
    assert (refused.status, json.loads(refused.body)["code"]) == (503, 14)


@scene()
async def test_the_end_of_all_streams_is_told(stage: Stage) -> None:
    raw = await stage.say("/v3/watch", b'{"create_request": {}}')
    await stage.handlers.entered.wait()
    stage.entrance.close()
    assert (await reply(raw, head_only=True)).status == 200
    _, ended = await lines(raw)
    assert ended["error"] == {
        "grpc_code": 14,
        "http_code": 503,
        "message": Reason.STOPPED.text,
        "http_status": "Service Unavailable",
    }
    raw.writer.close()
    assert (await stage.post("/v3/kv/range", b"{}")).status == 503
