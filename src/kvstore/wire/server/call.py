"""One call under way: the context that its handler gets, and the task that runs the handler.

The context is the part of ``grpc.aio.ServicerContext`` that handlers use, so that the same handlers
serve on both fronts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import structlog

from kvstore.wire.server.identity import AuthContext
from kvstore.wire.server.limits import RETRY_PUSHBACK

if TYPE_CHECKING:
    from kvstore.wire.server.connection import Connection

__all__ = ["Call"]

Pairs = Iterable[tuple[str, str | bytes]]

OK = grpc.StatusCode.OK
CANCEL = 8  # HTTP/2's error code

# How often a response that found no room in the budget is tried again.
ROOM_LOOK_S = 0.05

UNREAD = "answers that nobody has read yet fill their budget; read them, then try again"

_NUMBERS = {code.value[0]: code for code in grpc.StatusCode}

log = structlog.get_logger("kvstore.wire")


class Call:
    """A call of a generic handler. ``begin``, ``message``, ``half_closed`` and ``closed`` are the
    connection's to call; the rest is the handler's, as its context."""

    def __init__(
        self,
        connection: Connection,
        stream: int,
        method: str,
        handler: Any,
        timeout_s: float | None,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> None:
        self._connection = connection
        self._server = connection.server
        self._stream = stream
        self.method = method
        self._handler = handler
        self._metadata = metadata
        self._loop = self._server.loop
        self.began = monotonic()
        self._deadline = None if timeout_s is None else self.began + timeout_s
        self._timer: asyncio.TimerHandle | None = None
        # What came and was not read; None at its end.
        self._received: deque[bytes | None] = deque()
        self._request_bytes = 0
        self._arrival: asyncio.Future[None] | None = None
        self._deliver: Callable[[bytes], None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = False
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailer: Pairs = ()
        self._ended = False
        self._cancelled = False
        self._callbacks: list[Callable[[Any], object]] = []

    @property
    def ended(self) -> bool:
        """Its status was sent, or its client is gone."""
        return self._ended

    @property
    def is_waiting_for_request(self) -> bool:
        """Its one request isn't complete."""
        return not self._handler.request_streaming and self._task is None and not self._ended

    # What the connection calls.

    def begin(self) -> None:
        """Its headers have come."""
        if self._deadline is not None:
            self._timer = self._loop.call_later(self._deadline - self.began, self._expire)
        if self._handler.request_streaming:
            self._run()

    def message(self, data: bytes) -> None:
        """A message has come."""
        if self._ended:
            self._connection.session.consumed(self._stream, len(data))
        elif self._received and not self._handler.request_streaming:
            self._end(grpc.StatusCode.UNIMPLEMENTED, "more than one request for a unary call")
        elif self._deliver is not None:
            self._hand_over(self._deliver, data)
        else:
            self._request_bytes += len(data)
            self._received.append(data)
            self._wake_reader()

    def half_closed(self) -> None:
        """No more messages come."""
        if self._ended:
            return
        if self._handler.request_streaming:
            self._received.append(None)
            self._wake_reader()
        elif self._received:
            self._run()
        else:
            self._end(grpc.StatusCode.UNIMPLEMENTED, "no request for a unary call")

    def closed(self) -> None:
        """The stream is gone: all was sent, or the client went away."""
        if not self._ended:
            self._cancelled = True
            self._settle(grpc.StatusCode.CANCELLED)
        self.sent()

    def sent(self) -> None:
        """The connection took some bytes: is there room for more?"""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def refuse(self, code: grpc.StatusCode, details: str) -> None:
        """End it from outside of its handler."""
        if not self._ended:
            self._end(code, details, RETRY_PUSHBACK)
            self._cancel_task()

    def abandon(self) -> None:
        """The client doesn't take what is sent: reset the stream."""
        self._server.counters.unread += 1
        self._connection.session.reset(self._stream, CANCEL)
        self._connection.touch()
        self.closed()

    # What handlers use.

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata

    def auth_context(self) -> AuthContext:
        return self._connection.auth

    def peer(self) -> str:
        return self._connection.peer

    def time_remaining(self) -> float | None:
        """In seconds, 0 when it is over; None for a call without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def code(self) -> int | grpc.StatusCode | None:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Pairs:
        return self._trailer

    def set_code(self, code: grpc.StatusCode | int) -> None:
        self._code = code if isinstance(code, grpc.StatusCode) else _NUMBERS[code]

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        self._trailer = tuple(trailing_metadata)

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._ended

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """``callback`` is called with this context once the call has ended; at once if it has."""
        if self._ended:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        if self._started:
            raise grpc.aio.UsageError("initial metadata was sent already")
        self._started = True
        if not self._ended:
            self._connection.session.start(self._stream, tuple(initial_metadata))
            self._connection.touch()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()
    ) -> NoReturn:
        """End the call with ``code``. Raises AbortError, which is nobody's to catch."""
        if code is OK:
            code, details = grpc.StatusCode.UNKNOWN, f"aborted with status OK: {details}"
        if not self._ended:
            self._code, self._details = code, details
            self._end(code, details, tuple(trailing_metadata) or self._trailer)
        raise grpc.aio.AbortError("Locally aborted.")

    async def read(self) -> Any:
        """The next request, grpc.aio.EOF after the last."""
        while not self._received:
            self._arrival = self._loop.create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        data = self._received[0]
        if data is None:
            return grpc.aio.EOF  # type: ignore[attr-defined]
        self._received.popleft()
        self._consumed(data)
        return self._parsed(data)

    async def deliver(self, take: Callable[[bytes], None]) -> None:
        """Give ``take`` each request from now on, as its bytes, at the moment that it comes.

        Returns after the last. What ``take`` raises ends it, and is raised here. For those to whom
        waking a task for each request costs too much.
        """
        self._arrival = self._loop.create_future()
        self._deliver = take
        try:
            while self._received and self._deliver is not None:
                data = self._received.popleft()
                if data is None:
                    return
                self._hand_over(take, data)
            await self._arrival
        finally:
            self._arrival = self._deliver = None

    def _hand_over(self, take: Callable[[bytes], None], data: bytes) -> None:
        try:
            take(data)
        except Exception as error:  # noqa: BLE001 - raised by deliver
            self._deliver = None
            if self._arrival is not None and not self._arrival.done():
                self._arrival.set_exception(error)
        self._consumed(data)

    async def write(self, message: Any) -> None:
        """Send a response; returns once its bytes were taken from memory."""
        await self._write((message,), self._server.limits.stalled_s)

    async def write_all(self, messages: Sequence[Any]) -> None:
        """Send responses one after the other; returns once all their bytes were taken from memory.

        However long that takes: for streams whose reader may pause, and goes on where it was.
        """
        await self._write(messages, inf)

    async def _write(self, messages: Iterable[Any], patience_s: float) -> None:
        until = monotonic() + patience_s
        session = self._connection.session
        for message in messages:
            data = self._serialized(message)
            # A response that finds no room waits for others' to be taken.
            while not self._ended and not session.message(self._stream, data):
                await self._more_room(until, ROOM_LOOK_S)
            self._started = True
        self._connection.touch()
        while not self._ended and not session.writable(self._stream):
            await self._more_room(until, inf)
        if self._ended:
            raise asyncio.CancelledError

    async def _more_room(self, until: float, look_s: float) -> None:
        self._room = self._loop.create_future()
        self._connection.waiting.add(self)
        patience_s = until - monotonic()
        wait_s = min(look_s, patience_s)
        try:
            async with asyncio.timeout(None if wait_s == inf else wait_s):
                await self._room
        except TimeoutError:
            if patience_s <= look_s:
                self.abandon()
                raise asyncio.CancelledError from None
        finally:
            self._room = None
            self._connection.waiting.discard(self)

    # The task.

    def _run(self) -> None:
        self._task = self._loop.create_task(self._answer())
        self._task.add_done_callback(self._finished)

    async def _answer(self) -> None:
        handler = self._handler
        request = self._requests() if handler.request_streaming else self._request()
        if handler.response_streaming:
            method = handler.stream_stream if handler.request_streaming else handler.unary_stream
            await self._stream_from(method(request, self))
            self._end(self._code or OK, self._details, self._trailer)
            return
        method = handler.stream_unary if handler.request_streaming else handler.unary_unary
        response = await method(request, self)
        if not self._ended:
            self._respond(response)

    async def _stream_from(self, answer: Any) -> None:
        if not hasattr(answer, "__aiter__"):
            await answer  # writes its responses itself
            return
        async with contextlib.aclosing(answer):
            async for response in answer:
                await self.write(response)

    def _request(self) -> Any:
        data = self._received.popleft()
        assert data is not None
        self._consumed(data)
        return self._parsed(data)

    async def _requests(self) -> Any:
        while True:
            request = await self.read()
            if request is grpc.aio.EOF:  # type: ignore[attr-defined]
                return
            yield request

    def _respond(self, response: Any) -> None:
        code = self._code or OK
        if code is not OK:
            self._end(code, self._details, self._trailer)
            return
        data = self._serialized(response)
        session = self._connection.session
        if self._started:
            taken = session.message(self._stream, data)
        else:
            taken = session.respond(self._stream, data, self._trailer)
        if not taken:
            # Not RESOURCE_EXHAUSTED, which says that nothing was done.
            self._server.counters.refused_unread += 1
            self._end(grpc.StatusCode.UNAVAILABLE, UNREAD, RETRY_PUSHBACK)
        elif self._started:
            self._end(OK, self._details, self._trailer)
        else:
            self._settle(OK)
            self._connection.touch()

    def _finished(self, task: asyncio.Task[None]) -> None:
        """The handler is done, one way or another."""
        self._release()
        if task.cancelled():
            self._end(grpc.StatusCode.CANCELLED, "")
        elif (error := task.exception()) is not None and not self._ended:
            self._failed(error)
        self._task = None  # whose exception knows this call: no cycle is left for the collector

    def _release(self) -> None:
        """It doesn't count any more."""
        if self._handler.request_streaming or self._handler.response_streaming:
            self._connection.stream_ended()
        else:
            self._server.calls -= 1

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, grpc.aio.AbortError):
            self._settle(self._code or grpc.StatusCode.UNKNOWN)
            return
        if not isinstance(error, Exception):
            raise error
        log.error("a handler raised", method=self.method, exc_info=error)
        self._end(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")

    def _end(self, code: grpc.StatusCode, details: str, trailer: Pairs = ()) -> None:
        """Send the status, once."""
        if self._ended:
            return
        self._code = code
        self._connection.session.finish(self._stream, code.value[0], details, trailer)
        self._connection.touch()
        self._settle(code)

    def _settle(self, code: grpc.StatusCode) -> None:
        """It has ended, with ``code``, whether anybody can be told or not."""
        self._ended = True
        self._connection.calls.pop(self._stream, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._release()  # its handler never ran
        elif self._cancelled:
            self._cancel_task()
        while self._received:
            self._consumed(self._received.popleft() or b"")
        counter = self._server.counter
        if counter is not None and self._handler.unary_unary is not None:
            counter(self.method, code.name, monotonic() - self.began, 1)
        slow = self._server.slow
        if slow is not None and self._handler.unary_unary is not None:
            ended = monotonic()
            if ended - self.began >= slow.slow_s:
                slow.note(self.method, code.name, self.began, ended, 1, self._request_bytes)
        traces = self._server.traces
        if traces is not None and self._handler.unary_unary is not None:
            size = self._request_bytes
            traces.note(self.method, code.name, self.began, monotonic(), self._metadata, size)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def _expire(self) -> None:
        self._timer = None
        self._end(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        self._cancel_task()

    def _cancel_task(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _wake_reader(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _consumed(self, data: bytes) -> None:
        self._connection.session.consumed(self._stream, len(data))
        self._connection.touch()

    def _parsed(self, data: bytes) -> Any:
        parse = self._handler.request_deserializer
        return data if parse is None else parse(data)

    def _serialized(self, message: Any) -> bytes:
        serialize = self._handler.response_serializer
        data: bytes = message if serialize is None else serialize(message)
        return data
