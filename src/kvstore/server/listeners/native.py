"""The listener of clients over the native wire."""

from __future__ import annotations

from typing import Any, Self

from kvstore.api.handlers.etcd.batches import WholeCalls
from kvstore.api.handlers.kv_batches import HotCalls, TakeHot
from kvstore.server.listeners.addresses import bind
from kvstore.server.listeners.bounds import (
    CALLS_MAX,
    CONNECTION_CALLS_MAX,
    CONNECTION_STREAMING_MAX,
    MESSAGE_BYTES_MAX,
    STREAMING_MAX,
)
from kvstore.server.metrics.front_figures import FrontFigures
from kvstore.server.metrics.switch import MetricsSwitch
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.server.tls.server_tls import ServerTls
from kvstore.wire.http import App
from kvstore.wire.server import Server, ServerLimits
from kvstore.wire.tls import BOTH

__all__ = ["NativeListener"]


class NativeListener:
    """A listener (``kvstore.server.listeners.front.Listener``)."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @classmethod
    def open(
        cls,
        connections_max: int,
        certificates: CertificateFiles | None,
        metrics: MetricsSwitch,
    ) -> Self:
        """One with our bounds. Raises ConfigurationError for an authority that is no good."""
        limits = ServerLimits(
            connections_max=connections_max,
            calls_max=CALLS_MAX,
            streams_max=CONNECTION_CALLS_MAX,
            streaming_max=STREAMING_MAX,
            connection_streaming_max=CONNECTION_STREAMING_MAX,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
        tls = None if certificates is None else ServerTls(certificates, BOTH)
        return cls(
            Server(
                limits,
                tls=tls,
                counter=metrics.counter,
                slow=metrics.slow,
                traces=metrics.traces,
            )
        )

    @property
    def services(self) -> Any:
        return self._server

    def add_hot_methods(self, paths: tuple[str, str, str], take: TakeHot) -> HotCalls | None:
        return self._server.add_hot_methods(paths, take)

    def add_whole_methods(
        self, paths: tuple[str, ...], once: tuple[str, ...], take: TakeHot
    ) -> WholeCalls | None:
        return self._server.add_whole_methods(paths, once, take)

    def serve_http(self, app: App) -> bool:
        self._server.serve_http(app)
        return True

    def bind(self, address: str) -> str:
        return bind(self._server, address)

    def bind_unix(self, path: str) -> None:
        self._server.bind_unix(path)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        await self._server.stop(grace)

    def figures(self) -> FrontFigures | None:
        server = self._server
        counters = server.counters
        return FrontFigures(
            connections=server.connections,
            half_open=server.half_open,
            calls=server.calls,
            received_bytes=server.received.used,
            received_bytes_max=server.received.limit,
            unsent_bytes=server.unsent.used,
            unsent_bytes_max=server.unsent.limit,
            accepted=counters.accepted,
            refused_connections=counters.refused_connections,
            refused_calls=counters.refused_calls,
            unread_answers=counters.unread,
            slow_requests=counters.slow_requests,
            cut=dict(counters.cut),
        )
