"""What a call of etcd's API ends with, on either front, whatever its handler does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import method_shape
from kvstore.api.handlers.etcd.entrance import Entrance
from kvstore.api.handlers.etcd.register import register
from kvstore.errors import Error, InternalError, NotLeaderError, OverloadedError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.server.listeners.calls_bound import CallsBound
from kvstore.wire import available

KV, WATCH, LOCK = "etcdserverpb.KV", "etcdserverpb.Watch", "v3lockpb.Lock"
CALLS_MAX = 4
"""At one time, beside those that stream."""

MARKED = (("hasleader", "true"),)


class Member:
    """A :class:`kvstore.api.handlers.etcd.entrance.Member`."""

    has_leader = True
    is_learner = False
    election_timeout_s = 0.0


class Handlers:
    """Raises what it is told to; a watch echoes ids, then does what it is told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.stays = True
        self.entered: asyncio.Queue[bytes] = asyncio.Queue()
        self.free = asyncio.Event()

    async def Range(self, request: pb.RangeRequest, context: Any) -> pb.RangeResponse:
        if self.error is not None:
            raise self.error
        return pb.RangeResponse(count=len(request.key))

    async def Lock(self, request: pb.LockRequest, context: Any) -> pb.LockResponse:
        self.entered.put_nowait(request.name)
        await self.free.wait()
        return pb.LockResponse(key=request.name)

    async def Watch(self, requests: AsyncIterator[pb.WatchRequest], context: Any) -> None:
        async for request in requests:
            response = pb.WatchResponse(watch_id=request.create_request.watch_id, created=True)
            # Encoded or not: both are taken.
            await context.write(response if response.watch_id % 2 else response.SerializeToString())
            if self.error is not None:
                raise self.error
            if not self.stays:
                return
        await asyncio.Event().wait()


class Stage:
    """A front with the handlers, and a channel to it."""

    def __init__(self, handlers: Handlers, member: Member, channel: Any) -> None:
        self.handlers = handlers
        self.member = member
        self.entrance = Entrance(member)
        self._channel = channel

    async def call(self, path: str, request: bytes, metadata: Any = ()) -> bytes:
        method = self._channel.unary_unary(path)
        answer: bytes = await method(request, metadata=metadata, timeout=10)
        return answer

    async def refused(self, path: str, request: bytes, metadata: Any = ()) -> tuple[Any, str]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.call(path, request, metadata)
        return refused.value.code(), refused.value.details() or ""

    def watch(self, metadata: Any = ()) -> Any:
        return self._channel.stream_stream(f"/{WATCH}/Watch")(metadata=metadata, timeout=30)


Play = Callable[[Stage], Awaitable[None]]


async def _serve(server: Any, port: int, play: Play, register_at: Any) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stage = Stage(Handlers(), Member(), channel)
        register(register_at, KV, stage.handlers, stage.entrance, {"Txn": "not today"})
        register(register_at, WATCH, stage.handlers, stage.entrance)
        register(register_at, LOCK, stage.handlers, stage.entrance)
        await server.start()
        try:
            async with asyncio.timeout(30):
                await play(stage)
        finally:
            await server.stop(None)


async def _on_grpcio(play: Play) -> None:
    server = grpc.aio.server(interceptors=[CallsBound(CALLS_MAX)])
    await _serve(server, server.add_insecure_port("127.0.0.1:0"), play, server)


async def _on_native(play: Play) -> None:
    from kvstore.wire.server import Server, ServerLimits

    limits = ServerLimits(connections_max=100, calls_max=CALLS_MAX, streams_max=CALLS_MAX)
    server = Server(limits)
    await _serve(server, server.bind("127.0.0.1", 0), play, server)


FRONTS = [
    pytest.param(_on_grpcio, id="grpcio"),
    pytest.param(
        _on_native,
        id="native",
        marks=pytest.mark.skipif(not available(), reason="the native wire isn't built"),
    ),
]


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> Callable[[Play], None]:
    """Plays a scene on a front."""
    return lambda play: asyncio.run(request.param(play))


Front = Callable[[Play], None]
KEY = pb.RangeRequest(key=b"key").SerializeToString()
RANGE = f"/{KV}/Range"


def _create(watch_id: int) -> bytes:
    create = pb.WatchCreateRequest(watch_id=watch_id)
    return pb.WatchRequest(create_request=create).SerializeToString()


async def _drain(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


async def _ended(stream: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await _drain(stream)
    return ended.value.code(), ended.value.details() or ""


def test_a_call_is_answered(front: Front) -> None:
    async def play(stage: Stage) -> None:
        assert pb.RangeResponse.FromString(await stage.call(RANGE, KEY)).count == 3

    front(play)


@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (EtcdError(Reason.COMPACTED), "OUT_OF_RANGE", Reason.COMPACTED.text),
        (EtcdError(Reason.DEADLINE), "DEADLINE_EXCEEDED", "context deadline exceeded"),
        (NotLeaderError(2), "UNAVAILABLE", "etcdserver: leader changed"),
        (OverloadedError("full"), "RESOURCE_EXHAUSTED", "etcdserver: too many requests"),
        (InternalError("a defect"), "INTERNAL", "a defect"),
        (Error("of no kind"), "INTERNAL", "of no kind"),
        (ValueError("oh"), "INTERNAL", "ValueError: oh"),
    ],
)
def test_an_error_becomes_a_status_that_clients_know(
    front: Front, error: Exception, code: str, details: str
) -> None:
    async def play(stage: Stage) -> None:
        stage.handlers.error = error
        assert await stage.refused(RANGE, KEY) == (grpc.StatusCode[code], details)
        watch = stage.watch()
        await watch.write(_create(1))
        assert await _ended(watch) == (grpc.StatusCode[code], details)

    front(play)


def test_what_is_not_there_is_unimplemented_with_a_word_why(front: Front) -> None:
    async def play(stage: Stage) -> None:
        unimplemented = grpc.StatusCode.UNIMPLEMENTED
        said = f"/{KV}/Txn isn't served here: not today"
        assert await stage.refused(f"/{KV}/Txn", b"") == (unimplemented, said)
        assert await stage.refused(f"/{KV}/Put", b"") == (
            unimplemented,
            f"/{KV}/Put isn't served here",
        )
        assert (await stage.refused(f"/{KV}/RangeStream", b""))[0] is unimplemented

    front(play)


def test_a_request_that_is_none_is_refused(front: Front) -> None:
    async def play(stage: Stage) -> None:
        said = (grpc.StatusCode.INVALID_ARGUMENT, "the request is not a protobuf message")
        assert await stage.refused(RANGE, b"\xff\xff") == said
        watch = stage.watch()
        await watch.write(b"\xff\xff")
        assert await _ended(watch) == said

    front(play)


def test_a_stream_takes_requests_and_gives_answers(front: Front) -> None:
    async def play(stage: Stage) -> None:
        watch = stage.watch()
        for watch_id in (1, 2):
            await watch.write(_create(watch_id))
            answer = pb.WatchResponse.FromString(await watch.read())
            assert (answer.watch_id, answer.created) == (watch_id, True)
        stage.handlers.stays = False
        await watch.write(_create(3))
        await watch.read()
        assert await watch.read() is grpc.aio.EOF  # type: ignore[attr-defined]
        assert await watch.code() is grpc.StatusCode.OK

    front(play)


def test_who_waits_for_others_takes_no_place_of_theirs(front: Front) -> None:
    """The holder of a lock could never unlock it while enough callers wait for it."""

    async def play(stage: Stage) -> None:
        request = pb.LockRequest(name=b"jobs").SerializeToString()
        async with asyncio.TaskGroup() as tasks:
            waiting = [
                tasks.create_task(stage.call(f"/{LOCK}/Lock", request))
                for _ in range(2 * CALLS_MAX)
            ]
            for _ in waiting:
                await stage.handlers.entered.get()
            assert pb.RangeResponse.FromString(await stage.call(RANGE, KEY)).count == 3
            stage.handlers.free.set()
        assert {pb.LockResponse.FromString(each.result()).key for each in waiting} == {b"jobs"}

    front(play)


def test_a_learner_answers_little(front: Front) -> None:
    async def play(stage: Stage) -> None:
        stage.member.is_learner = True
        refused = (
            grpc.StatusCode.FAILED_PRECONDITION,
            "etcdserver: rpc not supported for learner",
        )
        assert await stage.refused(RANGE, KEY) == refused
        assert await _ended(stage.watch()) == refused
        await stage.call(RANGE, pb.RangeRequest(key=b"k", serializable=True).SerializeToString())

    front(play)


def test_who_wants_a_leader_gets_nothing_without_one(front: Front) -> None:
    async def play(stage: Stage) -> None:
        stage.member.has_leader = False
        refused = (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        assert await stage.refused(RANGE, KEY, MARKED) == refused
        assert await _ended(stage.watch(MARKED)) == refused
        await stage.call(RANGE, KEY)

    front(play)


def test_streams_with_that_mark_end_when_the_leader_is_gone_for_long(front: Front) -> None:
    async def play(stage: Stage) -> None:
        marked, silent = stage.watch(MARKED), stage.watch()
        for watch in (marked, silent):
            await watch.write(_create(1))
            await watch.read()
        stage.entrance.tick()
        stage.member.has_leader = False
        stage.entrance.tick()
        assert await _ended(marked) == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        await silent.write(_create(2))
        assert pb.WatchResponse.FromString(await silent.read()).watch_id == 2
        silent.cancel()

    front(play)


def test_at_the_end_streams_are_told_to_go_elsewhere(front: Front) -> None:
    async def play(stage: Stage) -> None:
        watch = stage.watch()
        await watch.write(_create(1))
        await watch.read()
        stage.entrance.close()
        stopped = (grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")
        assert await _ended(watch) == stopped
        assert await stage.refused(RANGE, KEY) == stopped

    front(play)


@pytest.mark.parametrize(
    ("version", "is_lawful"),
    [("3.5.1", True), (b"3.5", True), ("\xc3\xa4", True), ("\xff", False), (b"\xff\xfe", False)],
)
def test_a_clients_version_is_text(version: str | bytes, is_lawful: bool) -> None:
    entrance = Entrance(Member())
    shape = method_shape(KV, "Put")
    metadata = (("client-api-version", version),)
    if is_lawful:
        entrance.admit(shape, metadata, pb.PutRequest())
    else:
        with pytest.raises(EtcdError, match="etcdserver: invalid client api version"):
            entrance.admit(shape, metadata, pb.PutRequest())
