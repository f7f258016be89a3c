"""Three kvd and three etcd on one machine, sync on: puts, linearizable gets, clients, catching up.

Calls go to the leader. The load comes from another process and shares the machine with the members.
``extra_info`` has what matters: calls a second, latency, and what a call costs the members. Needs
etcd-server and etcd-client of the distribution.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any, Literal

import pytest

from benchmarks.load import Load, measure
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.settings import BEHIND_MIB, KVD_FLAGS, ROUNDS, SECONDS
from benchmarks.measuring.speed import IN_FLIGHT, compare, fill
from benchmarks.python_client import ETCD_CLIENTS, put_many_rate, run_client
from benchmarks.servers import Etcd, KvdCluster, side_by_side

CHUNK_BYTES = 512 << 10
CLIENT_IN_FLIGHT = 64
CLIENT_TIMES_MIN = 5.0
MANY_ROWS, MANY_PER_S_MIN = 100_000, 100_000

Servers = dict[str, KvdCluster | Etcd]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def servers(secure: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    directory = tmp_path_factory.mktemp("cluster")
    with side_by_side(directory, secure=secure, arguments=KVD_FLAGS) as running:
        for server in running.values():
            fill(server)
        yield running


@pytest.mark.parametrize("in_flight", IN_FLIGHT)
@pytest.mark.parametrize("operation", ["put", "get"])
def test_cluster(
    benchmark: Any,
    servers: Servers,
    secure: bool,
    operation: Literal["put", "get"],
    in_flight: int,
) -> None:
    point = benchmark.pedantic(
        compare,
        args=(servers, operation, in_flight),
        kwargs={"secure": secure, "seconds": SECONDS, "rounds": ROUNDS},
        rounds=1,
    )
    benchmark.extra_info.update(point=point.as_dict())


plain = pytest.mark.parametrize("secure", [False], ids=["plain"], indirect=True)


@plain
@pytest.mark.parametrize("operation", ["put", "get"])
def test_python_clients(benchmark: Any, servers: Servers, operation: str) -> None:
    """One process with an AsyncClient, and one with each Python client of etcd that is alive."""
    clients = {"kvstore": servers["kvd"], **dict.fromkeys(ETCD_CLIENTS, servers["etcd"])}

    def in_turn() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(ROUNDS):
            for name, server in clients.items():
                address = server.target().address
                measured = run_client(name, address, operation, CLIENT_IN_FLIGHT, SECONDS)
                found[name].append(measured["calls_per_s"])
        return found

    found = benchmark.pedantic(in_turn, rounds=1)
    rates = {name: median(values) for name, values in found.items()}
    goal = Goal(
        f"one AsyncClient process, {operation}, 64 in flight, times the best client of etcd",
        *(rates["kvstore"] / max(rates[name] for name in ETCD_CLIENTS), "≥", CLIENT_TIMES_MIN),
        beside=", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items()),
    )
    benchmark.extra_info.update(goals=[goal.as_dict()])


@plain
def test_put_many(benchmark: Any, servers: Servers) -> None:
    """100,000 rows of 100 bytes with one call of the client."""
    address = servers["kvd"].target().address

    def many() -> list[float]:
        return [put_many_rate(address, MANY_ROWS) for _ in range(ROUNDS)]

    rates = benchmark.pedantic(many, rounds=1)
    goal = Goal("put_many of 100,000, rows a second", median(rates), "≥", MANY_PER_S_MIN)
    benchmark.extra_info.update(goals=[goal.as_dict()])


@plain
@pytest.mark.parametrize("name", ["kvd", "etcd"])
def test_catching_up(benchmark: Any, servers: Servers, name: str) -> None:
    """A follower is killed, misses ``BEHIND_MIB``, and is started again."""
    cluster = servers[name]
    leader = cluster.leader()
    follower = next(member for member in cluster.clients if member != leader)
    cluster.kill(follower)
    chunks = (BEHIND_MIB << 20) // CHUNK_BYTES
    load = Load(
        "fill", in_flight=4, connections=2, seconds=600, keys=chunks, value_bytes=CHUNK_BYTES
    )
    measure(cluster.target(), load)
    wanted = cluster.revision(leader)
    assert wanted is not None

    def catch_up() -> None:
        cluster.start(follower)
        while (cluster.revision(follower) or 0) < wanted:
            time.sleep(0.05)

    benchmark.pedantic(catch_up, rounds=1, iterations=1)
    benchmark.extra_info.update(server=name, behind_mib=BEHIND_MIB)
