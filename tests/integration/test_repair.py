"""Members that run are damaged on their disks, told to check themselves, and whole again."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest

import kvstore
from kvstore.client import Client
from tests.chaos.flips import KINDS, flip_some, make_tables, repair
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd, environment, run

KEYS = 300


def value(number: int) -> bytes:
    return b"%06d" % number * 150


def fill(client: Client) -> None:
    for number in range(KEYS):
        client.put(b"key-%04d" % number, value(number))


def wait_told(kvd: Kvd, line: str) -> None:
    deadline = time.monotonic() + 60
    while line not in kvd.stderr:
        assert time.monotonic() < deadline, kvd.stderr
        time.sleep(0.05)


def repairs_done(data: Path) -> int:
    with Client(f"unix:{data}/admin.sock", timeout=60) as operator:
        return sum(member.repairs_done for member in operator.repair())


def holds_all(client: Client) -> bool:
    return all(client.get(b"key-%04d" % number) == value(number) for number in range(KEYS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_member_of_three_repairs_itself_while_it_serves(
    tmp_path: Path, kind: str
) -> None:
    rng = random.Random(kind)
    with Cluster(tmp_path, admin="operators") as cluster, cluster.client(60) as client:
        cluster.start()
        fill(client)
        for leads in (True, False):
            leader = cluster.leader()
            member = leader if leads else 1 + leader % 3
            data, process = cluster.data(member), cluster.running[member].pid
            make_tables(data)
            before = repairs_done(data)
            flips = flip_some(data / f"node{member}", rng, (kind,))
            assert flips
            told = repair(data)
            # Whoever found it: members compare their states as well.
            assert repairs_done(data) > before, (flips, told)
            assert repair(data).endswith(": 0")
            assert cluster.running[member].pid == process
            assert holds_all(client)
            assert "repair done" in cluster.running[member].stderr


def test_a_damaged_table_costs_a_small_part_of_the_state(tmp_path: Path) -> None:
    """Found at the leader and at a follower: its rows come from others, the state stays."""
    rng = random.Random(5)
    values = {b"key-%05d" % number: rng.randbytes(1000) for number in range(2000)}
    with Cluster(tmp_path, admin="operators") as cluster, cluster.client(60) as client:
        cluster.start()
        for name, content in values.items():
            client.put(name, content)
        for leads in (True, False):
            leader = cluster.leader()
            member = leader if leads else 1 + leader % 3
            data = cluster.data(member)
            make_tables(data)
            (state,) = (data / f"node{member}").glob("state-*")
            table = max(state.glob("*.sst"), key=lambda path: path.stat().st_size)
            content = bytearray(table.read_bytes())
            content[len(content) // 2] ^= 4
            table.write_bytes(content)
            assert repair(data)
            with Client(f"unix:{data}/admin.sock", timeout=60) as operator:
                (told,) = operator.repair()
            assert told.repairs_by_range == 1, cluster.running[member].stderr
            assert 0 < told.repair_received_bytes < len(content) // 20
            assert [*(data / f"node{member}").glob("state-*")] == [state]
            # One that is over between two looks has one line alone, soon.
            wait_told(cluster.running[member], "by_range=1")
        assert all(client.get(name) == content for name, content in values.items())


def test_a_state_damaged_while_its_member_was_away_is_made_anew_after_the_start(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path) as cluster, cluster.client(60) as client:
        cluster.start()
        fill(client)
        member = 1 + cluster.leader() % 3
        make_tables(cluster.data(member))
        assert cluster.running.pop(member).terminate() == 0
        (current,) = (cluster.data(member) / f"node{member}").glob("state-*/CURRENT")
        current.write_bytes(b"MANIFEST-000000\n")
        cluster.start(member)
        assert repair(cluster.data(member))
        assert "repair done" in cluster.running[member].stderr
        assert holds_all(client)


def test_members_of_an_embedded_kvd_repair_themselves_from_each_other(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        with Client(kvd.address, timeout=60) as client:
            fill(client)
            make_tables(kvd.data_dir)
            leader = client.status().leader_id
            flips = flip_some(kvd.data_dir / f"node{leader}", random.Random(1), ("table",))
            assert flips
            assert repair(kvd.data_dir)
            with Client(f"unix:{kvd.data_dir}/admin.sock", timeout=60) as operator:
                told = {member.member_id: member for member in operator.repair()}
            assert {member for member, one in told.items() if one.repairs_done} == {leader}
            assert holds_all(client)


@pytest.mark.parametrize("lost", ["node3", "node1/log"])
def test_an_embedded_kvd_that_lost_a_directory_comes_back_by_itself(
    tmp_path: Path, lost: str
) -> None:
    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        with Client(kvd.address, timeout=60) as client:
            fill(client)
        assert kvd.terminate() == 0
    shutil.rmtree(tmp_path / "data" / lost)
    told = run("kvd", "check", f"--data_dir={tmp_path / 'data'}", "--listen_addr=127.0.0.1:0")
    assert told.returncode == 0
    assert b"has no log but other members have data: it goes on as one that" in told.stdout
    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        with Client(kvd.address, timeout=60) as client:
            assert holds_all(client)
            client.put(b"key", b"value")
            wait_told(kvd, "votes again: it has all that was acknowledged")
        assert "stands aside: its vote counts for nothing yet" in kvd.stderr
        assert repair(kvd.data_dir)
        assert kvd.terminate() == 0
    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        with Client(kvd.address, timeout=60) as client:
            assert holds_all(client)
        assert "stands aside" not in kvd.stderr


def test_a_member_whose_log_is_damaged_in_its_middle_stands_aside_and_votes_again(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path) as cluster, cluster.client(60) as client:
        cluster.start()
        fill(client)
        member = 1 + cluster.leader() % 3
        assert cluster.running.pop(member).terminate() == 0
        (segment,) = (cluster.data(member) / f"node{member}" / "log").glob("*.wal")
        content = bytearray(segment.read_bytes())
        at = content.rindex(b"KR\x02", 0, content.index(b"key-0100"))
        content[at + 20] ^= 4
        segment.write_bytes(content)
        cluster.start(member)
        kvd = cluster.running[member]
        wait_told(kvd, "votes again: it has all that was acknowledged")
        assert "stands aside: its vote counts for nothing yet" in kvd.stderr
        assert "log record header checksum" in kvd.stderr
        # Its vote, and its log, are needed now.
        other = next(m for m in cluster.running if m not in (member, cluster.leader()))
        assert cluster.running.pop(other).terminate() == 0
        assert holds_all(client)
        client.put(b"key", b"value")


def test_a_librarys_database_is_repaired_where_it_lies(tmp_path: Path) -> None:
    with kvstore.open(tmp_path / "db") as database:
        database.put(b"k", b"v")
        database.flush()
    done = run("kvctl", "repair", str(tmp_path / "db"))
    assert (done.returncode, done.stdout) == (0, b"there was nothing to do\n")
    (table,) = (tmp_path / "db").glob("*.sst")
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 1
    table.write_bytes(content)
    done = run("kvctl", "--output=json", "repair", str(tmp_path / "db"))
    assert done.returncode == 5
    assert json.loads(done.stdout)["lost"]


def test_a_members_state_is_left_to_the_member(tmp_path: Path) -> None:
    (tmp_path / "node1/log").mkdir(parents=True)
    (tmp_path / "node1/state-00000000000000000000").mkdir()
    done = run("kvctl", "repair", str(tmp_path / "node1/state-00000000000000000000"))
    assert done.returncode == 1
    assert b"who repairs it by itself: start its kvd" in done.stderr


def test_a_clusters_only_voter_says_that_nobody_can_repair_it(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1) as cluster, cluster.client(60) as client:
        cluster.start()
        fill(client)
        data = cluster.data(1)
        make_tables(data)
        kvd = cluster.running[1]
        assert flip_some(data / "node1", random.Random(2), ("table",))
        # It may be gone before it can say how far it is.
        ended = run("kvctl", f"--dir={data}", "--timeout=1", "repair", env=environment())
        assert ended.returncode in (4, 5), ended.stderr
        assert kvd.wait() == 5
        assert "no other voter has what is damaged" in kvd.stderr
