"""``kvctl health``: what probes ask."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.integration.cluster import Cluster
from tests.integration.process import Certificates, Kvd, command, environment, run


def test_a_server_that_serves_is_healthy_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as kvd:
        done = run("kvctl", f"--addr={kvd.address}", "health", "--wait=30")
        assert (done.returncode, done.stdout.decode()) == (0, f"{kvd.address} serves\n")
        kvd.kill()
        for local in ((), ("--local",)):
            done = run("kvctl", f"--addr={kvd.address}", "-o", "json", "health", *local)
            assert done.returncode == 4
            said = json.loads(done.stdout)
            assert said["healthy"] is False
            assert "Connection refused" in said["servers"][0]["reason"]


def test_without_a_leader_a_member_is_alive_and_not_ready(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2) as cluster:
        cluster.start()
        cluster.kill(2)
        where = f"--addr={cluster.clients[1]}"
        with cluster.client() as client:
            while any(one.serving for one in client.health()):
                pass
        done = run("kvctl", where, "health")
        assert done.returncode == 4
        assert b"doesn't serve: no leader, or its storage takes no writes" in done.stdout
        assert run("kvctl", where, "health", "--local").returncode == 0
        assert run("kvctl", where, "status").returncode == 0


def test_under_tls_the_socket_needs_no_certificates(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path)
    with Kvd(tmp_path / "data", certificates=made) as kvd:
        done = run("kvctl", f"--dir={kvd.data_dir}", "health", "--wait=30")
        assert done.returncode == 0, done.stderr
        with_tls = run("kvctl", f"--addr={kvd.address}", f"--tls-ca={made.ca}", "health")
        assert with_tls.returncode == 0
        plain = run("kvctl", f"--addr={kvd.address}", "health")
        assert plain.returncode == 4


def test_of_a_directory_it_waits_for_the_kvd_too(tmp_path: Path) -> None:
    where = f"--dir={tmp_path / 'data'}"
    nobody = run("kvctl", where, "health", "--wait=0.1")
    assert nobody.returncode == 4
    assert b"no kvd serves in" in nobody.stderr
    asking = subprocess.Popen([*command("kvctl"), where, "health", "--wait=60"], env=environment())
    with Kvd(tmp_path / "data"):
        assert asking.wait(60) == 0
