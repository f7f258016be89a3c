"""Leases, locks and elections on three members, whose leader is killed or stopped meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.etcdctl import ETCDCTL, etcdctl
from tests.integration.process import FRONTS

needs_etcdctl = pytest.mark.skipif(
    ETCDCTL is None, reason="etcdctl isn't installed (Debian's package etcd-client)"
)

PATIENCE_S = 90.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three members, of both fronts."""
    with Cluster(tmp_path, fronts=FRONTS) as members:
        members.start()
        yield members


@pytest.fixture
def calls(cluster: Cluster) -> Iterator[dict[int, EtcdCalls]]:
    """Calls of each member."""
    with contextlib.ExitStack() as stack:
        yield {
            member: stack.enter_context(EtcdCalls(address))
            for member, address in cluster.clients.items()
        }


def until(condition: Callable[[], bool]) -> None:
    """Wait for what will be so."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def persist(call: Callable[[], object]) -> object:
    """The result of a call that a change of leader may fail."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if error.code() not in passing or time.monotonic() > end:
                raise


class KeptAlive:
    """Renews a lease twice a second, by the members in turn, until it is told not to."""

    def __init__(self, lease: int, *members: EtcdCalls) -> None:
        self._lease = lease
        self._members = members
        self._ended = threading.Event()
        self.ttls: list[int] = []
        self.acknowledged_at = time.monotonic()
        """When the last renewal that was acknowledged was sent."""
        self._thread = threading.Thread(target=self._renew)
        self._thread.start()

    def _renew(self) -> None:
        while not self._ended.wait(0.2):
            for member in self._members:
                sent_at = time.monotonic()
                with contextlib.suppress(grpc.RpcError):
                    self.ttls.append(member.keep_alive_once(self._lease, timeout=2.0))
                    if self.ttls[-1]:
                        self.acknowledged_at = sent_at
                    break

    def __enter__(self) -> KeptAlive:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()


# --- expiry --------------------------------------------------------------------------------------


def test_keys_of_a_lease_go_together_and_not_too_early(calls: dict[int, EtcdCalls]) -> None:
    began = time.monotonic()
    granted = calls[1].LeaseGrant(TTL=1)
    assert granted.TTL == 2
    for number in range(20):
        calls[2].Put(key=b"k%02d" % number, lease=granted.ID)
    created = calls[3].Put(key=b"other")
    create = pb.WatchCreateRequest(key=b"k", range_end=b"l")
    ended = threading.Event()

    def requests() -> Iterator[pb.WatchRequest]:
        yield pb.WatchRequest(create_request=create)
        ended.wait()

    watch = calls[3].Watch(requests(), timeout=PATIENCE_S)
    assert next(watch).created
    response = next(watch)
    lasted = time.monotonic() - began
    assert [event.kv.key for event in response.events] == [b"k%02d" % n for n in range(20)]
    assert {event.type for event in response.events} == {pb.Event.DELETE}
    assert {event.kv.mod_revision for event in response.events} == {created.header.revision + 1}
    assert lasted >= 2
    ended.set()
    watch.cancel()
    assert calls[1].Range(key=b"k", range_end=b"l").count == 0
    for member in calls.values():
        assert member.LeaseTimeToLive(ID=granted.ID).TTL == -1
        assert member.keep_alive_once(granted.ID) == 0


def test_thousands_of_leases_that_end_together_all_end(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    count, ttl = 3_000, 20
    for first in range(1, count, 500):
        granting = [
            calls[1 + id % 3].begin("LeaseGrant", ID=id, TTL=ttl)
            for id in range(first, first + 500)
        ]
        for granted in granting:
            granted.result()
    for id in range(100, count + 1, 100):
        calls[1].Put(key=b"on%05d" % id, lease=id)
    # A new leader lets them all live their whole TTL from now on.
    leader = calls[1].leader()
    first, second = (calls[member] for member in calls if member != leader)
    changed_at = time.monotonic()
    cluster.kill(leader)
    until(lambda: first.leader() not in (0, leader))
    # A slow machine may have taken so long that some had ended before.
    there = len(first.LeaseLeases().leases)
    assert there > count // 2
    with_keys = first.Range(key=b"on", range_end=b"oo", count_only=True)
    until(lambda: len(first.LeaseLeases().leases) < there)
    assert time.monotonic() - changed_at >= ttl
    # Meanwhile others live on, and are renewed.
    kept = second.LeaseGrant(TTL=2).ID
    with KeptAlive(kept, first, second) as renewing:
        until(lambda: len(second.LeaseLeases().leases) == 1)
    assert 0 not in renewing.ttls
    # One revision for each that had a key.
    last = second.Range(key=b"x").header.revision
    assert last == with_keys.header.revision + with_keys.count


# --- leaders that end ----------------------------------------------------------------------------


def test_lease_outlives_a_leader_that_is_killed(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    leader = calls[1].leader()
    others = [member for member in calls if member != leader]
    lease = calls[leader].LeaseGrant(TTL=3).ID
    calls[leader].Put(key=b"k", lease=lease)
    with KeptAlive(lease, *(calls[member] for member in others)) as renewing:
        cluster.kill(leader)
        until(lambda: calls[others[0]].leader() not in (0, leader))
        renewed = len(renewing.ttls)
        until(lambda: len(renewing.ttls) > renewed + 20)
        assert calls[others[1]].Range(key=b"k").count == 1
    assert 0 not in renewing.ttls
    until(lambda: calls[others[0]].Range(key=b"k").count == 0)
    assert time.monotonic() - renewing.acknowledged_at >= 3


def test_leader_that_stood_still_ends_no_lease_that_others_have_renewed(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    leader = calls[1].leader()
    others = [member for member in calls if member != leader]
    lease = calls[leader].LeaseGrant(TTL=3).ID
    calls[leader].Put(key=b"k", lease=lease)
    pid = cluster.running[leader].pid
    with KeptAlive(lease, *(calls[member] for member in others)) as renewing:
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: calls[others[0]].leader() not in (0, leader))
            renewed = len(renewing.ttls)
            # Longer than the lease would live without the others.
            until(lambda: len(renewing.ttls) > renewed + 30)
        finally:
            os.kill(pid, signal.SIGCONT)
        # It has found out, and follows: a read through it sees what the others have.
        assert persist(lambda: calls[leader].Range(key=b"k").count) == 1
        renewed = len(renewing.ttls)
        until(lambda: len(renewing.ttls) > renewed + 10)
        assert calls[others[0]].Range(key=b"k").count == 1
    assert 0 not in renewing.ttls


def test_leases_outlive_a_restart_of_all_members_and_then_end(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    lease, long = calls[1].LeaseGrant(TTL=3).ID, calls[2].LeaseGrant(TTL=3600).ID
    calls[1].Put(key=b"k", lease=lease)
    cluster.kill()
    # Longer than it was granted for: nobody's clock ran, so nobody may have ended it.
    time.sleep(3.5)
    restarted_at = time.monotonic()
    cluster.start()
    for member in calls.values():
        answer = persist(lambda member=member: member.LeaseTimeToLive(ID=long, keys=True))
        assert isinstance(answer, pb.LeaseTimeToLiveResponse)
        assert (answer.TTL > 3500, answer.grantedTTL) == (True, 3600)
    until(lambda: calls[1].Range(key=b"k").count == 0)
    assert time.monotonic() - restarted_at >= 3
    assert {each.ID for each in calls[3].LeaseLeases().leases} <= {lease, long}
    until(lambda: [each.ID for each in calls[3].LeaseLeases().leases] == [long])


def test_lock_is_waited_for_while_leaders_change(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    leader = calls[1].leader()
    first, second = (member for member in calls if member != leader)
    mine, other = (calls[first].LeaseGrant(TTL=60).ID for _ in range(2))
    held = calls[first].Lock(name=b"n", lease=mine)
    waiting = calls[second].begin("Lock", timeout=PATIENCE_S, name=b"n", lease=other)
    until(lambda: calls[first].Range(key=b"n/", range_end=b"n0").count == 2)
    cluster.kill(leader)
    until(lambda: calls[first].leader() not in (0, leader))
    assert not waiting.done()
    assert persist(lambda: calls[first].Range(key=held.key).kvs[0].create_revision) == (
        held.create_revision
    )
    persist(lambda: calls[first].Unlock(key=held.key))
    got = waiting.result()
    assert got.key == b"n/%x" % other
    assert got.create_revision > held.create_revision
    fenced = calls[first].Txn(
        compare=[
            pb.Compare(
                key=held.key,
                target=pb.Compare.CREATE,
                result=pb.Compare.EQUAL,
                create_revision=held.create_revision,
            )
        ],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=b"result"))],
    )
    assert not fenced.succeeded, "who has lost the lock can't write any more"


def test_election_goes_on_while_leaders_change(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    leader = calls[1].leader()
    first, second = (member for member in calls if member != leader)
    one, two = (calls[first].LeaseGrant(TTL=60).ID for _ in range(2))
    elected = calls[first].Campaign(name=b"e", lease=one, value=b"one").leader
    observed = calls[second].Observe(name=b"e", timeout=PATIENCE_S)
    assert next(observed).kv.value == b"one"
    waiting = calls[second].begin("Campaign", timeout=PATIENCE_S, name=b"e", lease=two, value=b"2")
    until(lambda: calls[first].Range(key=b"e/", range_end=b"e0").count == 2)
    cluster.kill(leader)
    until(lambda: calls[first].leader() not in (0, leader))
    persist(lambda: calls[first].Proclaim(leader=elected, value=b"uno"))
    assert next(observed).kv.value == b"uno"
    persist(lambda: calls[first].Resign(leader=elected))
    assert waiting.result().leader.key == b"e/%x" % two
    assert next(observed).kv.value == b"2"
    observed.cancel()


# --- etcdctl -------------------------------------------------------------------------------------


@needs_etcdctl
def test_etcdctl_has_leases_through_each_endpoint(cluster: Cluster) -> None:
    everybody = [*cluster.clients.values()]
    said = etcdctl(everybody[0], "lease", "grant", "100").out
    lease = said.split()[1]
    assert said == f"lease {lease} granted with TTL(100s)\n"
    etcdctl(everybody[1], "put", "k", "v", f"--lease={lease}")
    for address in everybody:
        assert etcdctl(address, "lease", "keep-alive", "--once", lease).out == (
            f"lease {lease} keepalived with TTL(100)\n"
        )
        told = etcdctl(address, "lease", "timetolive", lease, "--keys").out
        assert told.startswith(f"lease {lease} granted with TTL(100s), remaining(")
        assert told.endswith("s), attached keys([k])\n")
        assert etcdctl(address, "lease", "list").out == f"found 1 leases\n{lease}\n"
        told_json = etcdctl(address, "lease", "timetolive", lease, "--keys", "-w", "json").json
        assert (told_json["granted-ttl"], told_json["keys"]) == (100, ["aw=="])
    assert etcdctl(everybody[2], "lease", "revoke", lease).out == f"lease {lease} revoked\n"
    for address in everybody:
        assert etcdctl(address, "get", "k").out == ""
        assert etcdctl(address, "lease", "timetolive", lease).out == (
            f"lease {lease} already expired\n"
        )
        assert etcdctl(address, "lease", "keep-alive", "--once", lease).error == (
            "Error: etcdserver: requested lease not found"
        )
        assert etcdctl(address, "lease", "revoke", lease).error == (
            "Error: failed to revoke lease (etcdserver: requested lease not found)"
        )


class Running:
    """An etcdctl under way; its lines, as they come."""

    def __init__(self, cluster: Cluster, *arguments: str) -> None:
        assert ETCDCTL is not None
        self._process = subprocess.Popen(
            [ETCDCTL, f"--endpoints={','.join(cluster.clients.values())}", *arguments],
            env={**os.environ, "ETCDCTL_API": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def interrupt(self) -> None:
        """As Control-C does: it gives up what it has, and ends."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE_S)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


@needs_etcdctl
def test_etcdctl_keeps_a_lease_alive_over_the_leaders_end(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    leader = calls[1].leader()
    left = next(member for member in calls if member != leader)
    lease = calls[left].LeaseGrant(TTL=3).ID
    calls[left].Put(key=b"k", lease=lease)
    with Running(cluster, "lease", "keep-alive", f"{lease:x}") as keeping:
        until(lambda: len(keeping.lines) > 1)
        cluster.kill(leader)
        told = len(keeping.lines)
        # It renews every second.
        until(lambda: len(keeping.lines) > told + 8)
        assert set(keeping.lines) == {f"lease {lease:016x} keepalived with TTL(3)"}
        assert persist(lambda: calls[left].Range(key=b"k").count) == 1
        keeping.interrupt()
    until(lambda: calls[left].Range(key=b"k").count == 0)


@needs_etcdctl
def test_etcdctl_locks_over_the_leaders_end(cluster: Cluster, calls: dict[int, EtcdCalls]) -> None:
    leader = calls[1].leader()
    left = next(member for member in calls if member != leader)
    with Running(cluster, "lock", "n", "--ttl=5") as holder:
        until(lambda: bool(holder.lines))
        with Running(cluster, "lock", "n", "--ttl=5") as waiter:
            until(lambda: calls[left].Range(key=b"n/", range_end=b"n0").count == 2)
            cluster.kill(leader)
            until(lambda: calls[left].leader() not in (0, leader))
            assert persist(lambda: calls[left].Range(key=holder.lines[0].encode()).count) == 1
            assert (holder.is_running, waiter.lines) == (True, [])
            holder.interrupt()
            until(lambda: bool(waiter.lines))
            assert waiter.lines[0].startswith("n/")
            assert waiter.lines[0] != holder.lines[0]


@needs_etcdctl
def test_etcdctl_elects_over_the_leaders_end(cluster: Cluster, calls: dict[int, EtcdCalls]) -> None:
    leader = calls[1].leader()
    left = next(member for member in calls if member != leader)
    with Running(cluster, "elect", "e", "one") as first:
        until(lambda: first.lines[1:] == ["one"])
        with (
            Running(cluster, "elect", "-l", "e") as listener,
            Running(cluster, "elect", "e", "two") as second,
        ):
            until(lambda: listener.lines[1:] == ["one"])
            until(lambda: calls[left].Range(key=b"e/", range_end=b"e0").count == 2)
            cluster.kill(leader)
            until(lambda: calls[left].leader() not in (0, leader))
            assert second.lines == []
            first.interrupt()
            until(lambda: second.lines[1:] == ["two"])
            until(lambda: listener.lines[-1] == "two")


@needs_etcdctl
def test_etcdctls_locks_and_those_of_the_lock_service_exclude_each_other(
    cluster: Cluster, calls: dict[int, EtcdCalls]
) -> None:
    lease = calls[2].LeaseGrant(TTL=60).ID
    held = calls[2].Lock(name=b"n", lease=lease)
    with Running(cluster, "lock", "n") as waiter:
        until(lambda: calls[1].Range(key=b"n/", range_end=b"n0").count == 2)
        waiting = calls[3].begin(
            "Lock", timeout=PATIENCE_S, name=b"n", lease=calls[3].LeaseGrant(TTL=60).ID
        )
        until(lambda: calls[1].Range(key=b"n/", range_end=b"n0").count == 3)
        assert waiter.lines == []
        calls[1].Unlock(key=held.key)
        until(lambda: bool(waiter.lines))
        assert not waiting.done()
        waiter.interrupt()
        assert waiting.result().key.startswith(b"n/")
