"""Requests that are no messages: an answer, and no traceback.

The generated code parses inside gRPC, which logs what that raises, ten lines a time, and ends the
call with a status that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

__all__ = ["tolerant"]


def tolerant(server: grpc.aio.Server) -> grpc.aio.Server:
    """Something to register services of ``server`` with: malformed requests of theirs end with
    INVALID_ARGUMENT."""
    return cast("grpc.aio.Server", _Registrar(server))


class _Registrar:
    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._server.add_generic_rpc_handlers(tuple(_Handlers(one) for one in handlers))

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """What newer generated code calls as well; gRPC's own asyncio server does nothing here."""


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """One service's handlers; each method's is made once."""

    def __init__(self, handlers: Any) -> None:
        self._handlers = handlers
        self._made: dict[str, Any] = {}

    def service(self, details: Any) -> Any:
        method = details.method
        made = self._made.get(method)
        if made is None:
            handler = self._handlers.service(details)
            if handler is None:
                return None
            made = self._made[method] = _checked(handler)
        return made


class _Malformed:
    """In place of a request that can't be parsed."""


_MALFORMED = _Malformed()


def _checked(handler: Any) -> Any:
    """``handler``, which takes one request, for requests that may be malformed."""
    if handler.request_streaming or handler.request_deserializer is None:
        return handler
    parse: Callable[[bytes], Any] = handler.request_deserializer

    def deserialize(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _MALFORMED

    if handler.response_streaming:
        stream = handler.unary_stream

        async def streamed(request: Any, context: Any) -> None:
            if request is _MALFORMED:
                await _refuse(context)
            answer = stream(request, context)
            if not hasattr(answer, "__aiter__"):
                await answer  # writes its responses itself
                return
            async for response in answer:
                await context.write(response)

        return grpc.unary_stream_rpc_method_handler(
            streamed, deserialize, handler.response_serializer
        )
    unary = handler.unary_unary

    async def answered(request: Any, context: Any) -> Any:
        if request is _MALFORMED:
            await _refuse(context)
        return await unary(request, context)

    return grpc.unary_unary_rpc_method_handler(answered, deserialize, handler.response_serializer)


async def _refuse(context: Any) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not a protobuf message")
    raise AssertionError("abort raises")
