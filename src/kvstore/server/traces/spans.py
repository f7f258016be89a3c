"""Spans of calls that clients trace: how long each took here, and where the time of a write went.

They are made when a call has ended, of the times that are known then; neither keys nor values are
in them. At most :data:`CALLS` calls have any in each :data:`SLOT_S`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import grpc
from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kvstore.api.metadata_keys import TRACEPARENT_KEY
from kvstore.replica.durations import EntryTimes
from kvstore.server.metrics.names import name_of
from kvstore.server.slow_calls import WRITES, LastEntry

__all__ = ["CALLS", "SLOT_S", "ServerSpans", "traced_by"]

CALLS: Final = 32
SLOT_S: Final = 0.125
"""With their parts some 70 µs each: 2 % of a core, and 2 ms at one time, whatever clients ask for.
"""

# Of a lawful one, version 00: its size, and where the digit with the flag "sampled" stands.
_SIZE: Final = 55
_FLAG: Final = 54
_SIZE_MAX: Final = 256
_ODD: Final = frozenset("13579bdf")

_FAILURES: Final = frozenset(
    (
        *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL"),
        *("UNAVAILABLE", "DATA_LOSS"),
    )
)
"""Codes that are the server's errors, by OpenTelemetry's conventions for RPC."""

_CODES: Final = {code.name: code.value[0] for code in grpc.StatusCode}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class ServerSpans:
    """Those of a process. On the event loop's thread."""

    def __init__(self, tracer: Tracer) -> None:
        self.last_entry: LastEntry = lambda since, until: None
        """Asked for where the time of a write went."""
        self._tracer = tracer
        self._slot = 0
        self._calls = 0

    def note(
        self,
        path: str,
        code: str,
        began: float,
        ended: float,
        metadata: Iterable[Any],
        request_bytes: int,
    ) -> None:
        """See :class:`kvstore.wire.server.traces.TraceSink`."""
        name = name_of(path)
        said = _sampled(metadata)
        if name is None or said is None or not self._may_tell(ended):
            return
        parent = traced_by(said)
        if parent is None:
            return
        wall_ns = time.time_ns() - int(time.monotonic() * 1e9)
        service, _, method = path[1:].rpartition("/")
        span = self._tracer.start_span(
            path[1:],
            context=parent,
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": _CODES[code],
                "kvstore.request_bytes": request_bytes,
            },
            start_time=wall_ns + int(began * 1e9),
        )
        if code in _FAILURES:
            span.set_status(Status(StatusCode.ERROR))
        times = self.last_entry(began, ended) if name in WRITES and code == "OK" else None
        if times is not None:
            self._tell_parts(span, began, times, wall_ns)
        span.end(wall_ns + int(ended * 1e9))

    def _may_tell(self, now: float) -> bool:
        slot = int(now / SLOT_S)
        if slot != self._slot:
            self._slot, self._calls = slot, 0
        self._calls += 1
        return self._calls <= CALLS

    def _tell_parts(self, span: Span, began: float, times: EntryTimes, wall_ns: int) -> None:
        inside = set_span_in_context(span, Context())
        for name, since, until in (
            ("queue", began, times.proposed_s),
            ("commit", times.proposed_s, times.committed_s),
            ("apply", times.committed_s, times.applied_s),
        ):
            part = self._tracer.start_span(
                f"kvstore.{name}", context=inside, start_time=wall_ns + int(since * 1e9)
            )
            part.end(wall_ns + int(until * 1e9))


def traced_by(traceparent: str) -> Context | None:
    """The context of a sampled parent; None for one that isn't sampled, or isn't lawful."""
    context = _PROPAGATOR.extract({TRACEPARENT_KEY: traceparent}, Context())
    parent = get_current_span(context).get_span_context()
    return context if parent.is_valid and parent.trace_flags.sampled else None


def _sampled(metadata: Iterable[Any]) -> str | None:
    """A call's ``traceparent`` where it may be lawful and says that it is sampled.

    Two are none, as W3C's recommendation has it.
    """
    found = None
    for key, value in metadata:
        if key == TRACEPARENT_KEY:
            if found is not None:
                return None
            found = value
    if not isinstance(found, str) or not _SIZE <= len(found) <= _SIZE_MAX:
        return None
    return found if found[_FLAG] in _ODD else None
