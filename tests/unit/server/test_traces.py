"""Spans of calls that clients trace: of which calls, what is in them, and what they can't do."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from kvstore.errors import ConfigurationError
from kvstore.replica.durations import EntryTimes
from kvstore.server.traces import switch
from kvstore.server.traces.export import open_spans
from kvstore.server.traces.spans import CALLS, SLOT_S, ServerSpans, traced_by
from kvstore.server.traces.switch import check_exporters, exporter_names, open_traces

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
PUT, GET, RANGE = "/kvstore.v1.KV/Put", "/kvstore.v1.KV/Get", "/etcdserverpb.KV/Range"


class Told:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = ServerSpans(provider.get_tracer("test"))
        self.spans.last_entry = lambda since, until: EntryTimes(since + 0.1, since + 0.3, until)

    def note(self, *metadata: tuple[str, Any], path: str = PUT, code: str = "OK") -> None:
        now = time.monotonic()
        self.spans.note(path, code, now - 0.5, now, metadata, 77)

    @property
    def ended(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_write_is_a_span_of_its_clients_trace_and_its_parts_are_in_it() -> None:
    told = Told()
    told.note(("kvstore-attempt", "1"), ("traceparent", SAMPLED))
    *parts, call = told.ended
    assert (call.name, call.kind) == ("kvstore.v1.KV/Put", SpanKind.SERVER)
    assert call.context is not None
    assert call.parent is not None
    assert f"{call.context.trace_id:032x}" == TRACE
    assert f"{call.parent.span_id:016x}" == PARENT
    assert dict(call.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "kvstore.v1.KV",
        "rpc.method": "Put",
        "rpc.grpc.status_code": 0,
        "kvstore.request_bytes": 77,
    }
    assert seconds(call) == pytest.approx(0.5, abs=1e-6)
    assert call.end_time == pytest.approx(time.time_ns(), abs=60e9)
    assert [part.name for part in parts] == ["kvstore.queue", "kvstore.commit", "kvstore.apply"]
    assert [seconds(part) for part in parts] == pytest.approx([0.1, 0.2, 0.2], abs=1e-6)
    assert all(part.parent == call.context for part in parts)


@pytest.mark.parametrize(
    ("path", "code", "status", "number"),
    [
        (GET, "OK", StatusCode.UNSET, 0),
        (RANGE, "INVALID_ARGUMENT", StatusCode.UNSET, 3),
        (PUT, "UNAVAILABLE", StatusCode.ERROR, 14),
    ],
)
def test_reads_and_failures_have_no_parts(
    path: str, code: str, status: StatusCode, number: int
) -> None:
    told = Told()
    told.note(("traceparent", SAMPLED), path=path, code=code)
    (call,) = told.ended
    assert call.name == path[1:]
    assert call.status.status_code is status
    assert (call.attributes or {})["rpc.grpc.status_code"] == number


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        (f"00-{TRACE}-{PARENT}-00",),
        (f"00-{TRACE}-{PARENT}-01-more",),
        (f"00-{'0' * 32}-{PARENT}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"ff-{TRACE}-{PARENT}-01",),
        (SAMPLED.upper(),),
        (SAMPLED, SAMPLED),
        (SAMPLED.encode(),),
        (f"cc-{TRACE}-{PARENT}-01-" + "x" * 300,),
    ],
)
def test_what_is_not_sampled_or_not_lawful_has_none(values: tuple[Any, ...]) -> None:
    told = Told()
    told.note(*(("traceparent", value) for value in values))
    assert told.ended == ()


def test_a_later_version_is_understood_as_far_as_this_one_goes() -> None:
    told = Told()
    told.note(("traceparent", f"cc-{TRACE}-{PARENT}-01-what.comes"))
    assert len(told.ended) == 4


@pytest.mark.parametrize("path", ["/v3lockpb.Lock/Lock", "/grpc.health.v1.Health/Check"])
def test_who_waits_for_others_has_none(path: str) -> None:
    told = Told()
    told.note(("traceparent", SAMPLED), path=path)
    assert told.ended == ()


HEX = st.text("0123456789abcdef-", max_size=70)
VALUES = st.one_of(st.text(max_size=300), st.binary(max_size=70), HEX)


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]), VALUES), max_size=4))
@example([("traceparent", "0" * 54 + "1")])
@example([("traceparent", "\uff10\uff10-" + "a" * 32 + "-" + "b" * 16 + "-01")])
def test_no_metadata_makes_it_fail(metadata: list[tuple[str, Any]]) -> None:
    told = Told()
    told.note(*metadata)
    lawful = [value for key, value in metadata if key == "traceparent"]
    if len(lawful) != 1 or not isinstance(lawful[0], str) or traced_by(lawful[0]) is None:
        assert told.ended == ()


def test_where_everything_is_traced_no_more_than_so_many_at_a_time_are_told_of() -> None:
    told = Told()
    unsampled = SAMPLED.removesuffix("1") + "0"
    for _ in range(2 * CALLS):
        told.spans.note(GET, "OK", 10.0, 10.25, (("traceparent", unsampled),), 1)
    for _ in range(2 * CALLS):
        told.spans.note(GET, "OK", 10.0, 10.25, (("traceparent", SAMPLED),), 1)
    assert len(told.ended) == CALLS
    told.spans.note(GET, "OK", 10.0, 10.25 + SLOT_S, (("traceparent", SAMPLED),), 1)
    assert len(told.ended) == CALLS + 1


class Hung(SpanExporter):
    """A collector that takes a connection and says nothing."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.release = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.release.wait()
        return SpanExportResult.SUCCESS


def test_a_collector_that_hangs_keeps_neither_calls_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    hung = Hung()
    with capture_logs() as logs:
        with open_spans([hung], {}) as spans:
            for second in range(100):
                spans.note(GET, "OK", second, second + 0.5, (("traceparent", SAMPLED),), 1)
                if second == 10:
                    assert hung.asked.wait(60)
        # Its shutdown alone would be waited for for 30 s.
        assert not hung.release.is_set()
    hung.release.set()
    assert [entry["event"] for entry in logs] == ["traces are lost"]
    assert logging.getLogger("opentelemetry").handlers == []


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, ()),
        ({"OTEL_TRACES_EXPORTER": " none "}, ()),
        ({"OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console,otlp"}, ("otlp_proto_grpc", "console")),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            ("otlp_proto_http",),
        ),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "True"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, ()),
    ],
)
def test_the_environment_says_who_exports(
    environment: dict[str, str], names: tuple[str, ...]
) -> None:
    assert exporter_names(environment) == names


def test_without_it_there_are_none_and_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys, kvstore.cli.kvd, kvstore.server.traces.switch as switch\n"
        "with switch.open_traces({}) as spans:\n"
        "    sys.exit(spans is not None or 'opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "nobody's"}, '"nobody\'s", which is missing: no installed'),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=smoke; expected grpc or http/protobuf",
        ),
    ],
)
def test_what_it_names_must_be_there(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said), open_traces(environment):
        pass
    with pytest.raises(ConfigurationError, match=said):
        check_exporters(environment)


def test_an_exporter_that_refuses_its_settings_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def load(self) -> Any:
            def make() -> None:
                raise ValueError("no such endpoint")

            return make

    monkeypatch.setattr(switch, "entry_points", lambda **_: [Refusing()])
    with (
        pytest.raises(ConfigurationError, match=r"'mine'.* can't be made: no such endpoint"),
        open_traces({"OTEL_TRACES_EXPORTER": "mine"}),
    ):
        pass


def test_settings_of_the_sdk_that_are_no_good_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with (
        pytest.raises(ConfigurationError, match="refuses its settings"),
        open_traces({"OTEL_TRACES_EXPORTER": "console"}),
    ):
        pass
