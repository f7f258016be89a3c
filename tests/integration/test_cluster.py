"""Several kvd on loopback: what is acknowledged survives whoever is killed, stopped or wiped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from kvstore.api.metadata_keys import INTRODUCTION_KEY
from kvstore.api.v1 import raft_pb2, raft_pb2_grpc
from kvstore.client import Client
from kvstore.errors import Error, InvalidArgumentError, NotLeaderError, UnavailableError
from tests.integration.cluster import Cluster, free_addresses
from tests.integration.process import FRONTS, Kvd, command, environment, run


class Writer(threading.Thread):
    """Puts rising numbers under keys of its own through any member, until told to stop."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.acknowledged = 0
        self.progress = threading.Semaphore(0)
        self.stopping = threading.Event()
        self.failure: Error | None = None
        self._cluster = cluster

    def key(self, n: int) -> bytes:
        return b"%d/%d" % (self.number, n)

    def run(self) -> None:
        with self._cluster.client(timeout=30) as client:
            try:
                while not self.stopping.is_set():
                    n = self.acknowledged + 1
                    assert client.put(self.key(n), b"%d" % n) is False
                    self.acknowledged = n
                    self.progress.release()
            except Error as error:
                self.failure = error

    def wait_for(self, more: int) -> None:
        for _ in range(more):
            assert self.progress.acquire(timeout=40), self.failure

    def finish(self) -> None:
        self.stopping.set()
        self.join(40)
        assert self.failure is None

    def check(self, client: Client) -> None:
        for n in range(1, self.acknowledged + 1):
            assert client.get(self.key(n)) == b"%d" % n
        assert client.get(self.key(self.acknowledged + 1)) is None


def test_any_member_takes_calls_and_names_the_leader(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        leader = cluster.leader()
        follower = 1 + leader % 3
        with cluster.client() as client:
            assert client.put(b"k", b"v") is False
            assert client.get(b"k") == b"v"
        with Client(cluster.clients[follower]) as client:
            # One address is enough: the hint says where the leader is.
            assert client.get(b"k") == b"v"
            assert client.delete(b"k") is True
            assert client.status().mode == "cluster-node"


def test_writes_go_on_when_the_leader_is_killed_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        writers = [Writer(cluster, number) for number in range(3)]
        for writer in writers:
            writer.start()
        for _ in range(2):
            writers[0].wait_for(20)
            leader = cluster.leader()
            cluster.kill(leader)
            writers[1].wait_for(20)
            cluster.start(leader)
        for writer in writers:
            writer.finish()
        with cluster.client() as client:
            for writer in writers:
                writer.check(client)


def test_a_kill_of_all_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with Cluster(tmp_path, 5) as cluster:
        cluster.start()
        with cluster.client() as client:
            for n in range(200):
                client.put(b"%d" % n, b"%d" % n)
        cluster.kill()
        cluster.start()
        with cluster.client() as client:
            assert [client.get(b"%d" % n) for n in range(200)] == [b"%d" % n for n in range(200)]


def test_without_a_majority_calls_are_refused_and_served_again_with_one(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        with cluster.client() as client:
            client.put(b"k", b"1")
        stopped = [1, 2]
        alone = cluster.running[3]
        status = health_pb2.HealthCheckResponse
        alone.wait_health(status.SERVING)
        for member in stopped:
            cluster.running[member].signal(signal.SIGSTOP)
        alone.wait_health(status.NOT_SERVING)
        assert "not serving: no leader" in alone.stderr
        with Client(cluster.clients[3], timeout=3) as client:
            with pytest.raises((UnavailableError, NotLeaderError, TimeoutError)):
                client.put(b"k", b"2")
            with pytest.raises((UnavailableError, NotLeaderError, TimeoutError)):
                client.get(b"k")
        for member in stopped:
            cluster.running[member].signal(signal.SIGCONT)
        with cluster.client(timeout=30) as client:
            client.put(b"k", b"3")
            assert client.get(b"k") == b"3"
        alone.wait_health(status.SERVING)


def test_a_wiped_member_does_not_come_back_under_its_id(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        with cluster.client() as client:
            client.put(b"k", b"v")
        cluster.kill(3)
        shutil.rmtree(cluster.data(3))
        refused = run("kvd", "--mode=cluster-node", f"--config={cluster.config(3)}")
        assert refused.returncode == 1
        assert b"stale id: member 3 was known with another data directory" in refused.stderr
        with cluster.client() as client:
            assert client.get(b"k") == b"v"


def test_a_member_that_lost_its_log_does_not_begin_another(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        cluster.kill(2)
        shutil.rmtree(cluster.data(2) / "node2")
        refused = run("kvd", "--mode=cluster-node", f"--config={cluster.config(2)}")
        assert refused.returncode == 1
        assert b"its log is gone" in refused.stderr


def test_a_member_of_another_cluster_is_refused(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        cluster.kill(3)
        cluster.write_config(3, cluster="other")
        refused = run("kvd", "--mode=cluster-node", f"--config={cluster.config(3)}")
        assert refused.returncode == 1
        assert b"belongs to cluster 'test', not to 'other'" in refused.stderr


def test_members_talk_over_mutual_tls(tmp_path: Path) -> None:
    with Cluster(tmp_path, mutual_tls=True) as cluster:
        cluster.start()
        with cluster.client() as client:
            client.put(b"k", b"v")
            leader = cluster.leader()
            cluster.kill(leader)
            assert client.get(b"k") == b"v"
        ca = (tmp_path / "pki" / "peer-ca.pem").read_bytes()
        for member in cluster.running:
            address = cluster.peers[member]
            name = (("grpc.ssl_target_name_override", f"member-{member}.test.kvstore"),)
            without_proof = grpc.ssl_channel_credentials(ca)
            for channel in (
                grpc.insecure_channel(address),
                grpc.secure_channel(address, without_proof, name),
            ):
                with channel, pytest.raises(grpc.RpcError) as refused:
                    raft_pb2_grpc.RaftPeerStub(channel).Register(
                        raft_pb2.RegisterRequest(), timeout=20
                    )
                # No word is exchanged: the handshake fails.
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_flags_override_the_file(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    with Kvd(
        tmp_path / "elsewhere",
        "--mode=cluster-node",
        f"--config={cluster.config(1)}",
        listen=cluster.clients[1],
        env={"KVD_LOG_FORMAT": "json"},
    ) as kvd:
        kvd.wait_serving()
        assert (tmp_path / "elsewhere" / "MEMBER").exists()
        assert not cluster.data(1).exists()
        assert '"event"' in kvd.stderr
        with Client(kvd.address) as client:
            assert client.put(b"k", b"v") is False


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config=/nowhere.toml"], b"failed to read --config=/nowhere.toml"),
        ([], b"--mode=cluster-node requires --config=PATH"),
    ],
)
def test_a_configuration_that_is_no_good_is_named(arguments: list[str], complaint: bytes) -> None:
    refused = run("kvd", "--mode=cluster-node", *arguments)
    assert refused.returncode == 1
    assert complaint in refused.stderr


def test_flags_of_a_cluster_node_have_no_effect_alone(tmp_path: Path) -> None:
    refused = run("kvd", "--peer_addr=127.0.0.1:1", f"--data_dir={tmp_path / 'data'}")
    assert refused.returncode == 1
    assert b"--peer_addr has no effect with --mode=embedded" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_lost_member_is_replaced_while_the_cluster_serves(tmp_path: Path) -> None:
    with Cluster(tmp_path, 4, admin="everybody") as cluster:
        # The first three found the cluster; the fourth joins it.
        founders = [1, 2, 3]
        for member in founders:
            cluster.write_config(member, nodes=founders)
        cluster.start(*founders)
        with cluster.client() as client:
            for n in range(50):
                client.put(b"%d" % n, b"%d" % n)
            lost = next(member for member in founders if member != cluster.leader())
            cluster.kill(lost)
            assert client.remove_member(lost) == client.remove_member(lost)
            client.add_member(4, cluster.clients[4], cluster.peers[4])
            with pytest.raises(InvalidArgumentError, match="was removed before"):
                client.add_member(lost, cluster.clients[lost], cluster.peers[lost])
            cluster.write_config(4, settings="join = true")
            cluster.start(4)
            members = client.promote_member(4)
            assert [(m.member_id, m.learner) for m in members.members] == sorted(
                (member, False) for member in {1, 2, 3, 4} - {lost}
            )
            # One that joined later knows of the removal, too: it is in the log.
            assert client.transfer_leadership(4) == 4
            with pytest.raises(InvalidArgumentError, match="was removed before"):
                client.add_member(lost, "127.0.0.1:1", "127.0.0.1:2")
            other = next(member for member in founders if member not in (lost, 4))
            cluster.kill(other)
            # The new one's vote and log count: only two of three are left.
            client.put(b"more", b"")
            assert [client.get(b"%d" % n) for n in range(50)] == [b"%d" % n for n in range(50)]
        shutil.rmtree(cluster.data(lost))
        cluster.write_config(lost, settings="join = true")
        returned = Kvd(
            cluster.data(lost),
            "--mode=cluster-node",
            f"--config={cluster.config(lost)}",
            listen=cluster.clients[lost],
        )
        refused = pytest.raises((UnavailableError, NotLeaderError, TimeoutError))
        with returned, Client(returned.address, timeout=2) as client, refused:
            client.get(b"1")


@pytest.mark.parametrize("who", ["a follower", "the leader"])
def test_a_removed_member_is_told_and_stops_with_a_clear_line(tmp_path: Path, who: str) -> None:
    with Cluster(tmp_path, admin="everybody") as cluster:
        cluster.start()
        leader = cluster.leader()
        gone = leader if who == "the leader" else 1 + leader % 3
        with cluster.client() as client:
            client.put(b"k", b"v")
            client.remove_member(gone)
            kvd = cluster.running.pop(gone)
            assert kvd.wait() == 1
            line = kvd.stderr.splitlines()[-1]
            assert f"member {gone} was removed from cluster 'test'; its id can't come back" in line
            assert client.get(b"k") == b"v"
            assert len(client.members().members) == 2
        # Started again it says the same, and takes no part.
        again = Kvd(
            cluster.data(gone),
            "--mode=cluster-node",
            f"--config={cluster.config(gone)}",
            listen=cluster.clients[gone],
        )
        assert again.wait() == 1
        assert "was removed from cluster" in again.stderr


def test_a_change_that_would_end_all_writing_is_refused_unless_forced(tmp_path: Path) -> None:
    with Cluster(tmp_path, admin="everybody") as cluster:
        cluster.start()
        leader = cluster.leader()
        addresses = f"--addr={cluster.clients[leader]}"
        with cluster.client(timeout=3.0) as client:
            for number, address in enumerate(free_addresses(3)):
                client.add_member(91 + number, address, f"127.0.0.1:{number + 1}")
            # Nobody listens there: the third of these ended the cluster's service for good.
            for member in (91, 92, 93):
                with pytest.raises(UnavailableError, match="was not heard from lately"):
                    client.promote_member(member)
            forced = run("kvctl", addresses, "member", "promote", "--force", "91")
            assert forced.returncode == 0, forced.stderr
            assert len(client.remove_member(91).members) == 5
            others = [member for member in cluster.members if member != leader]
            cluster.kill(others[0])
            # For an election timeout, by ticks of a loop that may be held up, it counts as heard.
            until = time.monotonic() + 3
            while time.monotonic() < until:
                client.put(b"k", b"v")
            refused = run("kvctl", addresses, "--timeout=10", "member", "remove", str(others[1]))
            assert refused.returncode == 4
            assert b"only 1 were heard from lately and 2 are needed" in refused.stderr
            assert client.put(b"k", b"v") is True


def test_each_of_many_changes_at_once_gets_its_answer(tmp_path: Path) -> None:
    with Cluster(tmp_path, admin="everybody") as cluster:
        cluster.start()
        address = cluster.clients[cluster.leader()]

        def add(number: int) -> int:
            # With one address a call that gets no answer lasts until its end.
            with Client(address, timeout=8.0) as client:
                added = client.add_member(
                    10 + number, f"127.0.0.1:{2 * number + 1}", f"127.0.0.1:{2 * number + 2}"
                )
            return len(added.members)

        with ThreadPoolExecutor(6) as pool:
            counts = list(pool.map(add, range(6)))
        assert max(counts) == 9


def test_leadership_is_handed_over_and_kvctl_says_so(tmp_path: Path) -> None:
    with Cluster(tmp_path, admin="everybody") as cluster:
        cluster.start()
        old = cluster.leader()
        new = 1 + old % 3
        addresses = f"--addr={','.join(cluster.clients.values())}"
        handed = run("kvctl", addresses, "leader", "transfer", str(new))
        assert (handed.returncode, handed.stdout) == (0, b"member %d leads\n" % new)
        listed = run("kvctl", addresses, "member", "list", "--output=json")
        shown = json.loads(listed.stdout)
        assert shown["leader_id"] == new
        assert [member["member_id"] for member in shown["members"]] == [1, 2, 3]
        somebody = run("kvctl", addresses, "leader", "transfer")
        assert somebody.returncode == 0, somebody.stderr
        assert somebody.stdout in [b"member %d leads\n" % m for m in cluster.members if m != new]
        refused = run("kvctl", addresses, "leader", "transfer", "9")
        assert refused.returncode == 1
        assert b"member 9 is not another voter" in refused.stderr
        refused = run("kvctl", addresses, "member", "promote", "9")
        assert refused.returncode == 1
        assert b"there is no member 9" in refused.stderr


def test_an_embedded_kvd_has_no_members_to_change(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", admin="everybody") as kvd:
        where = f"--addr={kvd.wait_serving().address}"
        listed = run("kvctl", where, "member", "list")
        assert listed.returncode == 0
        assert listed.stdout.count(b"voter") == 5
        assert listed.stdout.count(b"leads") == 1
        refused = run("kvctl", where, "member", "remove", "1")
    assert refused.returncode == 1
    assert b"an embedded kvd has five members of its own" in refused.stderr


def test_members_with_a_secret_talk_and_a_stranger_with_another_stays_outside(
    tmp_path: Path,
) -> None:
    for name in ("right", "wrong"):
        made = run("kvctl", "pki", "secret", str(tmp_path / name))
        assert made.returncode == 0, made.stderr
    with Cluster(tmp_path, settings=f'peer_secret_file = "{tmp_path}/right"') as cluster:
        text = cluster.config(3).read_text()
        cluster.config(3).write_text(text.replace("/right", "/wrong"))
        cluster.start(1, 2)
        with cluster.client() as client:
            client.put(b"k", b"v")
        path = tmp_path / "stderr"
        with (
            open(path, "wb") as stderr,
            subprocess.Popen(
                [*command("kvd"), "--mode=cluster-node", f"--config={cluster.config(3)}"],
                stderr=stderr,
                env=environment(),
            ) as stranger,
        ):
            until = time.monotonic() + 20
            while b"doesn't know the cluster's secret" not in path.read_bytes():
                assert time.monotonic() < until
                time.sleep(0.02)
            stranger.kill()
        cluster.config(3).write_text(text)
        shutil.rmtree(cluster.data(3), ignore_errors=True)
        cluster.start(3)


def test_a_member_that_was_poisoned_is_let_in_again_at_an_operators_word(tmp_path: Path) -> None:
    with Cluster(tmp_path, admin="everybody") as cluster:
        cluster.start()
        forged = raft_pb2.Introduction(cluster_id="test", sender=2, receiver=1)
        known = json.loads((cluster.data(1) / "PEERS").read_text().splitlines()[0])["known"]["2"]
        forged.incarnation, forged.starts = known[0], known[1] + 900
        with grpc.insecure_channel(cluster.peers[1]) as channel:
            call = raft_pb2_grpc.RaftPeerStub(channel).Messages(
                iter(()), metadata=((INTRODUCTION_KEY, forged.SerializeToString()),), timeout=10
            )
            assert call.received == 0
        cluster.kill(2)
        # It serves nobody if 1 leads: they refuse each other.
        cluster.running[2] = cluster._start(2)
        one = cluster.running[1]
        until = time.monotonic() + 20
        while "stale id: member 2" not in one.stderr:
            assert time.monotonic() < until
            time.sleep(0.02)
        forgot = run("kvctl", f"--addr={cluster.clients[1]}", "member", "forget", "2")
        assert forgot.returncode == 0, forgot.stderr
        assert forgot.stdout == f"{cluster.clients[1]} forgot member 2\n".encode()
        connected = "peer=2"
        while connected not in one.stderr.rpartition("introduction forgotten")[2]:
            assert time.monotonic() < until
            time.sleep(0.02)
        known = json.loads((cluster.data(1) / "PEERS").read_text().splitlines()[0])["known"]["2"]
        assert known[1] < 900
        cluster.running[2].wait_serving()


def test_a_joiner_that_was_killed_before_it_heard_of_the_cluster_starts_again(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path)
    cluster.write_config(3, settings="join = true")
    for _ in range(2):
        with cluster._start(3) as joiner:  # nobody else runs
            joiner.kill()


@pytest.mark.skipif(len(FRONTS) < 2, reason="built without nghttp2")
@pytest.mark.parametrize("mutual_tls", [False, True])
def test_members_over_either_wire_make_one_cluster(tmp_path: Path, mutual_tls: bool) -> None:
    """Whichever of the native ones is away: the other and the one over grpcio are a majority."""
    with Cluster(tmp_path, 3, mutual_tls=mutual_tls, fronts=("native", "grpcio")) as cluster:
        cluster.start()
        with cluster.client(timeout=30) as client:
            for away in (1, 3):
                key = b"%d" % away
                assert client.put(key, b"1") is False
                cluster.kill(away)
                assert client.put(key, b"2") is True
                cluster.start(away)
            assert client.get(b"1") == client.get(b"3") == b"2"
