"""Real members whose disks hang or fail under the leader."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from tests.integration.cluster import Cluster
from tests.integration.disk_trouble import COMPILER, DiskTrouble
from tests.integration.process import Kvd

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")

ELECTION_MS = 500
SETTINGS = f"election_timeout_ms = {ELECTION_MS}"


class TroubledCluster(Cluster):
    """Three members whose disks do what the test says."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, settings=SETTINGS)
        self.disks = DiskTrouble(directory)

    def _start(self, member: int) -> Kvd:
        return Kvd(
            self.data(member),
            "--mode=cluster-node",
            f"--config={self.config(member)}",
            listen=self.clients[member],
            env=self.disks.environment(member),
        )


def test_a_leader_whose_disk_hangs_hands_over_and_serves_again_when_it_can(tmp_path: Path) -> None:
    with TroubledCluster(tmp_path) as cluster:
        cluster.start()
        with cluster.client(timeout=30) as client:
            client.put(b"before", b"1")
            old = cluster.leader()
            cluster.disks.say(old, "hang")
            began = time.monotonic()
            # The write that is under way there, and one more: the client finds who leads then.
            client.put(b"during", b"2")
            gap = time.monotonic() - began
            cluster.running[old].wait_health(health_pb2.HealthCheckResponse.NOT_SERVING)
            assert cluster.leader() != old
            assert client.get(b"during") == b"2"
            assert "storage takes no writes" in cluster.running[old].stderr
            with cluster.running[old].client() as there:
                (said,) = there.status().members
                assert "hangs" in said.fault
            # Two election timeouts to notice, and half a minute of a machine that is busy.
            assert gap < 30
            cluster.disks.say(old, "well")
            cluster.running[old].wait_serving()
            assert "storage takes writes again" in cluster.running[old].stderr
            client.put(b"after", b"3")
        assert cluster.running[old].terminate() == 0


def test_a_leader_whose_disk_fails_ends_and_no_client_hears_of_lost_data(tmp_path: Path) -> None:
    with TroubledCluster(tmp_path) as cluster:
        cluster.start()
        with cluster.client(timeout=30) as client:
            client.put(b"before", b"1")
            old = cluster.leader()
            cluster.disks.say(old, "fail")
            client.put(b"during", b"2")
            assert cluster.running.pop(old).wait() == 5
            assert client.get(b"before") == b"1"
            assert cluster.leader() != old
