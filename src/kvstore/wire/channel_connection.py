"""One connection of a channel: calls go out together once a pass of the loop, answers come back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

import grpc

from kvstore._wire.native import (
    ANSWER,
    FINISHED,
    GOAWAY,
    HEADERS,
    MESSAGE,
    PONG,
    Budget,
    ClientSession,
    Limits,
)
from kvstore.wire.channel_options import ChannelOptions
from kvstore.wire.errors import Metadata, RpcError

if TYPE_CHECKING:
    from kvstore._wire.native import Event

__all__ = ["Connection", "Exchange", "Keeper"]

# Of one write to the socket.
WRITE_BYTES_MAX = 256 << 10

# Messages that the server's windows hold back: with so much of them no call begins.
UNSENT_BYTES_MAX = 1 << 20

# What was written may take so long to leave when the connection ends.
CLOSING_S = 5.0

# Of one session: whatever a call may send, beside what waits already.
SESSION_BYTES_MAX = 1 << 30

# How often a call is begun anew that a server did nothing of. More than once, for servers that
# still count a call which they have just answered.
REPEATS_MAX = 3

LOST = "the connection to {} was lost: {}"


class Exchange(Protocol):
    """One call, as a connection sees it.

    A ``unary`` one has its message at once and gets ``answered``; others get ``headers``,
    ``received`` for each message and ``finished``. Whatever ends it, ``stream`` is 0 from then on.
    """

    path: str
    metadata: Metadata
    message: bytes | None
    unary: bool
    half_closed: bool
    """Whether no message follows the first one."""
    wait_for_ready: bool
    deadline: float
    """On the loop's clock; infinite: none."""
    timeout: float | None
    """What is left of the time, when it begins."""
    connection: Connection | None
    stream: int
    repeats: int
    """How often it was begun before, at servers that did nothing of it."""

    def began(self) -> None: ...
    def answered(
        self, status: int, message: bytes | None, details: str, trailer: Metadata, initial: Metadata
    ) -> None: ...
    def headers(self, initial: Metadata) -> None: ...
    def received(self, message: bytes) -> None: ...
    def finished(self, status: int, details: str, trailer: Metadata) -> None: ...
    def writable(self) -> None: ...
    def failed(self, error: RpcError) -> None: ...
    def cancel(self) -> bool: ...


class Keeper(Protocol):
    """Whose connection it is."""

    def established(self, connection: Connection) -> None:
        """The server speaks HTTP/2."""

    def room(self, connection: Connection) -> None:
        """A call may begin that couldn't before."""

    def retired(self, connection: Connection) -> None:
        """The server wants no more calls on it."""

    def lost(self, connection: Connection, error: RpcError) -> None:
        """It is over. Calls that were under way are told already."""

    def again(self, exchange: Exchange) -> None:
        """The server did nothing of it: it may go over another connection."""


class Connection(asyncio.Protocol):
    """Used on the thread of its loop only."""

    def __init__(
        self, keeper: Keeper, options: ChannelOptions, where: str, authority: str, scheme: str
    ) -> None:
        self._keeper = keeper
        self._options = options
        self.where = where
        self._loop = asyncio.get_running_loop()
        self._session = ClientSession(
            Limits(
                message_bytes_max=options.message_bytes_max,
                streams_max=1 << 16,
                unsent_bytes_max=SESSION_BYTES_MAX,
                received_bytes_max=SESSION_BYTES_MAX,
                window_bytes=options.window_bytes,
                connection_window_bytes=options.connection_window_bytes,
                # A server's habits are its own affair.
                resets_max=1 << 20,
                pings_max=1000,
                settings_max=1000,
                idle_frames_max=1 << 20,
            ),
            Budget(4 * SESSION_BYTES_MAX),
            Budget(4 * SESSION_BYTES_MAX),
            authority,
            scheme,
            options.user_agent,
        )
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Exchange] = {}
        self._flushing = False
        self._paused = False
        self._writers: list[asyncio.Future[None]] = []
        # Those whose try_write was refused.
        self._held_up: list[Exchange] = []
        self._heard = False
        self._watch: asyncio.TimerHandle | None = None
        self._reason: str | None = None
        self.established = False
        self.proved = False
        """It has answered a call."""
        self.closed = False

    @property
    def accepting(self) -> bool:
        """Whether calls may begin on it, now or as others end."""
        return self.established and self._session.accepting

    @property
    def calls(self) -> list[Exchange]:
        """Those under way."""
        return list(self._calls.values())

    def __len__(self) -> int:
        return len(self._calls)

    # What a channel and its calls do.

    def begin(self, exchange: Exchange) -> bool:
        """Send a call with what is said of it so far; False: there is no room for it now.

        Raises ValueError for metadata that can't be sent.
        """
        session = self._session
        if session.unsent_bytes > UNSENT_BYTES_MAX:
            return False
        stream = session.call(
            exchange.path,
            exchange.metadata,
            exchange.timeout,
            exchange.message,
            exchange.unary,
        )
        if not stream:
            return False
        exchange.stream = stream
        exchange.connection = self
        self._calls[stream] = exchange
        if not exchange.unary:
            if exchange.half_closed:
                session.half_close(stream)
            exchange.began()
        if not self._flushing:
            if len(self._calls) == 1:
                self._flush()  # alone it needn't wait for others of this pass
            else:
                self._flushing = True
                self._loop.call_soon(self._flush)
        return True

    def drop(self, exchange: Exchange) -> None:
        """Let the server know that nobody waits for the call any more."""
        if self._calls.pop(exchange.stream, None) is not None:
            self._session.cancel(exchange.stream)
            exchange.stream = 0
            self._flush_soon()
            self._keeper.room(self)

    async def write(self, exchange: Exchange, message: bytes) -> None:
        """Queue a message, once the one before it has left. Returns as well when the call ends."""
        while exchange.stream:
            if self._session.writable(exchange.stream):
                self._session.message(exchange.stream, message)
                self._flush_soon()
                return
            waiter = self._loop.create_future()
            self._writers.append(waiter)
            await waiter

    def try_write(self, exchange: Exchange, message: bytes) -> bool:
        """Send a message now if the one before it has left; else ``writable`` is told later."""
        if not self._session.writable(exchange.stream):
            self._held_up.append(exchange)
            return False
        self._session.message(exchange.stream, message)
        self._flush()
        return True

    def half_close(self, exchange: Exchange) -> None:
        """No message follows."""
        self._session.half_close(exchange.stream)
        self._flush_soon()

    def consumed(self, exchange: Exchange, size: int) -> None:
        """A message was read: the server may send as much again."""
        if exchange.stream:
            self._session.consumed(exchange.stream, size)
            self._flush_soon()

    def close(self) -> None:
        """Say good-bye and close. Calls under way should have ended before."""
        self._session.goaway()
        self._flush()
        self._end("the channel was closed")

    def abort(self, reason: str) -> None:
        """End it at once, whatever is under way."""
        self._reason = self._reason or reason
        if self._transport is None:
            self._lose(self._reason)
        else:
            self._transport.abort()

    # What the loop does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._transport.abort()
            return
        self._watch = self._loop.call_later(self._options.keepalive_s, self._look)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        session = self._session
        retired = False
        calls = self._calls
        for event in session.receive(data, self._loop.time()):
            kind = event[0]
            if kind == ANSWER:
                exchange = calls.pop(event[1], None)
                if exchange is not None:
                    exchange.stream = 0
                    if event[7] and self._may_repeat(exchange):
                        self._keeper.again(exchange)
                    else:
                        self.proved = True
                        exchange.answered(event[2], event[3], event[4], event[5], event[6])
            elif kind == GOAWAY:
                retired = True
                self._reason = _why_goaway(event)
            elif kind != PONG:
                self._stream_event(event)
        if not self.established and session.established:
            self.established = True
            self._keeper.established(self)
        if session.broken is not None:
            self._reason = self._broken()
            self._flush()
            self._end(self._reason or "")
            return
        if retired:
            self._keeper.retired(self)
        self._flush_soon()
        self._keeper.room(self)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(self._reason or _words(exc))

    # What follows from it.

    def _stream_event(self, event: Event) -> None:
        exchange = self._calls.get(event[1])
        if exchange is None:
            return
        if event[0] == HEADERS:
            self.proved = True
            exchange.headers(event[2])
        elif event[0] == MESSAGE:
            exchange.received(event[2])
        elif event[0] == FINISHED:
            del self._calls[event[1]]
            exchange.stream = 0
            if event[5] and self._may_repeat(exchange):
                self._keeper.again(exchange)
            else:
                exchange.finished(event[2], event[3], event[4])
            self._wake_writers()

    def _may_repeat(self, exchange: Exchange) -> bool:
        """A few times, and only if all that was sent of it is still there."""
        if exchange.repeats == REPEATS_MAX or not (exchange.unary or exchange.half_closed):
            return False
        exchange.repeats += 1
        exchange.connection = None
        return True

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        transport = self._transport
        if transport is None:
            return
        # uvloop's refuse to write from the moment that the other side is gone; the loop tells of it
        # afterwards.
        while not self._paused and not transport.is_closing():
            data = self._session.send(WRITE_BYTES_MAX)
            if not data:
                break
            try:
                transport.write(data)
            except RuntimeError:
                # uvloop's also refuse once their handle is closed, of which not all tell.
                self._lose(self._reason or "Socket closed")
                return
        if self._writers or self._held_up:
            self._wake_writers()
        if self._session.finished:
            self._end(self._broken() or "the server ended it")
        else:
            self._keeper.room(self)

    def _broken(self) -> str | None:
        why = self._session.broken
        return None if why is None else f"the server broke the protocol: {why}"

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, []
        for waiter in writers:
            if not waiter.done():
                waiter.set_result(None)
        if self._held_up:
            exchanges, self._held_up = self._held_up, []
            for exchange in exchanges:
                if exchange.stream and not self._session.writable(exchange.stream):
                    self._held_up.append(exchange)
                else:
                    exchange.writable()

    def _end(self, reason: str) -> None:
        """Close it when what was written is out."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.close()
            # Not for ever, where the server reads no more.
            self._loop.call_later(CLOSING_S, self._transport.abort)
        self._lose(self._reason)

    def _lose(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        error = RpcError(grpc.StatusCode.UNAVAILABLE, reason, unsent=not self.established)
        try:
            self._tell_the_end(LOST.format(self.where, reason))
        finally:
            self._keeper.lost(self, error)

    def _tell_the_end(self, details: str) -> None:
        """To all calls that are under way."""
        for event in self._session.close(details):
            exchange = self._calls.pop(event[1], None)
            if exchange is None:
                continue
            exchange.stream = 0
            if event[-1] and self._may_repeat(exchange):
                self._keeper.again(exchange)
            elif event[0] == ANSWER:
                exchange.answered(event[2], event[3], event[4], event[5], event[6])
            else:
                exchange.finished(event[2], event[3], event[4])
        self._wake_writers()

    # Whether the server is still there.

    def _look(self) -> None:
        heard, self._heard = self._heard, False
        wait, then = self._options.keepalive_s, self._look
        if not heard and (self._calls or self._options.keepalive_without_calls):
            self._session.ping()
            self._flush_soon()
            wait, then = self._options.keepalive_timeout_s, self._look_again
        self._watch = self._loop.call_later(wait, then)

    def _look_again(self) -> None:
        if not self._heard:
            self.abort(f"no sign of life within {self._options.keepalive_timeout_s:g} s")
            return
        self._watch = self._loop.call_later(self._options.keepalive_s, self._look)


def _why_goaway(event: Event) -> str:
    debug = bytes(event[3]).decode("ascii", "replace")
    return f"the server closed it (GOAWAY {event[2]}{', ' + debug if debug else ''})"


def _words(error: Exception | None) -> str:
    if error is None:
        return "Socket closed"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
