"""Operations of many whose first try doesn't go well go on by the rules of all calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import pytest

from kvstore.client import AsyncClient, Client
from kvstore.errors import (
    BatchError,
    ClosedError,
    DeadlineExceededError,
    Error,
    ForgottenError,
    Outcome,
    UnavailableError,
)
from tests.integration.scripted_server import ScriptedServer, fails, value

pytestmark = pytest.mark.usefixtures("transport")

UNAVAILABLE = fails(grpc.StatusCode.UNAVAILABLE, "no leader")
REFUSED = fails(grpc.StatusCode.UNAVAILABLE, "no leader", kvstore_outcome="not-applied")
EXPIRED = fails(
    grpc.StatusCode.ABORTED,
    "expired",
    kvstore_refusal="SESSION_EXPIRED",
    kvstore_outcome="not-applied",
)
FIRST, SECOND = "kvs1/" + "0" * 31 + "1", "kvs1/" + "0" * 31 + "2"


def piped(server: ScriptedServer, answers: Iterable[Any], timeout: float = 10) -> Any:
    """One put in a pipeline of a client that has a session already; its result, or its error."""
    server.answers = [value(False), *answers]
    with Client(server.address) as client:
        client.put(b"k", b"v")
        (result,) = client.pipeline(timeout=timeout).put(b"k", b"v").execute(raise_on_error=False)
        return result


def test_a_retry_has_the_same_id_and_says_that_it_is_one() -> None:
    with ScriptedServer(sessions=[value(True)]) as server:
        assert piped(server, [REFUSED, UNAVAILABLE, UNAVAILABLE, value(True)]) is True
        assert server.request_ids == [f"{FIRST}/1/1"] + [f"{FIRST}/2/2"] * 4
        tries = [metadata.get("kvstore-attempt") for metadata in server.metadata]
        # The refused one surely did nothing: the second is the first that counts.
        assert tries == [None, None, None, "2", "3"]
        ages = [int(metadata["kvstore-age-ms"]) for metadata in server.metadata[3:]]
        assert 0 < ages[0] < ages[1] < 10_000


def test_a_first_try_that_may_have_been_applied_is_counted() -> None:
    with ScriptedServer(sessions=[value(True)]) as server:
        assert piped(server, [UNAVAILABLE, value(True)]) is True
        assert server.request_ids[1] == server.request_ids[2]
        assert server.metadata[2]["kvstore-attempt"] == "2"
        assert int(server.metadata[2]["kvstore-age-ms"]) < 10_000


def test_a_session_that_expired_before_the_write_is_replaced() -> None:
    with ScriptedServer(sessions=[value(True)] * 2) as server:
        assert piped(server, [EXPIRED, value(True)]) is True
        assert server.request_ids == [f"{FIRST}/1/1", f"{FIRST}/2/2", f"{SECOND}/1/1"]
        assert "kvstore-attempt" not in server.metadata[-1]


def test_a_session_that_expired_between_two_tries_ends_the_operation() -> None:
    with ScriptedServer(sessions=[value(True)] * 2) as server:
        error = piped(server, [UNAVAILABLE, EXPIRED])
        assert isinstance(error, ForgottenError)
        assert error.outcome is Outcome.UNKNOWN


def test_a_leader_hint_is_followed() -> None:
    with (
        ScriptedServer([value(True)]) as leader,
        ScriptedServer(sessions=[value(True)]) as follower,
    ):
        hint = fails(
            grpc.StatusCode.FAILED_PRECONDITION,
            "not the leader; leader_hint=3",
            kvstore_leader_hint="3",
            kvstore_leader_address=leader.address,
        )
        assert piped(follower, [hint]) is True
        assert leader.request_ids == follower.request_ids[1:]


def test_time_that_is_up_ends_the_operation() -> None:
    release = threading.Event()

    def stuck(context: grpc.ServicerContext) -> bool:
        return release.wait(10)

    with ScriptedServer(sessions=[value(True)]) as server:
        try:
            error = piped(server, [stuck], timeout=0.5)
        finally:
            release.set()
    assert isinstance(error, DeadlineExceededError)
    assert error.outcome is Outcome.UNKNOWN
    assert server.deadlines_s[1] <= 0.51


def test_without_a_server_nothing_was_applied() -> None:
    with ScriptedServer([value(True)] * 3, sessions=[value(True)]) as server:
        client = Client(server.address, timeout=0.5)
        client.put(b"k", b"v")
    with client, pytest.raises(BatchError) as caught:
        client.put_many([(b"a", b""), (b"b", b"")])
    assert caught.value.failures
    for error in caught.value.failures.values():
        assert isinstance(error, UnavailableError)


def stuck_calls(count: int) -> tuple[Callable[..., bool], threading.Event, threading.Event]:
    """An answer that doesn't come, what is set when ``count`` wait for it, and what releases it."""
    asked, release = threading.Event(), threading.Event()
    waiting = 0

    def stuck(context: grpc.ServicerContext) -> bool:
        nonlocal waiting
        waiting += 1
        if waiting == count:
            asked.set()
        return release.wait(10)

    return stuck, asked, release


def test_closing_ends_what_is_under_way() -> None:
    stuck, asked, release = stuck_calls(2)

    async def main(server: ScriptedServer) -> list[Any]:
        client = AsyncClient(server.address)
        await client.put(b"k", b"v")
        pipe = client.pipeline().put(b"a", b"").get(b"b")
        executing = asyncio.create_task(pipe.execute(raise_on_error=False))
        await asyncio.to_thread(asked.wait, 10)
        await client.close()
        return await executing

    with ScriptedServer([value(True), stuck, stuck], sessions=[value(True)]) as server:
        try:
            put, got = asyncio.run(main(server))
        finally:
            release.set()
    assert isinstance(put, ClosedError)
    assert put.outcome is Outcome.UNKNOWN
    assert isinstance(got, ClosedError)


def test_a_cancelled_pipeline_leaves_the_client_usable() -> None:
    stuck, asked, release = stuck_calls(3)

    async def main(server: ScriptedServer) -> Any:
        async with AsyncClient(server.address) as client:
            await client.put(b"k", b"v")
            pipe = client.pipeline().put(b"a", b"").put(b"b", b"").get(b"c")
            executing = asyncio.create_task(pipe.execute())
            await asyncio.to_thread(asked.wait, 10)
            executing.cancel()
            await asyncio.wait([executing])
            assert executing.cancelled()
            release.set()
            return await client.put(b"k", b"v")

    answers = [value(True), stuck, stuck, stuck, value(True)]
    with ScriptedServer(answers, sessions=[value(True)]) as server:
        try:
            assert asyncio.run(main(server)) is True
        finally:
            release.set()
        # What was given up is done for the session: its floor has passed it.
        assert server.request_ids[-1] == f"{FIRST}/4/4"


def test_an_error_that_lasts_is_raised_at_its_key() -> None:
    defect = fails(grpc.StatusCode.INTERNAL, "a defect")
    with ScriptedServer([value(True), defect]) as server, Client(server.address) as client:
        assert dict(client.get_many([b"k"])) == {b"k": b"value"}
        with pytest.raises(Error, match="a defect"):
            dict(client.get_many([b"k"]))
