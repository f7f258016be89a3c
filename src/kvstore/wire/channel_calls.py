"""Calls on the native channel, with what grpc.aio's call objects have and stubs' users need."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from kvstore.wire.channel_connection import Connection
from kvstore.wire.errors import Metadata, RpcError, status_code

if TYPE_CHECKING:
    from kvstore.wire.channel import Channel

__all__ = ["StreamCall", "UnaryCall"]

NEVER = float("inf")

# What ``read`` gives after the last response, as grpc.aio's does.
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]

_FINISHED = "the call has ended already"


class UnaryCall(asyncio.Future[Any]):
    """A call with one request and one response; awaiting it gives the response.

    It is the future itself: a call costs one object. Cancelling it, or the task that awaits it,
    lets the server know.
    """

    __slots__ = (
        "_channel",
        "_initial",
        "_parse",
        "_trailer",
        "connection",
        "deadline",
        "half_closed",
        "message",
        "metadata",
        "path",
        "repeats",
        "stream",
        "timeout",
        "unary",
        "wait_for_ready",
    )

    def __init__(
        self,
        channel: Channel,
        path: str,
        message: bytes,
        parse: Callable[[bytes], Any],
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool,
    ) -> None:
        loop = channel.loop
        super().__init__(loop=loop)
        self._channel = channel
        self._parse = parse
        self._initial: Metadata = ()
        self._trailer: Metadata = ()
        self.path = path
        self.message: bytes | None = message
        self.metadata = metadata
        self.timeout = timeout
        self.deadline = NEVER if timeout is None else loop.time() + timeout
        self.wait_for_ready = wait_for_ready
        self.connection: Connection | None = None
        self.stream = 0
        self.repeats = 0
        self.unary = True
        self.half_closed = True

    # What its users ask for.

    def cancel(self, msg: object | None = None) -> bool:
        """End it; False if it has ended."""
        if not super().cancel(msg):
            return False
        self._channel.drop(self)
        return True

    def time_remaining(self) -> float | None:
        """Seconds until its deadline."""
        return _remaining(self.deadline, self.get_loop())

    async def initial_metadata(self) -> Metadata:
        """What the server said first; here as soon as all is said."""
        await self._over()
        return self._initial

    async def trailing_metadata(self) -> Metadata:
        """What the server said last."""
        await self._over()
        return self._trailer

    async def code(self) -> grpc.StatusCode:
        """How it ended."""
        await self._over()
        if self.cancelled():
            return grpc.StatusCode.CANCELLED
        error = self.exception()
        return error.code() if isinstance(error, RpcError) else grpc.StatusCode.OK

    async def details(self) -> str:
        """What was said of that."""
        await self._over()
        error = None if self.cancelled() else self.exception()
        return (error.details() or "") if isinstance(error, RpcError) else ""

    async def _over(self) -> None:
        if not self.done():
            await asyncio.wait([self])

    # What its connection tells.

    def began(self) -> None: ...

    def answered(
        self, status: int, message: bytes | None, details: str, trailer: Metadata, initial: Metadata
    ) -> None:
        if self.done():
            return
        self._initial = initial
        self._trailer = trailer
        if status == 0 and message is not None:
            try:
                self.set_result(self._parse(message))
            except Exception as error:  # noqa: BLE001 - whatever a parser makes of bad bytes
                self.failed(_unreadable(error))
        elif status == 0:
            self.failed(RpcError(grpc.StatusCode.INTERNAL, "the server answered nothing"))
        else:
            self.failed(RpcError(status_code(status), details, trailer, initial))

    def failed(self, error: RpcError) -> None:
        if not self.done():
            self.set_exception(error)
            self.exception()  # nobody need ask for it

    def headers(self, initial: Metadata) -> None: ...

    def received(self, message: bytes) -> None: ...

    def finished(self, status: int, details: str, trailer: Metadata) -> None: ...

    def writable(self) -> None: ...


class StreamCall:
    """A call with many requests, many responses or both; it is iterated, read or awaited.

    ``write`` and ``read`` wait for the other side's windows. One task may read and one may write.
    """

    def __init__(
        self,
        channel: Channel,
        path: str,
        message: bytes | None,
        serialize: Callable[[Any], bytes],
        parse: Callable[[bytes], Any],
        many: bool,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool,
    ) -> None:
        """``message``: the only request. ``many``: whether there is more than one response."""
        self._channel = channel
        self._loop = channel.loop
        self._serialize = serialize
        self._parse = parse
        self._many = many
        self.path = path
        self.message = message
        self.metadata = metadata
        self.timeout = timeout
        self.deadline = NEVER if timeout is None else self._loop.time() + timeout
        self.wait_for_ready = wait_for_ready
        self.connection: Connection | None = None
        self.stream = 0
        self.repeats = 0
        self.unary = False
        self.half_closed = message is not None
        self._messages: deque[bytes] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._initial: asyncio.Future[Metadata] = self._loop.create_future()
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._status: tuple[grpc.StatusCode, str, Metadata] | None = None
        self._error: RpcError | None = None
        self._callbacks: list[Callable[[Any], object]] = []
        self._feeder: asyncio.Task[None] | None = None
        self._wrote_all = message is not None
        self._wants_to_write = False
        self.on_writable: Callable[[], object] | None = None
        """Called when :meth:`try_write` would do again that didn't, or the call has ended."""

    # What its users ask for.

    def done(self) -> bool:
        """Whether it has ended. Responses that came before may still be read."""
        return self._status is not None

    def cancelled(self) -> bool:
        """Whether it was ended here."""
        return (
            self._status is not None
            and self._error is None
            and (self._status[0] is grpc.StatusCode.CANCELLED)
        )

    def cancel(self) -> bool:
        """End it; False if it has ended."""
        if self.done():
            return False
        self._channel.drop(self)
        self._messages.clear()
        self._over((grpc.StatusCode.CANCELLED, "Locally cancelled by application!", ()), None)
        return True

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call it with this call when it has ended."""
        if self.done():
            self._loop.call_soon(callback, self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        """Seconds until its deadline."""
        return _remaining(self.deadline, self._loop)

    async def wait_for_connection(self) -> None:
        """Wait until it is on a connection. Raises RpcError if it ends before."""
        await asyncio.wait([self._begun])
        if self._error is not None:
            raise self._error

    async def initial_metadata(self) -> Metadata:
        """What the server said first; () if the call ended without it."""
        await asyncio.wait([self._initial])
        self._raise_if_cancelled()
        return self._initial.result()

    async def trailing_metadata(self) -> Metadata:
        """What the server said last."""
        return (await self._ended())[2]

    async def code(self) -> grpc.StatusCode:
        """How it ended."""
        return (await self._ended())[0]

    async def details(self) -> str:
        """What was said of that."""
        return (await self._ended())[1]

    async def write(self, request: Any) -> None:
        """Send a request once the one before it is out.

        Raises RpcError if the call ends meanwhile, asyncio.InvalidStateError if it has ended, or
        all was said to be written.
        """
        if self.done() or self._wrote_all:
            raise asyncio.InvalidStateError(_FINISHED)
        await self._write(self._serialize(request))

    def try_write(self, message: bytes) -> bool:
        """Send a request, serialized already, at once.

        False: the one before it is still here, the call isn't on a connection yet, or has ended;
        :attr:`on_writable` tells. Raises RpcError for one that is too large.
        """
        self._channel.check_write(message)
        if self.connection is None or not self.stream or self._wrote_all:
            self._wants_to_write = True
            return False
        return self.connection.try_write(self, message)

    async def done_writing(self) -> None:
        """No request follows."""
        if self.done() or self._wrote_all:
            return
        self._wrote_all = True
        await asyncio.wait([self._begun])
        if self.connection is not None and self.stream:
            self.connection.half_close(self)

    async def read(self) -> Any:
        """The next response, or EOF. Raises RpcError if the call fails."""
        while not self._messages:
            if self._status is not None:
                self._raise()
                return EOF
            self._arrived = self._loop.create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None
        message = self._messages.popleft()
        if self.connection is not None:
            self.connection.consumed(self, len(message))
        try:
            return self._parse(message)
        except Exception as error:
            self.failed(_unreadable(error))
            raise self._error or _unreadable(error) from error

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (response := await self.read()) is not EOF:
            yield response

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    async def _response(self) -> Any:
        """The only response."""
        try:
            response = await self.read()
            await self._ended()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._raise()
        if response is EOF:
            raise RpcError(grpc.StatusCode.INTERNAL, "the server answered nothing")
        return response

    def feed(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        """Send these, from a task of its own."""
        self._feeder = self._loop.create_task(self._feed(requests))

    async def _feed(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self._write(self._serialize(request))
            else:
                for request in requests:
                    await self._write(self._serialize(request))
            await self.done_writing()
        except RpcError:
            pass  # whoever reads is told
        except Exception as error:  # noqa: BLE001 - of the caller's iterator
            self._channel.drop(self)
            self.failed(RpcError(grpc.StatusCode.UNKNOWN, f"the iterator of requests: {error!r}"))

    async def _write(self, message: bytes) -> None:
        self._channel.check_write(message)
        if not self._begun.done():
            await asyncio.wait([self._begun])
        if self.connection is not None:
            await self.connection.write(self, message)
        self._raise()

    async def _ended(self) -> tuple[grpc.StatusCode, str, Metadata]:
        if self._status is None:
            await asyncio.wait([self._end])
        assert self._status is not None
        return self._status

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        self._raise_if_cancelled()

    def _raise_if_cancelled(self) -> None:
        if self.cancelled():
            raise asyncio.CancelledError

    # What its connection tells.

    def began(self) -> None:
        if not self._begun.done():
            self._begun.set_result(None)
            if self._wants_to_write:
                self.writable()

    def writable(self) -> None:
        if self.on_writable is not None:
            self._loop.call_soon(self.on_writable)

    def headers(self, initial: Metadata) -> None:
        if not self._initial.done():
            self._initial.set_result(initial)

    def received(self, message: bytes) -> None:
        if self.done():
            return
        self._messages.append(message)
        if not self._many and len(self._messages) > 1:
            self._channel.drop(self)
            self.failed(RpcError(grpc.StatusCode.INTERNAL, "more than one response"))
            return
        self._notify()

    def finished(self, status: int, details: str, trailer: Metadata) -> None:
        if self.done():
            return
        code = status_code(status)
        initial: Metadata = self._initial.result() if self._initial.done() else ()
        error = RpcError(code, details, trailer, initial) if status else None
        self._over((code, details, trailer), error)

    def failed(self, error: RpcError) -> None:
        if not self.done():
            self._over((error.code(), error.details() or "", ()), error)

    def answered(
        self, status: int, message: bytes | None, details: str, trailer: Metadata, initial: Metadata
    ) -> None: ...

    def _over(self, status: tuple[grpc.StatusCode, str, Metadata], error: RpcError | None) -> None:
        self._status = status
        self._error = error
        self.headers(())
        self.began()
        self._end.set_result(None)
        self._notify()
        if self._feeder is not None and asyncio.current_task() is not self._feeder:
            self._feeder.cancel()
        self.writable()
        for callback in self._callbacks:
            self._loop.call_soon(callback, self)
        self._callbacks.clear()

    def _notify(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def _remaining(deadline: float, loop: asyncio.AbstractEventLoop) -> float | None:
    return None if deadline == NEVER else max(deadline - loop.time(), 0.0)


def _unreadable(error: Exception) -> RpcError:
    return RpcError(grpc.StatusCode.INTERNAL, f"the server's answer can't be read: {error}")
