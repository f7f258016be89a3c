"""Three kvd and three etcd on one machine, sync on: puts, linearizable gets, catching up.

Calls go to the leader. The load comes from another process and shares the machine with the members.
``extra_info`` has what matters: calls a second, latency, and what a follower costs meanwhile. Needs
etcd-server and etcd-client of the distribution.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
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
LOAD_BYTES_PER_S = 20_000_000


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


@pytest.mark.parametrize("log_tail_mib", [4096, 64])
def test_catching_up_under_load(benchmark: Any, tmp_path: Path, log_tail_mib: int) -> None:
    """A follower that missed ``BEHIND_MIB`` comes back while 20 MB/s are written: with entries from
    the log's tail, or, where that is short, with one snapshot and what follows it.
    """
    settings = f'log_level = "info"\nlog_tail_mib = {log_tail_mib}'
    with KvdCluster(tmp_path, 3, settings=settings) as cluster:
        cluster.start()
        leader = cluster.leader()
        follower = next(member for member in cluster.clients if member != leader)
        cluster.kill(follower)
        writer = Writer(cluster.clients[leader])
        writer.write(BEHIND_MIB << 20)
        with writer.writing(LOAD_BYTES_PER_S):
            time.sleep(MEASURED_S)
            before = writer.take_latencies()
            benchmark.pedantic(catch_up_with, args=(cluster, leader, follower), rounds=1)
            during = writer.take_latencies()
        said = cluster.running[leader].stderr
        snapshots = len(set(re.findall(r"snapshot sent .*?(index=\d+)", said)))
        benchmark.extra_info.update(
            behind_mib=BEHIND_MIB,
            log_tail_mib=log_tail_mib,
            snapshots=snapshots,
            put_p99_ms_before=round(1000 * quantiles(before, n=100)[-1], 1),
            put_p99_ms_during=round(1000 * quantiles(during, n=100)[-1], 1),
        )


def catch_up_with(cluster: KvdCluster, leader: int, follower: int) -> None:
    """Start the follower, and wait until it is less than a second of load behind."""
    cluster.start(follower)
    while (wanted := cluster.revision(leader)) is not None:
        has = cluster.revision(follower)
        if has is not None and has > wanted - LOAD_BYTES_PER_S // CHUNK_BYTES:
            return
        time.sleep(0.2)


class Writer:
    """Puts chunks under some hundred keys, as fast as it can or at a rate, and notes how long."""

    def __init__(self, address: str) -> None:
        self._client = Client(address, timeout=60)
        self._chunk = random.Random(1).randbytes(CHUNK_BYTES)
        self._count = 0
        self._latencies: list[float] = []

    def put(self) -> None:
        began = time.monotonic()
        self._client.put(b"under load/%d" % self._count, self._chunk)
        self._count += 1
        self._latencies.append(time.monotonic() - began)

    def write(self, size: int) -> None:
        for _ in range(size // CHUNK_BYTES):
            self.put()

    def take_latencies(self) -> list[float]:
        """Of the puts since the last call, in seconds."""
        taken, self._latencies = self._latencies, []
        return taken

    @contextmanager
    def writing(self, bytes_per_s: int) -> Iterator[None]:
        """Put at that rate while the body runs."""
        self._latencies = []
        ended = threading.Event()

        def run() -> None:
            due = time.monotonic()
            while not ended.wait(max(0.0, due - time.monotonic())):
                due += CHUNK_BYTES / bytes_per_s
                self.put()

        with ThreadPoolExecutor(1) as pool:
            putting = pool.submit(run)
            try:
                yield
            finally:
                ended.set()
            putting.result()
        self._client.close()
