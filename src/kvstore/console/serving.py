"""The console as a process: its socket, TLS, and HTTP with bounds on who may hold what."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from asyncio import Transport
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from kvstore.addresses import HostPort
from kvstore.console.app import application, console_of_options
from kvstore.console.options import Options
from kvstore.console.requests import Console
from kvstore.errors import ConfigurationError

__all__ = ["serve"]

CONNECTIONS_MAX: Final = 128
# Until a request's head has come, from its beginning or that of the connection.
HEAD_S: Final = 10.0
HEAD_BYTES_MAX: Final = 32 << 10


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 that ends connections whose next request doesn't come in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and self._late is not None:
            self._late.cancel()
            self._late = None
        elif not busy and self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)


def serve(options: Options, tell: Callable[[str], None]) -> int:
    """Serve until SIGINT or SIGTERM, whose number is returned; ``tell`` is given the link.

    Raises ConfigurationError where it can't listen, or its certificate is no good.
    """
    console = console_of_options(options)
    listening = _listen(options.endpoint)
    config = uvicorn.Config(
        application(console),
        http=PunctualProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        timeout_graceful_shutdown=2,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    try:
        config.load()
    except OSError as error:
        raise ConfigurationError(f"can't serve with {options.certificate}: {error}") from error
    tell(_link(options, listening.getsockname()[1], console))
    server = _Server(config)
    server.console = console
    with listening:
        asyncio.run(server.serve([listening]))
    return server.ended_by


class _Server(uvicorn.Server):
    """Remembers which signal ended it, and doesn't raise it again."""

    ended_by: int = 0
    console: Console

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.console.buffers.end("the console was ended")
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.ended_by = sig
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(endpoint: HostPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(found[0][4][:2], family=family, backlog=64)
    except OSError as error:
        raise ConfigurationError(f"can't listen on {endpoint}: {error.strerror}") from error


def _link(options: Options, port: int, console: Console) -> str:
    scheme = "https" if options.encrypted else "http"
    host = "localhost" if options.endpoint.is_wildcard else options.endpoint.host
    key = console.sessions.key
    return f"{scheme}://{HostPort(host, port)}/" + (f"login?key={key}" if key else "")
