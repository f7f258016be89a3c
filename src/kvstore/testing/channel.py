"""Calls that stay in the process: what stubs ask of a channel, and handlers of a server.

Messages are encoded and parsed as on a wire, so that neither side sees the other's objects. Each
call is a task of its own, which a cancelled caller, a deadline or a closed channel ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from kvstore.wire.errors import Metadata, RpcError

__all__ = ["MemoryChannel", "Services"]

Serialize = Callable[[Any], bytes]
Parse = Callable[[bytes], Any]

# Answers of a stream that wait to be read; then its handler waits.
ANSWERS_MAX: Final = 64

# gRPC's words: whoever reads them knows that no server said so.
DEADLINE_EXCEEDED: Final = "Deadline Exceeded"

EOF: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]


class _Details:
    """Which method is meant, as gRPC tells generic handlers."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class Services:
    """What generated code, and ours, registers services with."""

    def __init__(self) -> None:
        self._handlers: list[Any] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """What newer generated code calls as well; the other call has said it all."""

    def find(self, method: str) -> Any:
        """The handler of a method. Raises RpcError for one that there isn't."""
        details = _Details(method)
        for each in self._handlers:
            handler = each.service(details)
            if handler is not None:
                return handler
        raise RpcError(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {method}")


class Context:
    """What a handler knows of its call."""

    def __init__(
        self,
        metadata: Metadata | None,
        timeout: float | None,
        write: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._metadata = metadata or ()
        self._until = None if timeout is None else loop.time() + timeout
        self._loop = loop
        self._write = write
        self.status: RpcError | None = None

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {}

    def peer(self) -> str:
        return "memory"

    def time_remaining(self) -> float | None:
        return None if self._until is None else max(self._until - self._loop.time(), 0.0)

    async def write(self, response: Any) -> None:
        assert self._write is not None, "this call has one answer"
        await self._write(response)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        self.status = RpcError(code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError(details)


class MemoryChannel:
    """A channel to services of this process. For one event loop."""

    def __init__(
        self,
        services: Callable[[], Awaitable[Services]],
        closed: Callable[[MemoryChannel], Awaitable[None]],
    ) -> None:
        """``services`` gives what is called, as of each call; ``closed`` is told of the end."""
        self._services = services
        self._on_close = closed
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.loop = asyncio.get_running_loop()

    # What stubs ask for.

    def unary_unary(
        self,
        method: str,
        request_serializer: Serialize,
        response_deserializer: Parse,
        **ignored: object,
    ) -> Callable[..., Awaitable[Any]]:
        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Metadata | None = None,
            **ignored: object,
        ) -> Awaitable[Any]:
            data = request_serializer(request)
            context = Context(metadata, timeout)
            return self.begin(self._unary(method, data, context, timeout, response_deserializer))

        return call

    async def _unary(
        self, method: str, data: bytes, context: Context, timeout: float | None, parse: Parse
    ) -> Any:
        async def run() -> Any:
            handler = (await self._services()).find(method)
            return handler.response_serializer, await handler.unary_unary(
                _read(handler, data), context
            )

        serialize, response = await _guarded(run(), context, timeout)
        return parse(response if serialize is None else serialize(response))

    def unary_stream(
        self,
        method: str,
        request_serializer: Serialize,
        response_deserializer: Parse,
        **ignored: object,
    ) -> Callable[..., StreamCall]:
        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Metadata | None = None,
            **ignored: object,
        ) -> StreamCall:
            made = StreamCall(self, method, None, response_deserializer, timeout, metadata)
            made.begin(self._services, request_serializer(request))
            return made

        return call

    def stream_stream(
        self,
        method: str,
        request_serializer: Serialize,
        response_deserializer: Parse,
        **ignored: object,
    ) -> Callable[..., StreamCall]:
        def call(
            *, timeout: float | None = None, metadata: Metadata | None = None, **ignored: object
        ) -> StreamCall:
            made = StreamCall(
                self, method, request_serializer, response_deserializer, timeout, metadata
            )
            made.begin(self._services, None)
            return made

        return call

    def stream_unary(self, method: str, *ignored: object, **also_ignored: object) -> NoReturn:
        raise NotImplementedError(f"{method}: no service here has such a method")

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do a call's work, until it, or the channel, ends."""
        if self._closed or asyncio.get_running_loop() is not self.loop:
            work.close()
            why = "is closed" if self._closed else "belongs to another event loop"
            raise grpc.aio.UsageError(f"the channel {why}")
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls; those under way are cancelled."""
        if self._closed:
            return
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._on_close(self)


class StreamCall:
    """A call with many answers, and maybe many requests, under way."""

    def __init__(
        self,
        channel: MemoryChannel,
        method: str,
        serialize: Serialize | None,
        parse: Parse,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> None:
        self._channel = channel
        self._method = method
        self._serialize = serialize
        self._parse = parse
        self._timeout = timeout
        self._context = Context(metadata, timeout, self._answer)
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answers: deque[bytes] = deque()
        self._room = asyncio.Event()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._encode: Serialize | None = None

    def begin(self, services: Callable[[], Awaitable[Services]], data: bytes | None) -> None:
        """Have it handled; ``data``: the one request, None where many will come."""
        self._task = self._channel.begin(self._run(services, data))
        self._task.add_done_callback(self._over)

    async def _run(self, services: Callable[[], Awaitable[Services]], data: bytes | None) -> None:
        async def run() -> None:
            handler = (await services()).find(self._method)
            self._encode = handler.response_serializer
            if data is None:
                await handler.stream_stream(self._all(), self._context)
            else:
                await handler.unary_stream(_read(handler, data), self._context)

        await _guarded(run(), self._context, self._timeout)

    async def _all(self) -> AsyncIterator[bytes]:
        while (data := await self._requests.get()) is not None:
            yield data

    async def _answer(self, response: Any) -> None:
        while len(self._answers) >= ANSWERS_MAX:
            self._room.clear()
            await self._room.wait()
        self._answers.append(response if self._encode is None else self._encode(response))
        self._wake()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._ended = True
        if task.cancelled():
            self._error = asyncio.CancelledError()
        else:
            self._error = task.exception()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What its users ask for.

    async def write(self, request: Any) -> None:
        """Raises InvalidStateError when it has ended."""
        if self._ended:
            raise asyncio.InvalidStateError("the call has ended already")
        assert self._serialize is not None, "this call has one request"
        self._requests.put_nowait(self._serialize(request))

    async def done_writing(self) -> None:
        """There are no more requests."""
        self._requests.put_nowait(None)

    async def read(self) -> Any:
        """The next answer, EOF after the last. Raises RpcError, CancelledError."""
        while not self._answers:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return EOF
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._answers.popleft()
        self._room.set()
        return self._parse(data)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (answer := await self.read()) is not EOF:
            yield answer

    def cancel(self) -> bool:
        """End it; False if it has ended."""
        if self._task is None or self._ended:
            return False
        return self._task.cancel()


def _read(handler: Any, data: bytes) -> Any:
    parse: Parse | None = handler.request_deserializer
    return data if parse is None else parse(data)


async def _guarded(work: Coroutine[Any, Any, Any], context: Context, timeout: float | None) -> Any:
    """What a handler comes to. Raises RpcError as a client sees it."""
    try:
        async with asyncio.timeout(timeout):
            return await work
    except grpc.aio.AbortError:
        assert context.status is not None
        raise context.status from None
    except TimeoutError:
        raise RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, DEADLINE_EXCEEDED) from None
    except RpcError:
        raise
    except Exception as error:
        raise RpcError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}") from error
