"""Three kvd and three etcd on one machine, sync on: puts, linearizable gets, catching up.

Calls go to the leader. The load comes from another process and shares the machine with the members.
``extra_info`` has what matters: calls a second, latency, and what a follower costs meanwhile. Needs
etcd-server and etcd-client of the distribution.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from benchmarks.etcd import EtcdCluster, put_request
from kvstore.client import Client
from tests.integration.cluster import Cluster
from tests.integration.process import environment

ROOT = Path(__file__).resolve().parents[1]
WARM_UP_S = 1.0
MEASURED_S = float(os.environ.get("KVSTORE_BENCH_SECONDS", "5"))
BEHIND_MIB = int(os.environ.get("KVSTORE_BENCH_BEHIND_MIB", "1024"))
CHUNK_BYTES = 512 << 10


class KvdCluster(Cluster):
    """What the benchmark asks of either cluster, in kvd's words."""

    def pids(self) -> dict[int, int]:
        return {member: kvd.pid for member, kvd in self.running.items()}

    def revision(self, member: int) -> int | None:
        with Client(self.clients[member], timeout=15) as client:
            return max(one.revision for one in client.status().members)


Servers = dict[str, KvdCluster | EtcdCluster]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("kvd")
        kvd = stack.enter_context(KvdCluster(directory, 3, settings='log_level = "warning"'))
        kvd.start()
        etcd = stack.enter_context(EtcdCluster(tmp_path_factory.mktemp("etcd")))
        yield {"kvd": kvd, "etcd": etcd}


def load(
    server: str, address: str, operation: str, in_flight: int, seconds: float
) -> dict[str, float]:
    """Run the load generator and return what it measured."""
    generator = [sys.executable, "-m", "benchmarks.service_load", server, address]
    printed = subprocess.check_output(
        [*generator, operation, str(in_flight), str(seconds)], env=environment(), cwd=ROOT
    )
    measured: dict[str, float] = json.loads(printed)
    return measured


@pytest.mark.parametrize("server", ["kvd", "etcd"])
@pytest.mark.parametrize("in_flight", [1, 16, 64, 512])
@pytest.mark.parametrize("operation", ["put", "get"])
def test_cluster(
    benchmark: Any, servers: Servers, server: str, operation: str, in_flight: int
) -> None:
    cluster = servers[server]
    leader = cluster.leader()
    address = cluster.clients[leader]
    follower = psutil.Process(next(pid for m, pid in cluster.pids().items() if m != leader))
    load(server, address, operation, in_flight, WARM_UP_S)
    before = sum(follower.cpu_times()[:2])
    measured = benchmark.pedantic(
        load, args=(server, address, operation, in_flight, MEASURED_S), rounds=1, iterations=1
    )
    cpu = sum(follower.cpu_times()[:2]) - before
    benchmark.extra_info.update(
        server=server,
        operation=operation,
        in_flight=in_flight,
        follower_cpu_us_a_call=round(1e6 * cpu / measured["calls"], 1),
        follower_memory_mib=round(follower.memory_info().rss / 2**20),
        **{name: round(value, 3) for name, value in measured.items()},
    )


@pytest.mark.parametrize("server", ["kvd", "etcd"])
def test_catching_up(benchmark: Any, servers: Servers, server: str) -> None:
    """A follower is killed, misses ``BEHIND_MIB``, and is started again."""
    cluster = servers[server]
    leader = cluster.leader()
    follower = next(member for member in cluster.clients if member != leader)
    cluster.kill(follower)
    chunk = random.Random(1).randbytes(CHUNK_BYTES)
    count = (BEHIND_MIB << 20) // CHUNK_BYTES
    if isinstance(cluster, EtcdCluster):
        with grpc.insecure_channel(cluster.clients[leader]) as channel:
            put = channel.unary_unary("/etcdserverpb.KV/Put")
            for number in range(count):
                put(put_request(b"behind/%d" % number, chunk), timeout=60)
    else:
        with Client(cluster.clients[leader], timeout=60) as client:
            for number in range(count):
                client.put(b"behind/%d" % number, chunk)
    wanted = cluster.revision(leader)
    assert wanted is not None

    def catch_up() -> None:
        cluster.start(follower)
        while (cluster.revision(follower) or 0) < wanted:
            time.sleep(0.05)

    benchmark.pedantic(catch_up, rounds=1, iterations=1)
    benchmark.extra_info.update(server=server, behind_mib=BEHIND_MIB)
