"""What OpenTelemetry is told of calls, by its own SDK; and that without it nothing is loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kvstore.api.etcd import etcd_pb2
from kvstore.api.v1 import admin_pb2, kv_pb2
from kvstore.client import AsyncClient, Client, Put
from kvstore.client.otel import OpenTelemetry
from kvstore.client.telemetry import operation_of
from kvstore.errors import InvalidArgumentError
from tests.unit.client.fake_etcd import FakeEtcd, answer, header, refuse

NO_LEADER = refuse(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
FOUND = answer(
    etcd_pb2.RangeResponse(
        header=header(7), kvs=[etcd_pb2.KeyValue(key=b"hidden", value=b"secret", mod_revision=7)]
    )
)


class Told:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.tracer = tracers.get_tracer("test")
        self.telemetry = OpenTelemetry(
            tracer_provider=tracers, meter_provider=MeterProvider([self.reader])
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return [*self.exporter.get_finished_spans()]

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: [*metric.data.data_points]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_call_is_a_span_with_its_tries_and_no_key(told: Told) -> None:
    async def run() -> str:
        async with FakeEtcd(Range=[NO_LEADER, NO_LEADER, FOUND]) as server:
            async with AsyncClient(server.address, timeout=30, telemetry=told.telemetry) as client:
                with told.tracer.start_as_current_span("mine"):
                    await client.get_entry(b"hidden")
            spoken = {said["traceparent"] for said in server.metadata}
            assert len(server.metadata) == 3
            (one,) = spoken
            return f"{server.address} {one!r}"

    address, parent = asyncio.run(run()).split()
    span, mine = told.spans
    assert (span.name, span.kind) == ("kvstore.range", trace.SpanKind.CLIENT)
    assert span.parent is not None
    assert span.parent.span_id == mine.context.span_id
    host, port = address.split(":")
    assert span.attributes == {
        "db.system.name": "kvstore",
        "db.operation.name": "range",
        "server.address": host,
        "server.port": int(port),
        "kvstore.retries": 2,
    }
    assert f"-{span.context.span_id:016x}-" in parent
    assert "hidden" not in span.to_json()
    assert "secret" not in span.to_json()
    metrics = told.metrics()
    (duration,) = metrics["kvstore_client_operation_duration"]
    assert (duration.count, duration.attributes["db.operation.name"]) == (1, "range")
    assert [point.value for point in metrics["kvstore_client_retries"]] == [2]
    assert [point.value for point in metrics["kvstore_client_operations_active"]] == [0]


def test_a_call_that_failed_says_how_and_not_with_which_key(told: Told) -> None:
    refused = refuse(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided: hidden")

    async def run() -> None:
        async with (
            FakeEtcd(Txn=refused) as server,
            AsyncClient(server.address, timeout=30, telemetry=told.telemetry) as client,
        ):
            with pytest.raises(InvalidArgumentError):
                await client.transaction().then(Put(b"hidden", b"secret")).commit()

    asyncio.run(run())
    (span,) = [span for span in told.spans if span.name == "kvstore.txn"]
    assert span.attributes is not None
    assert span.attributes["error.type"] == "InvalidArgumentError"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "hidden" not in span.to_json()
    (duration,) = [
        point
        for point in told.metrics()["kvstore_client_operation_duration"]
        if point.attributes["db.operation.name"] == "txn"
    ]
    assert duration.attributes["error.type"] == "InvalidArgumentError"


def test_a_thread_has_its_own_span_for_parent(told: Told) -> None:
    async def run() -> None:
        async with FakeEtcd(Range=FOUND) as server:

            def ask() -> None:
                with (
                    Client(server.address, timeout=30, telemetry=told.telemetry) as client,
                    told.tracer.start_as_current_span("mine"),
                ):
                    client.get_entry(b"hidden")

            await asyncio.to_thread(ask)

    asyncio.run(run())
    span, mine = told.spans
    assert span.parent is not None
    assert span.parent.span_id == mine.context.span_id


def test_many_are_one_span(told: Told) -> None:
    async def run() -> None:
        async with (
            FakeEtcd() as server,
            AsyncClient(server.address, timeout=30, telemetry=told.telemetry) as client,
        ):
            pipe = client.pipeline().get(b"a").get(b"b")
            await pipe.execute(raise_on_error=False)

    asyncio.run(run())
    *each, span = told.spans
    assert span.name == "kvstore.pipeline"
    assert span.attributes is not None
    assert span.attributes["db.operation.batch.size"] == 2
    # The server has no KV: the first tries failed, and what went on with them is told of.
    assert {one.name for one in each} == {"kvstore.get"}
    assert all(one.parent and one.parent.span_id == span.context.span_id for one in each)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (kv_pb2.PutRequest(), "put"),
        (etcd_pb2.RangeRequest(count_only=True), "count"),
        (etcd_pb2.RangeRequest(), "range"),
        (etcd_pb2.AuthUserAddRequest(), "auth_user_add"),
        (etcd_pb2.LeaseTimeToLiveRequest(), "lease_time_to_live"),
        (admin_pb2.ChangeMembersRequest(), "change_members"),
        ([1, 2], "lease_renew"),
    ],
)
def test_calls_are_named_by_what_they_ask(request_: object, name: str) -> None:
    assert operation_of(request_) == name


def test_where_it_is_not_installed_that_is_said() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; import kvstore.client.otel"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "ConfigurationError: this needs opentelemetry-api: pip install " in done.stderr
    assert "[otel]" in done.stderr


def test_clients_load_nothing_of_it() -> None:
    program = (
        "import sys, kvstore; kvstore.Client('127.0.0.1:1'); kvstore.AsyncClient('127.0.0.1:1');"
        "sys.exit('opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
