"""Real members compare their states: who differs is named in time, and stops nobody's writes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore._engine.files.native import PosixFileSystem
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.engine import Options as EngineOptions
from kvstore.errors import CorruptionError, Error
from kvstore.state import open_state
from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import FRONTS, run

NAMED_S = 60.0
"""Ten seconds are promised; the machines of tests are slow."""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + NAMED_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def change_stored_value(state: Path, key: bytes) -> None:
    """Another last byte of the value of ``key``, in a table whose checksums are right."""
    options = EngineOptions(wal=False, create_if_missing=False)
    with open_state(str(state), options=options, filesystem=PosixFileSystem()) as database:
        stored, sequence = database.get_versioned(b"\x01" + key)
        assert sequence == database.last_sequence
        batch = database.write_batch()
        batch.put(b"\x01" + key, stored[:-1] + bytes((stored[-1] ^ 1,)))
        database.write(batch, sequence=sequence, applied_index=database.flushed_index)
        database.flush()
        database.verify()


def statuses(cluster: Cluster) -> dict[int, dict[str, object]]:
    addresses = ",".join(cluster.clients.values())
    told = run("kvctl", "--addr", addresses, "status", "--output=json")
    assert told.returncode == 0, told.stderr
    return {member["member_id"]: member for member in json.loads(told.stdout)["members"]}


def test_a_changed_value_under_right_checksums_is_named_and_stops_nobody(tmp_path: Path) -> None:
    with Cluster(tmp_path, fronts=FRONTS) as cluster:
        cluster.start()
        with cluster.client() as client:
            for number in range(50):
                client.put(b"k%d" % number, b"value %d" % number)
        until(
            lambda: all(
                0 <= float(str(said["compared_seconds"])) < 30 and not said["findings"]
                for said in statuses(cluster).values()
            ),
            "members that agree say so",
        )
        victim = next(member for member in cluster.members if member != cluster.leader())
        # A backup of a member brings all that it has into its tables.
        saved = run(
            "kvctl",
            *("--dir", str(cluster.data(victim)), "snapshot", "save", "--stale"),
            str(tmp_path / "saved.kvs"),
        )
        assert saved.returncode == 0, saved.stderr
        assert cluster.running.pop(victim).terminate() == 0
        (state,) = (cluster.data(victim) / f"node{victim}").glob("state-*")
        change_stored_value(state, b"k49")
        leader = cluster.running[cluster.leader()]
        cluster.running[victim] = cluster._start(victim)
        line = rf"the state of a member differs.*member\S*={victim}\b"
        until(lambda: re.search(line, leader.stderr), "the leader names the member")
        until(lambda: re.search(r"alarm CORRUPT", leader.stderr), "and has an alarm raised")
        others = [member for member in cluster.members if member != victim]
        for member in others:
            assert f"the state of a member differs member={member}" not in leader.stderr
        assert "writes_refused=False" in leader.stderr
        listed = run("kvctl", "--addr", cluster.clients[others[0]], "alarm", "list").stdout
        assert re.fullmatch(rb"memberID:\d+ alarm:CORRUPT\n", listed)
        with cluster.client() as client:
            client.put(b"k", b"v")
            assert client.get(b"k49") == b"value 49"
        cluster.kill()
        cluster.start()
        again = run("kvctl", "--addr", cluster.clients[others[0]], "alarm", "list").stdout
        assert again == listed, "it stands until it is disarmed"
        with cluster.client() as client:
            client.put(b"k", b"after a restart")
        # An operator's own stops writes, and is disarmed in the same words.
        with EtcdCalls(f"unix:{cluster.data(others[0])}/admin.sock") as operator:
            operator.Alarm(action=pb.AlarmRequest.ACTIVATE, memberID=victim, alarm=pb.CORRUPT)
        with cluster.client() as client, pytest.raises(Error, match="CORRUPT") as refused:
            client.put(b"k", b"v")
        assert isinstance(refused.value, CorruptionError)
        disarmed = run("kvctl", "--addr", cluster.clients[others[0]], "alarm", "disarm")
        assert disarmed.returncode == 0, disarmed.stderr
        with cluster.client() as client:
            client.put(b"k", b"after")


def test_a_member_that_is_away_is_told_not_to_be_compared(tmp_path: Path) -> None:
    with Cluster(tmp_path, fronts=FRONTS) as cluster:
        cluster.start()
        leader = cluster.leader()
        away = next(member for member in cluster.members if member != leader)
        cluster.kill(away)
        until(
            lambda: any(
                finding.startswith(f"member {away}: its state is not compared")
                for finding in statuses(cluster)[leader]["findings"]  # type: ignore[attr-defined]
            ),
            "the leader says that it can't compare it",
        )
        line = rf"the state of a member is not compared.*member\S*={away}\b"
        until(lambda: re.search(line, cluster.running[leader].stderr), "in its log as well")
        cluster.start(away)
        until(lambda: not statuses(cluster)[cluster.leader()]["findings"], "and when it can again")
