"""What talks HTTP/2 with clients: the native wire, where it is built, or grpcio."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from kvstore.api.handlers.etcd.batches import WholeCalls
from kvstore.api.handlers.kv_batches import HotCalls, TakeHot
from kvstore.errors import ConfigurationError
from kvstore.server.listeners.grpcio import GrpcioListener
from kvstore.server.metrics.front_figures import FrontFigures
from kvstore.server.metrics.switch import MetricsSwitch
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.wire import available
from kvstore.wire.http import App

__all__ = ["Front", "Listener", "OpenListener", "choose_front"]

NOT_BUILT = "this kvstore was built without the header of nghttp2 (libnghttp2-dev)"

log = structlog.get_logger("kvstore.server")


class Listener(Protocol):
    """A server for one kind of callers, on one address."""

    @property
    def services(self) -> Any:
        """What generated code registers services with."""

    def add_hot_methods(self, paths: tuple[str, str, str], take: TakeHot) -> HotCalls | None:
        """Have calls of Put, Get and Delete taken in batches; None where that can't be."""

    def add_whole_methods(
        self, paths: tuple[str, ...], once: tuple[str, ...], take: TakeHot
    ) -> WholeCalls | None:
        """Have calls of ``paths``, and those of ``once`` that come in one piece, taken in batches
        with their messages as they came; None where that can't be. Their methods are numbered
        after Put, Get and Delete."""

    def serve_http(self, app: App) -> bool:
        """Have requests of HTTP/1.1 answered by ``app``; False where that can't be."""

    def bind(self, address: str) -> str:
        """Take ``host:port``; the address with the port that it really has.

        Raises ConfigurationError that says why the address can't be had.
        """

    def bind_unix(self, path: str) -> None:
        """Take a path, for this user alone. Raises OSError."""

    async def start(self) -> None:
        """Answer who comes."""

    async def stop(self, grace: float | None) -> None:
        """Take no new calls, and end when those under way are done, after ``grace`` s at most."""

    def figures(self) -> FrontFigures | None:
        """For metrics; None where there are none."""


OpenListener = Callable[[int, CertificateFiles | None, MetricsSwitch], Listener]
"""(connections_max, certificates, metrics) -> a listener, not bound to an address yet."""


@dataclasses.dataclass(frozen=True, slots=True)
class Front:
    """One of the two. ``reason``: why it isn't the native one."""

    name: str
    reason: str
    open: OpenListener

    def say(self) -> None:
        """Log which it is."""
        log.info("front", name=self.name, **({"reason": self.reason} if self.reason else {}))


def choose_front(wanted: str) -> Front:
    """The front of ``--front``. Raises ConfigurationError for the native one if it isn't built."""
    if wanted == "grpcio":
        return Front("grpcio", "as --front says", GrpcioListener.open)
    if available():
        from kvstore.server.listeners.native import NativeListener

        return Front("native", "", NativeListener.open)
    if wanted == "native":
        raise ConfigurationError(f"--front=native can't be had: {NOT_BUILT}")
    return Front("grpcio", NOT_BUILT, GrpcioListener.open)
