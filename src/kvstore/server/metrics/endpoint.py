"""``/metrics`` and the probes over plain HTTP, in threads of its own: whoever is slow there holds
up nobody else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import structlog

from kvstore.addresses import HostPort
from kvstore.errors import ConfigurationError, UnavailableError

__all__ = ["MetricsEndpoint", "Page", "parse_metrics_address"]

Page = Callable[[str, dict[str, list[str]], str], tuple[int, str, bytes] | None]
"""(path, query, Accept header): status, content type and body; None for a path that isn't there."""

# Connections at one time; for one beyond the oldest is ended: what asks for something has had it
# soon, and those that only sit there keep no probe away.
CONNECTIONS_MAX = 64

# Scrapes at one time, of which each takes more than a probe; others wait so long for a place.
SCRAPES_MAX = 4
PLACE_S = 5.0

QUERY_FIELDS_MAX = 64

# How long who asks may be silent.
SILENCE_S = 5.0

# A whole request, its answer included, takes no longer than this.
SCRAPE_S = 10.0

log = structlog.get_logger("kvstore.metrics")


def parse_metrics_address(address: str) -> HostPort:
    """What ``host:port`` says. Raises ConfigurationError."""
    parsed = HostPort.parse(address)
    if parsed is None:
        raise ConfigurationError(f"unsupported --metrics_addr={address}; expected host:port")
    return parsed


class MetricsEndpoint:
    """Serves what ``page`` gives on one address.

    It is called on the thread of each request; UnavailableError from it is answered with 503.
    """

    def __init__(self, address: str, page: Page) -> None:
        """Take the address. Raises ConfigurationError that says why it can't be had."""
        wanted = parse_metrics_address(address)
        try:
            family, _, _, _, endpoint = socket.getaddrinfo(
                wanted.host, wanted.port, type=socket.SOCK_STREAM
            )[0]
            self._server = _server(family, endpoint, page)
        except OSError as error:
            raise ConfigurationError(
                f"failed to serve metrics on {address}: {error.strerror or error}"
            ) from error
        self.address = str(HostPort(wanted.host, int(self._server.server_address[1])))
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def start(self) -> None:
        """Answer scrapes."""
        self._thread.start()
        log.info("metrics served", address=self.address)

    def close(self) -> None:
        """Give the address back. Scrapes under way are not waited for."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _server(family: int, endpoint: Any, page: Page) -> ThreadingHTTPServer:
    scrapes = threading.BoundedSemaphore(SCRAPES_MAX)
    connections = _Connections()

    class Handler(BaseHTTPRequestHandler):
        timeout = SILENCE_S

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            try:
                asked = parse_qs(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
            except ValueError:
                self.send_error(400, "too much is asked at once")
                return
            try:
                with _place(scrapes) if path == "/metrics" else contextlib.nullcontext():
                    found = page(path, asked, self.headers.get("Accept", ""))
            except UnavailableError as error:
                self.send_error(503, str(error))
                return
            if found is None:
                self.send_error(404, "only /metrics, /livez and /readyz are here")
                return
            status, kind, body = found
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            log.debug("scrape", line=format % args)

    class Server(ThreadingHTTPServer):
        address_family = family
        daemon_threads = True
        block_on_close = False

        def server_bind(self) -> None:
            # HTTPServer's own asks the resolver for this machine's full name.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()

        def process_request(self, request: Any, client_address: Any) -> None:
            connections.add(request)
            super().process_request(request, client_address)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                connections.forget(request)

        def service_actions(self) -> None:
            connections.end_late()

        def handle_error(self, request: Any, client_address: Any) -> None:
            log.warning("scrape failed", exc_info=True)

    return Server(endpoint, Handler)


class _Connections:
    """Those that are open, and since when, the oldest first."""

    def __init__(self) -> None:
        self._since: dict[socket.socket, float] = {}
        self._lock = threading.Lock()

    def add(self, one: socket.socket) -> None:
        with self._lock:
            if len(self._since) >= CONNECTIONS_MAX:
                self._end(next(iter(self._since)))
            self._since[one] = time.monotonic()

    def forget(self, one: socket.socket) -> None:
        with self._lock:
            self._since.pop(one, None)

    def end_late(self) -> None:
        """SILENCE_S is for each read: one that sends a byte now and then would have all day."""
        late = time.monotonic() - SCRAPE_S
        with self._lock:
            for one in [one for one, since in self._since.items() if since <= late]:
                self._end(one)

    def _end(self, one: socket.socket) -> None:
        """Its thread finds it at its end, and closes it."""
        del self._since[one]
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _place(scrapes: threading.BoundedSemaphore) -> Iterator[None]:
    """Raises UnavailableError if there is none in time."""
    if not scrapes.acquire(timeout=PLACE_S):
        raise UnavailableError(f"{SCRAPES_MAX} others are scraping")
    try:
        yield
    finally:
        scrapes.release()
