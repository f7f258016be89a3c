"""``kvctl alarm`` and ``kvctl defrag``, and what clients have for them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import Alarm, AsyncClient
from kvstore.errors import NoSpaceError
from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import FRONTS, Kvd, kvctl_here

ACTIVATE = 1
NOSPACE, CORRUPT = 1, 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for tests that leave its members as they were."""
    with Cluster(tmp_path_factory.mktemp("shared"), fronts=FRONTS) as members:
        members.start()
        yield members


def raise_alarm(cluster: Cluster, member: int, kind: int) -> None:
    """As an operator, over the member's own socket."""
    with EtcdCalls(f"unix:{cluster.data(1)}/admin.sock") as operator:
        operator.Alarm(action=ACTIVATE, memberID=member, alarm=kind)


def kvctl(address: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return kvctl_here("--addr", address, "--timeout=30", *arguments)


def test_alarms_are_listed_and_disarmed(cluster: Cluster) -> None:
    address = cluster.clients[1]
    assert kvctl(address, "alarm", "list").stdout == b""
    raise_alarm(cluster, 2, NOSPACE)
    raise_alarm(cluster, 3, CORRUPT)
    listed = kvctl(address, "alarm", "list")
    assert listed.returncode == 0
    assert sorted(listed.stdout.splitlines()) == [
        b"memberID:2 alarm:NOSPACE",
        b"memberID:3 alarm:CORRUPT",
    ]
    as_json = json.loads(kvctl(address, "alarm", "list", "--output=json").stdout)
    assert {"member_id": 2, "kind": "NOSPACE"} in as_json["alarms"]
    ended = kvctl(address, "alarm", "disarm")
    assert (ended.returncode, sorted(ended.stdout.splitlines())) == (
        0,
        sorted(listed.stdout.splitlines()),
    )
    for command in ("list", "disarm"):
        again = kvctl(address, "alarm", command, "--output=json")
        assert json.loads(again.stdout) == {"alarms": []}


def test_clients_disarm_one_alarm_or_all(cluster: Cluster) -> None:
    async def disarm_the_rest() -> list[Alarm]:
        async with AsyncClient(cluster.clients[3], timeout=30) as client:
            assert len(await client.maintenance.alarms()) == 2
            await client.maintenance.defragment()
            return await client.maintenance.disarm()

    with cluster.client() as client:
        for member in (1, 2, 3):
            raise_alarm(cluster, member, NOSPACE)
        with pytest.raises(NoSpaceError):
            client.put(b"k", b"v")
        assert sorted(client.maintenance.alarms()) == [
            Alarm(member, "NOSPACE") for member in (1, 2, 3)
        ]
        one = Alarm(2, "NOSPACE")
        assert client.maintenance.disarm(one) == [one]
        assert client.maintenance.disarm(one) == []
        with pytest.raises(NoSpaceError):
            client.put(b"k", b"v")
        rest = asyncio.run(disarm_the_rest())
        assert sorted(rest) == [Alarm(1, "NOSPACE"), Alarm(3, "NOSPACE")]
        client.put(b"k", b"v")


def test_defrag_reaches_the_members_that_it_is_told_of(cluster: Cluster) -> None:
    addresses = list(cluster.clients.values())
    one = kvctl(addresses[0], "defrag")
    assert (one.returncode, one.stdout.decode()) == (
        0,
        f"finished defragmenting {addresses[0]}\n",
    )
    two = kvctl(",".join(addresses[:2]), "defrag", "--output=json")
    assert json.loads(two.stdout) == {"members": [{"address": it} for it in addresses[:2]]}
    whole = kvctl(addresses[0], "defrag", "--cluster")
    assert {line.split()[-1] for line in whole.stdout.decode().splitlines()} == set(addresses)


def test_a_member_that_is_down_fails_the_command_and_not_the_others(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        cluster.kill(2)
        addresses = list(cluster.clients.values())
        done = kvctl_here("--addr", ",".join(addresses), "--timeout=3", "defrag")
        assert done.returncode == 4
        assert done.stdout.decode().splitlines() == [
            f"finished defragmenting {addresses[0]}",
            f"finished defragmenting {addresses[2]}",
        ]
        assert f"failed to defragment {addresses[1]}: ".encode() in done.stderr
        done = kvctl_here("--addr", addresses[1], "--timeout=3", "--output=json", "defrag")
        assert done.returncode == 4
        (told,) = json.loads(done.stdout)["members"]
        assert told["address"] == addresses[1]
        assert told["error"]


def test_an_embedded_kvd_is_defragmented_and_its_alarms_listed(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        assert kvctl(kvd.address, "alarm", "list").returncode == 0
        for arguments in (["defrag"], ["defrag", "--cluster"]):
            done = kvctl(kvd.address, *arguments)
            assert done.stdout.decode() == f"finished defragmenting {kvd.address}\n"
