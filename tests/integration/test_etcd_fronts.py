"""etcd's API over both fronts, one of which takes most calls in batches: equal answers to the same
calls, whatever is asked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import SERVICES
from tests.integration.process import FRONTS, Kvd

PATHS = {shape.name: shape for methods in SERVICES.values() for shape in methods.values()}
CALLS = 400
LEASES = (1, -7)
KEYS = (b"a", b"b", b"ab", b"k" * 300, b"\xff", b"")
ENDS = (b"", b"", b"", b"b", b"\0", b"a")
VALUES = (b"", b"1", b"2", b"v" * 2000)


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[grpc.Channel]]:
    with ExitStack() as stack:
        found = []
        for front in FRONTS:
            data: Path = tmp_path_factory.mktemp(front) / "data"
            kvd = stack.enter_context(Kvd(data, "--history_s=0", front=front))
            found.append(stack.enter_context(kvd.wait_serving().channel()))
        yield found


class Drawing:
    """Requests, most of them of the usual shapes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def key(self) -> bytes:
        return self.random.choice(KEYS)

    def rarely(self) -> bool:
        return self.random.random() < 0.1

    def number(self) -> int:
        return self.random.choice((0, 0, 1, 2, 30, -1, 1 << 40))

    def range(self) -> pb.RangeRequest:
        request = pb.RangeRequest(key=self.key(), serializable=self.rarely())
        if self.rarely():
            request.range_end = self.random.choice(ENDS)
            request.limit = self.number()
        if self.rarely():
            request.revision = self.number()
            request.keys_only, request.count_only = self.rarely(), self.rarely()
        if self.rarely():
            request.min_mod_revision = self.number()
            request.sort_order, request.sort_target = 1, self.random.choice((0, 3, 9))  # type: ignore[assignment]
        return request

    def put(self) -> pb.PutRequest:
        request = pb.PutRequest(key=self.key(), value=self.random.choice(VALUES))
        if self.rarely():
            request.lease = self.random.choice((*LEASES, 99))
        if self.rarely():
            request.prev_kv = True
            request.ignore_value, request.ignore_lease = self.rarely(), self.rarely()
        return request

    def compare(self) -> pb.Compare:
        compare = pb.Compare(
            key=self.key(), result=self.random.randrange(4), target=self.random.randrange(5)
        )  # type: ignore[arg-type]
        field = self.random.choice(("version", "create_revision", "mod_revision", "lease"))
        if self.random.random() < 0.3:
            compare.value = self.random.choice(VALUES)
        else:
            setattr(compare, field, self.number())
        if self.rarely():
            compare.range_end = self.random.choice(ENDS)
        return compare

    def operation(self, depth: int) -> pb.RequestOp:
        kind = self.random.random()
        if kind < 0.4:
            return pb.RequestOp(request_put=self.put())
        if kind < 0.8:
            return pb.RequestOp(request_range=self.range())
        if kind < 0.95 or depth:
            end = self.random.choice(ENDS)
            return pb.RequestOp(
                request_delete_range=pb.DeleteRangeRequest(
                    key=self.key(), range_end=end, prev_kv=self.rarely()
                )
            )
        if kind < 0.97:
            return pb.RequestOp()
        return pb.RequestOp(request_txn=self.txn(depth + 1))

    def txn(self, depth: int = 0) -> pb.TxnRequest:
        some = self.random.randrange
        return pb.TxnRequest(
            compare=[self.compare() for _ in range(some(3))],
            success=[self.operation(depth) for _ in range(some(3))],
            failure=[self.operation(depth) for _ in range(some(3))],
        )

    def renewal(self) -> pb.LeaseKeepAliveRequest:
        return pb.LeaseKeepAliveRequest(ID=self.random.choice((*LEASES, 99)))

    def call(self) -> tuple[str, bytes]:
        name, draw = self.random.choice(
            (
                ("Range", self.range),
                ("Put", self.put),
                ("Txn", self.txn),
                ("LeaseKeepAlive", self.renewal),
            )
        )
        data = draw().SerializeToString()
        if self.rarely() and self.rarely():
            data += b"\xff"
        return name, data


def outcome(channel: grpc.Channel, name: str, data: bytes, metadata: Any = ()) -> Any:
    """Code and words, or the response but for who gave it."""
    shape = PATHS[name]
    try:
        if shape.streams_in:
            call = channel.stream_stream(shape.path)(iter([data]), timeout=30, metadata=metadata)
            (answer,) = call
        else:
            answer = channel.unary_unary(shape.path)(data, timeout=30, metadata=metadata)
    except grpc.RpcError as error:
        ended: Any = error
        return ended.code(), ended.details()
    response = shape.response.FromString(answer)
    assert response.header.cluster_id
    assert response.header.member_id
    assert response.header.raft_term
    for field in ("cluster_id", "member_id", "raft_term"):
        response.header.ClearField(field)
    return response


@pytest.mark.parametrize("seed", range(3))
def test_the_same_calls_get_the_same_answers(channels: list[grpc.Channel], seed: int) -> None:
    for lease in LEASES:
        for channel in channels:
            outcome(channel, "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease).SerializeToString())
            grant = pb.LeaseGrantRequest(ID=lease, TTL=600)
            assert lease == outcome(channel, "LeaseGrant", grant.SerializeToString()).ID
    drawing = Drawing(seed)
    for _ in range(CALLS):
        name, data = drawing.call()
        outcomes = [outcome(channel, name, data) for channel in channels]
        assert all(each == outcomes[0] for each in outcomes), (name, data)


MARKED = (("hasleader", "true"), ("client-api-version", "3.5.0"), ("x-bin", b"\0\xff"))


@pytest.mark.parametrize(
    "metadata", [MARKED, (("client-api-version", "\xff"),), (("token", "nobody's"),)]
)
def test_metadata_counts_as_it_does_for_each_call(
    channels: list[grpc.Channel], metadata: Any
) -> None:
    for name, request in (
        ("Put", pb.PutRequest(key=b"marked", value=b"v")),
        ("Range", pb.RangeRequest(key=b"marked")),
        ("Txn", pb.TxnRequest()),
        ("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=12345)),
    ):
        data = request.SerializeToString()
        outcomes = [outcome(channel, name, data, metadata) for channel in channels]
        assert all(each == outcomes[0] for each in outcomes), name


def test_many_calls_at_one_time_are_each_answered_with_its_own(
    channels: list[grpc.Channel],
) -> None:
    for channel in channels:
        put, read = PATHS["Put"], PATHS["Range"]
        puts = [
            channel.unary_unary(put.path).future(
                put.request(key=b"many-%d" % number, value=b"%d" % number).SerializeToString(),
                timeout=60,
            )
            for number in range(300)
        ]
        revisions = {put.response.FromString(each.result()).header.revision for each in puts}
        assert len(revisions) == 300
        reads = [
            channel.unary_unary(read.path).future(
                read.request(key=b"many-%d" % number).SerializeToString(), timeout=60
            )
            for number in range(300)
        ]
        answers = [read.response.FromString(each.result()) for each in reads]
        assert [answer.kvs[0].value for answer in answers] == [b"%d" % n for n in range(300)]
        assert {answer.kvs[0].mod_revision for answer in answers} == revisions
