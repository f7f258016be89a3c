"""Prometheus metrics: what a process counts, and what its members say of themselves at a scrape.

Needs the ``prometheus_client`` package (extra ``metrics``). A scrape's thread asks the event loop
for the figures, which takes it microseconds and no disk; sizes of files are read and text is made
on the scrape's thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from kvstore.errors import Error, UnavailableError
from kvstore.server.metrics.families import Moment, families_of, take_moment
from kvstore.server.nodes.node import Node
from kvstore.server.tls.certificate_files import CertificateFiles

__all__ = ["CallMetrics", "Metrics"]

# How long a scrape waits for the event loop before it is answered with 503.
LOOP_WAIT_S = 3.0

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_OURS = "/kvstore.v1."


class CallMetrics(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Counts and times the unary calls of our services; other methods pass by uncounted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "kvstore_requests", "Calls answered", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "kvstore_request_duration_seconds",
            "Time from a call's arrival to its answer",
            ["method"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or handler.unary_unary is None or not method.startswith(_OURS):
            return handler
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = self._wrapped[method] = self._wrap(method.rpartition("/")[2], handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        answer = handler.unary_unary
        observe = self._seconds.labels(method).observe
        requests: dict[str, Any] = {}

        def count(code: str, began: float) -> None:
            observe(time.monotonic() - began)
            counter = requests.get(code)
            if counter is None:
                counter = requests[code] = self._requests.labels(method, code)
            counter.inc()

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
                count(code, began)

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
        self._registry = CollectorRegistry()
        self.calls = CallMetrics(self._registry)

    def watch(self, node: Node | None) -> None:
        """Ask ``node`` from now on; None: nobody. On the event loop's thread."""
        self._node = node

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of one scrape. Raises UnavailableError when there is nothing."""
        moment = self._moment()
        encode, kind = choose_encoder(accept)
        return kind, encode(_Families([*families_of(moment), *self._registry.collect()]))

    def _moment(self) -> Moment:
        answer: concurrent.futures.Future[Moment] = concurrent.futures.Future()

        def take() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(self._take())
            except Exception as error:  # noqa: BLE001 - result() raises it on the other thread
                answer.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(take)
            return answer.result(LOOP_WAIT_S)
        except TimeoutError as error:
            answer.cancel()
            raise UnavailableError("the event loop is busy") from error
        except (RuntimeError, Error) as error:
            raise UnavailableError(f"no figures: {error}") from error

    def _take(self) -> Moment:
        if self._node is None:
            raise UnavailableError("kvd is starting or stopping")
        figures = self._node.figures()
        figures = dataclasses.replace(figures, exposed=(*self._exposed, *figures.exposed))
        if self._certificates is not None:
            ours = {**figures.certificates, "client": self._certificates}
            figures = dataclasses.replace(figures, certificates=ours)
        return take_moment(figures)


class _Families:
    """Families as the encoder wants them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
