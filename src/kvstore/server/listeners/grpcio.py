"""The listener of clients over grpcio: the reference that the native one is held against."""

from __future__ import annotations

from typing import Any, Self

import grpc.aio
import structlog

from kvstore.api.handlers.etcd.batches import WholeCalls
from kvstore.api.handlers.kv_batches import HotCalls, TakeHot
from kvstore.server.listeners.grpcio_server import bind, new_server
from kvstore.server.metrics.front_figures import FrontFigures
from kvstore.server.metrics.switch import MetricsSwitch
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.wire.http import App

__all__ = ["GrpcioListener"]

log = structlog.get_logger("kvstore.server")


class GrpcioListener:
    """A listener (``kvstore.server.listeners.front.Listener``)."""

    def __init__(self, server: grpc.aio.Server, certificates: CertificateFiles | None) -> None:
        self._server = server
        self._certificates = certificates

    @classmethod
    def open(
        cls,
        connections_max: int,
        certificates: CertificateFiles | None,
        metrics: MetricsSwitch,
    ) -> Self:
        """One with our bounds."""
        if metrics.traces is not None:
            log.warning("no traces: the native front alone has them")
        return cls(new_server(metrics.interceptors, connections_max=connections_max), certificates)

    @property
    def services(self) -> Any:
        return self._server

    def add_hot_methods(self, paths: tuple[str, str, str], take: TakeHot) -> HotCalls | None:
        return None  # each call is a task of its own

    def add_whole_methods(
        self, paths: tuple[str, ...], once: tuple[str, ...], take: TakeHot
    ) -> WholeCalls | None:
        return None

    def serve_http(self, app: App) -> bool:
        return False  # gRPC has the port, and takes nothing else

    def bind(self, address: str) -> str:
        credentials = None
        if self._certificates is not None:
            credentials = self._certificates.server_credentials()
        return bind(self._server, address, credentials)

    def bind_unix(self, path: str) -> None:
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise OSError(str(error)) from error

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        await self._server.stop(grace)

    def figures(self) -> FrontFigures | None:
        return None
