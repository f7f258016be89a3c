"""Prometheus metrics: what a process counts, and what its members say of themselves at a scrape.

Needs the ``prometheus_client`` package (extra ``metrics``). A scrape's thread asks the event loop
for the figures, which takes it microseconds and no disk; sizes of files are read and text is made
on the scrape's thread.
"""

from __future__ import annotations

import asyncio
import bisect
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from kvstore.errors import UnavailableError
from kvstore.server.metrics.families import Moment, families_of, take_moment
from kvstore.server.metrics.front_figures import CallCounter, FrontFigures
from kvstore.server.metrics.names import name_of
from kvstore.server.metrics.pages import asked_of
from kvstore.server.nodes.node import Node
from kvstore.server.tls.certificate_files import CertificateFiles

__all__ = ["CallMetrics", "CallSeries", "Metrics"]

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class CallSeries:
    """Calls that ended, by method and code, and the time that they took.

    Plain numbers: a front tells of whole batches, a hundred thousand calls a second.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str], int] = {}
        # Of each method: how many in each bucket, the last for what took longer; and their sum.
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count(self, method: str, code: str, seconds: float, count: int = 1) -> None:
        """``count`` calls of ``method``, a path, ended. Other services' pass by uncounted."""
        name = name_of(method)
        if name is None:
            return
        requests = self._requests
        requests[name, code] = requests.get((name, code), 0) + count
        buckets = self._buckets.get(name)
        if buckets is None:
            buckets = self._buckets[name] = [0] * (len(BUCKETS_S) + 1)
            self._seconds[name] = 0.0
        buckets[bisect.bisect_left(BUCKETS_S, seconds)] += count
        self._seconds[name] += seconds * count

    def collect(self) -> Iterator[Metric]:
        """The series. On any thread."""
        requests = CounterMetricFamily(
            "kvstore_requests", "Calls answered", labels=["method", "code"]
        )
        for (name, code), number in self._requests.copy().items():
            requests.add_metric([name, code], number)
        yield requests
        times = HistogramMetricFamily(
            "kvstore_request_duration_seconds",
            "Time from a call's arrival to its answer",
            labels=["method"],
        )
        for name, buckets in self._buckets.copy().items():
            sums = itertools.accumulate(buckets)
            bounds = [*map(str, BUCKETS_S), "+Inf"]
            times.add_metric([name], list(zip(bounds, sums, strict=True)), self._seconds[name])
        yield times


class CallMetrics(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Tells of the unary calls of our services; for grpcio, whose server doesn't."""

    def __init__(self, count: CallCounter) -> None:
        self._count = count
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or handler.unary_unary is None or name_of(method) is None:
            return handler
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        answer = handler.unary_unary

        async def timed(request: Any, context: Any) -> Any:
            began = time.monotonic()
            code = "OK"
            try:
                return await answer(request, context)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except BaseException:
                code = _code(context)
                raise
            finally:
                self._count(method, code, time.monotonic() - began, 1)

        return grpc.unary_unary_rpc_method_handler(
            timed,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _code(context: Any) -> str:
    """The name of the status that an aborted call ends with; UNKNOWN for a defect."""
    code = context.code()
    for status in grpc.StatusCode:
        if code in (status, status.value[0]) and status is not grpc.StatusCode.OK:
            return status.name
    return "UNKNOWN"


class Metrics:
    """All series of a process. :meth:`render` runs on any thread but the event loop's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        certificates: CertificateFiles | None = None,
        exposed: Iterable[str] = (),
    ) -> None:
        """``certificates``: those of the listener of clients; ``exposed``: what is open there."""
        self._loop = loop
        self._certificates = certificates
        self._exposed = tuple(exposed)
        self._node: Node | None = None
        self._front: Callable[[], FrontFigures | None] | None = None
        self.calls = CallSeries()
        # Reads /proc at a scrape: memory, processor time, descriptors.
        self._process = ProcessCollector(registry=None)

    def watch(self, node: Node | None) -> None:
        """Ask ``node`` from now on; None: nobody. On the event loop's thread."""
        self._node = node

    def watch_front(self, figures: Callable[[], FrontFigures | None]) -> None:
        """Ask the listener of clients, too."""
        self._front = figures

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of one scrape. Raises UnavailableError when there is nothing."""
        moment = self._moment()
        encode, kind = choose_encoder(accept)
        families = [*families_of(moment), *self.calls.collect(), *self._process.collect()]
        return kind, encode(_Families(families))

    def _moment(self) -> Moment:
        return asked_of(self._loop, self._take)

    async def _take(self) -> Moment:
        if self._node is None:
            raise UnavailableError("kvd is starting or stopping")
        figures = self._node.figures()
        figures = dataclasses.replace(figures, exposed=(*self._exposed, *figures.exposed))
        if self._certificates is not None:
            ours = {**figures.certificates, "client": self._certificates}
            figures = dataclasses.replace(figures, certificates=ours)
        front = None if self._front is None else self._front()
        return take_moment(figures, front)


class _Families:
    """Families as the encoder wants them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
