"""``kvd --mode=rados``, as its clients and its operators see it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from kvstore.api.etcd import etcd_pb2
from kvstore.api.v1 import admin_pb2, admin_pb2_grpc, kv_pb2_grpc, session_pb2, session_pb2_grpc
from kvstore.client import Client
from kvstore.errors import Error, UnsupportedError
from tests.integration.process import FRONTS, Certificates, Kvd, run
from tests.integration.test_contract import INVALID, STORY, get, outcome, put
from tests.rados.conftest import write_config
from tools.rados_cluster import RadosCluster

OF_ANOTHER_KEY = (put(b"b", b"1", "r1"), get(b"b"))
"""That an id was used for another key, only a group knows: these steps are left out."""


@pytest.fixture(
    scope="module", params=[(front, profile) for front in FRONTS for profile in ("dev", "secure")]
)
def server(
    request: pytest.FixtureRequest,
    cluster: RadosCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kvd]:
    front, profile = request.param
    directory = tmp_path_factory.mktemp(f"{front}-{profile}")
    config = write_config(cluster, directory, f"kvd-{front}-{profile}")
    secured = Certificates.make(directory) if profile == "secure" else None
    name = directory / "gateway"
    with Kvd(name, rados=config, certificates=secured, front=front) as kvd:
        yield kvd.wait_serving()
        assert kvd.terminate() == 0, kvd.stderr


def test_the_story_of_the_contract_has_the_same_outcomes(server: Kvd) -> None:
    with server.channel() as channel:
        kv = kv_pb2_grpc.KVStub(channel)
        for number, (call, expected) in enumerate(STORY):
            if call not in OF_ANOTHER_KEY:
                assert outcome(kv, call) == expected, f"step {number}: {call[0]}"
    assert (put(b"b", b"1", "r1"), INVALID) in STORY


def test_what_a_gateway_has_not_is_unimplemented_and_says_why(server: Kvd) -> None:
    with server.channel() as channel:
        admin = admin_pb2_grpc.AdminStub(channel)
        sessions = session_pb2_grpc.SessionsStub(channel)
        lease = channel.unary_unary(
            "/etcdserverpb.Lease/LeaseGrant",
            request_serializer=etcd_pb2.LeaseGrantRequest.SerializeToString,
            response_deserializer=etcd_pb2.LeaseGrantResponse.FromString,
        )
        ranges = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=etcd_pb2.RangeRequest.SerializeToString,
            response_deserializer=etcd_pb2.RangeResponse.FromString,
        )
        asked: list[tuple[Any, Any, str]] = [
            (admin.Members, admin_pb2.MembersRequest(), "gateway"),
            (sessions.Open, session_pb2.OpenSessionRequest(), "sessions"),
            (ranges, etcd_pb2.RangeRequest(key=b"k"), "no order over all keys"),
            (lease, etcd_pb2.LeaseGrantRequest(TTL=5), "no order over all keys"),
        ]
        for call, request, words in asked:
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert words in str(refused.value.details())


def test_clients_and_kvctl_do_what_they_do_with_a_group(server: Kvd) -> None:
    with server.client() as client:
        assert client.put(b"client", b"1") is False
        assert client.put(b"client", b"2") is True
        assert client.get(b"client") == b"2"
        assert client.delete(b"client") is True
        with pytest.raises(UnsupportedError, match="no order over all keys"):
            client.get_entry(b"client")
        status = client.status()
    assert (status.mode, status.members) == ("rados", ())
    address = [f"--addr={server.address}"]
    if server.certificates is not None:
        address.append(f"--tls_ca={server.certificates.ca}")
    assert run("kvctl", *address, "put", "kvctl", "hello").returncode == 0
    assert run("kvctl", *address, "get", "kvctl").stdout == b"hello"
    assert run("kvctl", *address, "del", "kvctl").returncode == 0
    said = run("kvctl", *address, "status").stdout.decode()
    assert "rados, up" in said
    shown = json.loads(run("kvctl", *address, "status", "--output=json").stdout)
    assert (shown["mode"], shown["members"]) == ("rados", [])


def test_what_is_wrong_ends_the_start_with_one_line(cluster: RadosCluster, tmp_path: Path) -> None:
    """The others are in test_pools and test_rados_config, without a process for each."""
    config = write_config(cluster, tmp_path, "wrong")
    text = config.read_text()
    for change, words in [
        (text.replace('pool = "kv"', 'pool = "none"'), "there is no pool 'none'"),
        (text + 'nonsense = "1"\n', "unknown key nonsense"),
    ]:
        config.write_text(change)
        done = run("kvd", "--mode=rados", f"--config={config}", "--log_level=error")
        assert done.returncode == 1
        (line,) = done.stderr.decode().splitlines()
        assert words in line
        assert not done.stdout
    done = run("kvd", "--mode=rados", f"--config={config}", "--data_dir=/x")
    assert done.returncode == 1
    assert b"--data_dir has no effect with --mode=rados" in done.stderr


def test_a_gateway_that_is_killed_or_stopped_leaves_its_work_to_the_other(
    cluster: RadosCluster, tmp_path: Path
) -> None:
    config = write_config(cluster, tmp_path, "two")
    with (
        Kvd(tmp_path / "one", rados=config) as one,
        Kvd(tmp_path / "two", rados=config) as two,
        Client(f"{one.address},{two.address}", timeout=30.0) as client,
    ):
        one.wait_serving()
        two.wait_serving()
        for n in range(40):
            if n == 10:
                one.kill()
            if n == 30:
                two.signal(signal.SIGTERM)
            if n < 30:
                assert client.put(b"%d" % n, b"v%d" % n) is False
        assert two.wait() == 0
    with Kvd(tmp_path / "three", rados=config) as three, three.client() as client:
        assert [client.get(b"%d" % n) for n in range(30)] == [b"v%d" % n for n in range(30)]


def test_a_gateway_stops_in_time_while_nothing_of_the_cluster_answers(
    whole: RadosCluster, tmp_path: Path
) -> None:
    config = write_config(whole, tmp_path, "hung")
    daemons = ["mon.a", *(f"osd.{number}" for number in range(whole.osds))]
    with Kvd(tmp_path / "hung", rados=config) as kvd:
        kvd.wait_serving()
        for name in daemons:
            whole.signal(name, signal.SIGSTOP)
        try:
            with kvd.client(timeout=1.0) as client, pytest.raises(Error):
                client.put(b"k", b"v")
            assert kvd.terminate() == 0, kvd.stderr
        finally:
            for name in daemons:
                whole.signal(name, signal.SIGCONT)


def test_while_the_pool_is_away_health_says_so_and_serves_again_after(
    whole: RadosCluster, tmp_path: Path
) -> None:
    config = write_config(whole, tmp_path, "away")
    status = health_pb2.HealthCheckResponse
    with Kvd(tmp_path / "away", rados=config) as kvd:
        kvd.wait_serving()
        for number in range(whole.osds):
            whole.signal(f"osd.{number}", signal.SIGSTOP)
        kvd.wait_health(status.NOT_SERVING)
        assert "the pool does not answer" in kvd.stderr
        for number in range(whole.osds):
            whole.signal(f"osd.{number}", signal.SIGCONT)
        kvd.wait_health(status.SERVING)
        with kvd.client(timeout=30.0) as client:
            assert client.put(b"k", b"v") is False
        assert kvd.terminate() == 0
