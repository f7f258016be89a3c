"""Watches of three members: each endpoint, a leader that is killed, members that come back."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.client import Client
from tests.integration.cluster import Cluster
from tests.integration.process import FRONTS, Kvd
from tests.integration.watching import Watcher, call
from tests.watch_validator import History, violations

ETCDCTL = shutil.which("etcdctl")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three members, of both fronts."""
    with Cluster(tmp_path, fronts=FRONTS) as members:
        members.start()
        yield members


class Writer:
    """Changes keys through one member for as long as it may; a refusal is no matter."""

    def __init__(self, address: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.revision = 0
        self.stopped = False
        self._address = address
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The last revision that it knows of."""
        self.stopped = True
        self._thread.join()
        return self.revision

    def _run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            while not self.stopped:
                with contextlib.suppress(grpc.RpcError):
                    self.revision = self._change(channel).header.revision

    def _change(self, channel: grpc.Channel) -> Any:
        rng = self.rng
        key = b"k%d" % rng.randrange(20)
        match rng.randrange(6):
            case 0:
                request = pb.DeleteRangeRequest(key=b"k1", range_end=b"k2")
                return call(channel, "KV", "DeleteRange")(request, timeout=5)
            case 1:
                keys = rng.sample(range(20), 5)
                operations = [
                    pb.RequestOp(request_put=pb.PutRequest(key=b"k%d" % each, value=b"t"))
                    for each in keys
                ]
                return call(channel, "KV", "Txn")(pb.TxnRequest(success=operations), timeout=5)
            case _:
                request = pb.PutRequest(key=key, value=rng.randbytes(rng.choice([0, 10, 2000])))
                return call(channel, "KV", "Put")(request, timeout=5)


def history_of(watcher: Watcher) -> History:
    """All that ever happened, as one watch of everything saw it."""
    revisions: dict[int, list[Any]] = {}
    for seen in watcher.watched.seen:
        for event in seen.events:
            revisions.setdefault(event.kv.mod_revision, []).append(event._replace(previous=None))
    return History(revisions)


def test_watches_of_every_member_survive_the_leaders_end_without_a_gap_or_a_double(
    cluster: Cluster,
) -> None:
    addresses = [*cluster.clients.values()]
    watchers = [
        Watcher([*addresses[place:], *addresses[:place]], key, range_end, start=2, **more)
        for place in range(3)
        for key, range_end, more in (
            (b"\0", b"\0", {"prev_kv": True}),
            (b"k1", b"k2", {"fragment": True}),
            (b"k7", b"", {"prev_kv": True, "progress_notify": True}),
        )
    ]
    writers = [Writer(address, seed) for seed, address in enumerate(addresses)]
    for until in (100, 300):
        watchers[0].wait_for(until)
        leader = cluster.leader()
        cluster.kill(leader)
        watchers[0].wait_for(until + 100)
        cluster.start(leader)
    late = Watcher(addresses, b"\0", b"\0", start=2, prev_kv=True)
    last = max(writer.stop() for writer in writers)
    for watcher in [*watchers, late]:
        watcher.wait_for(last)
        watcher.stop()
    history = history_of(late)
    assert len(history.revisions) > 300
    for watcher in [*watchers, late]:
        assert watcher.unexpected == []
        assert violations(watcher.watched, history, applied=last) == []
    assert sum(watcher.resumed for watcher in watchers) > len(watchers)


@pytest.mark.parametrize("front", FRONTS)
def test_what_v1_writes_is_watched_too_and_survives_a_restart(tmp_path: Path, front: str) -> None:
    with Kvd(tmp_path / "data", front=front) as kvd:
        address = kvd.wait_serving().address
        with Client(address) as client:
            client.count(prefix=b"")  # keys have revisions from here on
            client.put(b"a", b"1")
            watcher = Watcher([address], b"\0", b"\0", start=2, prev_kv=True)
            client.put(b"a", b"2")
            client.delete(b"a")
            watcher.wait_for(4)
            watcher.stop()
    assert watcher.unexpected == []
    events = [event for seen in watcher.watched.seen for event in seen.events]
    assert [(event.is_delete, event.kv.value) for event in events] == [
        (False, b"1"),
        (False, b"2"),
        (True, b""),
    ]
    with Kvd(tmp_path / "data", front=front) as kvd:
        again = Watcher([kvd.wait_serving().address], b"a", b"", start=3, prev_kv=True)
        again.wait_for(4)
        again.stop()
    assert violations(again.watched, history_of(watcher), applied=4) == []


@pytest.mark.skipif(ETCDCTL is None, reason="etcdctl isn't installed (Debian's etcd-client)")
def test_etcdctl_watches_through_each_member_while_the_leader_is_killed(cluster: Cluster) -> None:
    addresses = [*cluster.clients.values()]

    def etcdctl(*arguments: str) -> list[str]:
        return [str(ETCDCTL), f"--endpoints={','.join(addresses)}", *arguments]

    def put(value: int) -> None:
        done = subprocess.run(
            etcdctl("put", "k", str(value)), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    with contextlib.ExitStack() as stack:
        put(0)
        watches = []
        for place in range(3):
            order = ",".join([*addresses[place:], *addresses[:place]])
            command = [str(ETCDCTL), f"--endpoints={order}", "watch", "k", "--rev=2", "-w=json"]
            watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.callback(watch.wait)
            stack.callback(watch.kill)
            watches.append(watch)
        for number in range(1, 4):
            put(number)
        leader = cluster.leader()
        cluster.kill(leader)
        for number in range(4, 8):
            put(number)
        for watch in watches:
            versions: list[int] = []
            assert watch.stdout is not None
            while len(versions) < 8:
                response = json.loads(watch.stdout.readline())
                versions += [event["kv"]["version"] for event in response.get("Events", ())]
            assert versions == [*range(1, 9)]
