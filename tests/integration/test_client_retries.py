"""What the clients do when a server answers with trouble, over real sockets."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from kvstore.client import AsyncClient, Client
from kvstore.errors import (
    ClosedError,
    CorruptionError,
    DeadlineExceededError,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
    NotLeaderError,
    StorageError,
    UnavailableError,
)
from tests.integration.scripted_server import ScriptedServer, fails, value

UNAVAILABLE = fails(grpc.StatusCode.UNAVAILABLE, "no leader")

Call = Callable[..., Any]


def call_blocking(addresses: str | list[str], method: str, *arguments: Any, **options: Any) -> Any:
    with Client(addresses, timeout=options.pop("timeout", 10)) as client:
        return getattr(client, method)(*arguments, **options)


def call_asynchronous(
    addresses: str | list[str], method: str, *arguments: Any, **options: Any
) -> Any:
    async def main() -> Any:
        async with AsyncClient(addresses, timeout=options.pop("timeout", 10)) as client:
            return await getattr(client, method)(*arguments, **options)

    return asyncio.run(main())


@pytest.fixture(params=[call_blocking, call_asynchronous], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    """One call through a client of either kind."""
    method: Call = request.param
    return method


def test_a_write_is_retried_with_the_same_request_id(call: Call) -> None:
    with ScriptedServer([UNAVAILABLE, UNAVAILABLE, value(True)]) as server:
        assert call(server.address, "put", b"k", b"v") is True
        assert len(server.request_ids) == 3
        assert len(set(server.request_ids)) == 1
        assert uuid.UUID(server.request_ids[0]).version == 4


def test_each_write_gets_an_id_of_its_own(call: Call) -> None:
    with ScriptedServer([value(True), value(True)]) as server:
        call(server.address, "put", b"k", b"v")
        call(server.address, "delete", b"k")
        assert len(set(server.request_ids)) == 2


def test_the_callers_request_id_is_used(call: Call) -> None:
    with ScriptedServer([value(False)]) as server:
        call(server.address, "delete", b"k", request_id="mine")
        assert server.request_ids == ["mine"]


def test_a_leader_hint_is_followed_to_an_address_never_seen_before(call: Call) -> None:
    with ScriptedServer([value(False)]) as leader:
        hint = fails(
            grpc.StatusCode.FAILED_PRECONDITION,
            "not the leader; leader_hint=3",
            kvstore_leader_hint="3",
            kvstore_leader_address=leader.address,
        )
        with ScriptedServer([hint]) as follower:
            assert call(follower.address, "put", b"k", b"v") is False
            assert follower.request_ids == leader.request_ids


def test_a_dead_address_is_passed_over(call: Call) -> None:
    with ScriptedServer() as gone:
        dead = gone.address
    with ScriptedServer([value(True)]) as server:
        assert call([dead, server.address], "get", b"k") == b"value"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (fails(grpc.StatusCode.INVALID_ARGUMENT, "key is empty"), InvalidArgumentError),
        (fails(grpc.StatusCode.INTERNAL, "a defect"), InternalError),
        (
            fails(
                grpc.StatusCode.DATA_LOSS,
                "CHECKSUM_MISMATCH: block in 000007.sst",
                kvstore_integrity_code="CHECKSUM_MISMATCH",
            ),
            CorruptionError,
        ),
        (
            fails(grpc.StatusCode.DATA_LOSS, "IO_ERROR", kvstore_integrity_code="IO_ERROR"),
            StorageError,
        ),
    ],
)
def test_lasting_trouble_is_raised_without_another_try(
    call: Call, answer: Any, error: type[Exception]
) -> None:
    with ScriptedServer([answer]) as server:
        with pytest.raises(error):
            call(server.address, "put", b"k", b"v")
        assert len(server.request_ids) == 1


def test_damage_carries_its_integrity_code_and_says_it_once(call: Call) -> None:
    answer = fails(
        grpc.StatusCode.DATA_LOSS,
        "CHECKSUM_MISMATCH: block checksum",
        kvstore_integrity_code="CHECKSUM_MISMATCH",
    )
    with ScriptedServer([answer]) as server, pytest.raises(CorruptionError) as raised:
        call(server.address, "get", b"k")
    assert raised.value.code is IntegrityCode.CHECKSUM_MISMATCH
    assert str(raised.value) == "CHECKSUM_MISMATCH: block checksum"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (UNAVAILABLE, UnavailableError),
        (
            fails(
                grpc.StatusCode.FAILED_PRECONDITION,
                "not the leader; leader_hint=0",
                kvstore_leader_hint="0",
            ),
            NotLeaderError,
        ),
    ],
)
def test_trouble_that_does_not_pass_is_raised_when_the_time_is_up(
    call: Call, answer: Any, error: type[Exception]
) -> None:
    with ScriptedServer([answer] * 1000) as server:
        with pytest.raises(error):
            call(server.address, "put", b"k", b"v", timeout=0.3)
        assert len(server.request_ids) > 1


def test_a_server_that_never_answers_costs_the_timeout(call: Call) -> None:
    release = threading.Event()

    def stuck(context: grpc.ServicerContext) -> bool:
        return release.wait(10)

    with ScriptedServer([stuck]) as server:
        try:
            with pytest.raises(DeadlineExceededError):
                call(server.address, "put", b"k", b"v", timeout=0.2)
            assert server.deadlines_s[0] <= 0.2
        finally:
            release.set()


@pytest.mark.parametrize("key", ["text", 7, None, [1, 2]])
def test_a_key_that_is_not_bytes_is_refused_before_anything_is_sent(call: Call, key: Any) -> None:
    with ScriptedServer() as server:
        with pytest.raises(TypeError, match="key must be bytes-like"):
            call(server.address, "put", key, b"v")
        assert server.request_ids == []


@pytest.mark.parametrize("key", [bytearray(b"k"), memoryview(b"k")])
def test_bytes_like_keys_work(call: Call, key: Any) -> None:
    with ScriptedServer([value(True)]) as server:
        assert call(server.address, "get", key) == b"value"


def test_a_closed_client_says_so() -> None:
    client = Client("127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(ClosedError):
        client.get(b"k")


def test_closing_wakes_a_call_that_waits() -> None:
    asked = threading.Event()
    release = threading.Event()

    def stuck(context: grpc.ServicerContext) -> bool:
        asked.set()
        return release.wait(10)

    with ScriptedServer([stuck]) as server:
        client = Client(server.address)
        raised: list[Exception] = []

        def get() -> None:
            try:
                client.get(b"k")
            except ClosedError as error:
                raised.append(error)

        thread = threading.Thread(target=get)
        thread.start()
        assert asked.wait(10)
        client.close()
        thread.join(10)
        release.set()
        assert len(raised) == 1


def test_closing_wakes_a_task_that_waits() -> None:
    asked = threading.Event()
    release = threading.Event()

    def stuck(context: grpc.ServicerContext) -> bool:
        asked.set()
        return release.wait(10)

    async def main(address: str) -> None:
        client = AsyncClient(address)
        call: Awaitable[Any] = asyncio.ensure_future(client.get(b"k"))
        await asyncio.to_thread(asked.wait, 10)
        await client.close()
        with pytest.raises(ClosedError):
            await call

    with ScriptedServer([stuck]) as server:
        try:
            asyncio.run(main(server.address))
        finally:
            release.set()
