"""What operators do through etcd's API: quota and alarms, snapshots, who leads, who belongs."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.errors import CorruptionError, NoSpaceError
from tests.integration.cluster import Cluster, free_addresses
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.etcdctl import ETCDCTL, etcdctl
from tests.integration.process import FRONTS, Kvd, run

WAIT_S = 60.0
MIB = 1 << 20

needs_etcdctl = pytest.mark.skipif(
    ETCDCTL is None, reason="etcdctl isn't installed (Debian's package etcd-client)"
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three members, of both fronts; operators come over their sockets."""
    with Cluster(tmp_path, fronts=FRONTS) as members:
        members.start()
        yield members


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for tests that leave its members as they were."""
    with Cluster(tmp_path_factory.mktemp("shared"), fronts=FRONTS) as members:
        members.start()
        yield members


def socket(cluster: Cluster, member: int) -> str:
    return f"unix://{cluster.data(member)}/admin.sock"


def until(is_so: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def refused(call: Callable[[], object]) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


# --- quota ---------------------------------------------------------------------------------------


def fill(calls: EtcdCalls) -> int:
    """Put until the store is full; how many puts it took."""
    for number in range(200):
        try:
            calls.Put(key=b"big%d" % number, value=os.urandom(MIB // 2))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == "etcdserver: mvcc: database space exceeded"
            return number
        time.sleep(0.05)
    raise AssertionError("it is never full")


@pytest.mark.parametrize("front", FRONTS)
def test_a_full_store_takes_deletes_until_there_is_room(tmp_path: Path, front: str) -> None:
    metrics = free_addresses(1)[0]
    kvd = Kvd(tmp_path / "data", "--quota_mib=8", f"--metrics_addr={metrics}", front=front)
    with kvd, EtcdCalls(kvd.address) as calls, kvd.client() as client:
        kvd.wait_serving()
        client.put(b"before", b"v")
        count = fill(calls)
        assert count > 5, "of half a MiB each"
        status = calls.Status()
        assert list(status.errors) == ["memberID:1 alarm:NOSPACE "]
        assert status.dbSizeQuota == 8 * MIB <= status.dbSize
        with pytest.raises(NoSpaceError, match="NOSPACE"):
            client.put(b"k", b"v")
        assert client.get(b"before") == b"v"
        assert client.delete(b"before")
        grant = refused(lambda: calls.LeaseGrant(TTL=60))
        assert grant.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 'kvstore_alarms{kind="NOSPACE"} 1.0' in _metrics(metrics)
        # As etcd's documentation has it.
        assert calls.DeleteRange(key=b"big", range_end=b"bih").deleted == count
        calls.DeleteRange(key=b"big", range_end=b"bih")
        revision = calls.Range(key=b"k").header.revision
        calls.Alarm(action=2, memberID=1, alarm=1)
        calls.Put(key=b"k", value=b"v")  # the first after it goes, wherever the size is
        calls.Compact(revision=revision + 1, physical=True)
        until(lambda: calls.Status().dbSize < 4 * MIB, "room is given back")
        calls.Alarm(action=2, memberID=1, alarm=1)
        client.put(b"k", b"v")
        calls.LeaseGrant(TTL=60)
        assert 'kvstore_alarms{kind="NOSPACE"} 0.0' in _metrics(metrics)


def _metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        return str(page.read(), "utf-8")


def test_the_alarm_of_one_member_holds_at_all_and_over_a_restart(tmp_path: Path) -> None:
    with Cluster(tmp_path, settings="quota_mib = 8", fronts=FRONTS) as cluster:
        cluster.start()
        with EtcdCalls(cluster.clients[2]) as calls:
            fill(calls)
            alarms = calls.Alarm(action=0).alarms
            assert {alarm.alarm for alarm in alarms} == {1}
        cluster.kill()
        cluster.start()
        for address in cluster.clients.values():
            with EtcdCalls(address) as calls:
                until(lambda calls=calls: calls.Status().errors, "it is known")
                assert refused(lambda calls=calls: calls.Put(key=b"k")).code() is (
                    grpc.StatusCode.RESOURCE_EXHAUSTED
                )
        with cluster.client() as client, pytest.raises(NoSpaceError):
            client.put(b"k", b"v")


def test_a_corrupt_cluster_writes_nothing_by_either_api(shared: Cluster) -> None:
    with EtcdCalls(socket(shared, 1).replace("//", "")) as operator, shared.client() as client:
        client.put(b"k", b"v")
        operator.Alarm(action=1, memberID=2, alarm=2)
        with pytest.raises(CorruptionError, match="CORRUPT"):
            client.put(b"k", b"w")
        with pytest.raises(CorruptionError, match="CORRUPT"):
            client.delete(b"k")
        assert client.get(b"k") == b"v"
        assert refused(lambda: operator.DeleteRange(key=b"k")).code() is (grpc.StatusCode.DATA_LOSS)
        operator.Alarm(action=2, memberID=2, alarm=2)
        client.put(b"k", b"w")


# --- snapshots -----------------------------------------------------------------------------------


@needs_etcdctl
@pytest.mark.parametrize("front", FRONTS)
def test_what_etcdctl_saves_a_new_kvd_begins_with(tmp_path: Path, front: str) -> None:
    saved = tmp_path / "saved.db"
    with Kvd(tmp_path / "data", front=front) as kvd, kvd.client() as client:
        kvd.wait_serving()
        for number in range(40):
            client.put(b"%d" % number, os.urandom(100_000))
        expected = client.get(b"7")
        done = etcdctl(kvd.address, "snapshot", "save", str(saved))
        assert done.code == 0, done.error
        assert saved.stat().st_size % 512 == 32, "so etcdctl wants it"
        assert not (tmp_path / "data/node1/outgoing-backup").exists()
    told = run("kvctl", "snapshot", "status", str(saved))
    assert told.returncode == 0, told.stderr
    restored = run("kvctl", "snapshot", "restore", str(saved), "--data-dir", str(tmp_path / "new"))
    assert restored.returncode == 0, restored.stderr
    with Kvd(tmp_path / "new", front=front) as kvd, kvd.client() as client:
        kvd.wait_serving()
        assert client.get(b"7") == expected


def test_blobs_count_down_to_the_sum_and_a_reader_who_goes_away_holds_nothing(
    shared: Cluster,
) -> None:
    with shared.client() as client:
        for number in range(10):
            client.put(b"%d" % number, os.urandom(MIB))
    with EtcdCalls(shared.clients[2]) as calls:
        blobs = list(calls.Snapshot())
        assert blobs[0].header.member_id == 2
        assert max(len(blob.blob) for blob in blobs) <= 32 << 10
        left = sum(len(blob.blob) for blob in blobs[:-1])
        for blob in blobs[:-1]:
            left -= len(blob.blob)
            assert blob.remaining_bytes == left
        assert (len(blobs[-1].blob), blobs[-1].remaining_bytes) == (32, 0)
        stream = calls.Snapshot()
        next(stream)
        second = refused(lambda: list(calls.Snapshot()))
        assert second.details() == "etcdserver: too many requests"
        stream.cancel()
        # Its place is free again, and so is its checkpoint.
        until(lambda: _saves(calls), "the next one gets its turn")
        until(lambda: not (shared.data(2) / "node2/outgoing-backup").exists(), "it is gone")


def _saves(calls: EtcdCalls) -> bool:
    try:
        return len(list(calls.Snapshot())) > 2
    except grpc.RpcError:
        return False


def test_a_member_without_a_leader_is_saved_as_it_is(cluster: Cluster) -> None:
    with cluster.client() as client:
        client.put(b"k", b"v")
    with EtcdCalls(cluster.clients[3]) as calls:
        calls.Range(key=b"k")
        cluster.kill(1, 2)
        until(lambda: not calls.leader(), "it knows")
        assert len(list(calls.Snapshot())) >= 2


# --- who leads -----------------------------------------------------------------------------------


@needs_etcdctl
def test_leadership_is_moved_to_whom_it_should(shared: Cluster) -> None:
    everybody = ",".join(shared.clients.values())
    for target in (2, 3, 1):
        with EtcdCalls(shared.clients[1]) as calls:
            until(calls.leader, "somebody leads")
            if calls.leader() == target:
                continue
        moved = etcdctl(everybody, "move-leader", f"{target:x}")
        assert moved.code == 0, moved.error
        assert moved.out.startswith("Leadership transferred")
        with EtcdCalls(shared.clients[target]) as calls:
            until(lambda calls=calls, target=target: calls.leader() == target, "it leads")


def test_leadership_is_not_moved_by_others_nor_to_nobody(shared: Cluster) -> None:
    with EtcdCalls(shared.clients[1]) as calls:
        until(calls.leader, "somebody leads")
        leader = calls.leader()
    for member, address in shared.clients.items():
        with EtcdCalls(address) as calls:
            error = refused(lambda calls=calls: calls.MoveLeader(targetID=99))
            expected = "bad leader transferee" if member == leader else "not leader"
            assert error.details() == f"etcdserver: {expected}"
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    with EtcdCalls(shared.clients[leader]) as calls:
        calls.MoveLeader(targetID=leader)  # it leads already
        assert calls.leader() == leader


# --- who belongs ---------------------------------------------------------------------------------


@needs_etcdctl
def test_a_member_is_added_begins_votes_and_is_removed(cluster: Cluster) -> None:
    operator = socket(cluster, 1)
    client, peer = free_addresses(2)
    added = etcdctl(operator, "member", "add", "four", f"--peer-urls=http://{peer}", "-w", "json")
    (new,) = [one for one in added.json["members"] if one["ID"] == 4]
    assert new == {"ID": 4, "peerURLs": [f"http://{peer}"], "isLearner": True, "name": ""} or (
        "name" not in new and "clientURLs" not in new
    )
    assert "unstarted" in etcdctl(operator, "member", "list").out
    again = etcdctl(operator, "member", "add", "five", f"--peer-urls=http://{peer}")
    assert again.error == "Error: etcdserver: Peer URLs already exists"
    # What its operator writes, with the id that was given.
    cluster.clients[4], cluster.peers[4] = client, peer
    cluster.members = range(1, 5)
    cluster.write_config(4, settings="join = true")
    cluster.start(4)

    def voter() -> bool:
        members = etcdctl(operator, "member", "list", "-w", "json").json["members"]
        four = next(one for one in members if one["ID"] == 4)
        return four.get("clientURLs") == [f"http://{client}"] and not four.get("isLearner")

    until(voter, "it says where it is, and votes")
    gone = etcdctl(operator, "member", "remove", "4")
    assert re.match(r"Member +4 removed from cluster", gone.out), gone
    assert cluster.running.pop(4).wait(WAIT_S) == 1
    twice = etcdctl(operator, "member", "remove", "4")
    assert twice.error == "Error: etcdserver: member not found"


def test_a_leader_that_is_asked_to_remove_itself_says_that_it_did(cluster: Cluster) -> None:
    members = set(cluster.members)
    while len(members) > 1:
        with EtcdCalls(cluster.clients[min(members)]) as calls:
            until(lambda calls=calls: calls.leader() in members, "one of them leads")
            leader = calls.leader()
        members.remove(leader)
        with EtcdCalls(socket(cluster, leader)) as calls:
            removed = calls.MemberRemove(ID=leader)
            assert {member.ID for member in removed.members} == members
        assert cluster.running.pop(leader).wait(WAIT_S) == 1


@needs_etcdctl
def test_a_learner_stays_one_until_it_is_promoted(cluster: Cluster) -> None:
    operator = socket(cluster, 2)
    client, peer = free_addresses(2)
    url = f"--peer-urls=http://{peer}"
    assert etcdctl(operator, "member", "add", "four", "--learner", url).code == 0
    early = etcdctl(operator, "member", "promote", "4")
    assert early.error == (
        "Error: etcdserver: can only promote a learner member which is in sync with leader"
    )
    cluster.clients[4], cluster.peers[4] = client, peer
    cluster.members = range(1, 5)
    cluster.write_config(4, settings="join = true")
    cluster.start(4)

    def begun() -> bool:
        members = etcdctl(operator, "member", "list", "-w", "json").json["members"]
        four = next(one for one in members if one["ID"] == 4)
        return bool(four.get("clientURLs")) and four.get("isLearner", False)

    until(begun, "it says where it is")
    until(lambda: etcdctl(operator, "member", "promote", "4").code == 0, "it has caught up")
    twice = etcdctl(operator, "member", "promote", "4")
    assert twice.error == "Error: etcdserver: can only promote a learner member"


@needs_etcdctl
def test_a_member_s_peer_url_is_changed_while_it_is_away(cluster: Cluster) -> None:
    cluster.kill(3)
    operator = socket(cluster, 1)
    taken = etcdctl(operator, "member", "update", "3", f"--peer-urls=http://{cluster.peers[2]}")
    assert taken.error == "Error: etcdserver: Peer URLs already exists"
    (moved,) = free_addresses(1)
    update = ("member", "update", "3", f"--peer-urls=http://{moved}")
    # It may have led.
    until(lambda: etcdctl(operator, *update).code == 0, "the others change it")
    cluster.peers[3] = moved
    cluster.write_config(3, settings=f'peer_addr = "{moved}"')
    cluster.start(3)
    with cluster.client() as client:
        client.put(b"k", b"v")
    with EtcdCalls(cluster.clients[3]) as calls:
        assert calls.Range(key=b"k").kvs[0].value == b"v"


def test_strangers_change_nothing_and_see_no_peer_urls(tmp_path: Path) -> None:
    # As on an address that others reach, in so many words.
    with Kvd(tmp_path / "data", "--insecure_clients=true", listen="0.0.0.0:0") as kvd:
        kvd.wait_serving()
        address = kvd.address.replace("0.0.0.0", "127.0.0.1")
        with EtcdCalls(address) as calls:
            for call in (
                calls.Defragment,
                calls.Hash,
                calls.HashKV,
                lambda: list(calls.Snapshot()),
                lambda: calls.MoveLeader(targetID=1),
                lambda: calls.Compact(revision=1, physical=True),
                lambda: calls.MemberAdd(peerURLs=["http://h:1"]),
                lambda: calls.MemberRemove(ID=1),
                lambda: calls.MemberUpdate(ID=1, peerURLs=["http://h:1"]),
                lambda: calls.MemberPromote(ID=1),
                lambda: calls.Alarm(action=1, memberID=1, alarm=1),
            ):
                error = refused(call)
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert calls.MemberList().members[0].clientURLs
        with EtcdCalls(f"unix:{tmp_path}/data/admin.sock") as operator:
            operator.Defragment()
            operator.HashKV()


@needs_etcdctl
def test_who_may_tell_where_members_meet_is_told(shared: Cluster) -> None:
    listed = etcdctl(shared.clients[1], "member", "list", "-w", "json").json["members"]
    assert {one["ID"]: one["peerURLs"] for one in listed} == {
        member: [f"http://{address}"] for member, address in shared.peers.items()
    }


def test_an_embedded_kvd_changes_no_members(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", admin="everybody") as kvd:
        kvd.wait_serving()
        with EtcdCalls(kvd.address) as calls:
            error = refused(lambda: calls.MemberAdd(peerURLs=["http://127.0.0.1:1"]))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "an embedded kvd has five members" in error.details()
            only = refused(lambda: calls.MemberRemove(ID=1))
            assert only.details() == (
                "etcdserver: re-configuration failed due to not enough started members"
            )
