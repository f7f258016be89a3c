"""A server: its sockets, its connections, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import structlog

from kvstore._wire.native import WHOLE, Budget, HotCall, Limits
from kvstore.wire.http import App, HttpLimits
from kvstore.wire.server.connection import Connection
from kvstore.wire.server.hot import HotCalls, TakeHot
from kvstore.wire.server.identity import address_key, peer_name
from kvstore.wire.server.limits import ServerLimits
from kvstore.wire.server.listening import Listening, listen
from kvstore.wire.server.slow import SlowSink
from kvstore.wire.server.tls import Tls
from kvstore.wire.server.traces import TraceSink
from kvstore.wire.tls import BOTH, HTTP2

__all__ = ["CallCounter", "Counters", "Server"]

# What one read of a socket takes at most; one buffer for all of them.
BUFFER_BYTES = 64 * 1024

# Of a turn, for TLS handshakes: each costs a millisecond or two, and strangers may begin many.
HANDSHAKES_S = 0.002

# Connections looked after in one turn of the loop.
TENDED_A_TURN = 256

# Between two lines in the log of the same kind.
LOG_INTERVAL_S = 60.0

log = structlog.get_logger("kvstore.wire")


CallCounter = Callable[[str, str, float, int], None]
"""(path of the method, name of the code, seconds, how many): unary calls that ended alike."""


class Details(NamedTuple):
    """What generic handlers are asked by."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


@dataclasses.dataclass(slots=True)
class Counters:
    """Of a server, since its start. ``cut``: connections ended by us, by why."""

    accepted: int = 0
    refused_connections: int = 0
    refused_calls: int = 0
    refused_unread: int = 0
    slow_requests: int = 0
    unread: int = 0
    cut: dict[str, int] = dataclasses.field(default_factory=dict)


class Server:
    """Serves gRPC over HTTP/2. Used on its event loop's thread only.

    ``received`` and ``unsent`` are budgets of bytes. ``calls`` counts those under way, but for
    those that stream, which may last: ``streaming`` counts them.
    """

    def __init__(
        self,
        limits: ServerLimits,
        *,
        tls: Tls | None = None,
        counter: CallCounter | None = None,
        slow: SlowSink | None = None,
        traces: TraceSink | None = None,
    ) -> None:
        """``tls``: None for plain text. ``counter`` hears of every unary call that ended, ``slow``
        of those that took long, ``traces`` of those with metadata."""
        self.limits = limits
        self.tls = tls
        self.counter = counter
        self.slow = slow
        self.traces = traces
        self.counters = Counters()
        self.http: App | None = None
        self.http_limits = HttpLimits()
        self.protocols: Sequence[str] = (HTTP2,)
        self.loop = asyncio.get_running_loop()
        self.received = Budget(limits.received_bytes_max)
        self.unsent = Budget(limits.unsent_bytes_max)
        self.session_limits = Limits(
            message_bytes_max=limits.message_bytes_max,
            header_bytes_max=limits.header_bytes_max,
            streams_max=limits.streams_max,
            unsent_bytes_max=limits.connection_unsent_bytes_max,
            received_bytes_max=limits.connection_received_bytes_max,
            window_bytes=limits.window_bytes,
            connection_window_bytes=limits.connection_window_bytes,
        )
        self.calls = 0
        self.streaming = 0
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.hot: list[HotCall] = []
        """Decoded calls of all connections, which their sessions append."""
        self.hot_refused: dict[tuple[int, int], int] = {}
        """Counts, by method and status, of those that ended before they were decoded."""
        self.hot_paths: tuple[str, ...] = ()
        self.whole_paths: tuple[str, ...] = ()
        self.once_paths: tuple[str, ...] = ()
        self._hot_calls = HotCalls(self)
        self._handlers: list[Any] = []
        self._found: dict[str, Any] = {}
        self._listening = Listening(self._take)
        self._connections: set[Connection] = set()
        self._half_open: OrderedDict[Connection, None] = OrderedDict()
        self._by_address: Counter[str] = Counter()
        self._opening: set[asyncio.Task[None]] = set()
        self._touched: list[Connection] = []
        self._shaking: deque[Connection] = deque()
        self._turn_is_due = False
        self._tending: asyncio.Task[None] | None = None
        self._stopping = False
        self._empty: asyncio.Future[None] | None = None
        self._logged_at: dict[str, float] = {}

    # Before it is started.

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """As of ``grpc.aio.Server``: generated code registers services by it."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """What newer generated code calls as well; the generic handlers are enough."""

    def add_hot_methods(self, paths: tuple[str, ...], take: TakeHot) -> HotCalls:
        """Have the calls of ``paths`` (Put, Get and Delete, in this order) decoded and taken in
        batches by ``take``. Returns where they are answered."""
        self.hot_paths = paths
        self._hot_calls.take_by(take, paths)
        return self._hot_calls

    def add_whole_methods(
        self, paths: tuple[str, ...], once: tuple[str, ...], take: TakeHot
    ) -> HotCalls:
        """Have the calls of ``paths``, and those of ``once``, which stream, that come in one piece,
        taken in batches by ``take``, with their messages as they came. Handlers of ``once`` are
        needed for the others. Returns where they are answered."""
        self.whole_paths, self.once_paths = paths, once
        # What streams isn't told of: it has no name here.
        self._hot_calls.take_by(take, paths, WHOLE)
        return self._hot_calls

    def serve_http(self, app: App, limits: HttpLimits | None = None) -> None:
        """Have requests of HTTP/1.1 answered by ``app``. Under TLS the context must offer it."""
        self.http = app
        self.http_limits = limits or self.http_limits
        self.protocols = BOTH

    def bind(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError with the system's reason."""
        sockets = listen(host, port)
        self._listening.add(sockets)
        return int(sockets[0].getsockname()[1])

    def bind_unix(self, path: str) -> None:
        """Listen on a unix socket, for this user alone. Raises OSError."""
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            one.bind(path)
            os.chmod(path, 0o600)
            one.listen()
            one.setblocking(False)
        except BaseException:
            one.close()
            raise
        self._listening.add([one])

    async def start(self) -> None:
        """Answer who comes."""
        self._listening.start()
        self._tending = self.loop.create_task(self._tend(), name="wire-tend")

    async def stop(self, grace: float | None) -> None:
        """Take nobody any more, and end after ``grace`` seconds, or when all calls are done."""
        self._stopping = True
        self._listening.close()
        for opening in self._opening:
            opening.cancel()
        if self._connections and grace:
            self._empty = self.loop.create_future()
            for connection in [*self._connections]:
                connection.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._empty
        for connection in [*self._connections]:
            connection.cut("stopping")
        if self._tending is not None:
            self._tending.cancel()
        while self._connections:
            self._empty = self.loop.create_future()
            await self._empty

    # Connections.

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def half_open(self) -> int:
        return len(self._half_open)

    def _take(self, accepted: socket.socket, address: Any) -> None:
        """A connection was accepted: refuse it, or make something of it."""
        key = address_key(address)
        # Over a unix socket all come from one place.
        alike = 0 if accepted.family == socket.AF_UNIX else self._by_address[key]
        if (
            len(self._connections) >= self.limits.connections_max
            or alike >= self.limits.per_address_max
        ):
            self.counters.refused_connections += 1
            accepted.close()
            if self._is_time_to_log("refused"):
                log.warning(
                    "connections refused: too many at one time",
                    address=key,
                    connections=len(self._connections),
                    refused=self.counters.refused_connections,
                )
            return
        if accepted.family != socket.AF_UNIX:
            try:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                accepted.close()  # it was reset since
                return
        self.counters.accepted += 1
        connection = Connection(self, peer_name(address), key)
        self._connections.add(connection)
        self._by_address[key] += 1
        self._half_open[connection] = None
        if len(self._half_open) > self.limits.half_open_max:
            oldest, _ = self._half_open.popitem(last=False)
            oldest.cut("half-open")
        opening = self.loop.create_task(self._open(connection, accepted))
        self._opening.add(opening)
        opening.add_done_callback(partial(self._opened, connection, accepted))

    async def _open(self, connection: Connection, accepted: socket.socket) -> None:
        await self.loop.connect_accepted_socket(lambda: connection, accepted)

    def _opened(
        self, connection: Connection, accepted: socket.socket, opening: asyncio.Task[None]
    ) -> None:
        """Clean up after one that came to nothing, its task being cancelled before it ran even."""
        self._opening.discard(opening)
        if opening.cancelled() or opening.exception() is not None:
            accepted.close()
            connection.connection_lost(None)

    def has_established(self, connection: Connection) -> None:
        """Its preface and SETTINGS came."""
        self._half_open.pop(connection, None)
        if self._stopping:
            connection.drain()

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._half_open.pop(connection, None)
        self._by_address[connection.key] -= 1
        if not self._by_address[connection.key]:
            del self._by_address[connection.key]
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def note_broken(self, connection: Connection, why: str) -> None:
        """The client broke the protocol, or a bound of it."""
        self.counters.cut["protocol"] = self.counters.cut.get("protocol", 0) + 1
        if self._is_time_to_log("broken"):
            log.warning("a client was cut off", peer=connection.peer, reason=why)

    def _is_time_to_log(self, kind: str) -> bool:
        now = monotonic()
        if now - self._logged_at.get(kind, float("-inf")) < LOG_INTERVAL_S:
            return False
        self._logged_at[kind] = now
        return True

    # Calls.

    def handler_of(self, path: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Any:
        """The method's handler; None: there is no such method."""
        found = self._found.get(path)
        if found is None:
            details = Details(path, metadata)
            for handlers in self._handlers:
                found = handlers.service(details)
                if found is not None:
                    self._found[path] = found
                    break
        return found

    # Turns.

    def touch(self, connection: Connection) -> None:
        """Flush ``connection`` at the end of this turn."""
        self._touched.append(connection)
        self._have_turn()

    def shake_hands(self, connection: Connection) -> None:
        """Go on with the TLS handshake of ``connection`` when there is time."""
        self._shaking.append(connection)
        self._have_turn()

    def _have_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Once for all that was read, and answered, in a turn of the loop."""
        self._turn_is_due = False
        if self.hot_refused:
            self._hot_calls.count_refused()
        if self.hot and self._hot_calls.take():
            self._have_turn()
        if self._shaking:
            self._go_on_shaking()
        touched, self._touched = self._touched, []
        for connection in touched:
            connection.touched = False
            if self._guarded(connection, connection.flush):
                connection.touch()

    def _go_on_shaking(self) -> None:
        until = monotonic() + HANDSHAKES_S
        while self._shaking:
            connection = self._shaking.popleft()
            self._guarded(connection, connection.shake_hands)
            if monotonic() >= until:
                break
        if self._shaking:
            self._have_turn()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(self.limits.tick_s)
            all_of_them: Sequence[Connection] = [*self._connections]
            for first in range(0, len(all_of_them), TENDED_A_TURN):
                now = monotonic()
                for connection in all_of_them[first : first + TENDED_A_TURN]:
                    self._guarded(connection, connection.tend, now)
                await asyncio.sleep(0)

    def _guarded(self, connection: Connection, do: Callable[..., Any], *arguments: Any) -> Any:
        """A defect that shows at one connection ends that one alone."""
        try:
            return do(*arguments)
        except Exception:
            log.exception("a connection failed")
            connection.cut("defect")
            return None
