"""The v1 contract, as any gRPC client sees it: results, limits and statuses, over both fronts, in
both profiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import InvalidArgumentError, Outcome
from tests.integration.process import FRONTS, Certificates, Kvd

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1024 * 1024
REQUEST_ID_BYTES_MAX = 4096


@pytest.fixture(
    scope="module", params=[(front, profile) for front in FRONTS for profile in ("dev", "secure")]
)
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Kvd]:
    front, profile = request.param
    data_dir = tmp_path_factory.mktemp(f"{front}-{profile}") / "data"
    secured = certificates if profile == "secure" else None
    with Kvd(data_dir, certificates=secured, front=front) as started:
        yield started.wait_serving()


@pytest.fixture
def kv(server: Kvd) -> Iterator[kv_pb2_grpc.KVStub]:
    with server.channel() as channel:
        yield kv_pb2_grpc.KVStub(channel)


def put(key: bytes, value: bytes, request_id: str) -> tuple[str, kv_pb2.PutRequest]:
    return "Put", kv_pb2.PutRequest(key=key, value=value, request_id=request_id)


def get(key: bytes) -> tuple[str, kv_pb2.GetRequest]:
    return "Get", kv_pb2.GetRequest(key=key)


def delete(key: bytes, request_id: str) -> tuple[str, kv_pb2.DeleteRequest]:
    return "Delete", kv_pb2.DeleteRequest(key=key, request_id=request_id)


def outcome(kv: kv_pb2_grpc.KVStub, call: tuple[str, Any]) -> Any:
    """Return the response, or the status code where there is none."""
    method, request = call
    try:
        return getattr(kv, method)(request, timeout=10)
    except grpc.RpcError as error:
        return error.code()


INVALID = grpc.StatusCode.INVALID_ARGUMENT

# One story, told to each profile: a call and what must come of it.
STORY: list[tuple[tuple[str, Any], Any]] = [
    (get(b"a"), kv_pb2.GetResponse(found=False)),
    (put(b"a", b"1", "r1"), kv_pb2.PutResponse(overwritten=False)),
    (get(b"a"), kv_pb2.GetResponse(found=True, value=b"1")),
    (put(b"a", b"2", "r2"), kv_pb2.PutResponse(overwritten=True)),
    (get(b"a"), kv_pb2.GetResponse(found=True, value=b"2")),
    # A repeated request gives the first answer and changes nothing.
    (put(b"a", b"1", "r1"), kv_pb2.PutResponse(overwritten=False)),
    (get(b"a"), kv_pb2.GetResponse(found=True, value=b"2")),
    # Its id can't stand for another value, key or operation.
    (put(b"a", b"3", "r1"), INVALID),
    (put(b"b", b"1", "r1"), INVALID),
    (delete(b"a", "r1"), INVALID),
    (get(b"b"), kv_pb2.GetResponse(found=False)),
    (delete(b"a", "r3"), kv_pb2.DeleteResponse(deleted=True)),
    (delete(b"a", "r3"), kv_pb2.DeleteResponse(deleted=True)),
    (delete(b"a", "r4"), kv_pb2.DeleteResponse(deleted=False)),
    (get(b"a"), kv_pb2.GetResponse(found=False)),
    # An empty value is a value; keys and values are any bytes at all.
    (put(b"empty", b"", "r5"), kv_pb2.PutResponse(overwritten=False)),
    (get(b"empty"), kv_pb2.GetResponse(found=True, value=b"")),
    (put(bytes(range(256)), b"\x00\xff", "r6"), kv_pb2.PutResponse(overwritten=False)),
    (get(bytes(range(256))), kv_pb2.GetResponse(found=True, value=b"\x00\xff")),
    # Each limit, on both of its sides.
    (put(b"", b"v", "r7"), INVALID),
    (get(b""), INVALID),
    (delete(b"", "r7"), INVALID),
    (put(b"k" * KEY_BYTES_MAX, b"v", "r8"), kv_pb2.PutResponse(overwritten=False)),
    (put(b"k" * (KEY_BYTES_MAX + 1), b"v", "r9"), INVALID),
    (get(b"k" * (KEY_BYTES_MAX + 1)), INVALID),
    (delete(b"k" * (KEY_BYTES_MAX + 1), "r9"), INVALID),
    (put(b"v", b"v" * VALUE_BYTES_MAX, "r10"), kv_pb2.PutResponse(overwritten=False)),
    (get(b"v"), kv_pb2.GetResponse(found=True, value=b"v" * VALUE_BYTES_MAX)),
    (put(b"v", b"v" * (VALUE_BYTES_MAX + 1), "r11"), INVALID),
    (put(b"v", b"v" * (2 * VALUE_BYTES_MAX), "r11"), INVALID),
    (put(b"v", b"v" * (3 * VALUE_BYTES_MAX), "r11"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (put(b"i", b"v", ""), INVALID),
    (delete(b"i", ""), INVALID),
    (put(b"i", b"v", "i" * REQUEST_ID_BYTES_MAX), kv_pb2.PutResponse(overwritten=False)),
    (put(b"i", b"v", "i" * (REQUEST_ID_BYTES_MAX + 1)), INVALID),
    (delete(b"i", "ü" * (REQUEST_ID_BYTES_MAX // 2 + 1)), INVALID),
    # An id of a refused request was not used up.
    (put(b"i", b"w", "r11"), kv_pb2.PutResponse(overwritten=True)),
]


def test_the_same_story_has_the_same_outcome_over_all_of_them(kv: kv_pb2_grpc.KVStub) -> None:
    for number, (call, expected) in enumerate(STORY):
        assert outcome(kv, call) == expected, f"step {number}: {call[0]}"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (put(b"", b"v", "words"), ["key", "1,024|1024"]),
        (put(b"k" * 1025, b"v", "words"), ["key", "1025|1,025", "1,024|1024"]),
        (put(b"k", b"v" * (VALUE_BYTES_MAX + 1), "words"), ["value", "1048576|1,048,576"]),
        (put(b"k", b"v", ""), ["request_id", "4096|4,096"]),
    ],
)
def test_a_refusal_names_the_field_and_its_limit(
    kv: kv_pb2_grpc.KVStub, call: tuple[str, Any], words: list[str]
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        getattr(kv, call[0])(call[1])
    for word in words:
        assert any(choice in str(raised.value.details()) for choice in word.split("|"))


def test_a_reused_request_id_is_named_as_the_trouble(kv: kv_pb2_grpc.KVStub) -> None:
    kv.Put(kv_pb2.PutRequest(key=b"reuse", value=b"1", request_id="reuse"))
    with pytest.raises(grpc.RpcError, match="request_id"):
        kv.Put(kv_pb2.PutRequest(key=b"reuse", value=b"2", request_id="reuse"))


def test_our_clients_say_at_once_that_a_message_is_too_large(server: Kvd, transport: str) -> None:
    with (
        server.client() as client,
        pytest.raises(InvalidArgumentError, match="too large") as refused,
    ):
        client.put(b"v", b"v" * (3 * VALUE_BYTES_MAX))
    assert refused.value.outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize("service", ["", "kvstore.v1.KV"])
def test_health_says_serving(server: Kvd, service: str) -> None:
    with server.channel() as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service)
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_does_not_know_other_services(server: Kvd) -> None:
    with server.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_what_is_served(server: Kvd) -> None:
    with server.channel() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = stub.ServerReflectionInfo(asked)
    assert {service.name for service in answer.list_services_response.service} == {
        "kvstore.v1.KV",
        "kvstore.v1.Sessions",
        "kvstore.v1.Admin",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_status_names_five_members_and_their_leader(server: Kvd) -> None:
    with server.client() as client:
        status = client.status()
    assert status.mode == "embedded"
    assert [member.member_id for member in status.members] == [1, 2, 3, 4, 5]
    (leader,) = [member for member in status.members if member.role == "leader"]
    assert leader.member_id == status.leader_id


def test_the_first_line_says_what_was_asked_and_what_is(server: Kvd) -> None:
    profile = "dev" if server.certificates is None else "secure"
    assert server.first_line == (
        f"kvd listening on {server.address} (requested=127.0.0.1:0, "
        f"tls_profile={profile}, data_dir={server.data_dir})\n"
    )
    assert not server.address.endswith(":0")


@pytest.mark.parametrize("front", FRONTS)
def test_a_secure_server_turns_plain_clients_away(
    certificates: Certificates, tmp_path: Path, front: str
) -> None:
    with (
        Kvd(tmp_path / "data", certificates=certificates, front=front) as server,
        grpc.insecure_channel(server.address) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        kv_pb2_grpc.KVStub(channel).Get(kv_pb2.GetRequest(key=b"k"), timeout=5)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
