"""Hot calls of a server: in batches, in fair shares, within the bound, each ended once."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

import grpc
import grpc.aio
import pytest

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.wire.server import hot
from tests.unit.wire.conversation import PATHS, Conversation
from tests.unit.wire.stage import Echo, Server, ServerLimits, play


class Owner:
    """In place of a connection."""

    def touch(self) -> None: ...


def waiting(*numbers: int) -> list[Any]:
    """Hot calls of as many connections, so many of each, one connection after the other."""
    calls = []
    for number in numbers:
        talk = Conversation()
        talk.now = monotonic()
        talk.server.owner = Owner()
        for _ in range(number):
            talk.unary(PATHS[1], b"")
        calls += [(call, talk) for call in talk.hot]
    return calls


def test_many_calls_of_one_connection_leave_room_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hot, "CALLS_A_TURN", 10)
    held = waiting(100, 3, 1)
    calls = [call for call, _ in held]
    taken, rest, late = hot.shares(calls)
    assert late == []
    assert [taken.count(call) for call in calls[100:]] == [1, 1, 1, 1]
    assert len(taken) == 3 + 3 + 1
    assert rest == calls[3:100]


def test_what_is_gone_or_late_by_its_turn_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "CALLS_A_TURN", 1)
    held = waiting(1, 1, 1)
    (gone, talk), (late, _), (left, _) = held
    talk.client.cancel(gone.stream)
    talk.step()
    late.deadline = monotonic() - 1
    assert hot.shares([gone, late, left]) == ([left], [], [late])
    assert late.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


def test_calls_of_a_turn_come_together_and_are_counted() -> None:
    batches: list[int] = []
    counted: list[tuple[str, str, int]] = []

    async def ask(server: Server, address: str, echo: Echo) -> None:
        def take(calls: list[Any]) -> None:
            batches.append(len(calls))
            calls_of = [*calls]
            results = [b"v" if call.key == b"k" else KeyError() for call in calls_of]
            for place in front.answer(calls_of, results):
                front.end(calls_of[place], lambda call: call.fail(5, "nothing there"))

        server.counter = lambda method, code, seconds, count: counted.append((method, code, count))
        front = server.add_hot_methods(PATHS, take)
        async with grpc.aio.insecure_channel(address) as channel:
            kv = kv_pb2_grpc.KVStub(channel)
            gets = [kv.Get(kv_pb2.GetRequest(key=b"k")) for _ in range(100)]
            assert [answer.value for answer in await asyncio.gather(*gets)] == [b"v"] * 100
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await kv.Get(kv_pb2.GetRequest(key=b"other"))
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND

    play(ask)
    assert sum(batches) == 101
    assert len(batches) < 100
    assert sum(count for *_, count in counted) == 101
    assert (PATHS[1], "NOT_FOUND", 1) in counted


def test_calls_that_no_handler_gets_are_counted() -> None:
    counted: Counter[tuple[str, str]] = Counter()

    async def ask(server: Server, address: str, echo: Echo) -> None:
        server.add_hot_methods(PATHS, list[Any]().extend)
        server.counter = lambda method, code, _, count: counted.update({(method, code): count})
        async with grpc.aio.insecure_channel(address) as channel:
            for path, data in (
                (PATHS[1], b"\xff"),
                (PATHS[0], b"\xff"),
                (PATHS[0], bytes(3 << 20)),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(path)(data)

    play(ask)
    assert counted == {
        (PATHS[1], "INVALID_ARGUMENT"): 1,
        (PATHS[0], "INVALID_ARGUMENT"): 1,
        (PATHS[0], "RESOURCE_EXHAUSTED"): 1,
    }


def test_hot_calls_beyond_the_bound_are_refused_at_once() -> None:
    async def ask(server: Server, address: str, echo: Echo) -> None:
        taken: list[Any] = []
        front = server.add_hot_methods(PATHS, taken.extend)
        async with grpc.aio.insecure_channel(address) as channel:
            kv = kv_pb2_grpc.KVStub(channel)
            gets = [asyncio.ensure_future(kv.Get(kv_pb2.GetRequest())) for _ in range(5)]
            done, left = await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 2:
                more, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            assert len(taken) == 3
            for refused in done:
                error = refused.exception()
                assert isinstance(error, grpc.aio.AioRpcError)
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "grpc-retry-pushback-ms" in dict(map(tuple, error.trailing_metadata()))
            assert front.answer(taken, [None] * 3) == []
            await asyncio.gather(*left)
            assert server.counters.refused_calls == 2

    play(ask, ServerLimits(connections_max=10, calls_max=3))


def test_a_batch_whose_handler_raises_ends_with_internal() -> None:
    async def ask(server: Server, address: str, echo: Echo) -> None:
        def take(calls: list[Any]) -> None:
            raise KeyError("a defect")

        server.add_hot_methods(PATHS, take)
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await kv_pb2_grpc.KVStub(channel).Put(kv_pb2.PutRequest())
            assert raised.value.code() is grpc.StatusCode.INTERNAL

    play(ask)
