"""Between etcd's messages and the model's tuples, both ways.

What is wrong with a request is for ``kvstore.state.mvcc.checks`` to say; here only that is refused
for which the tuples have no form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.header import Header
from kvstore.state.mvcc.answers import (
    Answer,
    DeleteRangeAnswer,
    Event,
    KeyValue,
    PutAnswer,
    RangeAnswer,
    RepeatedAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.requests import (
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    Put,
    Range,
    Txn,
    TxnOperation,
)

__all__ = [
    "compact_of",
    "delete_range_of",
    "delete_range_response",
    "event_message",
    "header_message",
    "is_serializable",
    "key_value_message",
    "put_of",
    "put_response",
    "range_of",
    "range_response",
    "txn_of",
    "txn_response",
]

_NESTED: Final = pb.ResponseHeader()
"""Of a transaction within one: etcd's has a header with nothing in it."""

# The operand's member for each target; of a target that nobody knows it is a number that counts
# for nothing, since the check of the operation refuses it.
_OPERANDS: Final = {
    CompareTarget.VERSION: "version",
    CompareTarget.CREATE: "create_revision",
    CompareTarget.MOD: "mod_revision",
    CompareTarget.VALUE: "value",
    CompareTarget.LEASE: "lease",
}


# --- requests --------------------------------------------------------------------------------


def range_of(request: pb.RangeRequest) -> Range:
    """``serializable`` is no part of it: it says when it is read, and not what."""
    return Range(
        request.key,
        request.range_end,
        request.limit,
        request.revision,
        request.sort_order,
        request.sort_target,
        request.keys_only,
        request.count_only,
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    )


def put_of(request: pb.PutRequest) -> Put:
    return Put(
        request.key,
        request.value,
        request.lease,
        request.prev_kv,
        request.ignore_value,
        request.ignore_lease,
    )


def delete_range_of(request: pb.DeleteRangeRequest) -> DeleteRange:
    return DeleteRange(request.key, request.range_end, request.prev_kv)


def compact_of(request: pb.CompactionRequest) -> Compact:
    """``physical`` is no part of it: it is each member's own affair."""
    return Compact(request.revision)


def txn_of(request: pb.TxnRequest) -> Txn:
    """Raises EtcdError for an operation of no kind, as etcd does."""
    return Txn(
        tuple([_compare_of(compare) for compare in request.compare]),
        tuple([_operation_of(operation) for operation in request.success]),
        tuple([_operation_of(operation) for operation in request.failure]),
    )


def _compare_of(request: pb.Compare) -> Compare:
    # An operand of another target than the one that is said counts as none: 0, or empty.
    operand = getattr(request, _OPERANDS.get(request.target, "version"))  # type: ignore[call-overload]
    return Compare(request.key, request.target, request.result, operand, request.range_end)


def _operation_of(request: pb.RequestOp) -> TxnOperation:
    match request.WhichOneof("request"):
        case "request_range":
            return range_of(request.request_range)
        case "request_put":
            return put_of(request.request_put)
        case "request_delete_range":
            return delete_range_of(request.request_delete_range)
        case "request_txn":
            return txn_of(request.request_txn)
        case _:
            raise EtcdError(Reason.KEY_NOT_FOUND)


def is_serializable(request: pb.TxnRequest) -> bool:
    """Whether a transaction that only reads may be answered from what this member has: it has
    reads, and each says so. (etcd lets one without any be stale as well.)"""
    operations = [*request.success, *request.failure]
    return bool(operations) and all(each.request_range.serializable for each in operations)


# --- answers ---------------------------------------------------------------------------------


def header_message(header: Header, revision: int | None = None) -> pb.ResponseHeader:
    """``revision``: of the answer, where it isn't the header's own."""
    cluster_id, member_id, current, raft_term = header
    return pb.ResponseHeader(
        cluster_id=cluster_id,
        member_id=member_id,
        revision=current if revision is None else revision,
        raft_term=raft_term,
    )


def key_value_message(kv: KeyValue) -> pb.KeyValue:
    key, create_revision, mod_revision, version, value, lease = kv
    return pb.KeyValue(
        key=key,
        create_revision=create_revision,
        mod_revision=mod_revision,
        version=version,
        value=value,
        lease=lease,
    )


def event_message(event: Event) -> pb.Event:
    message = pb.Event(
        type=pb.Event.DELETE if event.is_delete else pb.Event.PUT, kv=key_value_message(event.kv)
    )
    if event.previous is not None:
        message.prev_kv.CopyFrom(key_value_message(event.previous))
    return message


def range_response(answer: RangeAnswer, header: pb.ResponseHeader) -> pb.RangeResponse:
    return pb.RangeResponse(
        header=header, kvs=_key_values(answer.kvs), more=answer.more, count=answer.count
    )


def put_response(answer: PutAnswer | RepeatedAnswer, header: pb.ResponseHeader) -> pb.PutResponse:
    if isinstance(answer, RepeatedAnswer):
        return pb.PutResponse(header=header, repeated_request=True)
    previous = answer.previous
    if previous is None:
        return pb.PutResponse(header=header)
    return pb.PutResponse(header=header, prev_kv=key_value_message(previous))


def delete_range_response(
    answer: DeleteRangeAnswer | RepeatedAnswer, header: pb.ResponseHeader
) -> pb.DeleteRangeResponse:
    if isinstance(answer, RepeatedAnswer):
        return pb.DeleteRangeResponse(header=header, deleted=answer.deleted, repeated_request=True)
    return pb.DeleteRangeResponse(
        header=header, deleted=answer.deleted, prev_kvs=_key_values(answer.previous)
    )


def txn_response(answer: TxnAnswer | RepeatedAnswer, header: pb.ResponseHeader) -> pb.TxnResponse:
    if isinstance(answer, RepeatedAnswer):
        return pb.TxnResponse(
            header=header,
            succeeded=answer.succeeded,
            repeated_request=True,
            deleted=answer.deleted,
        )
    return pb.TxnResponse(
        header=header,
        succeeded=answer.succeeded,
        responses=[_operation_response(each) for each in answer.answers],
    )


def _operation_response(answer: Answer | RangeAnswer) -> pb.ResponseOp:
    """Each has a header of its own, in which nothing but the revision stands."""
    match answer:
        case RangeAnswer():
            own = pb.ResponseHeader(revision=answer.revision)
            return pb.ResponseOp(response_range=range_response(answer, own))
        case PutAnswer():
            own = pb.ResponseHeader(revision=answer.revision)
            return pb.ResponseOp(response_put=put_response(answer, own))
        case DeleteRangeAnswer():
            own = pb.ResponseHeader(revision=answer.revision)
            return pb.ResponseOp(response_delete_range=delete_range_response(answer, own))
        case TxnAnswer():
            return pb.ResponseOp(response_txn=txn_response(answer, _NESTED))
        case _:
            raise AssertionError(f"{answer!r} is no answer within a transaction")


def _key_values(kvs: Iterable[KeyValue]) -> list[pb.KeyValue]:
    return [key_value_message(kv) for kv in kvs]
