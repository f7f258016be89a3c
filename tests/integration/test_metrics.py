"""Metrics of a real kvd, scraped over HTTP and read by Prometheus' own parser."""

from __future__ import annotations

import http.client
import re
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvstore.errors import InvalidArgumentError
from tests.integration.cluster import Cluster, free_addresses
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import FRONT, FRONTS, Certificates, Kvd, run

ANY_PORT = "--metrics_addr=127.0.0.1:0"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def request(kvd: Kvd, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body of one request to the address that kvd's log names."""
    found = re.search(r"metrics served.*?address\S*?=\S*?(127\.0\.0\.1:\d+)", kvd.stderr)
    assert found is not None, kvd.stderr
    connection = http.client.HTTPConnection(found[1], timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def scrape(kvd: Kvd) -> Samples:
    status, text = request(kvd, "/metrics")
    assert status == 200, text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: object) -> float:
    return samples[name, frozenset((key, str(label)) for key, label in labels.items())]


def documented() -> set[str]:
    """The series of the table in docs/operations.md."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    table = text.partition("| series | labels | what |\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[1:]]
    return {f"kvstore_{name}" for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def not_shown(samples: Samples) -> set[str]:
    """What is documented and not there; whatever is there must be documented."""
    shown = {re.sub(r"(_seconds)_(bucket|count|sum|created)$", r"\1", name) for name, _ in samples}
    shown = {re.sub(r"_created$", "_total", name) for name in shown}
    ours = {name for name in shown if name.startswith("kvstore_")}
    assert ours <= documented()
    return documented() - ours


# What is there only where it is: other members, TLS, connections that were cut off, a pool of
# RADOS; and the native front, which alone knows of connections.
ABSENT = {
    "native": "kvstore_(peer|pulse|tls|exposed|connections_cut|backup|rados)",
    "grpcio": "kvstore_(peer|pulse|tls|exposed|backup|rados|"
    "(connections|calls|received|unsent|answers)(_\\w+)?|requests_slow)",
}


@pytest.mark.parametrize("front", FRONTS)
def test_a_scrape_counts_calls_by_code_and_shows_each_member(tmp_path: Path, front: str) -> None:
    certificates = Certificates.make(tmp_path)
    with Kvd(tmp_path / "data", ANY_PORT, certificates=certificates, front=front) as kvd:
        kvd.wait_serving()
        with kvd.client() as client:
            for n in range(7):
                client.put(b"%d" % n, b"value")
            client.put(b"0", b"one", request_id="again")
            with pytest.raises(InvalidArgumentError):
                client.put(b"0", b"two", request_id="again")
            assert client.get(b"1") == b"value"
        samples = scrape(kvd)
        assert value(samples, "kvstore_requests_total", method="Put", code="INVALID_ARGUMENT") == 1
        assert value(samples, "kvstore_requests_total", method="Put", code="OK") == 8
        assert value(samples, "kvstore_requests_total", method="Get", code="OK") == 1
        assert value(samples, "kvstore_request_duration_seconds_count", method="Put") == 9
        leaders = [
            member
            for member in range(1, 6)
            if value(samples, "kvstore_raft_role", member=member, role="leader")
        ]
        assert len(leaders) == 1
        assert value(samples, "kvstore_remembered_requests", member=leaders[0]) == 1
        assert value(samples, "kvstore_remembered_requests_bytes", member=leaders[0]) > 32
        assert value(samples, "kvstore_sessions", member=leaders[0]) == 1
        for member in range(1, 6):
            assert value(samples, "kvstore_raft_leader", member=member) == leaders[0]
            # A slow start may elect twice.
            assert 1 <= value(samples, "kvstore_raft_leader_changes_total", member=member) <= 3
            assert value(samples, "kvstore_log_disk_bytes", member=member) > 0
            assert value(samples, "kvstore_engine_user_bytes_total", member=member) > 0
            if member != leaders[0]:
                value(samples, "kvstore_raft_peer_lag_entries", member=leaders[0], peer=member)
        assert value(samples, "kvstore_certificate_expiry_seconds", use="client") > 86_400
        lacking = not_shown(samples)
        assert all(re.match(ABSENT[front], name) for name in lacking), lacking
        value(samples, "process_resident_memory_bytes")
        assert value(samples, "kvstore_raft_commit_duration_seconds_count", member=leaders[0]) >= 8
        assert request(kvd, "/livez") == (200, "ok\n")
        status, said = request(kvd, "/readyz?verbose")
        assert (status, said.splitlines()[-1]) == (200, "ok")
        assert request(kvd, "/")[0] == 404
        assert request(kvd, "/metrics/other")[0] == 404
        assert request(kvd, "/metrics", "POST")[0] == 501
        assert kvd.terminate() == 0


@pytest.mark.parametrize("front", FRONTS)
def test_calls_of_etcds_api_are_counted_under_their_services_names(
    tmp_path: Path, front: str
) -> None:
    with Kvd(tmp_path / "data", ANY_PORT, front=front) as kvd:
        kvd.wait_serving()
        with EtcdCalls(kvd.address) as calls:
            for number in range(5):
                calls.Put(key=b"k%d" % number, value=b"v")
            assert calls.Range(key=b"k1").count == 1
            assert calls.Range(key=b"k", range_end=b"l").count == 5
            with pytest.raises(grpc.RpcError):
                calls.Put(value=b"v")
            calls.LeaseGrant(TTL=60)
            calls.MemberList()
        samples = scrape(kvd)
        for method, code, count in (
            ("etcdserverpb.KV/Put", "OK", 5),
            ("etcdserverpb.KV/Put", "INVALID_ARGUMENT", 1),
            ("etcdserverpb.KV/Range", "OK", 2),
            ("etcdserverpb.Lease/LeaseGrant", "OK", 1),
            ("etcdserverpb.Cluster/MemberList", "OK", 1),
        ):
            assert value(samples, "kvstore_requests_total", method=method, code=code) == count
        seconds = "kvstore_request_duration_seconds_count"
        assert value(samples, seconds, method="etcdserverpb.KV/Put") == 6
        assert value(samples, seconds, method="etcdserverpb.KV/Range") == 2


def test_a_member_shows_its_streams_and_the_certificate_that_peers_see(tmp_path: Path) -> None:
    with Cluster(tmp_path, mutual_tls=True) as cluster:
        for member, address in zip(cluster.members, free_addresses(3), strict=True):
            cluster.write_config(member, settings=f'metrics_address = "{address}"')
        cluster.start()
        with cluster.client() as client:
            client.put(b"k", b"v")
        leader = cluster.leader()
        samples = scrape(cluster.running[leader])
        assert value(samples, "kvstore_raft_role", member=leader, role="leader") == 1
        for peer in cluster.members:
            if peer != leader:
                assert value(samples, "kvstore_peer_connected", peer=peer) == 1
                assert value(samples, "kvstore_peer_sent_messages_total", peer=peer) > 0
                value(samples, "kvstore_peer_dropped_messages_total", peer=peer)
        assert value(samples, "kvstore_certificate_expiry_seconds", use="peer") > 0
        assert value(samples, "kvstore_tls_handshakes_total", use="peer") > 0
        absent = ABSENT[FRONTS[0]] if FRONT == "auto" else ABSENT[FRONT]
        lacking = not_shown(samples)
        assert all(re.match(absent, name) for name in lacking), lacking
        assert not any(re.match("kvstore_(peer|pulse|tls)", name) for name in lacking), lacking
        # A founder that has met enough others hangs up on the rest, perhaps amid a handshake.
        refused = value(samples, "kvstore_tls_handshakes_refused_total", use="peer")
        assert refused < len(cluster.members)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("nowhere", "unsupported --metrics_addr=nowhere; expected host:port"),
        ("127.0.0.1:70000", "unsupported --metrics_addr=127.0.0.1:70000; expected host:port"),
        (
            "192.0.2.1:9100",
            "failed to serve metrics on 192.0.2.1:9100: Cannot assign requested address",
        ),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(tmp_path: Path, address: str, line: str) -> None:
    ended = run(
        "kvd",
        "--listen_addr=127.0.0.1:0",
        f"--data_dir={tmp_path / 'data'}",
        f"--metrics_addr={address}",
    )
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines() == [line]
    assert not (tmp_path / "data").exists()


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    hidden = tmp_path / "prometheus_client"
    hidden.mkdir()
    (hidden / "__init__.py").write_text(
        "raise ModuleNotFoundError('hidden', name='prometheus_client')\n"
    )
    ended = run(
        "kvd",
        "--listen_addr=127.0.0.1:0",
        f"--data_dir={tmp_path / 'data'}",
        ANY_PORT,
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines() == [
        "--metrics_addr needs the 'prometheus_client' package: pip install 'kvstore-raft[metrics]'"
    ]
