"""HTTP/1.1 on one connection: requests one after the other, each with its answer. h11 parses.

Only a request that is complete, and within its bounds, is anybody's to answer. While it is answered
nothing is made of what follows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import h11
import structlog

from kvstore.wire.http.exchange import TEXT, App, Exchange
from kvstore.wire.http.limits import HttpLimits

if TYPE_CHECKING:
    from kvstore.wire.server.server import Server

__all__ = ["Carrier", "HttpSession"]

SLOW = "the request took too long to come"
AMBIGUOUS = "line ends of a request are CR and LF, and its header fields have a line each"
FULL = "too many bytes of requests wait already; try again"

# Whoever has said all, and may be gone, is answered for so long.
GONE_S = 2.0

# Of a body in small parts for each of these one more.
CHUNK_BYTES = 1024

# What h11 quotes of a request in its words for an error: that may be a token or a password, which
# are nobody's to read in a log.
_QUOTED = re.compile(r"[: ]+(?:bytearray\()?b['\"].*", re.DOTALL)

# A line that ends without CR, or goes on in the next one: a proxy may see another request in it
# (RFC 9112, 2.2 and 5.2).
_AMBIGUOUS = re.compile(rb"(?<!\r)\n|\n[ \t]")

log = structlog.get_logger("kvstore.wire")


class Carrier(Protocol):
    """The connection, as a session uses it."""

    peer: str

    @property
    def is_congested(self) -> bool:
        """It doesn't take bytes; ``sent`` is called when it does again."""

    def send(self, data: bytes) -> None: ...

    def hold_reading(self) -> None:
        """Read nothing for now."""

    def go_on_reading(self) -> None: ...

    def has_begun(self) -> None:
        """Something came that is HTTP."""

    def lasts(self) -> None:
        """Its answer goes on for as long as it likes: little of it is to wait for one who doesn't
        read, in the system as well."""

    def close(self) -> None:
        """Once what was written is taken."""

    def close_gently(self) -> None:
        """Likewise, but let the client send on for a moment: closing what has unread bytes may take
        the answer from it."""

    def cut(self, why: str) -> None: ...

    def is_broken(self, why: str) -> None:
        """The client broke the protocol: count it, and say so."""


class HttpSession:
    """See the module. What its carrier calls: ``receive``, ``sent``, ``ended``, ``tend``, ``drain``
    and ``closed``; the rest is its exchange's."""

    def __init__(
        self, carrier: Carrier, server: Server, app: App, limits: HttpLimits, now: float
    ) -> None:
        self.peer = carrier.peer
        self._carrier = carrier
        self._server = server
        self._app = app
        self._limits = limits
        self._h11 = h11.Connection(
            h11.SERVER, max_incomplete_event_size=server.limits.header_bytes_max
        )
        # The request whose body comes, and that; None before its head is complete.
        self._head: h11.Request | None = None
        self._is_head = False
        """The request being answered wants the head of the answer alone."""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._chunks = 0
        # Since when its head, or its body, is on its way; None between two requests.
        self._since: float | None = now
        self._idle_since = now
        self._task: asyncio.Task[None] | None = None
        # Of what is answered: since when, and whether it streams; None: not begun.
        self._answering_since: float | None = None
        self._lasts = False
        self._room: asyncio.Future[None] | None = None
        # What it has of the server's budgets and counts.
        self._received = self._unsent = self._calls = self._streaming = 0
        self._ahead = 0
        self._draining = False
        self._no_more = False
        """The client has said all that it wants."""
        self._deaf = False
        """What comes now is nobody's any more."""

    # What the carrier calls.

    def receive(self, data: bytes, now: float) -> None:
        """Bytes came."""
        if self._deaf:
            return
        self._h11.receive_data(data)
        if self._task is not None:
            self._ahead += len(data)
            self._bound_ahead()
            return
        if self._since is None:
            self._since = now
        self._advance(now)

    def sent(self) -> None:
        """The carrier takes bytes again."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def ended(self) -> bool:
        """The client sends no more. True: it may still read an answer, that of a call which waits
        for others excepted: nobody can tell that it is still there."""
        self._no_more = True
        if self._task is None or self._lasts:
            return False
        self._server.loop.call_later(GONE_S, self._carrier.close)
        return True

    def drain(self) -> None:
        """Answer what has come, and then close."""
        self._draining = True
        if self._task is None and self._since is None and not self._deaf:
            self._carrier.close()

    def closed(self) -> None:
        """The connection is gone."""
        self._deaf = True
        self._give_back()
        if self._task is not None:
            self._task.cancel()

    def tend(self, now: float) -> None:
        """Look after its bounds in time."""
        if self._deaf:
            return
        limits, shared = self._limits, self._server.limits
        if self._task is not None:
            since = self._answering_since
            if since is not None and not self._lasts and now - since >= limits.answer_s:
                self._server.counters.unread += 1
                self._carrier.cut("unread")
        elif self._since is not None:
            patience_s = shared.headers_s if self._head is None else shared.request_s
            if now - self._since >= patience_s:
                self._server.counters.slow_requests += 1
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, SLOW)
        elif now - self._idle_since >= limits.idle_s:
            self._carrier.close()

    # Requests.

    def _advance(self, now: float) -> None:
        while self._task is None and not self._deaf:
            # Of a head h11 keeps no bytes, and takes line ends that others read otherwise.
            head = self._h11.trailing_data[0] if self._h11.their_state is h11.IDLE else b""
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                why = _QUOTED.sub("", str(error))
                self._carrier.is_broken(why)
                self._refuse(error.error_status_hint, why)
                return
            match event:
                case h11.Request():
                    size = len(head) - len(self._h11.trailing_data[0])
                    if _AMBIGUOUS.search(head, 0, size):
                        self._carrier.is_broken(AMBIGUOUS)
                        self._refuse(HTTPStatus.BAD_REQUEST, AMBIGUOUS)
                        return
                    self._take_head(event, now)
                case h11.Data():
                    self._take_body(event.data)
                case h11.EndOfMessage():
                    self._run()
                case _:
                    self._ask_on()
                    return

    def _ask_on(self) -> None:
        """More is to come: does the client wait to be asked for it?"""
        if self._h11.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def _take_head(self, head: h11.Request, now: float) -> None:
        self._is_head = head.method == b"HEAD"
        size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
        if size > self._server.limits.header_bytes_max:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many bytes of headers")
            return
        self._carrier.has_begun()
        if head.method == b"CONNECT":
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy")
            return
        names = {name for name, _ in head.headers}
        if names >= {b"content-length", b"transfer-encoding"}:
            # A proxy that goes by the other one would take a part of it for a request (RFC 9112,
            # 6.3).
            self._refuse(HTTPStatus.BAD_REQUEST, "both Content-Length and Transfer-Encoding")
            return
        self._head, self._since = head, now
        declared = next((value for name, value in head.headers if name == b"content-length"), b"0")
        self._bound_body(int(declared), chunks=0)

    def _take_body(self, data: bytes | bytearray) -> None:
        self._body_bytes += len(data)
        self._chunks += 1
        if not self._bound_body(self._body_bytes, self._chunks):
            return
        held, most = self._received, self._server.limits.connection_received_bytes_max
        if not self._server.received.take(len(data), held, most):
            self._server.counters.refused_calls += 1
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, FULL)
            return
        self._received += len(data)
        self._body.append(bytes(data))

    def _bound_body(self, size: int, chunks: int) -> bool:
        limits = self._limits
        if size > limits.body_bytes_max:
            most = f"at most {limits.body_bytes_max} bytes of body are taken"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, most)
            return False
        if chunks > limits.small_chunks_max + size // CHUNK_BYTES:
            self._refuse(HTTPStatus.BAD_REQUEST, "the body comes in too many small chunks")
            return False
        return True

    def _run(self) -> None:
        head = self._head
        assert head is not None
        exchange = Exchange(
            self,
            head.method.decode("latin-1"),
            head.target.decode("latin-1"),
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers],
            b"".join(self._body),
        )
        self._head, self._since = None, None
        self._body, self._body_bytes, self._chunks = [], 0, 0
        self._ahead = len(self._h11.trailing_data[0])
        self._task = self._server.loop.create_task(self._answer(exchange))
        self._task.add_done_callback(self._finished)

    async def _answer(self, exchange: Exchange) -> None:
        await self._app(exchange)
        if not exchange.started:
            exchange.respond(HTTPStatus.INTERNAL_SERVER_ERROR, fields=TEXT)
        self._send(h11.EndOfMessage())
        await self.room()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._give_back()
        if self._deaf:
            return
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            log.error("a request failed", peer=self.peer, exc_info=error)
            self._carrier.cut("defect")
            return
        self._answering_since, self._lasts, self._is_head = None, False, False
        if self._draining or self._no_more or self._h11.our_state is not h11.DONE:
            self._end()
            return
        now = monotonic()
        self._idle_since = now
        self._h11.start_next_cycle()
        self._since = now if self._h11.trailing_data[0] else None
        self._advance(now)
        if self._task is None or self._ahead <= self._limits.ahead_bytes_max:
            self._carrier.go_on_reading()

    def _bound_ahead(self) -> None:
        if self._ahead <= self._limits.ahead_bytes_max:
            return
        if self._lasts:
            # Without reading nobody would see that it hangs up.
            self._carrier.cut("ahead")
        else:
            self._carrier.hold_reading()

    def _refuse(self, status: int, why: str) -> None:
        """Answer what is no request, or none that is taken, and hear no more."""
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = why.encode()[:1024] + b"\n"
            self._draining = True
            self.begin_answer(status, TEXT, len(body))
            self.send_body(body)
            self._send(h11.EndOfMessage())
        self._end()

    def _end(self) -> None:
        self._deaf = True
        self._give_back()
        self._carrier.close_gently()

    def _give_back(self) -> None:
        server = self._server
        server.received.give_back(self._received)
        server.unsent.give_back(self._unsent)
        server.calls -= self._calls
        server.streaming -= self._streaming
        self._received = self._unsent = self._calls = self._streaming = 0
        self._body = []

    # What its exchange calls.

    def enter(self, streams: bool) -> bool:
        server, limits = self._server, self._server.limits
        if streams:
            allowed = server.streaming < limits.streaming_max
            self._streaming += allowed
            server.streaming += allowed
        else:
            allowed = server.calls < limits.calls_max
            self._calls += allowed
            server.calls += allowed
        server.counters.refused_calls += not allowed
        return allowed

    def hold(self, size: int) -> bool:
        held, most = self._unsent, self._server.limits.connection_unsent_bytes_max
        taken = self._server.unsent.take(size, held, most)
        self._unsent += size * taken
        return taken

    def let_go(self, size: int) -> None:
        size = min(size, self._unsent)
        self._unsent -= size
        self._server.unsent.give_back(size)

    def begin_answer(
        self,
        status: int,
        fields: Iterable[tuple[str, str]],
        size: int | None,
        lasts: bool = False,
    ) -> None:
        """``size``: of the body; None: that isn't known."""
        self._answering_since, self._lasts = monotonic(), lasts
        headers = [("Date", formatdate(usegmt=True)), ("X-Content-Type-Options", "nosniff")]
        headers += fields
        if size is not None:
            headers.append(("Content-Length", str(size)))
        if self._draining or self._no_more:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(status).phrase
        self._send(h11.Response(status_code=status, headers=headers, reason=reason))
        if lasts:
            self._carrier.lasts()
            self._bound_ahead()

    def send_body(self, data: bytes) -> None:
        if data and not self._is_head:
            self._send(h11.Data(data=data))

    async def room(self) -> None:
        """Return when the carrier takes more; others have their turn meanwhile."""
        if not self._carrier.is_congested:
            await asyncio.sleep(0)
            return
        self._room = self._server.loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._carrier.send(data)
