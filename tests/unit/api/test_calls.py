"""What handlers ask of the service, and do for who said no deadline, over a real channel."""

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
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import (
    CorruptionError,
    DeadlineExceededError,
    Error,
    IntegrityCode,
    NotLeaderError,
)
from kvstore.service.operations import Operation, Result


class Member:
    """A service that answers everything at once with ``answer``."""

    def __init__(self, answer: Result) -> None:
        self._answer = answer
        self.seconds_left: list[float] = []

    def submit(
        self,
        operations: Sequence[Operation],
        deadline: float,
        done: Callable[[Sequence[Result]], None],
    ) -> None:
        self.seconds_left.append(deadline - time.monotonic())
        done([self._answer])


def ask(member: Member, use: Callable[[Any], Awaitable[None]], forward: Any = None) -> None:
    async def main() -> None:
        server = grpc.aio.server()
        kv_pb2_grpc.add_KVServicer_to_server(KVHandlers(member, forward), server)  # type: ignore[arg-type]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await use(kv_pb2_grpc.KVStub(channel))
        await server.stop(grace=None)

    asyncio.run(main())


def test_a_call_without_a_deadline_has_ten_seconds() -> None:
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
    ("error", "code", "words"),
    [
        (DeadlineExceededError("not in time"), grpc.StatusCode.DEADLINE_EXCEEDED, "not in time"),
        (
            CorruptionError("a block", code=IntegrityCode.CHECKSUM_MISMATCH),
            grpc.StatusCode.DATA_LOSS,
            "CHECKSUM_MISMATCH: a block",
        ),
    ],
)
def test_an_operations_error_is_the_calls_status(
    error: Error, code: grpc.StatusCode, words: str
) -> None:
    async def use(kv: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kv.Put(kv_pb2.PutRequest(key=b"k", request_id="r"), timeout=60)
        assert (caught.value.code(), caught.value.details()) == (code, words)

    ask(Member(error), use)


def test_what_is_left_of_the_deadline_is_passed_on_and_the_leaders_refusal_comes_back() -> None:
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
