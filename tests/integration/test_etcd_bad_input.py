"""What KV, Maintenance and Cluster of etcd's API refuse: each with its code and its very words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import SERVICES
from tests.integration.process import FRONTS, Kvd

PATHS = {shape.name: shape for methods in SERVICES.values() for shape in methods.values()}
KEY_EMPTY = ("INVALID_ARGUMENT", "etcdserver: key is not provided")
KEY_ABSENT = ("INVALID_ARGUMENT", "etcdserver: key not found")
TOO_MANY = ("INVALID_ARGUMENT", "etcdserver: too many operations in txn request")
TWICE = ("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request")
SORT = ("INVALID_ARGUMENT", "etcdserver: invalid sort option")
COMPACTED = ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted")
FUTURE = ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision")
LEASE = ("NOT_FOUND", "etcdserver: requested lease not found")
TOO_LARGE = ("INVALID_ARGUMENT", "etcdserver: request is too large")
BAD_TARGET = ("INVALID_ARGUMENT", "etcdserver: invalid downgrade target version")


def put(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, **fields))


def delete(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    request = pb.DeleteRangeRequest(key=key, range_end=range_end)
    return pb.RequestOp(request_delete_range=request)


def read(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, **fields))


def txn(*success: pb.RequestOp, **fields: Any) -> pb.TxnRequest:
    return pb.TxnRequest(success=success, **fields)


def nested(*success: pb.RequestOp) -> pb.RequestOp:
    return pb.RequestOp(request_txn=txn(*success))


REFUSED: list[tuple[str, Any, tuple[str, str]]] = [
    ("Range", pb.RangeRequest(), KEY_EMPTY),
    ("Range", pb.RangeRequest(range_end=b"z"), KEY_EMPTY),
    ("Range", pb.RangeRequest(key=b"k", revision=99_999), FUTURE),
    ("Range", pb.RangeRequest(key=b"k", revision=2), COMPACTED),
    ("Range", pb.RangeRequest(key=b"k", sort_order=9), SORT),  # type: ignore[arg-type]
    ("Range", pb.RangeRequest(key=b"k", sort_target=9), SORT),  # type: ignore[arg-type]
    ("Range", pb.RangeRequest(key=b"k", serializable=True, revision=99_999), FUTURE),
    ("Put", pb.PutRequest(), KEY_EMPTY),
    ("Put", pb.PutRequest(value=b"v"), KEY_EMPTY),
    (
        "Put",
        pb.PutRequest(key=b"k", value=b"v", ignore_value=True),
        ("INVALID_ARGUMENT", "etcdserver: value is provided"),
    ),
    (
        "Put",
        pb.PutRequest(key=b"k", lease=1, ignore_lease=True),
        ("INVALID_ARGUMENT", "etcdserver: lease is provided"),
    ),
    ("Put", pb.PutRequest(key=b"absent", ignore_value=True), KEY_ABSENT),
    ("Put", pb.PutRequest(key=b"absent", ignore_lease=True), KEY_ABSENT),
    ("Put", pb.PutRequest(key=b"k", lease=12345), LEASE),
    ("Put", pb.PutRequest(key=b"k", lease=-1), LEASE),
    ("Put", pb.PutRequest(key=b"k", value=bytes(1_572_864)), TOO_LARGE),
    ("DeleteRange", pb.DeleteRangeRequest(), KEY_EMPTY),
    ("DeleteRange", pb.DeleteRangeRequest(range_end=b"\0"), KEY_EMPTY),
    ("Txn", txn(pb.RequestOp()), KEY_ABSENT),
    ("Txn", txn(put(b"")), KEY_EMPTY),
    ("Txn", txn(nested(read(b""))), KEY_EMPTY),
    ("Txn", txn(compare=[pb.Compare()]), KEY_EMPTY),
    ("Txn", txn(*[read(b"k")] * 129), TOO_MANY),
    ("Txn", txn(compare=[pb.Compare(key=b"k")] * 129), TOO_MANY),
    ("Txn", pb.TxnRequest(failure=[read(b"k")] * 129), TOO_MANY),
    ("Txn", txn(nested(*[put(b"%d" % number) for number in range(128)])), TOO_MANY),
    ("Txn", txn(put(b"k"), put(b"k")), TWICE),
    ("Txn", txn(put(b"k"), delete(b"a", b"z")), TWICE),
    ("Txn", txn(put(b"k"), delete(b"a", b"\0")), TWICE),
    ("Txn", txn(put(b"k"), nested(put(b"k"))), TWICE),
    ("Txn", txn(nested(put(b"k")), nested(delete(b"k"))), TWICE),
    ("Txn", txn(put(b"k", lease=7)), LEASE),
    ("Txn", txn(put(b"absent", ignore_value=True)), KEY_ABSENT),
    (
        "Txn",
        txn(put(b"k", ignore_value=True, value=b"v")),
        ("INVALID_ARGUMENT", "etcdserver: value is provided"),
    ),
    ("Txn", txn(put(b"k"), read(b"k", revision=99_999)), FUTURE),
    ("Txn", txn(put(b"k"), read(b"k", revision=2)), COMPACTED),
    ("Txn", txn(read(b"k", sort_target=9)), SORT),
    ("Txn", txn(put(b"k", value=bytes(1_572_864))), TOO_LARGE),
    ("Compact", pb.CompactionRequest(revision=99_999), FUTURE),
    ("Compact", pb.CompactionRequest(revision=1), COMPACTED),
    ("Compact", pb.CompactionRequest(revision=-5), COMPACTED),
    ("HashKV", pb.HashKVRequest(revision=99_999), FUTURE),
    ("HashKV", pb.HashKVRequest(revision=1), COMPACTED),
    (
        "Downgrade",
        pb.DowngradeRequest(action=pb.DowngradeRequest.ENABLE, version="x"),
        ("INVALID_ARGUMENT", "etcdserver: wrong downgrade target version format"),
    ),
    ("Downgrade", pb.DowngradeRequest(version="3.4.0"), BAD_TARGET),
    (
        "Downgrade",
        pb.DowngradeRequest(action=pb.DowngradeRequest.CANCEL),
        ("FAILED_PRECONDITION", "etcdserver: no inflight downgrade job"),
    ),
]


@pytest.fixture(scope="module", params=FRONTS)
def channel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[grpc.Channel]:
    """To a kvd that has a history, of which a part is compacted."""
    directory = tmp_path_factory.mktemp(f"bad-input-{request.param}")
    with (
        Kvd(directory / "data", front=request.param) as kvd,
        kvd.wait_serving().channel() as channel,
    ):
        for _ in range(4):
            call(channel, "Put", pb.PutRequest(key=b"k", value=b"v"))
        call(channel, "Compact", pb.CompactionRequest(revision=4))
        yield channel


def call(channel: grpc.Channel, name: str, request: Any, metadata: Any = ()) -> Any:
    shape = PATHS[name]
    method = channel.unary_unary(
        shape.path,
        request_serializer=shape.request.SerializeToString,
        response_deserializer=shape.response.FromString,
    )
    return method(request, timeout=20, metadata=metadata)


def refusal(channel: grpc.Channel, name: str, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, name, request)
    error: Any = refused.value
    return error.code().name, error.details()


@pytest.mark.parametrize(("name", "request_", "said"), REFUSED)
def test_each_refusal_has_its_code_and_its_words(
    channel: grpc.Channel, name: str, request_: Any, said: tuple[str, str]
) -> None:
    before = call(channel, "Range", pb.RangeRequest(key=b"\0", range_end=b"\0"))
    assert refusal(channel, name, request_) == said
    after = call(channel, "Range", pb.RangeRequest(key=b"\0", range_end=b"\0"))
    assert (after.header.revision, after.kvs) == (before.header.revision, before.kvs)


def test_the_largest_request_is_taken_and_what_is_beyond_messages_is_not_read(
    channel: grpc.Channel,
) -> None:
    assert call(channel, "Put", pb.PutRequest(key=b"large", value=bytes(1_572_000)))
    code, _ = refusal(channel, "Put", pb.PutRequest(key=b"k", value=bytes(2_500_000)))
    assert code == "RESOURCE_EXHAUSTED"


def test_a_clients_deadline_is_told_as_such(channel: grpc.Channel) -> None:
    shape = PATHS["Range"]
    method = channel.unary_unary(shape.path, shape.request.SerializeToString, None)
    with pytest.raises(grpc.RpcError) as refused:
        method(pb.RangeRequest(key=b"\0", range_end=b"\0"), timeout=0.0)
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_what_is_not_served_says_so(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED") as refused:
        channel.unary_unary("/etcdserverpb.KV/RangeStream")(b"", timeout=20)
    error: Any = refused.value
    assert "Method not found" in error.details()
