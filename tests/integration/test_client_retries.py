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
    Error,
    ForgottenError,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
    NotLeaderError,
    Outcome,
    Refusal,
    StorageError,
    UnavailableError,
)
from tests.integration.cluster import free_addresses
from tests.integration.scripted_server import ScriptedServer, fails, value

pytestmark = pytest.mark.usefixtures("transport")

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
    (dead,) = free_addresses(1)
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


DISK_FAILED = fails(
    grpc.StatusCode.UNAVAILABLE,
    "this member's storage failed: IO_ERROR: syncing the log",
    kvstore_integrity_code="IO_ERROR",
)


def test_a_members_broken_disk_is_no_reason_to_give_up(call: Call) -> None:
    with ScriptedServer([DISK_FAILED, value(True)]) as server:
        assert call(server.address, "put", b"k", b"v") is True
        assert len(set(server.request_ids)) == 1


CUT_SHORT = fails(grpc.StatusCode.CANCELLED, "CANCELLED")


def test_a_write_that_a_stopping_server_cut_short_is_tried_again_under_its_id(call: Call) -> None:
    with ScriptedServer([CUT_SHORT, value(True)]) as server:
        assert call(server.address, "put", b"k", b"v") is True
        assert len(server.request_ids) == 2
        assert len(set(server.request_ids)) == 1
        assert server.metadata[1]["kvstore-attempt"] == "2"  # the first one may have been applied


def test_what_became_of_a_write_that_was_cut_short_to_the_end_is_unknown(call: Call) -> None:
    with ScriptedServer([CUT_SHORT] * 50) as server, pytest.raises(UnavailableError) as raised:
        call(server.address, "put", b"k", b"v", timeout=1)
    assert raised.value.outcome is Outcome.UNKNOWN


def test_who_runs_out_of_time_learns_which_trouble_the_disk_had(call: Call) -> None:
    with ScriptedServer([DISK_FAILED] * 50) as server, pytest.raises(UnavailableError) as raised:
        call(server.address, "put", b"k", b"v", timeout=1)
    assert raised.value.code is IntegrityCode.IO_ERROR


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
            call(server.address, "put", b"k", b"v", timeout=1.0)
        assert len(server.request_ids) > 1


def test_a_server_that_never_answers_costs_the_timeout(call: Call) -> None:
    release = threading.Event()

    def stuck(context: grpc.ServicerContext) -> bool:
        return release.wait(10)

    with ScriptedServer([stuck]) as server:
        try:
            with pytest.raises(DeadlineExceededError):
                call(server.address, "put", b"k", b"v", timeout=1.0)
            # gRPC rounds up what is left, and the server's clock counts whole milliseconds.
            assert server.deadlines_s[0] <= 1.01
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


EXPIRED = fails(
    grpc.StatusCode.ABORTED,
    "expired",
    kvstore_refusal="SESSION_EXPIRED",
    kvstore_outcome="not-applied",
)
REFUSED = fails(grpc.StatusCode.UNAVAILABLE, "no leader", kvstore_outcome="not-applied")
FIRST, SECOND = "kvs1/" + "0" * 31 + "1", "kvs1/" + "0" * 31 + "2"


def writes(call: Call, server: ScriptedServer, count: int) -> None:
    """So many writes of one client."""
    if call is call_blocking:
        with Client(server.address) as client:
            for number in range(count):
                client.put(b"k", b"%d" % number)
        return

    async def main() -> None:
        async with AsyncClient(server.address) as client:
            for number in range(count):
                await client.put(b"k", b"%d" % number)

    asyncio.run(main())


def test_a_client_opens_one_session_and_numbers_its_writes(call: Call) -> None:
    with ScriptedServer([value(True)] * 3, sessions=[UNAVAILABLE, value(True)]) as server:
        writes(call, server, 3)
        assert server.request_ids == [f"{FIRST}/1/1", f"{FIRST}/2/2", f"{FIRST}/3/3"]
        assert all("kvstore-attempt" not in metadata for metadata in server.metadata)


def test_a_retry_says_that_it_is_one_and_how_old(call: Call) -> None:
    answers = [REFUSED, UNAVAILABLE, UNAVAILABLE, value(True)]
    with ScriptedServer(answers, sessions=[value(True)]) as server:
        assert call(server.address, "put", b"k", b"v") is True
        assert server.request_ids == [f"{FIRST}/1/1"] * 4
        tries = [metadata.get("kvstore-attempt") for metadata in server.metadata]
        # The first one surely did nothing: the second is the first that counts.
        assert tries == [None, None, "2", "3"]
        ages = [int(metadata["kvstore-age-ms"]) for metadata in server.metadata[2:]]
        assert 0 < ages[0] < ages[1] < 10_000


def test_a_session_that_expired_before_the_write_is_replaced(call: Call) -> None:
    answers = [value(True), REFUSED, EXPIRED, value(True)]
    with ScriptedServer(answers, sessions=[value(True), value(True)]) as server:
        writes(call, server, 2)
        assert server.request_ids == [
            f"{FIRST}/1/1",
            f"{FIRST}/2/2",
            f"{FIRST}/2/2",
            f"{SECOND}/1/1",
        ]
        assert "kvstore-attempt" not in server.metadata[-1]


def test_a_session_that_expired_between_two_tries_ends_the_call(call: Call) -> None:
    answers = [UNAVAILABLE, EXPIRED]
    with (
        ScriptedServer(answers, sessions=[value(True)] * 2) as server,
        pytest.raises(ForgottenError) as caught,
    ):
        call(server.address, "put", b"k", b"v")
    assert caught.value.refusal is Refusal.SESSION_EXPIRED
    assert caught.value.outcome is Outcome.UNKNOWN
    assert len(server.request_ids) == 2


def test_a_server_without_room_for_a_session_gets_ids_of_the_clients_own(call: Call) -> None:
    full = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", kvstore_outcome="not-applied")
    with ScriptedServer([value(True)] * 2, sessions=[full]) as server:
        writes(call, server, 2)
        assert [uuid.UUID(request_id).version for request_id in server.request_ids] == [4, 4]


def test_a_repeated_id_of_an_earlier_process_is_said_to_be_a_retry(call: Call) -> None:
    with ScriptedServer([value(True)]) as server:
        call(server.address, "put", b"k", b"v", request_id="mine", retry=True)
        assert server.request_ids == ["mine"]
        assert server.metadata[0]["kvstore-attempt"] == "2"
        assert "kvstore-age-ms" not in server.metadata[0]


def test_a_retry_without_its_id_is_refused(call: Call) -> None:
    with ScriptedServer() as server, pytest.raises(InvalidArgumentError, match="request_id"):
        call(server.address, "delete", b"k", retry=True)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([fails(grpc.StatusCode.INVALID_ARGUMENT)], Outcome.NOT_APPLIED),
        ([fails(grpc.StatusCode.INTERNAL)], Outcome.UNKNOWN),
        ([UNAVAILABLE, fails(grpc.StatusCode.INVALID_ARGUMENT)], Outcome.UNKNOWN),
        ([REFUSED, fails(grpc.StatusCode.INVALID_ARGUMENT)], Outcome.NOT_APPLIED),
        ([fails(grpc.StatusCode.DATA_LOSS)], Outcome.UNKNOWN),
    ],
)
def test_an_error_says_what_became_of_the_write(
    call: Call, answers: list[Any], outcome: Outcome
) -> None:
    with ScriptedServer(answers) as server, pytest.raises(Error) as caught:
        call(server.address, "put", b"k", b"v")
    assert caught.value.outcome is outcome


def test_without_a_server_nothing_was_applied(call: Call) -> None:
    with pytest.raises(UnavailableError) as caught:
        call("127.0.0.1:1", "put", b"k", b"v", timeout=1)
    assert caught.value.outcome is Outcome.NOT_APPLIED
