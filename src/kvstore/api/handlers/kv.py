"""``kvstore.v1.KV`` over a :class:`kvstore.service.operations.Service`."""

from __future__ import annotations

from kvstore.api.handlers.calls import Calls, Context, Forward
from kvstore.api.handlers.guard import Guard
from kvstore.api.handlers.metadata import age_of
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.service.operations import Delete, Get, Put, Service

__all__ = ["KVHandlers"]


class KVHandlers(kv_pb2_grpc.KVServicer):
    """Each call is one operation; the replica gathers what arrives in a turn into a batch."""

    def __init__(
        self, service: Service, forward: Forward | None = None, guard: Guard | None = None
    ) -> None:
        """``forward`` passes on what only the leader can answer; without it the leader is named.
        ``guard``: who may do what; without it everybody everything."""
        self._calls = Calls(service, forward, guard)

    async def Put(self, request: kv_pb2.PutRequest, context: Context) -> kv_pb2.PutResponse:
        age_s = age_of(context.invocation_metadata())
        operation = Put(request.key, request.value, request.request_id.encode(), age_s)
        result = await self._calls.result(operation, context)
        if isinstance(result, bool):
            return kv_pb2.PutResponse(overwritten=result)
        response: kv_pb2.PutResponse = await self._calls.elsewhere("Put", request, result, context)
        return response

    async def Get(self, request: kv_pb2.GetRequest, context: Context) -> kv_pb2.GetResponse:
        result = await self._calls.result(Get(request.key), context)
        if result is None:
            return kv_pb2.GetResponse(found=False)
        if isinstance(result, bytes):
            return kv_pb2.GetResponse(found=True, value=result)
        response: kv_pb2.GetResponse = await self._calls.elsewhere("Get", request, result, context)
        return response

    async def Delete(
        self, request: kv_pb2.DeleteRequest, context: Context
    ) -> kv_pb2.DeleteResponse:
        age_s = age_of(context.invocation_metadata())
        operation = Delete(request.key, request.request_id.encode(), age_s)
        result = await self._calls.result(operation, context)
        if isinstance(result, bool):
            return kv_pb2.DeleteResponse(deleted=result)
        response: kv_pb2.DeleteResponse = await self._calls.elsewhere(
            "Delete", request, result, context
        )
        return response
