"""Spans and metrics of a client by OpenTelemetry's API: of the extra ``otel``.

>>> from kvstore.client.otel import OpenTelemetry
>>> client = kvstore.Client("db1:50051", telemetry=OpenTelemetry())

Each call is a span, ``kvstore.put`` say, from its first try to its end; what a program does with
many keys at once (``put_many``, ``get_many``, a pipeline) is one for as many as go together.
Keys and values are never told. Watches, which are no calls, have none.
"""

from __future__ import annotations

import time
from contextvars import Token
from types import TracebackType
from typing import Final

from kvstore.addresses import HostPort, is_unix
from kvstore.client.attempts import Metadata
from kvstore.errors import ConfigurationError
from kvstore.extras import install_line
from kvstore.version import version

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ConfigurationError(f"this needs opentelemetry-api: {install_line('otel')}") from error

__all__ = ["OpenTelemetry"]

SYSTEM: Final = "kvstore"

# Seconds; a call of a loaded machine's neighbour takes one of the first, a change of leader one of
# the last.
BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0),
)

# Alone: what else a program carries along (baggage) is none of a store's business.
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OpenTelemetry:
    """Tells OpenTelemetry of the calls of the clients that it is given to.

    Spans have ``db.system.name``, ``db.operation.name``, ``server.address`` and ``server.port`` of
    the last try, ``kvstore.retries``, ``db.operation.batch.size`` and ``error.type``. Metrics are
    ``kvstore_client_operation_duration`` (seconds), ``kvstore_client_retries`` and
    ``kvstore_client_operations_active``. Each try carries ``traceparent``, and ``tracestate``.

    Any number of clients and threads may share one.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        """Without a provider: the one that the program has set, if any."""
        self.tracer = trace.get_tracer("kvstore.client", version(), tracer_provider)
        meter = metrics.get_meter("kvstore.client", version(), meter_provider)
        self.durations = meter.create_histogram(
            "kvstore_client_operation_duration",
            unit="s",
            description="Of calls of a client, with all their tries",
            explicit_bucket_boundaries_advisory=BUCKETS_S,
        )
        self.retries = meter.create_counter(
            "kvstore_client_retries", unit="{try}", description="Tries after the first of a call"
        )
        self.active = meter.create_up_down_counter(
            "kvstore_client_operations_active", unit="{call}", description="Calls under way"
        )

    def call(self, operation: str) -> ToldCall:
        """See :class:`kvstore.client.telemetry.Telemetry`."""
        return ToldCall(self, operation)


class ToldCall:
    """One call: a :class:`kvstore.client.telemetry.Call`."""

    __slots__ = ("_attributes", "_began", "_operation", "_span", "_telemetry", "_token", "metadata")

    def __init__(self, telemetry: OpenTelemetry, operation: str) -> None:
        self._telemetry = telemetry
        self._operation = operation
        self._attributes: dict[str, str] = {
            "db.system.name": SYSTEM,
            "db.operation.name": operation,
        }
        self.metadata: Metadata = ()

    def __enter__(self) -> ToldCall:
        telemetry = self._telemetry
        telemetry.active.add(1, self._attributes)
        self._began = time.monotonic()
        self._span = telemetry.tracer.start_span(
            f"{SYSTEM}.{self._operation}", kind=trace.SpanKind.CLIENT, attributes=self._attributes
        )
        inside = trace.set_span_in_context(self._span)
        self._token: Token[Context] = contexts.attach(inside)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, inside)
        self.metadata = tuple(carrier.items())
        return self

    def many(self, operations: int) -> None:
        """It is about so many keys."""
        self._span.set_attribute("db.operation.batch.size", operations)

    def ended(self, address: str, tries: int) -> None:
        """See :class:`kvstore.client.telemetry.Call`."""
        retries = max(tries - 1, 0)
        if retries:
            self._telemetry.retries.add(retries, self._attributes)
        if self._span.is_recording():
            self._span.set_attribute("kvstore.retries", retries)
            self._span.set_attributes(_of_address(address))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        contexts.detach(self._token)
        telemetry, attributes = self._telemetry, self._attributes
        telemetry.active.add(-1, attributes)
        if kind is not None:
            # Not its words, which may have a key in them.
            attributes = {**attributes, "error.type": kind.__qualname__}
            self._span.set_attribute("error.type", kind.__qualname__)
            self._span.set_status(trace.Status(trace.StatusCode.ERROR))
        telemetry.durations.record(time.monotonic() - self._began, attributes)
        self._span.end()


def _of_address(address: str) -> dict[str, str | int]:
    parsed = HostPort.parse(address)
    if parsed is None:
        return {"server.address": address.removeprefix("unix:") if is_unix(address) else address}
    return {"server.address": parsed.host, "server.port": parsed.port}
