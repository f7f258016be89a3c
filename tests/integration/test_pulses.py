"""What becomes of leadership when the loops of members are busy, and when their processes stop."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.client import Client
from tests.integration.cluster import Cluster

# A pulse may be late by most of it on a busy machine, and a stall lasts longer than any election.
ELECTION_MS = 1500
STALL_S = 4.0
WAIT_S = 20.0
STALLING_KVD = Path(__file__).with_name("stalling_kvd.py")


def new_cluster(directory: Path) -> Cluster:
    return Cluster(
        directory,
        settings=f"election_timeout_ms = {ELECTION_MS}",
        wrapper=(sys.executable, str(STALLING_KVD), str(STALL_S)),
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with new_cluster(tmp_path_factory.mktemp("cluster")) as made:
        made.start()
        yield made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def term_and_leader(cluster: Cluster, member: int) -> tuple[int, int]:
    """What a member says of itself, once its loop has time for that."""
    with Client(cluster.clients[member], timeout=WAIT_S) as client:
        (own,) = client.status().members
        return own.term, own.leader_id


def stall(cluster: Cluster, *members: int) -> None:
    """Hold up the loops of these members, and wait until they go on."""
    before = {member: cluster.running[member].stderr.count("stalled") for member in members}
    for member in members:
        cluster.running[member].signal(signal.SIGUSR1)
    for member in members:
        wait_until(lambda m=member: cluster.running[m].stderr.count("stalled") > before[m])


def others(cluster: Cluster, member: int) -> list[int]:
    return [other for other in cluster.members if other != member]


def ready(cluster: Cluster) -> int:
    """The leader, once a write has shown that it has told the others of itself."""
    with cluster.client() as client:
        client.put(b"key", b"before")
    return cluster.leader()


def test_a_busy_leader_stays_one(cluster: Cluster) -> None:
    leader = ready(cluster)
    before = term_and_leader(cluster, leader)
    stall(cluster, leader)
    with cluster.client() as client:
        client.put(b"key", b"after")
    for member in cluster.members:
        assert term_and_leader(cluster, member) == before


def test_a_leader_of_busy_followers_stays_one(cluster: Cluster) -> None:
    leader = ready(cluster)
    before = term_and_leader(cluster, leader)
    stall(cluster, *others(cluster, leader))
    with cluster.client() as client:
        client.put(b"key", b"after")
    for member in cluster.members:
        assert term_and_leader(cluster, member) == before


@pytest.mark.parametrize("who", ["leader", "followers"])
def test_without_pulses_it_is_replaced_and_all_else_goes_on(tmp_path: Path, who: str) -> None:
    """What shows that the stalls above are long enough; and a taken port stops nobody."""
    with contextlib.ExitStack() as taken, new_cluster(tmp_path) as cluster:
        for address in cluster.peers.values():
            host, _, port = address.rpartition(":")
            taken.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind((host, int(port)))
        cluster.start()
        leader = ready(cluster)
        for kvd in cluster.running.values():
            assert "no pulses" in kvd.stderr
        term, _ = term_and_leader(cluster, leader)
        stall(cluster, *([leader] if who == "leader" else others(cluster, leader)))
        wait_until(lambda: term_and_leader(cluster, leader)[0] > term)
        with cluster.client() as client:
            client.put(b"key", b"after")


def test_a_leader_that_stands_still_is_replaced(cluster: Cluster) -> None:
    leader = ready(cluster)
    term, _ = term_and_leader(cluster, leader)
    watcher = others(cluster, leader)[0]
    cluster.running[leader].signal(signal.SIGSTOP)
    try:
        wait_until(lambda: term_and_leader(cluster, watcher)[1] not in (0, leader))
    finally:
        cluster.running[leader].signal(signal.SIGCONT)
    assert term_and_leader(cluster, watcher)[0] > term
    wait_until(lambda: term_and_leader(cluster, leader) == term_and_leader(cluster, watcher))
