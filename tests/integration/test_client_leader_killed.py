"""What a client does goes on when the leader is killed under it, by a cluster of three."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvstore.client import Client, Draft, Put
from kvstore.errors import CompactedError
from tests.integration.cluster import Cluster

pytestmark = pytest.mark.usefixtures("transport")

TIMEOUT_S = 60.0
MOST_ASKED = 1000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.start()
        yield running


@pytest.fixture
def place(request: pytest.FixtureRequest) -> bytes:
    return f"{request.node.name}/".encode()


@pytest.fixture
def client(cluster: Cluster, place: bytes) -> Iterator[Client]:
    with Client(",".join(cluster.clients.values()), timeout=TIMEOUT_S, namespace=place) as made:
        yield made


class Killed:
    """The leader, dead within the block and back after it."""

    def __init__(self, cluster: Cluster, client: Client) -> None:
        self._cluster = cluster
        self._leader = client.status().leader_id
        self._client = client

    def __enter__(self) -> None:
        self._cluster.kill(self._leader)

    def __exit__(self, *raised: object) -> None:
        self._cluster.start(self._leader)


def leader(client: Client) -> int:
    """Who leads: waits until somebody does."""
    client.put(b"probe", b"")
    return client.status().leader_id


def test_a_scan_goes_on_at_its_revision(cluster: Cluster, client: Client) -> None:
    client.put_many({b"k%04d" % number: b"old" for number in range(500)})
    found = client.range(prefix=b"k", page=50)
    pages = found.pages()
    seen = [*next(pages)]
    with Killed(cluster, client):
        # What is written meanwhile isn't seen.
        client.put_many({b"k%04d" % number: b"new" for number in range(0, 500, 7)})
        client.delete_range(b"k0400", b"k0450")
        for page in pages:
            seen += page
        assert [entry.key for entry in seen] == [b"k%04d" % number for number in range(500)]
        assert {entry.value for entry in seen} == {b"old"}
        assert max(entry.mod_revision for entry in seen) <= found.revision
        assert client.count(prefix=b"k") == 450


def test_a_scan_whose_revision_is_forgotten_says_so_and_mixes_nothing(
    cluster: Cluster, client: Client
) -> None:
    client.put_many({b"k%04d" % number: b"old" for number in range(300)})
    found = client.range(prefix=b"k", page=50)
    pages = found.pages()
    seen = [*next(pages)]
    with Killed(cluster, client):
        client.put_many({b"k%04d" % number: b"new" for number in range(300)})
        now = client.get_entry(b"k0000")
        assert now is not None
        client.compact(now.mod_revision)
        with pytest.raises(CompactedError):
            seen.extend(entry for page in pages for entry in page)
        assert {entry.value for entry in seen} == {b"old"}
        # Anew it is read as of another revision.
        assert {entry.value for entry in client.range(prefix=b"k")} == {b"new"}


def test_a_watch_misses_and_repeats_nothing(cluster: Cluster, client: Client) -> None:
    with client.watch(prefix=b"n") as changes, ThreadPoolExecutor(1) as pool:

        def write() -> None:
            for number in range(300):
                client.put(b"n", b"%d" % number)

        writing = pool.submit(write)
        values = [int(next(changes).value) for _ in range(50)]
        with Killed(cluster, client):
            values += [int(next(changes).value) for _ in range(250)]
            writing.result(TIMEOUT_S)
        assert values == list(range(300))
        assert changes.next(timeout=0.2) is None


def test_increments_are_neither_lost_nor_repeated(cluster: Cluster, client: Client) -> None:
    def one(draft: Draft) -> None:
        draft.put(b"n", b"%d" % (int(draft.get(b"n") or b"0") + 1))

    def many() -> None:
        for _ in range(40):
            client.transact(one, tries=1000)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(many) for _ in range(4)]
        with Killed(cluster, client):
            for each in working:
                each.result(2 * TIMEOUT_S)
    assert client.get(b"n") == b"160"


def test_a_lock_is_held_by_one_over_the_change(cluster: Cluster, client: Client) -> None:
    fences: list[int] = []
    inside = threading.Lock()

    def work() -> None:
        for _ in range(3):
            with client.lock(b"l", ttl=30) as lock:
                assert inside.acquire(blocking=False), "two at a time"
                done = client.transaction().if_(lock.held).then(Put(b"done", b"")).commit()
                assert done.succeeded
                fences.append(lock.fence)
                inside.release()

    with client.lock(b"l", ttl=30) as held, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(work) for _ in range(3)]
        with Killed(cluster, client):
            held.check()
            assert client.transaction().if_(held.held).commit().succeeded
            held.release()
            for each in waiting:
                each.result(2 * TIMEOUT_S)
            # Leaving the block lets go of it once more.
            held.acquire()
    assert fences == sorted(set(fences))
    assert len(fences) == 9


def test_a_leader_of_an_election_stays_one(cluster: Cluster, client: Client) -> None:
    election = client.election(b"e", ttl=30)
    with election.campaign(b"me") as leadership, Killed(cluster, client):
        leadership.proclaim(b"still me")
        leader_now = election.leader()
        assert leader_now is not None
        assert (leader_now.value, leader_now.create_revision) == (b"still me", leadership.fence)
        assert next(election.observe()).value == b"still me"


def test_a_lease_lives_on(cluster: Cluster, client: Client) -> None:
    with client.lease(15) as lease:
        client.put(b"mine", b"", lease=lease)
        with Killed(cluster, client):
            leader(client)
            assert lease.renew() > 10
            assert client.get(b"mine") == b""
        lease.check()
    assert client.get(b"mine") is None


def test_who_is_well_is_told_of_each(cluster: Cluster, client: Client) -> None:
    with Killed(cluster, client):
        leader(client)
        # The other one may not have heard of the new leader yet.
        for _ in range(MOST_ASKED):
            well = sorted(one.serving for one in client.health(timeout=10))
            if well == [False, True, True]:
                return
            assert well == [False, False, True]
        pytest.fail("who follows the new leader is never well")
