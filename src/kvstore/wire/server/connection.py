"""One connection: bytes from its socket to its session, events to its calls, and back.

HTTP/2, or HTTP/1.1 (``kvstore.wire.http``) where the server takes that as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, cast

import grpc
import structlog

from kvstore._wire.native import CALL, CLOSED, HALF_CLOSED, MESSAGE, PONG, ServerSession
from kvstore.wire.http.session import HttpSession
from kvstore.wire.server.call import CANCEL, Call
from kvstore.wire.server.identity import INSECURE, AuthContext, authenticated
from kvstore.wire.server.limits import RETRY_PUSHBACK
from kvstore.wire.tls import HTTP1
from kvstore.wire.tls_layer import TlsLayer

if TYPE_CHECKING:
    from kvstore.wire.server.server import Server

__all__ = ["Connection"]

log = structlog.get_logger("kvstore.wire")

# Taken from a session, and given to the socket, in one turn of the loop.
SEND_BYTES = 256 * 1024

# Beyond so many bytes that the socket hasn't taken the session keeps the rest.
SOCKET_BYTES = 512 * 1024

# What of a handshake, and of what follows it, may wait until it goes on.
HANDSHAKE_BYTES_MAX = 256 * 1024

# A connection that was closed has so long to take what was sent.
CLOSE_S = 5.0

# One that was answered for the last time, and sends on, is read from for so long.
LINGER_S = 2.0

# Of HTTP/1.1, before answers wait where they are made.
HTTP_SOCKET_BYTES = 64 * 1024

# And in the system, of an answer that goes on and on: by itself it would let megabytes wait for one
# who doesn't read them. (Linux takes it twice.)
LASTING_SOCKET_BYTES = 64 * 1024

TCP_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

# What HTTP/2 begins with, and no request of HTTP/1.1 (RFC 9113, 3.4).
PREFACE = b"PRI"

# Of what a client did wrong, for the log.
REASON_CHARACTERS_MAX = 200

# Between the two halves of a graceful end, at most: a ping's way there and back.
NOTICE_S = 1.0

SLOW = "the request took too long to come"

# The client's room for calls that stream grows, and shrinks, by so many.
STREAMING_STEP = 64

# Ages differ by a tenth, so that connections that began together don't end together.
AGE_JITTER = 0.1


class Connection(asyncio.BufferedProtocol):
    """Made when a socket was accepted; the server owns it until ``connection_lost``."""

    def __init__(self, server: Server, peer: str, key: str) -> None:
        self.server = server
        self.peer = peer
        self.key = key
        self.auth: AuthContext = INSECURE
        self.session = ServerSession(
            server.session_limits,
            server.received,
            server.unsent,
            server.hot_paths,
            server.hot,
            server.hot_refused,
            server.whole_paths,
            server.once_paths,
        )
        self.session.owner = self
        self.calls: dict[int, Call] = {}
        self.streaming = 0
        # For how many calls that stream the client was given room, beside those that don't.
        self._streaming_room = 0
        self.waiting: set[Call] = set()
        """Calls that wait for room for a response."""
        self.touched = False
        """The server will flush it in this turn."""
        self.established = False
        """Its preface and SETTINGS came."""
        self.http: HttpSession | None = None
        """In place of the session: it speaks HTTP/1.1."""
        # Its first bytes, until they say what it speaks; None: that is known.
        self._undecided: bytes | None = None if server.http is None or server.tls else b""
        self._tls: TlsLayer | None = None
        # Of a handshake, until the server has time for it; and whether it came to an end.
        self._handshake = bytearray()
        self._shaken = False
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._closing: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        now = monotonic()
        limits = server.limits
        self._opened_at = now
        self._ends_at = now + limits.age_s * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
        self._heard_at = now
        self._busy_at = now
        self._pinged_at: float | None = None
        self._noticed_at: float | None = None
        self._gone_away = False
        # Since when headers are on their way, requests incomplete, answers not taken.
        self._headers_since: float | None = None
        self._incomplete: dict[int, float] = {}
        self._undelivered: dict[int, float] = {}
        self._backlog: tuple[int, float] = (0, now)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        self._transport = transport
        transport.set_write_buffer_limits(high=SOCKET_BYTES)
        if self.server.tls is None:
            if self._undecided is None:
                self.touch()  # our SETTINGS
            return
        self.server.tls.begin()
        try:
            self._tls = TlsLayer(self.server.tls.context(), self.server.protocols)
        except ssl.SSLError as error:
            self._refuse_handshake(error)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing is not None or self._lingering is not None:
            return  # what comes now is nobody's any more
        now = monotonic()
        self._heard_at = now
        data = self.server.buffer[:nbytes]
        try:
            if self._tls is None:
                self._receive(data, now)
            elif self._tls.ready:
                self._decrypt(self._tls, data, now)
            else:
                self._put_off(data)
        except Exception:
            log.exception("a connection failed")
            self.cut("defect")

    def eof_received(self) -> bool:
        # Nothing can be answered to one that has closed, but in HTTP/1.1: the transport goes.
        return self._tls is None and self.http is not None and self.http.ended()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self.http is not None:
            self.http.sent()
        else:
            self.touch()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        for timer in (self._closing, self._lingering):
            if timer is not None:
                timer.cancel()
        self._refused("the client hung up")
        self.session.close()
        self.session.owner = None  # no cycle is left for the collector
        if self.http is not None:
            self.http.closed()
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.closed()
        self.server.forget(self)

    # Bytes in.

    def _put_off(self, data: memoryview) -> None:
        """Keep a part of a handshake until the server has time for it."""
        if not self._handshake:
            self.server.shake_hands(self)
        self._handshake += data
        if len(self._handshake) > HANDSHAKE_BYTES_MAX:
            self.cut("half-open")

    def shake_hands(self) -> None:
        """Go on with the handshake: the server's turn to call."""
        data, self._handshake = self._handshake, bytearray()
        if self._tls is not None and self._transport is not None:
            self._decrypt(self._tls, memoryview(data), monotonic())

    def _decrypt(self, tls: TlsLayer, data: memoryview, now: float) -> None:
        was_ready = tls.ready
        try:
            pieces = tls.receive(data)
        except ssl.SSLError as error:
            if was_ready:
                self.cut("TLS")
            else:
                self._refuse_handshake(error)
            return
        if tls.ready and not was_ready:
            self._shaken = True
            self.auth = authenticated(tls.object)
            if tls.protocol == HTTP1:
                self._speak_http1(now)
            self.touch()
        self._write(tls.pending())
        for piece in pieces:
            if not piece:
                self.close()
                return
            self._receive(piece, now)

    def _decide(self, data: bytes | memoryview, now: float) -> bytes:
        """What it speaks, by its first bytes; returns what there is to receive."""
        assert self._undecided is not None
        first = self._undecided + data
        if len(first) < len(PREFACE) and PREFACE.startswith(first):
            self._undecided = first
            return b""
        self._undecided = None
        if not first.startswith(PREFACE):
            self._speak_http1(now)
        return first

    def _speak_http1(self, now: float) -> None:
        app = self.server.http
        assert app is not None
        assert self._transport is not None
        self.session.close()
        self._transport.set_write_buffer_limits(high=HTTP_SOCKET_BYTES)
        # There are no pings: of a client that vanished the system is to find out.
        connected = self._transport.get_extra_info("socket")
        with self._unless_reset():
            for level, option, value in TCP_KEEPALIVE:
                connected.setsockopt(level, option, value)
        self.http = HttpSession(self, self.server, app, self.server.http_limits, now)

    def _receive(self, data: bytes | memoryview, now: float) -> None:
        if self._undecided is not None:
            data = self._decide(data, now)
        if self._undecided is not None:
            return
        if self.http is not None:
            self.http.receive(bytes(data), now)
            return
        session = self.session
        for event in session.receive(data, now):
            kind = event[0]
            if kind == CALL:
                self._begin(*event[1:])
            elif kind == MESSAGE:
                call = self.calls.get(event[1])
                if call is not None:
                    call.message(event[2])
            elif kind == HALF_CLOSED:
                call = self.calls.get(event[1])
                if call is not None:
                    call.half_closed()
            elif kind == CLOSED:
                call = self.calls.pop(event[1], None)
                if call is not None:
                    call.closed()
            elif kind == PONG:
                self._pinged_at = None
                if self._noticed_at is not None:
                    self._go_away()
        if session.streams:
            self._busy_at = now
        if not self.established and session.established:
            self.established = True
            self.server.has_established(self)
        self.touch()

    def _begin(
        self,
        stream: int,
        path: str,
        timeout_s: float | None,
        metadata: tuple[tuple[str, str | bytes], ...],
    ) -> None:
        handler = self.server.handler_of(path, metadata)
        if handler is None:
            self.session.finish(stream, grpc.StatusCode.UNIMPLEMENTED.value[0], "Method not found!")
            return
        streams = handler.request_streaming or handler.response_streaming
        if self._is_too_much(streams):
            # Who watches takes RESOURCE_EXHAUSTED for final (clientv3).
            refusal = grpc.StatusCode.UNAVAILABLE if streams else grpc.StatusCode.RESOURCE_EXHAUSTED
            self.server.counters.refused_calls += 1
            self.session.finish(
                stream,
                refusal.value[0],
                "too many calls at one time; try again",
                RETRY_PUSHBACK,
            )
            return
        if streams:
            self.server.streaming += 1
            self.streaming += 1
            self._fit_streams()
        else:
            self.server.calls += 1
        call = self.calls[stream] = Call(self, stream, path, handler, timeout_s, metadata)
        call.begin()

    def _fit_streams(self) -> None:
        """Calls that last for hours are to take nobody's place: let the client have as many more.

        By steps, for each costs a SETTINGS; that it stays so for the step below costs nothing.
        """
        room = (self.streaming + STREAMING_STEP - 1) // STREAMING_STEP * STREAMING_STEP
        if self._streaming_room < room or self._streaming_room > room + STREAMING_STEP:
            self._streaming_room = room
            self.session.allow_streams(self.server.limits.streams_max + room)

    def stream_ended(self) -> None:
        """One of the calls that stream is over."""
        self.server.streaming -= 1
        self.streaming -= 1
        self._fit_streams()

    def _is_too_much(self, streams: bool) -> bool:
        server, limits = self.server, self.server.limits
        if streams:
            return (
                server.streaming >= limits.streaming_max
                or self.streaming >= limits.connection_streaming_max
            )
        return server.calls >= limits.calls_max

    # Bytes out.

    def touch(self) -> None:
        """Something may be to be sent: at the end of this turn of the loop."""
        if not self.touched:
            self.touched = True
            self.server.touch(self)

    def flush(self) -> bool:
        """Send what there is. True: there is more, for the next turn."""
        if self._transport is None or self._transport.is_closing() or self._paused:
            return False
        if self._tls is not None and not self._tls.ready:
            return False
        if self.http is not None or self._undecided is not None:
            return False
        session = self.session
        sent = 0
        while sent < SEND_BYTES and (data := session.send(SEND_BYTES - sent)):
            sent += len(data)
            self._write(data if self._tls is None else self._tls.encrypt(data))
        if sent:
            for call in [*self.waiting]:
                call.sent()
        if session.wants_write:
            return not self._paused
        if session.broken is not None or session.finished:
            if session.broken is not None:
                self.server.note_broken(self, session.broken)
            self.close()
        return False

    def _write(self, data: bytes) -> None:
        # One that was lost or cut takes nothing any more, before connection_lost says so.
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # What a session of HTTP/1.1 does by it.

    @property
    def is_congested(self) -> bool:
        return self._paused

    def send(self, data: bytes) -> None:
        self._write(data if self._tls is None else self._tls.encrypt(data))

    def hold_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            with self._unless_reset():
                self._transport.resume_reading()

    def has_begun(self) -> None:
        if not self.established:
            self.established = True
            self.server.has_established(self)

    def lasts(self) -> None:
        if self._transport is not None:
            connected = self._transport.get_extra_info("socket")
            with self._unless_reset():
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LASTING_SOCKET_BYTES)

    def close_gently(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._lingering is not None:
            return
        self._lingering = self.server.loop.call_later(LINGER_S, self.close)
        self.go_on_reading()
        if self._tls is not None:
            self._write(self._tls.close())
        elif not transport.is_closing():
            with self._unless_reset():
                transport.write_eof()

    @contextlib.contextmanager
    def _unless_reset(self) -> Iterator[None]:
        """uvloop raises what the system says of a socket that the client has reset since."""
        try:
            yield
        except OSError:
            self._abort()

    def is_broken(self, why: str) -> None:
        self.server.note_broken(self, why[:REASON_CHARACTERS_MAX])

    # Its end.

    def drain(self) -> None:
        """Ask the client for no new calls, and close when those under way are done."""
        if self._noticed_at is not None or self._transport is None:
            return
        if not self.established:
            self.close()
            return
        if self.http is not None:
            self.http.drain()
            return
        self._noticed_at = monotonic()
        self.session.notify_shutdown()
        self.session.ping()
        self.touch()

    def close(self) -> None:
        """Close it once what was written is taken, or some seconds later."""
        if self._transport is None or self._closing is not None:
            return
        if self._tls is not None and self._tls.ready:
            self._write(self._tls.close())
        self._closing = self.server.loop.call_later(CLOSE_S, self._abort)
        self._transport.close()

    def cut(self, why: str) -> None:
        """End it at once."""
        if self._transport is not None:
            self.server.counters.cut[why] = self.server.counters.cut.get(why, 0) + 1
            self._refused(f"cut off: {why}")
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _go_away(self) -> None:
        if not self._gone_away:
            self._gone_away = True
            self.session.goaway()
            self.touch()

    def _refuse_handshake(self, error: ssl.SSLError) -> None:
        if self._tls is not None:
            self._write(self._tls.pending())  # the alert says why
        # Errors of our own have no reason apart.
        self._refused(getattr(error, "reason", None) or str(error))
        self.close()

    def _refused(self, reason: str) -> None:
        """Its handshake comes to nothing, if it was under way."""
        if self.server.tls is not None and not self._shaken:
            self._shaken = True
            self.server.tls.refuse(self.peer, reason)

    # What time does to it.

    def tend(self, now: float) -> None:
        """Look after its bounds in time. Called every ``limits.tick_s``."""
        if self._closing is not None or self._transport is None:
            return  # it is going, or went since the server saw who is there
        limits = self.server.limits
        if not self.established:
            if now - self._opened_at >= limits.half_open_s:
                self.cut("half-open")
            return
        if self.http is not None:
            self._tend_http(self.http, now)
            return
        session = self.session
        if session.streams:
            self._busy_at = now
            self._tend_requests(now)
        if self._is_slow_in_headers(now):
            self.cut("slow-headers")
            return
        if session.unsent_bytes or self._undelivered:
            self._tend_answers(now)
        if self._is_stalled(now):
            self.cut("stalled")
            return
        if self._keepalive_failed(now):
            self.cut("keepalive")
            return
        self._tend_age(now)

    def _tend_http(self, http: HttpSession, now: float) -> None:
        http.tend(now)
        if self._is_stalled(now):
            self.cut("stalled")
        elif now >= self._ends_at:
            http.drain()

    def _is_slow_in_headers(self, now: float) -> bool:
        if not self.session.in_headers:
            self._headers_since = None
            return False
        if self._headers_since is None:
            self._headers_since = now
        return now - self._headers_since >= self.server.limits.headers_s

    def _tend_requests(self, now: float) -> None:
        """End calls whose request takes too long to come."""
        before = self._incomplete
        self._incomplete = {}
        for stream in self.session.incomplete():
            call = self.calls.get(stream)
            if call is not None and not call.is_waiting_for_request:
                continue
            since = before.get(stream, now)
            if now - since < self.server.limits.request_s:
                self._incomplete[stream] = since
                continue
            self.server.counters.slow_requests += 1
            if call is None:
                exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
                self.session.finish(stream, exhausted, SLOW, RETRY_PUSHBACK)
                self.touch()
            else:
                call.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, SLOW)

    def _tend_answers(self, now: float) -> None:
        """Reset streams whose answer isn't taken."""
        before = self._undelivered
        self._undelivered = {}
        for stream in self.session.undelivered():
            since = before.get(stream, now)
            if now - since < self.server.limits.answer_s:
                self._undelivered[stream] = since
                continue
            self.server.counters.unread += 1
            self.session.reset(stream, CANCEL)
            self.touch()

    def _is_stalled(self, now: float) -> bool:
        """Whether the socket took nothing of what it was given for too long."""
        assert self._transport is not None
        size = self._transport.get_write_buffer_size()
        before, since = self._backlog
        if not size or size < before or not before:
            self._backlog = size, now
            return False
        if size > before:
            self._backlog = size, since
        return now - since >= self.server.limits.stalled_s

    def _keepalive_failed(self, now: float) -> bool:
        limits = self.server.limits
        if self._pinged_at is not None:
            if self._heard_at > self._pinged_at:
                self._pinged_at = None
                return False
            return now - self._pinged_at >= limits.keepalive_timeout_s
        if now - self._heard_at >= limits.keepalive_s:
            self._pinged_at = now
            self.session.ping()
            self.touch()
        return False

    def _tend_age(self, now: float) -> None:
        limits = self.server.limits
        if self._noticed_at is not None:
            if now - self._noticed_at >= NOTICE_S:
                self._go_away()
            if now >= self._ends_at + limits.age_grace_s:
                self.cut("age")
        elif (now >= self._ends_at and not self.streaming) or now - self._busy_at >= limits.idle_s:
            self._ends_at = min(self._ends_at, now)
            self.drain()
