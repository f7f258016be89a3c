"""A channel to one address: gRPC for generated stubs, as grpc.aio's, over the native wire."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from kvstore.wire.channel_calls import StreamCall, UnaryCall
from kvstore.wire.channel_connection import Connection, Exchange
from kvstore.wire.channel_dialling import Answer, Target, dial
from kvstore.wire.channel_options import ChannelOptions, ChannelTLS
from kvstore.wire.errors import RpcError

__all__ = ["Channel"]

# Calls whose time is up are looked for so often at most.
EXPIRY_INTERVAL_S = 0.005

# A server that refuses a call, and stays, has too many: it is asked again after twice as long.
REFUSED_PAUSE_S = 0.005

# gRPC's words: whoever reads them knows that no server said so.
DEADLINE_EXCEEDED = "Deadline Exceeded"

NEVER = float("inf")

Serialize = Callable[[Any], bytes]
Parse = Callable[[bytes], Any]


class Channel:
    """Calls to ``address`` over one connection at a time. For the loop of its first call alone.

    It connects when a call needs it. While it can't, calls fail with UNAVAILABLE, at once during
    the pauses between tries; those with ``wait_for_ready`` wait. A call of which a server surely
    did nothing, as one that it had no time for before it stopped, is sent once more by itself.

    ``unary_unary`` and the others give what generated stubs need. Errors are
    :class:`kvstore.wire.RpcError`.
    """

    def __init__(
        self,
        address: str,
        options: ChannelOptions | None = None,
        tls: ChannelTLS | None = None,
    ) -> None:
        """Raises ValueError for a malformed address."""
        self._target = Target(address, tls)
        self._options = options or ChannelOptions()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._connections: set[Connection] = set()
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()
        self._waiting_bytes = 0
        self._beginning = False
        # While a server that refused a call is given time.
        self._held: asyncio.TimerHandle | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._answers: dict[Connection, Answer] = {}
        self._failure: RpcError | None = None
        self._failures = 0
        self._dial_at = 0.0
        self._redial: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_at = NEVER
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    # What stubs ask for.

    def unary_unary(
        self,
        method: str,
        request_serializer: Serialize | None = None,
        response_deserializer: Parse | None = None,
        **ignored: object,
    ) -> UnaryMethod:
        return UnaryMethod(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serialize | None = None,
        response_deserializer: Parse | None = None,
        **ignored: object,
    ) -> UnaryStreamMethod:
        return UnaryStreamMethod(self, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serialize | None = None,
        response_deserializer: Parse | None = None,
        **ignored: object,
    ) -> StreamUnaryMethod:
        return StreamUnaryMethod(self, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serialize | None = None,
        response_deserializer: Parse | None = None,
        **ignored: object,
    ) -> StreamStreamMethod:
        return StreamStreamMethod(self, method, request_serializer, response_deserializer)

    async def channel_ready(self) -> None:
        """Wait until there is a connection, over as many tries as it takes."""
        while self._connection is None:
            self._check_open()
            pause = self._dial_at - asyncio.get_running_loop().time()
            if pause > 0:
                await asyncio.sleep(pause)
            self._connect()
            if self._dialling is not None:
                await asyncio.wait([self._dialling])

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls; those under way have ``grace`` seconds, then they are cancelled."""
        self._closed = True
        if self._loop is None or self._loop.is_closed():
            return  # and with it all that was open
        if grace and self._under_way():
            self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._idle], timeout=grace)
        for exchange in self._under_way():
            exchange.cancel()
        for timer in (self._redial, self._expiry, self._held):
            if timer is not None:
                timer.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait([self._dialling])
        for connection in list(self._connections):
            connection.close()
        self._connection = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(None)

    # What calls ask for.

    def start(self, exchange: Exchange) -> None:
        """Begin a call, now or when there is a connection with room for it.

        Raises ValueError for metadata that can't be sent, UsageError when the channel is closed or
        belongs to another loop.
        """
        self._check_open()
        if asyncio.get_running_loop() is not self.loop:
            raise grpc.aio.UsageError("the channel belongs to another event loop")
        if exchange.timeout is not None and exchange.timeout <= 0:
            exchange.failed(
                RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, DEADLINE_EXCEEDED, unsent=True)
            )
            return
        if exchange.deadline < self._expiry_at:
            self._expect(exchange.deadline)
        message = exchange.message
        if message is not None and len(message) > self._options.send_bytes_max:
            limit = self._options.send_bytes_max
            exchange.failed(
                _exhausted(f"Sent message larger than max ({len(message)} vs. {limit})")
            )
            return
        connection = self._connection
        if connection is not None and not self._waiting and connection.begin(exchange):
            return
        self._wait(exchange)

    def drop(self, exchange: Exchange) -> None:
        """Nobody waits for a call any more."""
        connection = exchange.connection
        if connection is not None:
            connection.drop(exchange)
        elif exchange in self._waiting:
            self._leave(exchange)
        self._ended()

    def check_write(self, message: bytes) -> None:
        """Raises RpcError for a message that is too large."""
        if len(message) > self._options.send_bytes_max:
            limit = self._options.send_bytes_max
            raise _exhausted(f"Sent message larger than max ({len(message)} vs. {limit})")

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Of the calls."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    # What connections tell.

    def established(self, connection: Connection) -> None:
        answer = self._answers.pop(connection, None)
        if answer is not None and not answer.done():
            answer.set_result(connection)

    def room(self, connection: Connection) -> None:
        if self._waiting and connection is self._connection:
            self._begin_waiting()
        self._ended()

    def retired(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            if self._waiting:
                self._connect()

    def lost(self, connection: Connection, error: RpcError) -> None:
        self._connections.discard(connection)
        answer = self._answers.pop(connection, None)
        if answer is not None and not answer.done():
            answer.set_exception(RpcError(error.code(), error.details() or ""))
        if connection is self._connection:
            self._connection = None
            if not connection.proved:
                # Who closes connections before the first answer isn't dialled without a pause.
                self._pause(
                    RpcError(
                        grpc.StatusCode.UNAVAILABLE,
                        f"cannot connect to {connection.where}: {error.details()}",
                        unsent=True,
                    )
                )
            else:
                self._failures = 0
                if self._waiting:
                    self._connect()
        self._ended()

    def again(self, exchange: Exchange) -> None:
        if self._closed:
            exchange.failed(RpcError(grpc.StatusCode.UNAVAILABLE, "the channel was closed"))
            return
        connection = self._connection
        if connection is not None and connection.accepting and self._held is None:
            pause = REFUSED_PAUSE_S * 2**exchange.repeats
            self._held = self.loop.call_later(pause, self._hold_no_more)
        self._wait(exchange)

    # Waiting for a connection, or for room on it.

    def _wait(self, exchange: Exchange) -> None:
        size = len(exchange.message or b"")
        options = self._options
        if len(self._waiting) >= options.waiting_calls_max or (
            self._waiting and self._waiting_bytes + size > options.waiting_bytes_max
        ):
            exchange.failed(_exhausted("too many calls wait for the connection"))
            return
        if self._connection is None and self._dialling is None:
            if self._failure is not None and self._clock() < self._dial_at:
                if not exchange.wait_for_ready:
                    exchange.failed(_copy(self._failure))
                    return
            else:
                self._connect()
        self._waiting[exchange] = None
        self._waiting_bytes += size

    def _hold_no_more(self) -> None:
        self._held = None
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Begin those for whom there is room; what that leads to begins none beside."""
        if self._beginning or self._held is not None:
            return
        self._beginning = True
        try:
            self._begin_first()
        finally:
            self._beginning = False

    def _begin_first(self) -> None:
        while self._waiting and (connection := self._connection) is not None:
            exchange = next(iter(self._waiting))
            self._leave(exchange)
            if exchange.deadline != NEVER:
                exchange.timeout = max(exchange.deadline - self._clock(), 0.001)
            try:
                begun = connection.begin(exchange)
            except ValueError as error:
                exchange.failed(RpcError(grpc.StatusCode.INTERNAL, str(error), unsent=True))
                continue
            if not begun:
                self._waiting[exchange] = None
                self._waiting.move_to_end(exchange, last=False)
                self._waiting_bytes += len(exchange.message or b"")
                return

    def _leave(self, exchange: Exchange) -> None:
        del self._waiting[exchange]
        self._waiting_bytes -= len(exchange.message or b"")

    # Connecting.

    def _connect(self) -> None:
        if self._dialling is None and self._connection is None and not self._closed:
            self._dialling = self.loop.create_task(self._dial())

    async def _dial(self) -> None:
        try:
            connection = await dial(self._target, self._make, self._options.connect_timeout_s)
        except RpcError as error:
            self._dialling = None
            self._pause(error)
            return
        except Exception as error:  # noqa: BLE001 - calls must hear of it, whatever it is
            self._dialling = None
            details = f"cannot connect to {self._target.address}: {error!r}"
            self._pause(RpcError(grpc.StatusCode.UNAVAILABLE, details, unsent=True))
            return
        self._dialling = None
        if not connection.accepting:  # it was lost, or retired, meanwhile
            self._pause(
                RpcError(
                    grpc.StatusCode.UNAVAILABLE,
                    f"cannot connect to {connection.where}: Socket closed",
                    unsent=True,
                )
            )
            return
        self._connection = connection
        self._failure = None
        self._begin_waiting()

    def _make(self, where: str, answer: Answer) -> Connection:
        target = self._target
        connection = Connection(self, self._options, where, target.authority, target.scheme)
        self._connections.add(connection)
        self._answers[connection] = answer
        return connection

    def _pause(self, failure: RpcError) -> None:
        """There is no connection: calls fail, and the next try is made after a pause."""
        options = self._options
        pause = min(options.backoff_max_s, options.backoff_first_s * 2 ** min(self._failures, 20))
        pause *= random.uniform(0.8, 1.0)
        self._failures += 1
        self._failure = failure
        self._dial_at = self._clock() + pause
        for exchange in list(self._waiting):
            if not exchange.wait_for_ready:
                self._leave(exchange)
                exchange.failed(_copy(failure))
        if self._waiting and self._redial is None and not self._closed:
            self._redial = self.loop.call_later(pause, self._dial_again)

    def _dial_again(self) -> None:
        self._redial = None
        if self._waiting:
            self._connect()

    # Deadlines: one timer for all calls, set for the earliest one there was.

    def _expect(self, deadline: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry_at = deadline
        self._expiry = self.loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        now = self._clock()
        self._expiry = None
        self._expiry_at = NEVER
        earliest = NEVER
        for exchange in self._under_way():
            if exchange.deadline <= now:
                unsent = exchange.connection is None
                self.drop(exchange)
                exchange.failed(
                    RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, DEADLINE_EXCEEDED, unsent=unsent)
                )
            elif exchange.deadline < earliest:
                earliest = exchange.deadline
        if earliest < self._expiry_at:
            self._expect(max(earliest, now + EXPIRY_INTERVAL_S))

    def _under_way(self) -> list[Exchange]:
        found = list(self._waiting)
        for connection in self._connections:
            found += connection.calls
        return found

    def _ended(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._under_way():
            self._idle.set_result(None)

    def _clock(self) -> float:
        return self.loop.time()

    def _check_open(self) -> None:
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")


def _exhausted(details: str) -> RpcError:
    return RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, details, unsent=True)


def _copy(error: RpcError) -> RpcError:
    """For each call one of its own, as each is raised elsewhere."""
    return RpcError(error.code(), error.details() or "", unsent=error.unsent)


class _Method:
    """One method of a stub."""

    __slots__ = ("_channel", "_parse", "_path", "_serialize")

    def __init__(
        self, channel: Channel, path: str, serialize: Serialize | None, parse: Parse | None
    ) -> None:
        self._channel = channel
        self._path = path
        self._serialize = serialize or bytes
        self._parse = parse or bytes


class UnaryMethod(_Method):
    """One request, one response."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = (),
        credentials: None = None,
        wait_for_ready: bool | None = None,
        compression: None = None,
    ) -> UnaryCall:
        call = UnaryCall(
            self._channel,
            self._path,
            self._serialize(request),
            self._parse,
            timeout,
            metadata or (),
            bool(wait_for_ready),
        )
        self._channel.start(call)
        return call


class _StreamMethod(_Method):
    __slots__ = ()

    def _begun(
        self,
        message: bytes | None,
        requests: Any,
        many: bool,
        timeout: float | None,
        metadata: Any,
        wait_for_ready: bool | None,
    ) -> StreamCall:
        call = StreamCall(
            self._channel,
            self._path,
            message,
            self._serialize,
            self._parse,
            many,
            timeout,
            metadata or (),
            bool(wait_for_ready),
        )
        self._channel.start(call)
        if requests is not None:
            call.feed(requests)
        return call


class UnaryStreamMethod(_StreamMethod):
    """One request, many responses."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = (),
        credentials: None = None,
        wait_for_ready: bool | None = None,
        compression: None = None,
    ) -> StreamCall:
        message = self._serialize(request)
        return self._begun(message, None, True, timeout, metadata, wait_for_ready)


class StreamUnaryMethod(_StreamMethod):
    """Many requests, one response."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = (),
        credentials: None = None,
        wait_for_ready: bool | None = None,
        compression: None = None,
    ) -> StreamCall:
        return self._begun(None, request_iterator, False, timeout, metadata, wait_for_ready)


class StreamStreamMethod(_StreamMethod):
    """Many requests, many responses."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = (),
        credentials: None = None,
        wait_for_ready: bool | None = None,
        compression: None = None,
    ) -> StreamCall:
        return self._begun(None, request_iterator, True, timeout, metadata, wait_for_ready)
