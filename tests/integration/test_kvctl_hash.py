"""kvctl hash against a cluster: the same everywhere, and what it says where one is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvstore.cli.cluster import hash as hash_room
from kvstore.cli.interface.connection import Settings
from kvstore.client.maintenance import StateHash
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd, run


def test_members_have_the_same(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        addresses = ",".join(cluster.clients.values())
        with cluster.client() as client:
            client.put_many((b"k%d" % n, b"v") for n in range(50))
        told = run("kvctl", f"--addr={addresses}", "hash", "-o", "json")
        assert told.returncode == 0, told.stdout
        fields = json.loads(told.stdout)
        assert fields["verdict"] == "equal"
        assert len({one["hash"] for one in fields["members"]}) == 1
        assert len(fields["members"]) == len(cluster.members)


def test_an_embedded_kvd_answers_for_itself(kvd: Kvd) -> None:
    told = run("kvctl", f"--addr={kvd.address}", "hash")
    assert told.returncode == 0, told.stdout
    assert told.stdout.endswith(b"equal\n")
    future = run("kvctl", f"--addr={kvd.address}", "hash", "--rev", "999999")
    assert future.returncode == 4
    assert b"Traceback" not in future.stderr


@pytest.mark.parametrize(
    ("hashes", "verdict", "status"),
    [
        ([StateHash(1, 9, 2), StateHash(1, 9, 2)], b"equal", 0),
        ([StateHash(1, 9, 2), StateHash(2, 9, 2)], b"they differ", 5),
        ([StateHash(1, 9, 2), StateHash(2, 9, 4)], b"not comparable", 4),
        ([StateHash(1, 9, 2), None], b"equal", 4),
    ],
)
def test_what_members_say_is_compared(
    kvd: Kvd,
    monkeypatch: pytest.MonkeyPatch,
    hashes: list[StateHash | None],
    verdict: bytes,
    status: int,
) -> None:
    said = iter(hashes)

    def answer(settings: Settings, address: str, revision: int) -> hash_room.Answer:
        return hash_room.Answer(address, next(said), "away")

    def of_two(settings: Settings) -> object:
        reports = gather(settings)
        return type(reports)(
            reports.asked,
            tuple(
                type(one)(one.member_id, f"db{one.member_id}:1", said=one.said)
                for one in reports.members[:2]
            ),
        )

    gather = hash_room.gather
    monkeypatch.setattr(hash_room, "gather", of_two)
    monkeypatch.setattr(hash_room, "_ask", answer)
    told = run("kvctl", f"--addr={kvd.address}", "hash")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (status, verdict)
