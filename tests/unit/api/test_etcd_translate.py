"""etcd's messages and the model's tuples say the same."""

from __future__ import annotations

import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import translate
from kvstore.etcd_errors import EtcdError
from kvstore.service.etcd import Header
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    Event,
    KeyValue,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.requests import Compact, Compare, DeleteRange, Put, Range, Txn

KV = KeyValue(b"k", 2, 5, 3, b"v", -7)
KV_MESSAGE = pb.KeyValue(
    key=b"k", create_revision=2, mod_revision=5, version=3, value=b"v", lease=-7
)
HEADER = pb.ResponseHeader(revision=9)


def test_requests_become_operations() -> None:
    assert translate.range_of(
        pb.RangeRequest(
            key=b"a",
            range_end=b"b",
            limit=3,
            revision=4,
            sort_order=pb.RangeRequest.DESCEND,
            sort_target=pb.RangeRequest.MOD,
            serializable=True,
            keys_only=True,
            count_only=True,
            min_mod_revision=5,
            max_mod_revision=6,
            min_create_revision=7,
            max_create_revision=8,
        )
    ) == Range(b"a", b"b", 3, 4, 2, 3, True, True, 5, 6, 7, 8)
    assert translate.put_of(
        pb.PutRequest(
            key=b"a", value=b"b", lease=-1, prev_kv=True, ignore_value=True, ignore_lease=True
        )
    ) == Put(b"a", b"b", -1, True, True, True)
    request = pb.DeleteRangeRequest(key=b"a", range_end=b"\0", prev_kv=True)
    assert translate.delete_range_of(request) == DeleteRange(b"a", b"\0", True)
    assert translate.compact_of(pb.CompactionRequest(revision=8, physical=True)) == Compact(8)


def test_a_transaction_becomes_one_with_those_in_it() -> None:
    inner = pb.TxnRequest(failure=[pb.RequestOp(request_delete_range={"key": b"d"})])
    request = pb.TxnRequest(
        compare=[
            pb.Compare(key=b"a", target=pb.Compare.VALUE, result=pb.Compare.LESS, value=b"x"),
            pb.Compare(key=b"b", range_end=b"c", target=pb.Compare.LEASE, lease=9),
        ],
        success=[
            pb.RequestOp(request_put=pb.PutRequest(key=b"p")),
            pb.RequestOp(request_txn=inner),
        ],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=b"r"))],
    )
    assert translate.txn_of(request) == Txn(
        (Compare(b"a", 3, 2, b"x"), Compare(b"b", 4, 0, 9, b"c")),
        (Put(b"p"), Txn((), (), (DeleteRange(b"d"),))),
        (Range(b"r"),),
    )


@pytest.mark.parametrize(
    ("compare", "operand"),
    [
        (pb.Compare(target=pb.Compare.MOD, version=5), 0),
        (pb.Compare(target=pb.Compare.VALUE, version=5), b""),
        (pb.Compare(target=99, value=b"x"), 0),  # type: ignore[arg-type]
    ],
)
def test_an_operand_of_another_kind_counts_as_none(
    compare: pb.Compare, operand: int | bytes
) -> None:
    assert translate.txn_of(pb.TxnRequest(compare=[compare])).compare[0].operand == operand


def test_an_operation_of_no_kind_is_refused() -> None:
    with pytest.raises(EtcdError, match="etcdserver: key not found"):
        translate.txn_of(pb.TxnRequest(success=[pb.RequestOp()]))


def test_a_transaction_is_serializable_when_all_its_reads_are() -> None:
    stale = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", serializable=True))
    fresh = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
    assert translate.is_serializable(pb.TxnRequest(success=[stale], failure=[stale]))
    assert not translate.is_serializable(pb.TxnRequest(success=[stale], failure=[fresh]))
    assert not translate.is_serializable(pb.TxnRequest())


def test_answers_become_responses() -> None:
    assert translate.header_message(Header(1, 2, 3, 4)) == pb.ResponseHeader(
        cluster_id=1, member_id=2, revision=3, raft_term=4
    )
    assert translate.header_message(Header(1, 2, 3, 4), 8).revision == 8
    assert translate.range_response(RangeAnswer(9, (KV,), True, 5), HEADER) == pb.RangeResponse(
        header=HEADER, kvs=[KV_MESSAGE], more=True, count=5
    )
    assert not translate.put_response(PutAnswer(9), HEADER).HasField("prev_kv")
    assert translate.put_response(PutAnswer(9, KV), HEADER).prev_kv == KV_MESSAGE
    assert translate.delete_range_response(
        DeleteRangeAnswer(9, 1, (KV,)), HEADER
    ) == pb.DeleteRangeResponse(header=HEADER, deleted=1, prev_kvs=[KV_MESSAGE])


def test_answers_in_a_transaction_have_headers_of_their_own() -> None:
    answer = TxnAnswer(
        9,
        True,
        (
            PutAnswer(9),
            RangeAnswer(8, (), False, 0),
            DeleteRangeAnswer(7, 0),
            TxnAnswer(9, False, (PutAnswer(9),)),
        ),
    )
    response = translate.txn_response(answer, HEADER)
    put, read, deleted, nested = response.responses
    assert response.succeeded
    assert put.response_put.header == pb.ResponseHeader(revision=9)
    assert read.response_range.header.revision == 8
    assert deleted.response_delete_range.header.revision == 7
    # etcd's has a header in which nothing stands.
    assert nested.response_txn.HasField("header")
    assert nested.response_txn.header == pb.ResponseHeader()
    assert nested.response_txn.responses[0].response_put.header.revision == 9


def test_events_become_messages() -> None:
    put = translate.event_message(Event(False, KV, 4, KV))
    assert put == pb.Event(type=pb.Event.PUT, kv=KV_MESSAGE, prev_kv=KV_MESSAGE)
    gone = KeyValue(b"k", 0, 6, 0, b"", 0)
    delete = translate.event_message(Event(True, gone, 5))
    assert delete == pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=b"k", mod_revision=6))
