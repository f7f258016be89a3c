"""Where spans go: the SDK's queue, which drops what it has no room for, and a thread of its own.

The event loop never waits for it. What the SDK has to say of a collector that is slow, or gone, is
logged once a minute.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from kvstore.errors import ConfigurationError
from kvstore.server.traces.spans import ServerSpans
from kvstore.version import version

__all__ = ["open_spans"]

LOG_S = 60.0
CLOSE_S = 1.0
"""At most, for what waits when kvd ends; the rest is lost."""

log = structlog.get_logger("kvstore.traces")


@contextlib.contextmanager
def open_spans(
    exporters: Iterable[SpanExporter], environment: Mapping[str, str]
) -> Iterator[ServerSpans]:
    """Spans that go to ``exporters``.

    Raises ConfigurationError for what the SDK refuses of its variables.
    """
    try:
        # Not at exit, which would wait for a collector.
        provider = TracerProvider(resource=_resource(environment), shutdown_on_exit=False)
        for exporter in exporters:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise ConfigurationError(f"OpenTelemetry's SDK refuses its settings: {error}") from error
    complaints = _Complaints()
    sdk = logging.getLogger("opentelemetry")
    sdk.addHandler(complaints)
    sdk.propagate = False
    try:
        yield ServerSpans(provider.get_tracer("kvstore.server", version()))
    finally:
        closing = threading.Thread(target=provider.shutdown, name="kvstore-traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        sdk.removeHandler(complaints)


class _Complaints(logging.Handler):
    """What the SDK says, seldom: it does so of every span that it drops."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOG_S
            log.warning("traces are lost", reason=record.getMessage())


def _resource(environment: Mapping[str, str]) -> Resource:
    """As the environment says, but for a name."""
    attributes = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in attributes
    return Resource.create({} if named else {"service.name": "kvd"})
