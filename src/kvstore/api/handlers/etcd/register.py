"""Puts services of etcd's API on a listener: on the native front and on grpcio alike.

A service's handlers are an object with a coroutine a method, called as the method is. A unary one
takes the request and the context and returns the response. One that streams answers writes them
itself, by ``context.write`` (a response, or its bytes), and takes an iterator of requests where
those stream, too; when it returns the stream ends with OK. Each raises EtcdError, or another error
of kvstore's, and needs to catch nothing: whatever it raises becomes a status that clients know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from kvstore.api.etcd.methods import SERVICES, MethodShape
from kvstore.api.handlers.etcd.entrance import Entrance
from kvstore.api.handlers.etcd.refusals import refusal_of
from kvstore.api.handlers.failures import Failure
from kvstore.errors import Error, InternalError, InvalidArgumentError

__all__ = [
    "WAITING",
    "Context",
    "parsed",
    "refusal_told",
    "register",
    "register_refusals",
    "serialized",
    "streaming_behaviour",
    "unary_behaviour",
]

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Any]]

WAITING: Final = frozenset(("/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"))
"""Unary methods that wait for other callers, for as long as these like. They are served as streams
of one answer, which is the same on the wire: so they have their places among the calls that last,
and can't take those of the calls that they wait for."""

log = structlog.get_logger("kvstore.etcd")


def register(
    server: Any,
    service: str,
    handlers: object,
    entrance: Entrance,
    reasons: Mapping[str, str] | None = None,
) -> None:
    """Have ``server`` answer the methods of ``service`` (``etcdserverpb.KV``) by ``handlers``.

    Those that ``handlers`` lacks end with UNIMPLEMENTED, and the words in ``reasons``, by name.
    """
    reasons = reasons or {}
    methods = {
        name: _handler(shape, getattr(handlers, name, None), entrance, reasons.get(name, ""))
        for name, shape in SERVICES[service].items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))


def register_refusals(server: Any, reason: str) -> None:
    """Have ``server`` end every call of etcd's API with UNIMPLEMENTED, and ``reason``."""
    for service, shapes in SERVICES.items():
        methods = {name: _refusal(shape, reason) for name, shape in shapes.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))


def _refusal(shape: MethodShape, reason: str) -> Any:
    refuse = _unimplemented(shape, reason)
    if not shape.streams_out:
        return grpc.unary_unary_rpc_method_handler(refuse)
    if shape.streams_in:
        return grpc.stream_stream_rpc_method_handler(refuse)
    return grpc.unary_stream_rpc_method_handler(refuse)


def _handler(shape: MethodShape, method: Method | None, entrance: Entrance, reason: str) -> Any:
    # Requests are parsed here: what gRPC's own parsing raises ends a call with words of its own.
    if not shape.streams_out and shape.path not in WAITING:
        behaviour = unary_behaviour(shape, method or _unimplemented(shape, reason), entrance)
        return grpc.unary_unary_rpc_method_handler(behaviour, None, serialized)
    method = method or _unimplemented(shape, reason)
    if not shape.streams_out:
        method = _written(method)
    behaviour = streaming_behaviour(shape, method, entrance)
    if shape.streams_in:
        return grpc.stream_stream_rpc_method_handler(behaviour, None, serialized)
    return grpc.unary_stream_rpc_method_handler(behaviour, None, serialized)


def unary_behaviour(shape: MethodShape, method: Method, entrance: Entrance) -> Callable[..., Any]:
    """What gRPC calls with a request's bytes and the context, of a method that doesn't stream."""

    async def answer(data: bytes, context: Context) -> Any:
        try:
            request = parsed(shape, data)
            entrance.admit(shape, context.invocation_metadata(), request)
            if entrance.judge is not None:
                await entrance.judge(shape, context)
            return await method(request, context)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - it becomes the call's status
            await _refuse(shape, error, context)

    return answer


def streaming_behaviour(
    shape: MethodShape, method: Method, entrance: Entrance
) -> Callable[..., Any]:
    """The same of one that streams, with its requests' bytes one by one if these do."""

    async def answer(asked: Any, context: Context) -> None:
        try:
            request = None if shape.streams_in else parsed(shape, asked)
            metadata = context.invocation_metadata()
            entrance.admit(shape, metadata, request)
            if entrance.judge is not None:
                await entrance.judge(shape, context)
            async with entrance.stream(metadata):
                await method(_all_parsed(shape, asked) if request is None else request, context)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - it becomes the call's status
            await _refuse(shape, error, context)

    return answer


def _written(method: Method) -> Method:
    async def write(request: Any, context: Context) -> None:
        await context.write(await method(request, context))

    return write


def _unimplemented(shape: MethodShape, reason: str) -> Method:
    details = f"{shape.path} isn't served here" + (f": {reason}" if reason else "")

    async def refuse(request: Any, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, details)
        raise AssertionError("abort raises")

    return refuse


def parsed(shape: MethodShape, data: bytes) -> Any:
    """The request. Raises InvalidArgumentError."""
    try:
        return shape.request.FromString(data)
    except DecodeError:
        raise InvalidArgumentError("the request is not a protobuf message") from None


async def _all_parsed(shape: MethodShape, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for data in requests:
        yield parsed(shape, data)


def serialized(response: Any) -> bytes:
    """What is written many times over may be encoded already."""
    data: bytes = response if isinstance(response, bytes) else response.SerializeToString()
    return data


async def _refuse(shape: MethodShape, error: Exception, context: Context) -> NoReturn:
    failure = refusal_told(shape, error)
    await context.abort(failure.code, failure.details, failure.trailer)
    raise AssertionError("abort raises")


def refusal_told(shape: MethodShape, error: Exception) -> Failure:
    """What a call ends with, whatever was raised; of defects the log is told."""
    if not isinstance(error, Error):
        log.error("a handler raised", method=shape.path, exc_info=error)
        error = InternalError(f"{type(error).__name__}: {error}")
    elif isinstance(error, InternalError):
        log.error("call failed", method=shape.path, error=str(error))
    return refusal_of(error)
