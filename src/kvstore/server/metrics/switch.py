"""Metrics on or off: the only way to them that works without the ``prometheus_client`` package."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc.aio

from kvstore.errors import ConfigurationError
from kvstore.extras import install_line
from kvstore.server.http.probes import ProbePages, Probes
from kvstore.server.metrics.endpoint import MetricsEndpoint
from kvstore.server.metrics.pages import MetricsPages
from kvstore.server.nodes.node import Node
from kvstore.server.slow_calls import SlowCalls
from kvstore.server.tls.certificate_files import CertificateFiles

if TYPE_CHECKING:
    from kvstore.server.metrics.calls import Metrics
    from kvstore.server.metrics.front_figures import CallCounter, FrontFigures
    from kvstore.server.traces.spans import ServerSpans

__all__ = ["MetricsSwitch", "open_metrics"]


class MetricsSwitch:
    """Metrics of a process, or none of them."""

    def __init__(
        self,
        metrics: Metrics | None = None,
        pages: MetricsPages | None = None,
        slow: SlowCalls | None = None,
        traces: ServerSpans | None = None,
    ) -> None:
        """``slow`` and ``traces``: who hears of slow calls, and of those that clients trace,
        whether there are metrics or not."""
        self.slow = slow
        self.traces = traces
        self._metrics = metrics
        self._pages = pages

    @property
    def interceptors(self) -> Sequence[grpc.aio.ServerInterceptor[Any, Any]]:
        """What a grpcio listener of clients needs to count calls."""
        if self._metrics is None:
            return ()
        from kvstore.server.metrics.calls import CallMetrics

        return (CallMetrics(self._metrics.calls.count),)

    @property
    def counter(self) -> CallCounter | None:
        """What a native one tells of its calls; None: nobody wants to know."""
        return None if self._metrics is None else self._metrics.calls.count

    def watch_front(self, figures: Callable[[], FrontFigures | None]) -> None:
        """Have the listener of clients asked at each scrape."""
        if self._metrics is not None:
            self._metrics.watch_front(figures)

    def probe_by(self, probes: Probes) -> None:
        """Answer ``/livez`` and ``/readyz`` by ``probes`` from now on."""
        if self._pages is not None:
            self._pages.probes = ProbePages(probes)

    @contextlib.contextmanager
    def of(self, node: Node) -> Iterator[None]:
        """Serve ``node``'s figures as long as the context lasts."""
        if self._metrics is None:
            yield
            return
        self._metrics.watch(node)
        try:
            yield
        finally:
            self._metrics.watch(None)


@contextlib.contextmanager
def open_metrics(
    address: str | None,
    certificates: CertificateFiles | None,
    exposed: Iterable[str] = (),
    slow: SlowCalls | None = None,
    traces: ServerSpans | None = None,
) -> Iterator[MetricsSwitch]:
    """Take ``address`` for metrics; None: no metrics. On the running event loop.

    ``certificates`` are the client listener's, ``exposed`` what is open to
    whoever reaches it. Raises ConfigurationError when the address can't be
    had or the package is missing.
    """
    if address is None:
        yield MetricsSwitch(slow=slow, traces=traces)
        return
    try:
        from kvstore.server.metrics.calls import Metrics
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("prometheus_client"):
            raise
        raise ConfigurationError(
            f"--metrics_addr needs the 'prometheus_client' package: {install_line('metrics')}"
        ) from error
    loop = asyncio.get_running_loop()
    metrics = Metrics(loop, certificates, exposed)
    pages = MetricsPages(loop, metrics.render)
    endpoint = MetricsEndpoint(address, pages)
    endpoint.start()
    try:
        yield MetricsSwitch(metrics, pages, slow, traces)
    finally:
        endpoint.close()
