"""etcdctl against three members: what it says is what it says of etcd, through each endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster
from tests.integration.etcdctl import ETCDCTL, SCRIPTS, Said, etcdctl, transcript
from tests.integration.process import FRONTS, Certificates, Kvd

pytestmark = pytest.mark.skipif(
    ETCDCTL is None, reason="etcdctl isn't installed (Debian's package etcd-client)"
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three members, of both fronts."""
    with Cluster(tmp_path, fronts=FRONTS, admin="everybody") as members:
        members.start()
        yield members


def by_turns(cluster: Cluster) -> Callable[..., Said]:
    """Runs each command through the next member."""
    addresses = cycle(cluster.clients.values())

    def run(*arguments: str, stdin: str = "") -> Said:
        return etcdctl(next(addresses), *arguments, stdin=stdin)

    return run


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.script")), ids=lambda path: path.stem)
def test_it_says_what_it_says_of_etcd(cluster: Cluster, script: Path) -> None:
    said = transcript(script, by_turns(cluster))
    assert said == script.with_suffix(".said").read_text()


def test_members_and_their_state_are_told_by_each(cluster: Cluster) -> None:
    everybody = ",".join(cluster.clients.values())
    etcdctl(everybody, "put", "k", "v")
    members = etcdctl(everybody, "member", "list", "-w", "json").json["members"]
    assert {member["ID"]: member["clientURLs"] for member in members} == {
        member: [f"http://{address}"] for member, address in cluster.clients.items()
    }
    assert etcdctl(everybody, "member", "list", "-w", "table").out.count("started") == 3
    statuses = [
        one["Status"] for one in etcdctl(everybody, "endpoint", "status", "-w", "json").json
    ]
    assert [status["header"]["member_id"] for status in statuses] == [1, 2, 3]
    assert len({status["leader"] for status in statuses}) == 1
    assert len({status["header"]["cluster_id"] for status in statuses}) == 1
    table = etcdctl(everybody, "endpoint", "status", "-w", "table").out
    assert table.count("| true |") == 0
    assert sum("true" in line for line in table.splitlines()) == 1, "one leads"
    # The URLs of the list are dialled.
    first = cluster.clients[1]
    assert len(etcdctl(first, "endpoint", "status", "--cluster", "-w", "json").json) == 3
    health = etcdctl(first, "endpoint", "health", "--cluster")
    assert health.code == 0, health.error
    for address in cluster.clients.values():
        # Behind a read point, which a hash isn't.
        assert etcdctl(address, "get", "k", "--print-value-only").out == "v\n"
    hashes = etcdctl(everybody, "endpoint", "hashkv", "-w", "json").json
    assert len({one["HashKV"]["hash"] for one in hashes}) == 1


def test_what_one_member_stored_another_reads_at_once(cluster: Cluster) -> None:
    run = by_turns(cluster)
    for number in range(12):
        assert run("put", "k", str(number)).out == "OK\n"
        assert run("get", "k", "--print-value-only").out == f"{number}\n"


def test_a_killed_leader_is_replaced_and_nothing_is_lost(cluster: Cluster) -> None:
    everybody = ",".join(cluster.clients.values())
    etcdctl(everybody, "put", "k", "v")
    status = etcdctl(cluster.clients[1], "endpoint", "status", "-w", "json").json
    leader = status[0]["Status"]["leader"]
    cluster.kill(leader)
    left = [address for member, address in cluster.clients.items() if member != leader]
    for address in left:
        assert etcdctl(address, "put", f"from {address}", "v").out == "OK\n"
    for address in left:
        assert etcdctl(address, "get", "", "--prefix", "--keys-only").out.count("from") == 2
        assert etcdctl(address, "get", "k").out == "k\nv\n"


def test_a_member_that_is_alone_serves_what_may_be_old(cluster: Cluster) -> None:
    etcdctl(cluster.clients[1], "put", "k", "v")
    etcdctl(cluster.clients[3], "get", "k")
    cluster.kill(1, 2)
    alone = cluster.clients[3]
    assert etcdctl(alone, "get", "k", "--consistency=s").out == "k\nv\n"
    refused = etcdctl(alone, "put", "k", "w", "--command-timeout=20s")
    assert refused.code == 1
    assert refused.error.startswith("Error: etcdserver: request timed out")
    assert etcdctl(alone, "endpoint", "status", "-w", "json").json[0]["Status"]["errors"] == [
        "etcdserver: no leader"
    ]


@pytest.mark.parametrize("front", FRONTS)
def test_the_five_of_an_embedded_kvd_are_one_member(tmp_path: Path, front: str) -> None:
    with Kvd(tmp_path / "data", front=front) as kvd:
        kvd.wait_serving()
        assert etcdctl(kvd.address, "put", "k", "v").out == "OK\n"
        (member,) = etcdctl(kvd.address, "member", "list", "-w", "json").json["members"]
        assert member["clientURLs"] == [f"http://{kvd.address}"]
        (status,) = etcdctl(kvd.address, "endpoint", "status", "--cluster", "-w", "json").json
        assert status["Status"]["leader"] == member["ID"] == 1


@pytest.mark.parametrize("front", FRONTS)
def test_over_tls(tmp_path: Path, certificates: Certificates, front: str) -> None:
    with Kvd(tmp_path / "data", certificates=certificates, front=front) as kvd:
        kvd.wait_serving()
        way = f"--cacert={certificates.ca}"
        assert etcdctl(f"https://{kvd.address}", way, "put", "k", "v").out == "OK\n"
        (member,) = etcdctl(f"https://{kvd.address}", way, "member", "list", "-w", "json").json[
            "members"
        ]
        assert member["clientURLs"] == [f"https://{kvd.address}"]
        assert etcdctl(f"https://{kvd.address}", way, "endpoint", "health", "--cluster").code == 0


@pytest.mark.parametrize("front", FRONTS)
def test_without_the_api_it_is_not_there_and_says_so(tmp_path: Path, front: str) -> None:
    with Kvd(tmp_path / "data", "--etcd_api=false", front=front) as kvd:
        kvd.wait_serving()
        for command in (("get", "k"), ("watch", "k"), ("snapshot", "save", str(tmp_path / "s"))):
            refused = etcdctl(kvd.address, *command)
            assert refused.code != 0 or command[0] == "watch"
            assert "etcd's API is switched off on this server" in refused.error + refused.out
        with kvd.client() as client:
            client.put(b"k", b"v")
            assert client.get(b"k") == b"v"
