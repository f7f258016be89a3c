"""What handlers ask of the service, and do for who said no deadline, over a real channel
and both fronts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from kvstore.api.handlers.calls import DEFAULT_DEADLINE_S
from kvstore.api.handlers.failures import Failure
from kvstore.api.handlers.kv import KVHandlers
from kvstore.api.handlers.kv_batches import PATHS, KVBatches
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import (
    CorruptionError,
    DeadlineExceededError,
    Error,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
    NotLeaderError,
    OverloadedError,
)
from kvstore.service.operations import Answered, Operation, Result
from kvstore.wire import available

Stop = Callable[[float | None], Awaitable[None]]
Ask = Callable[..., None]


class Member:
    """A service that answers everything at once with ``answer``."""

    def __init__(self, answer: Result) -> None:
        self._answer = answer
        self.seconds_left: list[float] = []
        self.ages_s: list[float | None] = []

    def submit(
        self,
        operations: Sequence[Operation],
        deadline: float,
        done: Callable[[Sequence[Result]], None],
    ) -> None:
        self.seconds_left.append(deadline - time.monotonic())
        self.ages_s += [getattr(operation, "age_s", None) for operation in operations]
        done([self._answer])

    def take(self, calls: list[Any], answered: Answered) -> None:
        for call in calls:
            self.seconds_left.append(call.deadline - time.monotonic())
            self.ages_s.append(call.age_s)
        answered(calls, [self._answer] * len(calls))


async def over_grpcio(member: Member, forward: Any) -> tuple[str, Stop]:
    server = grpc.aio.server()
    kv_pb2_grpc.add_KVServicer_to_server(KVHandlers(member, forward), server)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return f"127.0.0.1:{port}", server.stop


async def over_the_native_wire(member: Member, forward: Any) -> tuple[str, Stop]:
    from kvstore.wire.server import Server, ServerLimits

    server = Server(ServerLimits(connections_max=10))
    batches = KVBatches(member, forward)  # type: ignore[arg-type]
    batches.answered_by(server.add_hot_methods(PATHS, batches.take))
    port = server.bind("127.0.0.1", 0)
    await server.start()
    return f"127.0.0.1:{port}", server.stop


@pytest.fixture(params=[over_grpcio, over_the_native_wire] if available() else [over_grpcio])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Runs ``use`` with a stub of KV over one of the fronts."""

    def run(member: Member, use: Callable[[Any], Awaitable[None]], forward: Any = None) -> None:
        async def main() -> None:
            address, stop = await request.param(member, forward)
            async with grpc.aio.insecure_channel(address) as channel:
                await use(kv_pb2_grpc.KVStub(channel))
            await stop(None)

        asyncio.run(main())

    return run


def test_a_call_without_a_deadline_has_ten_seconds(ask: Ask) -> None:
    member = Member(b"v")

    async def use(kv: Any) -> None:
        await kv.Get(kv_pb2.GetRequest(key=b"k"))
        await kv.Get(kv_pb2.GetRequest(key=b"k"), timeout=500)

    ask(member, use)
    assert DEFAULT_DEADLINE_S == 10
    without, given = member.seconds_left
    assert 9 < without <= 10
    assert 400 < given <= 510


@pytest.mark.parametrize(
    ("error", "code", "words", "trailer"),
    [
        (
            DeadlineExceededError("not in time"),
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "not in time",
            {},
        ),
        (InvalidArgumentError("bäd"), grpc.StatusCode.INVALID_ARGUMENT, "bäd", {}),
        (
            CorruptionError("a block", code=IntegrityCode.CHECKSUM_MISMATCH),
            grpc.StatusCode.DATA_LOSS,
            "CHECKSUM_MISMATCH: a block",
            {"kvstore-integrity-code": "CHECKSUM_MISMATCH"},
        ),
        (
            NotLeaderError(2, "db2:50051"),
            grpc.StatusCode.FAILED_PRECONDITION,
            str(NotLeaderError(2, "db2:50051")),
            {"kvstore-leader-hint": "2", "kvstore-leader-address": "db2:50051"},
        ),
        (
            OverloadedError("too much"),
            grpc.StatusCode.UNAVAILABLE,
            "too much",
            {"kvstore-overload": "1", "kvstore-outcome": "not-applied"},
        ),
        (InternalError("a defect"), grpc.StatusCode.INTERNAL, "a defect", {}),
    ],
)
def test_an_operations_error_is_the_calls_status(
    ask: Ask, error: Error, code: grpc.StatusCode, words: str, trailer: dict[str, str]
) -> None:
    async def use(kv: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kv.Put(kv_pb2.PutRequest(key=b"k", request_id="r"), timeout=60)
        assert (caught.value.code(), caught.value.details()) == (code, words)
        assert dict(map(tuple, caught.value.trailing_metadata() or ())) == trailer

    ask(Member(error), use)


def test_a_retry_is_told_from_a_first_try(ask: Ask) -> None:
    member = Member(False)

    async def use(kv: Any) -> None:
        put = kv_pb2.PutRequest(key=b"k", request_id="r")
        await kv.Put(put)
        await kv.Put(put, metadata=(("kvstore-attempt", "2"), ("kvstore-age-ms", "1500")))

    ask(member, use)
    assert member.ages_s == [None, 1.5]


def test_the_leaders_answer_is_relayed(ask: Ask) -> None:
    async def forward(method: str, request: Any, leader: int, left_s: float, said: Any) -> Any:
        asked.append((method, request, leader, said))
        match method:
            case "Put":
                return kv_pb2.PutResponse(overwritten=True)
            case "Delete":
                return kv_pb2.DeleteResponse(deleted=True)
        found = request.key == b"k"
        return kv_pb2.GetResponse(found=found, value=b"v" if found else b"")

    async def use(kv: Any) -> None:
        retry = (("kvstore-attempt", "2"),)
        assert (await kv.Put(put, metadata=retry)).overwritten
        assert (await kv.Delete(delete)).deleted
        assert await kv.Get(get) == kv_pb2.GetResponse(found=True, value=b"v")
        assert await kv.Get(other) == kv_pb2.GetResponse(found=False)

    put = kv_pb2.PutRequest(key=b"k", value=b"v", request_id="größe")
    delete = kv_pb2.DeleteRequest(key=b"k", request_id="r")
    get, other = kv_pb2.GetRequest(key=b"k"), kv_pb2.GetRequest(key=b"other")
    asked: list[Any] = []
    ask(Member(NotLeaderError(2)), use, forward)
    assert asked == [
        ("Put", put, 2, (("kvstore-attempt", "2"),)),
        ("Delete", delete, 2, ()),
        ("Get", get, 2, ()),
        ("Get", other, 2, ()),
    ]


def test_the_leader_is_named_where_it_cannot_be_asked(ask: Ask) -> None:
    async def forward(*_: Any) -> None:
        return None

    async def use(kv: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="leader_hint=2") as caught:
            await kv.Get(kv_pb2.GetRequest(key=b"k"))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    ask(Member(NotLeaderError(2)), use, forward)


def test_what_is_left_of_the_deadline_is_passed_on_and_the_leaders_refusal_comes_back(
    ask: Ask,
) -> None:
    passed: list[tuple[str, int, float]] = []

    async def forward(method: str, request: Any, leader: int, left_s: float, said: Any) -> Failure:
        passed.append((method, leader, left_s))
        return Failure(grpc.StatusCode.UNAVAILABLE, "as the leader says")

    async def use(kv: Any) -> None:
        for timeout in (500, None):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await kv.Delete(kv_pb2.DeleteRequest(key=b"k", request_id="r"), timeout=timeout)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert caught.value.details() == "as the leader says"

    ask(Member(NotLeaderError(2)), use, forward)
    assert [(method, leader) for method, leader, _ in passed] == [("Delete", 2)] * 2
    assert 400 < passed[0][2] <= 510
    assert 9 < passed[1][2] <= 10
