"""``etcdserverpb.KV``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvstore._service.native import Encoder, KeyValues
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import translate
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.metadata import number_of
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    GatheredAnswer,
    PutAnswer,
    RangeAnswer,
    RepeatedAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.checks import reads_only
from kvstore.state.mvcc.requests import Operation

__all__ = ["KVHandlers"]

ENCODER: Final = Encoder(RangeAnswer, PutAnswer, DeleteRangeAnswer, TxnAnswer)


class KVHandlers:
    """Reads from the state of this member, writes by way of the log."""

    def __init__(self, asking: Asking, rights: Rights) -> None:
        self._asking = asking
        self._rights = rights

    async def Range(self, request: pb.RangeRequest, context: Context) -> bytes:
        operation = translate.range_of(request)
        response: bytes = await self._asking.read(
            operation, request.serializable, context, self.range_response, make=KeyValues
        )
        return response

    async def Put(self, request: pb.PutRequest, context: Context) -> bytes:
        return self.put_response(await self._numbered(translate.put_of(request), context))

    async def DeleteRange(
        self, request: pb.DeleteRangeRequest, context: Context
    ) -> pb.DeleteRangeResponse:
        answer = await self._numbered(translate.delete_range_of(request), context)
        return translate.delete_range_response(answer, self._asking.header(answer.revision))

    async def Txn(self, request: pb.TxnRequest, context: Context) -> bytes:
        operation = translate.txn_of(request)
        if reads_only(operation):
            serializable = translate.is_serializable(request)
            response: bytes = await self._asking.read(
                operation, serializable, context, self.txn_response
            )
            return response
        return self.txn_response(await self._numbered(operation, context))

    async def Compact(
        self, request: pb.CompactionRequest, context: Context
    ) -> pb.CompactionResponse:
        if request.physical:
            self._rights.check_upkeep(context)
        answer = await self._asking.propose(translate.compact_of(request), context)
        if request.physical:
            await self._asking.reclaim()
        return pb.CompactionResponse(header=self._asking.header(answer.revision))

    async def _numbered(self, operation: Operation, context: Context) -> Any:
        """Done once, however often a session's client sends it."""
        request = number_of(context.invocation_metadata())
        return await self._asking.propose(operation, context, request=request)

    # Encoded where the answer was read: one of many keys isn't for the event loop. Any thread.

    def range_response(self, answer: RangeAnswer | GatheredAnswer | TxnAnswer) -> bytes:
        """As it goes out, with a header of this moment."""
        if isinstance(answer, GatheredAnswer):
            revision, keys, count = answer
            header = self._asking.moment()
            assert isinstance(keys, KeyValues)
            return keys.response(
                revision, count, header.cluster_id, header.member_id, header.raft_term
            )
        assert isinstance(answer, RangeAnswer)
        return self._encoded(answer, translate.range_response)

    def txn_response(self, answer: RangeAnswer | TxnAnswer | RepeatedAnswer) -> bytes:
        """The same."""
        assert not isinstance(answer, RangeAnswer)
        return self._encoded(answer, translate.txn_response)

    def put_response(self, answer: PutAnswer | RepeatedAnswer) -> bytes:
        """The same."""
        return self._encoded(answer, translate.put_response)

    def _encoded(self, answer: Any, message_of: Callable[[Any, pb.ResponseHeader], Any]) -> bytes:
        """Natively where its type is known there, else by ``message_of``."""
        header = self._asking.moment()
        encoded = ENCODER.response(answer, header.cluster_id, header.member_id, header.raft_term)
        if encoded is None:
            message = message_of(answer, translate.header_message(header, answer.revision))
            encoded = message.SerializeToString()
        return encoded
