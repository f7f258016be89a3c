"""Who may change the members and take backups: operators, and nobody else by default."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import grpc
import pytest

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.client import TLS, Client
from kvstore.errors import PermissionDeniedError
from kvstore.server.tls import pki as authority
from tests.integration.cluster import Cluster, free_addresses
from tests.integration.process import Kvd, run


def test_a_stranger_reads_the_status_and_changes_nothing_an_operator_does(tmp_path: Path) -> None:
    with Cluster(tmp_path, admin="operators") as cluster:
        cluster.start()
        leader = cluster.leader()
        follower = 1 + leader % 3
        with cluster.client() as client:
            client.put(b"k", b"secret")
            assert client.status().members
            members = client.members().members
            assert [member.peer_address for member in members] == ["", "", ""]
            for change in (
                lambda: client.remove_member(follower),
                lambda: client.add_member(9, "127.0.0.1:1", "127.0.0.1:2"),
                lambda: client.transfer_leadership(follower),
                lambda: client.forget_introduction(follower),
                lambda: next(client.save_snapshot()),
                lambda: client.repair(begin=True),
            ):
                with pytest.raises(PermissionDeniedError, match="this needs an operator"):
                    change()
        refused = run("kvctl", f"--addr={cluster.clients[leader]}", "member", "remove", "2")
        assert refused.returncode == 1
        assert b"kvctl --dir DATA_DIR" in refused.stderr

        # The socket of any member will do: what only the leader can answer is passed on.
        data = cluster.data(follower)
        assert stat.S_IMODE((data / "admin.sock").stat().st_mode) == 0o600
        there = f"--dir={data}"
        listed = json.loads(run("kvctl", there, "member", "list", "--output=json").stdout)
        assert {m["peer_address"] for m in listed["members"]} == set(cluster.peers.values())
        client_address, peer_address = free_addresses(2)
        added = run(
            "kvctl",
            "member",
            "add",
            "9",
            there,
            f"--client-addr={client_address}",
            f"--peer-addr={peer_address}",
        )
        assert added.returncode == 0, added.stderr
        wrong = run(
            "kvctl", "member", "add", "10", there, "--client-addr=unix:/x", "--peer-addr=a:1"
        )
        assert wrong.returncode == 1
        assert b'it must be "host:port"' in wrong.stderr
        handed = run("kvctl", there, "leader", "transfer", str(follower))
        assert (handed.returncode, handed.stdout) == (0, b"member %d leads\n" % follower)
        saved = run("kvctl", there, "snapshot", "save", str(tmp_path / "s.kvs"))
        assert saved.returncode == 0, saved.stderr
        assert run("kvctl", there, "get", "k").stdout == b"secret"
    assert run("kvctl", f"--dir={tmp_path}", "status").returncode != 0


def test_an_operators_certificate_opens_what_a_clients_doesnt(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    for arguments in (
        ("init", "--cluster-id=c"),
        ("issue", "--member=1", "--host=127.0.0.1"),
        ("issue", "--client=alice"),
        ("issue", "--client=olga", "--operator"),
    ):
        made = run("kvctl", "pki", arguments[0], f"--dir={pki}", *arguments[1:])
        assert made.returncode == 0, made.stderr
    with Kvd(
        tmp_path / "data",
        "--tls_profile=secure",
        f"--tls_cert={pki}/member-1/server.pem",
        f"--tls_key={pki}/member-1/server.key",
        f"--tls_client_ca={pki}/ca.pem",
        admin="operators",
    ) as kvd:

        def connect(who: str) -> Client:
            stem = pki / f"client-{who}"
            tls = TLS(pki / "ca.pem", f"{stem}.pem", f"{stem}.key")
            return Client(kvd.address, tls=tls, timeout=15)

        foreign = tmp_path / "foreign"
        authority.init(foreign, "c", 100).issue_client("alice", 50)
        stem = foreign / "client-alice"
        alice_pem = pki / "client-alice.pem", pki / "client-alice.key"
        for stranger in (
            TLS(pki / "ca.pem"),
            TLS(pki / "ca.pem", f"{stem}.pem", f"{stem}.key"),
            TLS(pki / "ca.pem", *alice_pem, server_name="somebody.else"),
        ):
            channel = grpc.secure_channel(
                kvd.address, stranger.credentials(), stranger.channel_options()
            )
            with channel, pytest.raises(grpc.RpcError) as refused:
                kv_pb2_grpc.KVStub(channel).Get(kv_pb2.GetRequest(key=b"k"), timeout=20)
            # No word is exchanged: the handshake fails.
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        flags = [f"--addr={kvd.address}", f"--tls-ca={pki}/ca.pem", "--timeout=10"]
        proof = [f"--tls-cert={alice_pem[0]}", f"--tls-key={alice_pem[1]}"]
        assert run("kvctl", *flags, *proof, "put", "by kvctl", "v").returncode == 0
        with connect("alice") as alice, connect("olga") as olga:
            assert alice.get(b"by kvctl") == b"v"
            alice.put(b"k", b"v")
            assert alice.status().warnings == ()
            with pytest.raises(PermissionDeniedError):
                next(alice.save_snapshot())
            assert b"".join(olga.save_snapshot())


def test_the_socket_is_found_however_long_the_path_and_goes_with_its_kvd(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    data = directory / "data"
    with Kvd(data, admin="operators") as kvd:
        kvd.wait_serving()
        status = run("kvctl", f"--dir={data}", "status", "--output=json")
        assert json.loads(status.stdout)["warnings"] == []
        assert kvd.kill()
    assert (data / "admin.sock").exists()
    with Kvd(data, admin="operators") as kvd:  # what a killed one left is no hindrance
        assert run("kvctl", "put", "k", "v", f"--dir={data}").returncode == 0
        assert kvd.terminate() == 0
    assert not (data / "admin.sock").exists()
    gone = run("kvctl", f"--dir={data}", "status")
    assert gone.returncode == 1
    assert b"no kvd serves in" in gone.stderr


def test_what_a_kvd_is_open_to_is_said_at_the_start_in_its_status_and_to_kvctl(
    tmp_path: Path,
) -> None:
    with Kvd(tmp_path / "data", admin="everybody") as kvd:
        said = 'admin = "everybody": whoever reaches'
        assert said in kvd.stderr
        with kvd.client() as client:
            (warning,) = client.status().warnings
            assert warning.startswith(said)
            client.put(b"k", b"v")
            assert b"".join(client.save_snapshot())
        shown = run("kvctl", f"--addr={kvd.address}", "status")
        assert f"warning: {said}" in shown.stdout.decode()
