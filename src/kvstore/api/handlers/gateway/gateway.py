"""The way in of JSON: a request of HTTP/1.1 becomes a call of etcd's API, and its answer JSON.

The handlers are those of gRPC, with all that ``register`` has around them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from kvstore.api.etcd.methods import MethodShape
from kvstore.api.handlers.gateway.answers import error_of, http_status_of
from kvstore.api.handlers.gateway.call import Call, Refused
from kvstore.api.handlers.gateway.routes import ROUTES
from kvstore.api.handlers.gateway.transcoding import messages_of, only_message_of
from kvstore.errors import InvalidArgumentError
from kvstore.wire.http import Exchange

__all__ = ["Gateway"]

PARSED_AT_ONCE_BYTES: Final = 32 * 1024
"""JSON of more than this isn't for the event loop to read."""

REQUESTS_MAX: Final = 16_384
"""Of one stream."""

BUSY: Final = "too many calls at one time; try again"

_METADATA: Final = "grpc-metadata-"
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class _Details(NamedTuple):
    """What generic handlers are asked by."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


class Gateway:
    """Calls handlers that are registered with it as with a server. On a running event loop."""

    def __init__(self, message_bytes_max: int) -> None:
        """``message_bytes_max``: of a request, as gRPC would have it."""
        self._message_bytes_max = message_bytes_max
        self._handlers: list[Any] = []
        self._reader = ThreadPoolExecutor(1, "kvstore-json")

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """As of ``grpc.aio.Server``: ``register`` has services answered by it."""
        self._handlers += handlers

    def has(self, path: str) -> bool:
        """A method that may be called, served or not, has that path."""
        return path in ROUTES and bool(self._handlers)

    def close(self) -> None:
        """Nobody calls any more."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def answer(self, exchange: Exchange) -> None:
        """Answer a POST to a path that it has."""
        shape = ROUTES[exchange.path]
        try:
            requests = await self._requests(shape, exchange.body)
            timeout_s = _timeout_s(exchange.field("grpc-timeout"))
        except InvalidArgumentError as error:
            _refuse(exchange, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return
        except Refused as refused:
            _refuse(exchange, refused.code, refused.details)
            return
        handler = self._handler_of(shape)
        streams = handler.request_streaming or handler.response_streaming
        if not exchange.enter(streams=streams):
            code = "UNAVAILABLE" if streams else "RESOURCE_EXHAUSTED"
            _refuse(exchange, grpc.StatusCode[code], BUSY)
            return
        call = Call(exchange, shape, _metadata_of(exchange.fields), timeout_s)
        cancelled = False
        try:
            async with asyncio.timeout(timeout_s):
                await _run(handler, requests, call)
        except grpc.aio.AbortError:
            call.refuse(call.code() or grpc.StatusCode.UNKNOWN, call.details())
        except Refused as refused:
            call.refuse(refused.code, refused.details)
        except TimeoutError:
            call.refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded")
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            call.end(cancelled)

    async def _requests(self, shape: MethodShape, body: bytes) -> Sequence[bytes]:
        """What a handler is to be given. Raises InvalidArgumentError, Refused."""
        if len(body) <= PARSED_AT_ONCE_BYTES:
            found = _messages(shape, body)
        else:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._reader, _messages, shape, body)
        largest, most = max(map(len, found), default=0), self._message_bytes_max
        if largest > most:
            details = f"received message larger than max ({largest} vs. {most})"
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, details)
        return found

    def _handler_of(self, shape: MethodShape) -> Any:
        details = _Details(shape.path)
        found = (handlers.service(details) for handlers in self._handlers)
        return next(handler for handler in found if handler is not None)


async def _run(handler: Any, requests: Sequence[bytes], call: Call) -> None:
    if not handler.response_streaming:
        await call.answer(await handler.unary_unary(requests[0], call))
        return
    if handler.request_streaming:
        await handler.stream_stream(_each(requests), call)
    else:
        await handler.unary_stream(requests[0], call)
    if call.written is None:
        call.end_stream()
    else:
        # One that waits for others has one answer all the same.
        await call.answer(call.written)


def _messages(shape: MethodShape, body: bytes) -> list[bytes]:
    if not shape.streams_in:
        return [only_message_of(shape.request, body).SerializeToString()]
    found: list[bytes] = []
    for message in messages_of(shape.request, body):
        if len(found) == REQUESTS_MAX:
            raise InvalidArgumentError(f"at most {REQUESTS_MAX} requests of one stream")
        found.append(message.SerializeToString())
    return found


async def _each(requests: Sequence[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


def _refuse(exchange: Exchange, code: grpc.StatusCode, details: str) -> None:
    exchange.respond(http_status_of(code), error_of(code, details))


def _metadata_of(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """As grpc-gateway has them: the token, and what is marked as metadata."""
    found = []
    for name, value in fields:
        key = name.removeprefix(_METADATA)
        if name == "authorization" or (
            name.startswith(_METADATA)
            and key
            and not key.startswith("grpc-")
            # Binary ones would have to be decoded; nothing in etcd's API has any.
            and not key.endswith("-bin")
        ):
            found.append((key, value))
    return found


def _timeout_s(text: str | None) -> float | None:
    """Raises InvalidArgumentError."""
    if text is None:
        return None
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise InvalidArgumentError(f"invalid grpc-timeout: {text[:100]}")
    return int(found[1]) * _UNIT_S[found[2]]
