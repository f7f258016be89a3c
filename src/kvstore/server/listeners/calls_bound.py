"""The bounds of calls at one time, for grpcio.

Its own counts those that stream as well, and each watch would hold a place for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from kvstore.server.listeners.bounds import CALLS_MAX, STREAMING_MAX

__all__ = ["CallsBound"]

REFUSAL = "too many calls at one time; try again"


class CallsBound(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses what is beyond the bounds of a process, of either sort."""

    def __init__(self, calls_max: int = CALLS_MAX, streaming_max: int = STREAMING_MAX) -> None:
        self._unary = _Bound(calls_max, grpc.StatusCode.RESOURCE_EXHAUSTED)
        # Who watches takes RESOURCE_EXHAUSTED for final (clientv3).
        self._streaming = _Bound(streaming_max, grpc.StatusCode.UNAVAILABLE)
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        method: str = details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = self._wrapped[method] = self._wrap(handler)
        return wrapped

    def _wrap(self, handler: Any) -> Any:
        codecs = handler.request_deserializer, handler.response_serializer
        unary, streaming = self._unary, self._streaming
        if handler.unary_unary is not None:
            bounded = unary.around(handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(bounded, *codecs)
        if handler.stream_unary is not None:
            bounded = streaming.around(handler.stream_unary)
            return grpc.stream_unary_rpc_method_handler(bounded, *codecs)
        if handler.unary_stream is not None:
            bounded = streaming.around_answers(handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(bounded, *codecs)
        bounded = streaming.around_answers(handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(bounded, *codecs)


class _Bound:
    """So many calls at one time; one more ends with ``code``."""

    def __init__(self, most: int, code: grpc.StatusCode) -> None:
        self._most = most
        self._code = code
        self._calls = 0

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def bounded(request: Any, context: Any) -> Any:
            await self._enter(context)
            try:
                return await method(request, context)
            finally:
                self._calls -= 1

        return bounded

    def around_answers(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Of a method that yields its answers, or writes them itself."""

        async def bounded(request: Any, context: Any) -> None:
            await self._enter(context)
            try:
                answers = method(request, context)
                if not hasattr(answers, "__aiter__"):
                    await answers
                    return
                async for answer in answers:
                    await context.write(answer)
            finally:
                self._calls -= 1

        return bounded

    async def _enter(self, context: Any) -> None:
        if self._calls >= self._most:
            await context.abort(self._code, REFUSAL)
        self._calls += 1
