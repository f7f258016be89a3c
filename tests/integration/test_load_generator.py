"""The benchmarks' load generator does what it says: else its figures would mean nothing."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from benchmarks.load import Load, Target, measure, start
from benchmarks.servers import EmbeddedKvd
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import Certificates

pytestmark = pytest.mark.skipif(
    not (Path("/usr/include/nghttp2/nghttp2.h").exists() and shutil.which("cc")),
    reason="libnghttp2-dev or a C compiler is missing",
)


def test_what_it_fills_is_there_and_what_it_reads_is_counted(tmp_path: Path) -> None:
    with EmbeddedKvd(tmp_path) as kvd, kvd.client() as client:
        kvd.wait_serving()
        sizes = {"keys": 50, "value_bytes": 300}
        filled = measure(kvd.target(), Load("fill", in_flight=8, connections=3, **sizes))
        assert filled["put"]["calls"] == 50
        values = [client.get(b"key-%012d" % number) for number in range(50)]
        assert {len(value or b"") for value in values} == {300}
        assert len(set(values)) == 50
        revision = client.status().members[0].revision
        measured = measure(kvd.target(), Load("mixed", in_flight=4, seconds=0.5, **sizes))
        put, get = measured["put"], measured["get"]
        assert put["calls"] > 0
        assert get["calls"] > 0
        # Those that were under way at the end aren't counted.
        applied = client.status().members[0].revision - revision
        assert put["calls"] <= applied <= put["calls"] + 4
        assert put["p50_ms"] <= put["p99_ms"] <= put["p999_ms"] <= put["max_ms"]
        assert (measured["errors"], measured["missing"], measured["unanswered"]) == ({}, 0, 0)
        assert 0 < measured["cpu_s"]["leader"] < 2 * 60


def test_gets_of_nothing_and_refused_calls_are_told_apart(tmp_path: Path) -> None:
    with EmbeddedKvd(tmp_path, arguments=["--etcd_api=false"]) as kvd:
        kvd.wait_serving()
        measured = measure(kvd.target(), Load("get", seconds=0.3))
        assert measured["missing"] == measured["get"]["calls"] > 0
        # Of a service that this kvd doesn't have.
        stranger = Target("etcd", kvd.address)
        assert set(measure(stranger, Load("put", seconds=0.3))["errors"]) == {"UNIMPLEMENTED"}


def test_a_rate_is_kept_and_a_load_can_be_ended(tmp_path: Path) -> None:
    with EmbeddedKvd(tmp_path) as kvd:
        kvd.wait_serving()
        paced = measure(kvd.target(), Load("get", in_flight=8, seconds=1.0, rate=50.0))
        assert paced["get"]["calls"] == pytest.approx(50, abs=3)
        endless = start(kvd.target(), Load("get", seconds=3600.0))
        with kvd.client() as client:
            client.get(b"k")
        assert endless.stop()["seconds"] < 60


def test_tls_is_spoken_with_a_server_that_proves_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Certificates.make(tmp_path / "other")
    with EmbeddedKvd(tmp_path, secure=True) as kvd:
        kvd.wait_serving()
        target = kvd.target()
        assert measure(target, Load("put", seconds=0.3))["put"]["calls"] > 0
        stranger = Target("kvd", target.address, ca=other.ca)
        with pytest.raises(RuntimeError, match="certificate verify failed"):
            measure(stranger, Load("put", seconds=0.3))
        with pytest.raises(RuntimeError, match="connection closed"):
            # It gives up after so many connections, if there is the time for them.
            measure(Target("kvd", target.address), Load("put", seconds=10))


def test_keepalives_renew_leases_by_a_stream_each(tmp_path: Path) -> None:
    with EmbeddedKvd(tmp_path) as kvd, EtcdCalls(kvd.address) as calls:
        kvd.wait_serving()
        for id in range(1, 6):
            calls.LeaseGrant(ID=id, TTL=600)
        measured = measure(kvd.target(), Load("keepalive", in_flight=4, keys=5, seconds=0.5))
        assert measured["keepalive"]["calls"] > 0
        assert (measured["errors"], measured["unanswered"]) == ({}, 0)
        assert len(calls.LeaseLeases().leases) == 5


def test_transactions_put_keys_that_are_there_and_get_them(tmp_path: Path) -> None:
    with EmbeddedKvd(tmp_path) as kvd, EtcdCalls(kvd.address) as calls:
        kvd.wait_serving()
        etcd_api = dataclasses.replace(kvd.target(), server="etcd")
        measure(kvd.target(), Load("fill", keys=5, seconds=60))
        before = calls.Range(key=b"key-", range_end=b"key.").kvs
        measured = measure(etcd_api, Load("txn", in_flight=4, keys=5, seconds=0.5))
        assert measured["txn"]["calls"] > 0
        assert (measured["errors"], measured["unanswered"]) == ({}, 0)
        after = calls.Range(key=b"key-", range_end=b"key.").kvs
        assert len(before) == len(after) == 5
        done = sum(kv.version for kv in after) - sum(kv.version for kv in before)
        assert done >= measured["txn"]["calls"]
