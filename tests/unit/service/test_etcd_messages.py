"""Messages of etcd's KV that are read and written natively, beside protobuf and the plain forms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._service.native import (
    Encoder,
    key_of_range,
    proposal_of_put,
    proposal_of_txn,
)
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import translate
from kvstore.api.handlers.etcd.kv import ENCODER
from kvstore.service.etcd import Header
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    EnableAnswer,
    KeyValue,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.checks import check, reads_only
from kvstore.state.mvcc.operations import encode_proposal
from kvstore.state.mvcc.requests import Proposal

ID = bytes(range(16))
HEADER = Header((1 << 64) - 1, 3, 0, 1 << 40)

keys = st.sampled_from([b"a", b"b", b"k" * 200, b""])
values = st.sampled_from([b"", b"v", b"w" * 300])
numbers = st.sampled_from([0, 0, 1, 2, 127, 128, -1, (1 << 63) - 1, -(1 << 63)])
rarely = st.sampled_from([False] * 9 + [True])


@st.composite
def puts(draw: st.DrawFn) -> pb.PutRequest:
    request = pb.PutRequest(key=draw(keys), value=draw(values), lease=draw(numbers))
    if draw(rarely):
        request.prev_kv = draw(st.booleans())
        request.ignore_lease = draw(st.booleans())
    return request


@st.composite
def ranges(draw: st.DrawFn) -> pb.RangeRequest:
    request = pb.RangeRequest(key=draw(keys))
    if draw(rarely):
        request.limit = draw(numbers)
        request.range_end = draw(values)
        request.serializable = draw(st.booleans())
    return request


@st.composite
def compares(draw: st.DrawFn) -> pb.Compare:
    compare = pb.Compare(
        key=draw(keys),
        result=draw(st.integers(0, 4)),  # type: ignore[arg-type]
        target=draw(st.integers(0, 5)),  # type: ignore[arg-type]
    )
    fields = ("version", "create_revision", "mod_revision", "lease", "value", "")
    field = draw(st.sampled_from(fields))
    if field:
        setattr(compare, field, draw(values if field == "value" else numbers))
    if draw(rarely):
        compare.range_end = draw(values)
    return compare


@st.composite
def operations(draw: st.DrawFn) -> pb.RequestOp:
    kind = draw(st.sampled_from(["put", "put", "range", "range", "delete", "other"]))
    if kind == "put":
        return pb.RequestOp(request_put=draw(puts()))
    if kind == "range":
        return pb.RequestOp(request_range=draw(ranges()))
    if kind == "delete":
        deletion = pb.DeleteRangeRequest(key=draw(keys), prev_kv=draw(rarely))
        return pb.RequestOp(request_delete_range=deletion)
    return draw(st.sampled_from([pb.RequestOp(), pb.RequestOp(request_txn=pb.TxnRequest())]))


@st.composite
def txns(draw: st.DrawFn) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=draw(st.lists(compares(), max_size=3)),
        success=draw(st.lists(operations(), max_size=3)),
        failure=draw(st.lists(operations(), max_size=3)),
    )


def is_as_the_plain_form(encoded: bytes | None, operation: Any) -> bool:
    """What isn't left is checked, and encoded, as the plain forms do it."""
    if encoded is None:
        return True
    check(operation)
    return encoded == encode_proposal(Proposal(ID, operation))


@settings(max_examples=200, deadline=None)
@given(puts())
def test_a_put_is_encoded_as_the_plain_forms_do_it(request: pb.PutRequest) -> None:
    encoded = proposal_of_put(request.SerializeToString(), ID)
    assert is_as_the_plain_form(encoded, translate.put_of(request))
    is_usual = bool(request.key) and not request.prev_kv and not request.ignore_lease
    assert (encoded is not None) is is_usual


@settings(max_examples=300, deadline=None)
@given(txns())
def test_a_txn_is_encoded_as_the_plain_forms_do_it(request: pb.TxnRequest) -> None:
    encoded = proposal_of_txn(request.SerializeToString(), ID)
    if encoded is not None:
        operation = translate.txn_of(request)
        assert is_as_the_plain_form(encoded, operation)
        assert not reads_only(operation)


def test_what_clients_mostly_send_is_not_left() -> None:
    request = pb.TxnRequest(
        compare=[
            pb.Compare(key=b"k", target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=7),
            pb.Compare(key=b"k", target=pb.Compare.VALUE, value=b"v"),
            pb.Compare(key=b"new", target=pb.Compare.CREATE),
        ],
        success=[
            pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"v", lease=-5)),
            pb.RequestOp(request_range=pb.RangeRequest(key=b"k")),
        ],
        failure=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"j"))],
    )
    encoded = proposal_of_txn(request.SerializeToString(), ID)
    assert encoded == encode_proposal(Proposal(ID, translate.txn_of(request)))
    assert key_of_range(pb.RangeRequest(key=b"k").SerializeToString()) == b"k"


READS = pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))])
TWICE = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k"))] * 2)
MANY = pb.TxnRequest(
    compare=[pb.Compare(key=b"k")] * 129,
    success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k"))],
)


@pytest.mark.parametrize("request_", [pb.TxnRequest(), READS, TWICE, MANY])
def test_a_txn_that_reads_or_may_be_refused_is_left(request_: pb.TxnRequest) -> None:
    assert proposal_of_txn(request_.SerializeToString(), ID) is None


PUT = pb.PutRequest(key=b"k", value=b"v").SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        PUT + b"\xff",
        PUT[:-1],
        PUT + PUT,  # a field twice: the last one counts
        PUT[3:] + PUT[:3],  # in another order
        PUT + b"\x78\x01",  # a field that nobody knows
        b"\x08\x01" + PUT,  # another type than the field's
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01k",  # longer than anything
        b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # no number
    ],
)
def test_bytes_that_need_a_second_look_are_left(message: bytes) -> None:
    assert proposal_of_put(message, ID) is None
    assert proposal_of_txn(message, ID) is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_protobuf_refuses_is_never_taken(data: st.DataObject) -> None:
    message = bytearray(
        data.draw(puts().map(lambda one: one.SerializeToString()))
        or data.draw(txns()).SerializeToString()
        or PUT
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at] = data.draw(st.integers(0, 255))
    changed = bytes(message)
    encoded = proposal_of_put(changed, ID)
    if encoded is not None:
        assert is_as_the_plain_form(encoded, translate.put_of(pb.PutRequest.FromString(changed)))
    encoded = proposal_of_txn(changed, ID)
    if encoded is not None:
        assert is_as_the_plain_form(encoded, translate.txn_of(pb.TxnRequest.FromString(changed)))
    key = key_of_range(changed)
    if key is not None:
        assert pb.RangeRequest.FromString(changed) == pb.RangeRequest(key=key)


@pytest.mark.parametrize(
    "request_",
    [
        pb.RangeRequest(),
        pb.RangeRequest(key=b"k", serializable=True),
        pb.RangeRequest(key=b"k", range_end=b"l"),
        pb.RangeRequest(key=b"k", limit=1),
    ],
)
def test_a_range_that_says_more_than_a_key_is_left(request_: pb.RangeRequest) -> None:
    assert key_of_range(request_.SerializeToString()) is None


def test_an_id_has_16_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        proposal_of_put(PUT, b"short")


revisions = st.sampled_from([0, 1, 127, 128, 1 << 55])
key_values = st.builds(
    KeyValue, st.sampled_from([b"", b"k"]), revisions, revisions, revisions, values, numbers
)
some = st.lists(key_values, max_size=3).map(tuple)
range_answers = st.builds(RangeAnswer, revisions, some, st.booleans(), revisions)
put_answers = st.builds(PutAnswer, revisions, st.none() | key_values)
delete_answers = st.builds(DeleteRangeAnswer, revisions, revisions, some)
leaves = range_answers | put_answers | delete_answers


def txn_answers(nested: st.SearchStrategy[Any]) -> st.SearchStrategy[TxnAnswer]:
    return st.builds(TxnAnswer, revisions, st.booleans(), st.lists(nested, max_size=3).map(tuple))


answers = leaves | txn_answers(leaves | txn_answers(leaves))


@settings(max_examples=300, deadline=None)
@given(answers)
def test_answers_are_encoded_as_protobuf_does_it(answer: Any) -> None:
    plain: dict[type, Any] = {
        RangeAnswer: translate.range_response,
        PutAnswer: translate.put_response,
        DeleteRangeAnswer: translate.delete_range_response,
        TxnAnswer: translate.txn_response,
    }
    header = translate.header_message(HEADER, answer.revision)
    expected = plain[type(answer)](answer, header).SerializeToString(deterministic=True)
    assert ENCODER.response(answer, HEADER.cluster_id, HEADER.member_id, HEADER.raft_term) == (
        expected
    )


def test_answers_of_other_types_are_left() -> None:
    other: Any = EnableAnswer(1)
    assert ENCODER.response(other, 1, 1, 1) is None
    assert ENCODER.response(TxnAnswer(1, True, (other,)), 1, 1, 1) is None
    assert Encoder(int, int, int, int).response(PutAnswer(1), 1, 1, 1) is None
