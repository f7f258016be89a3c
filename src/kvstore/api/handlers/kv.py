"""``kvstore.v1.KV`` over a :class:`kvstore.service.operations.Service`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc.aio
import structlog

from kvstore.api.handlers.failures import Failure, failure_of
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.errors import Error, InternalError, NotLeaderError
from kvstore.service.operations import Delete, Get, Operation, Put, Result, Service

# How long a call may take that says nothing about it.
DEFAULT_DEADLINE_S = 10.0

log = structlog.get_logger("kvstore.api")

Context = grpc.aio.ServicerContext[Any, Any]

# (method, request, leader, seconds left) -> the leader's response, a Failure to end with, or None.
Forward = Callable[[str, Any, int, float], Awaitable[Any]]


class KVHandlers(kv_pb2_grpc.KVServicer):
    """Each call is one operation; the replica gathers what arrives in a turn into a batch."""

    def __init__(self, service: Service, forward: Forward | None = None) -> None:
        """``forward`` passes on what only the leader can answer; without it the leader is named."""
        self._submit = service.submit
        self._forward = forward
        self._loop = asyncio.get_running_loop()

    async def Put(self, request: kv_pb2.PutRequest, context: Context) -> kv_pb2.PutResponse:
        operation = Put(request.key, request.value, request.request_id.encode())
        result = await self._result(operation, context)
        if isinstance(result, bool):
            return kv_pb2.PutResponse(overwritten=result)
        response: kv_pb2.PutResponse = await self._elsewhere(operation, request, result, context)
        return response

    async def Get(self, request: kv_pb2.GetRequest, context: Context) -> kv_pb2.GetResponse:
        operation = Get(request.key)
        result = await self._result(operation, context)
        if result is None:
            return kv_pb2.GetResponse(found=False)
        if isinstance(result, bytes):
            return kv_pb2.GetResponse(found=True, value=result)
        response: kv_pb2.GetResponse = await self._elsewhere(operation, request, result, context)
        return response

    async def Delete(
        self, request: kv_pb2.DeleteRequest, context: Context
    ) -> kv_pb2.DeleteResponse:
        operation = Delete(request.key, request.request_id.encode())
        result = await self._result(operation, context)
        if isinstance(result, bool):
            return kv_pb2.DeleteResponse(deleted=result)
        response: kv_pb2.DeleteResponse = await self._elsewhere(operation, request, result, context)
        return response

    def _result(self, operation: Operation, context: Context) -> asyncio.Future[Result]:
        """Submit ``operation``; the future has its result, errors included, and never raises."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(results: Sequence[Result]) -> None:
            # A caller that went away has cancelled the future; a write is done all the same.
            if not future.done():
                future.set_result(results[0])

        try:
            self._submit((operation,), time.monotonic() + _time_left(context), done)
        except Exception as error:
            log.exception("the service broke its promise not to raise")
            done((InternalError(f"{type(error).__name__}: {error}"),))
        return future

    async def _elsewhere(
        self, operation: Operation, request: Any, result: Result, context: Context
    ) -> Any:
        """The leader's response to a call that this member can't answer; else the call ends."""
        if isinstance(result, NotLeaderError) and self._forward is not None:
            method = type(operation).__name__
            answer = await self._forward(method, request, result.leader, _time_left(context))
            if isinstance(answer, Failure):
                await context.abort(answer.code, answer.details, answer.trailer)
            if answer is not None:
                return answer
        return await _fail(context, operation, result)


def _time_left(context: Context) -> float:
    left = context.time_remaining()
    return DEFAULT_DEADLINE_S if left is None else left


async def _fail(context: Context, operation: Operation, result: Result) -> NoReturn:
    """End the RPC with the status of an error, or of a result that can't be."""
    if not isinstance(result, Error):
        result = InternalError(f"{type(operation).__name__} had the result {result!r}")
    if isinstance(result, InternalError):
        log.error("call failed", operation=type(operation).__name__, error=str(result))
    failure = failure_of(result)
    await context.abort(failure.code, failure.details, failure.trailer)
