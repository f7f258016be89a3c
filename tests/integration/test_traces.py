"""One trace from a client with telemetry through a real kvd; and collectors that hang."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.client import Client, Put
from kvstore.client.otel import OpenTelemetry
from kvstore.wire import available
from tests.integration.cluster import Cluster
from tests.integration.process import SOURCES, Kvd, environment, run

pytestmark = pytest.mark.skipif(not available(), reason="the native front alone has traces")

EXPORTERS = """
import os
import threading

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["SPANS"], "a") as file:
            for span in spans:
                file.write(span.to_json(indent=None) + "\\n")
        return SpanExportResult.SUCCESS


class Hung(SpanExporter):
    def export(self, spans):
        open(os.environ["SPANS"], "a").close()
        threading.Event().wait()
"""


def settings(directory: Path, exporter: str) -> dict[str, str]:
    """An environment in which exporters of our own are installed, as anybody's would be."""
    installed = directory / "installed"
    described = installed / "exporters_of_test-1.dist-info"
    described.mkdir(parents=True)
    (installed / "exporters_of_test.py").write_text(EXPORTERS)
    (described / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: exporters-of-test\nVersion: 1\n"
    )
    (described / "entry_points.txt").write_text(
        "[opentelemetry_traces_exporter]\n"
        "to_file = exporters_of_test:ToFile\n"
        "hung = exporters_of_test:Hung\n"
    )
    return {
        "PYTHONPATH": os.pathsep.join([str(SOURCES), str(installed)]),
        "SPANS": str(directory / "spans"),
        "OTEL_TRACES_EXPORTER": exporter,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }


def traced(address: str) -> tuple[Client, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Client(address, timeout=60, telemetry=OpenTelemetry(tracer_provider=provider)), exporter


def ids(span: Any) -> tuple[str, str]:
    return f"0x{span.context.trace_id:032x}", f"0x{span.context.span_id:016x}"


def test_a_trace_goes_from_the_client_through_the_leader(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", front="native", env=settings(tmp_path, "to_file")) as kvd:
        kvd.wait_serving()
        client, exporter = traced(kvd.address)
        with client, kvd.client() as untraced:
            untraced.put(b"secret key of nobody", b"secret value")
            client.put(b"secret key", b"secret value" * 100)
            assert client.get(b"secret key") == b"secret value" * 100
            client.transaction().then(Put(b"secret key", b"other secret")).commit()
        assert kvd.terminate() == 0
    text = (tmp_path / "spans").read_text()
    assert "secret" not in text
    told = [json.loads(line) for line in text.splitlines()]
    calls = {span["parent_id"]: span for span in told if span["kind"] == "SpanKind.SERVER"}
    asked = {span.name: ids(span) for span in exporter.get_finished_spans()}
    # All that waited when it ended were exported, and of the untraced call there is none.
    assert len(calls) == len(asked) == 4
    for trace_id, span_id in asked.values():
        assert calls[span_id]["context"]["trace_id"] == trace_id
    names = {operation: calls[span_id]["name"] for operation, (_, span_id) in asked.items()}
    assert names == {
        "kvstore.open_session": "kvstore.v1.Sessions/Open",
        "kvstore.put": "kvstore.v1.KV/Put",
        "kvstore.get": "kvstore.v1.KV/Get",
        "kvstore.txn": "etcdserverpb.KV/Txn",
    }
    put = calls[asked["kvstore.put"][1]]
    assert put["attributes"]["kvstore.request_bytes"] > 1200
    assert put["attributes"]["rpc.grpc.status_code"] == 0
    assert put["resource"]["attributes"]["service.name"] == "kvd"
    assert put["resource"]["attributes"]["deployment.environment.name"] == "test"
    within = [s["name"] for s in told if s["parent_id"] == put["context"]["span_id"]]
    assert within == ["kvstore.queue", "kvstore.commit", "kvstore.apply"]


def test_what_a_follower_passes_on_is_in_the_trace_there_and_at_the_leader(tmp_path: Path) -> None:
    env = settings(tmp_path, "to_file")
    with Cluster(
        tmp_path, 3, settings="forward = true", mutual_tls=True, fronts=("native",), env=env
    ) as cluster:
        cluster.start()
        follower = next(member for member in cluster.members if member != cluster.leader())
        with grpc.insecure_channel(cluster.clients[follower]) as channel:
            kv_pb2_grpc.KVStub(channel).Put(
                kv_pb2.PutRequest(key=b"k", value=b"v", request_id="1"),
                metadata=(("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),),
                timeout=60,
            )
        for kvd in cluster.running.values():
            assert kvd.terminate() == 0
        told = [json.loads(line) for line in (tmp_path / "spans").read_text().splitlines()]
    puts = [span for span in told if span["name"] == "kvstore.v1.KV/Put"]
    parts = {span["parent_id"] for span in told if span["name"] == "kvstore.commit"}
    assert {span["context"]["trace_id"] for span in told} == {"0x" + "a" * 32}
    assert [span["parent_id"] for span in puts] == ["0x" + "b" * 16] * 2
    # The leader's alone knows where the time went.
    assert len(parts) == 1
    assert parts < {span["context"]["span_id"] for span in puts}


def test_a_collector_that_hangs_harms_nobody(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", front="native", env=settings(tmp_path, "hung")) as kvd:
        kvd.wait_serving()
        client, _ = traced(kvd.address)
        with client:
            client.put(b"k", b"v")
            until = time.monotonic() + 60
            while not (tmp_path / "spans").exists() and time.monotonic() < until:
                client.put(b"k", b"v")
            assert (tmp_path / "spans").exists()
            for number in range(50):
                client.put(b"k", b"%d" % number)
            assert client.get(b"k") == b"49"
        assert kvd.terminate() == 0
    assert "did not stop in time" not in kvd.stderr


def test_a_front_without_traces_says_so(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", front="grpcio", env=settings(tmp_path, "to_file")) as kvd:
        kvd.wait_serving()
        assert "no traces: the native front alone has them" in kvd.stderr
        assert kvd.terminate() == 0


def test_an_exporter_that_is_missing_is_told_of_at_the_start(tmp_path: Path) -> None:
    ended = run(
        "kvd",
        f"--data_dir={tmp_path}/data",
        "--listen_addr=127.0.0.1:0",
        env=environment(OTEL_TRACES_EXPORTER="nobody"),
    )
    assert ended.returncode == 1
    assert b"OTEL_TRACES_EXPORTER names the exporter 'nobody', which is missing" in ended.stderr
    assert not (tmp_path / "data").exists()
