"""Ranges, transactions, watches, leases, locks and elections against a real etcd and a kvd."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvstore.client import Client, Delete, Draft, EventKind, Get, KeyValue, Put
from kvstore.errors import (
    BatchError,
    CompactedError,
    ConflictError,
    DeadlineExceededError,
    FutureRevisionError,
    InvalidArgumentError,
    LeaseLostError,
    LeaseNotFoundError,
    Outcome,
    OutcomeUnknownError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from kvstore.wire import available
from tests.integration.etcd import Etcd
from tests.integration.model_server import (
    CLIENT_KINDS,
    KINDS,
    ModelServer,
    RestartedKvd,
    started,
    store,
)
from tests.integration.process import environment

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture(scope="module", params=CLIENT_KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """One for all tests of the module, which use keys of their own."""
    with started(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(autouse=True)
def once(request: pytest.FixtureRequest, transport: str) -> None:
    """What lies above the channels is tried with one kind of them."""
    kind = request.node.callspec.params.get("server")
    if transport == "grpcio" and available() and kind in ("kvd-namespace", "memory"):
        pytest.skip("tried with the native wire")


@pytest.fixture
def client(server: ModelServer) -> Iterator[Client]:
    with server.client() as made:
        yield made


@pytest.fixture
def place(request: pytest.FixtureRequest) -> bytes:
    """A prefix that no other test has."""
    return f"{request.node.name}/".encode()


def test_an_entry_has_its_revisions(client: Client, place: bytes) -> None:
    key = place + b"a"
    assert client.get_entry(key) is None
    first = store(client, key, value=b"1")
    second = store(client, key, value=b"2")
    assert client.get_entry(key) == KeyValue(key, b"2", first, second, 2)
    assert client.get_entry(key, revision=first) == KeyValue(key, b"1", first, first, 1)
    assert client.get_entry(key, revision=first - 1) is None
    with pytest.raises(FutureRevisionError):
        client.get_entry(key, revision=second + 1000)


def test_a_range_shows_one_revision_whatever_is_written_meanwhile(
    client: Client, place: bytes
) -> None:
    keys = [place + b"%03d" % number for number in range(300)]
    for chunk in range(0, 300, 100):
        store(client, *keys[chunk : chunk + 100])
    found = client.range(prefix=place, page=40)
    seen = []
    for number, entry in enumerate(found):
        seen.append(entry.key)
        if number == 50:
            client.delete_range(place + b"200")
            store(client, keys[100] + b"+", keys[0])
    assert seen == keys
    assert client.count(prefix=place) == 201
    assert client.count(prefix=place, revision=found.revision) == 300
    assert [entry.key for entry in found] == keys
    assert [entry.key for entry in client.range(prefix=place, reverse=True, limit=2)] == [
        keys[199],
        keys[198],
    ]
    (only,) = client.range(keys[5], keys[6], keys_only=True).list()
    assert (only.key, only.value, only.version) == (keys[5], b"", 1)
    assert client.range(keys[5], limit=0).list() == []
    assert len(client.range(keys[5], serializable=True, limit=3).list()) == 3


def test_large_values_come_in_pages_that_fit(client: Client, place: bytes) -> None:
    keys = [place + b"%02d" % number for number in range(40)]
    for key in keys:
        store(client, key, value=bytes(1 << 20))
    sizes = [len(page) for page in client.range(prefix=place).pages()]
    assert sum(sizes) == 40
    assert max(sizes) <= 32


def test_deleting_a_range_says_what_there_was(client: Client, place: bytes) -> None:
    revision = store(client, place + b"a", place + b"b")
    gone = client.delete_range(prefix=place, previous=True)
    assert (gone.deleted, gone.revision) == (2, revision + 1)
    assert [entry.key for entry in gone.previous] == [place + b"a", place + b"b"]
    again = client.delete_range(prefix=place)
    assert (again.deleted, again.revision, again.previous) == (0, revision + 1, ())


def test_a_transaction_does_all_or_the_other(client: Client, place: bytes) -> None:
    key = place + b"a"
    revision = store(client, key, value=b"1")
    read, other = Get(key), Get(prefix=place, count_only=True)
    txn = client.transaction().if_(client.key(key).mod_revision == revision)
    result = txn.then(Put(key, b"2", previous=True), read, Delete(place + b"x")).else_(other)
    done = result.commit()
    assert (done.succeeded, done.revision) == (True, revision + 1)
    assert done[read].value == b"2"
    again = txn.commit()
    assert (again.succeeded, again[other].count, again[other].entries) == (False, 1, ())
    for condition, holds in [
        (client.key(key).value == b"2", True),
        (client.key(key).value != b"2", False),
        (client.key(key).version > 1, True),
        (client.key(key).create_revision < revision, False),
        (client.key(key).lease == 0, True),
        (client.key(key).exists(), True),
        (client.key(place + b"x").exists(), False),
        (client.key(place + b"x").absent(), True),
        (client.keys(prefix=place).version == 2, True),
        (client.keys(prefix=place).absent(), False),
    ]:
        assert client.transaction().if_(condition).commit().succeeded == holds, condition


def test_a_transaction_in_a_transaction_is_done_in_its_place(client: Client, place: bytes) -> None:
    key = place + b"a"
    inner = client.transaction().if_(client.key(key).absent()).then(Put(key, b"1"))
    read = Get(key)
    done = client.transaction().then(inner, read).commit()
    assert done[inner].succeeded
    assert done[read].value == b"1"
    assert not client.transaction().then(inner).commit()[inner].succeeded


def test_what_a_server_refuses_is_told(client: Client, place: bytes) -> None:
    key = place + b"a"
    with pytest.raises(InvalidArgumentError, match="duplicate key") as caught:
        client.transaction().then(Put(key, b"1"), Put(key, b"2")).commit()
    assert caught.value.outcome is Outcome.NOT_APPLIED
    with pytest.raises(InvalidArgumentError, match="too many operations"):
        client.transaction().then(*(Put(b"%s%d" % (key, n), b"") for n in range(129))).commit()
    with pytest.raises(LeaseNotFoundError, match="lease not found"):
        client.put(key, b"1", lease=1234567)
    assert client.count(prefix=place) == 0


def test_increments_of_many_threads_all_count(client: Client, place: bytes) -> None:
    key, log = place + b"n", place + b"log/"

    def increment(draft: Draft) -> int:
        number = int(draft.get(key) or b"0") + 1
        assert len(draft.items(prefix=log)) == number - 1
        draft.put(key, b"%d" % number)
        draft.put(log + b"%d" % number, b"")
        return number

    def ten(_: int) -> list[int]:
        return [client.transact(increment, tries=1000) for _ in range(10)]

    with ThreadPoolExecutor(6) as pool:
        came = sorted(number for numbers in pool.map(ten, range(6)) for number in numbers)
    assert came == list(range(1, 61))
    entry = client.get_entry(key)
    assert entry is not None
    assert (entry.value, entry.version) == (b"60", 60)


def test_what_came_into_a_range_that_was_read_is_a_conflict(client: Client, place: bytes) -> None:
    store(client, place + b"a")
    calls = 0

    def summarise(draft: Draft) -> None:
        nonlocal calls
        calls += 1
        found = draft.items(prefix=place)
        if calls == 1:
            store(client, place + b"b")
        elif calls == 2:
            client.delete_range(prefix=place + b"a")
        draft.put(b"sum of " + place, b"%d" % len(found))

    client.transact(summarise)
    assert calls == 3
    entry = client.get_entry(b"sum of " + place)
    assert entry is not None
    assert entry.value == b"1"
    with pytest.raises(ConflictError):
        client.transact(
            lambda draft: (draft.get(place), store(client, place), draft.delete(place)), tries=2
        )


def test_a_watch_tells_everything_in_order(client: Client, place: bytes) -> None:
    first = store(client, place + b"a", value=b"0")
    with client.watch(prefix=place, from_revision=first, previous=True) as watch:
        second = store(client, place + b"a", place + b"b", value=b"1")
        client.delete_range(prefix=place)
        store(client, b"elsewhere")
        events = [next(watch) for _ in range(5)]
        assert watch.next(timeout=0.05) is None
    assert [(one.kind, one.key, one.value, one.revision) for one in events] == [
        (EventKind.PUT, place + b"a", b"0", first),
        (EventKind.PUT, place + b"a", b"1", second),
        (EventKind.PUT, place + b"b", b"1", second),
        (EventKind.DELETE, place + b"a", b"", second + 1),
        (EventKind.DELETE, place + b"b", b"", second + 1),
    ]
    assert [one.is_create for one in events] == [True, False, True, False, False]
    assert [one.previous.value if one.previous else None for one in events] == [
        None,
        b"0",
        None,
        b"1",
        b"1",
    ]


def test_a_watch_gives_whole_revisions(client: Client, place: bytes) -> None:
    keys = [place + b"%03d" % number for number in range(100)]
    with client.watch(prefix=place) as watch:
        first = store(client, *keys)
        second = client.delete_range(prefix=place).revision
        batches = watch.batches()
        found = [next(batches) for _ in range(2)]
    assert [(batch.revision, len(batch.events)) for batch in found] == [(first, 100), (second, 100)]
    assert [event.key for event in found[0].events] == keys


def test_a_revision_larger_than_a_message_comes_whole(client: Client, place: bytes) -> None:
    # With what there was before, a deletion of six values of 1 MiB goes in fragments.
    for number in range(6):
        store(client, place + b"%d" % number, value=bytes(1 << 20))
    with client.watch(prefix=place, previous=True) as watch:
        revision = client.delete_range(prefix=place).revision
        batch = next(watch.batches())
    assert batch.revision == revision
    assert [event.key for event in batch.events] == [place + b"%d" % number for number in range(6)]
    assert {len(event.previous.value) for event in batch.events if event.previous} == {1 << 20}


def test_a_watch_filters_and_says_how_far_it_is(client: Client, place: bytes) -> None:
    with client.watch(prefix=place, puts=False) as deletes:
        revision = store(client, place + b"a")
        client.delete_range(prefix=place)
        event = next(deletes)
        assert (event.kind, event.revision) == (EventKind.DELETE, revision + 1)
        last = store(client, b"elsewhere")
        batches = deletes.batches()
        while deletes.revision < last:
            deletes.ask_progress()
            assert next(batches).events == ()


def test_many_watches_each_get_their_own(client: Client, place: bytes) -> None:
    watches = [client.watch(place + b"%03d" % number).start() for number in range(300)]
    store(client, *(place + b"%03d" % number for number in range(100)))
    store(client, *(place + b"%03d" % number for number in range(100, 200)))
    store(client, *(place + b"%03d" % number for number in range(200, 300)))
    for number, watch in enumerate(watches):
        assert next(watch).key == place + b"%03d" % number
        watch.close()


def test_history_is_the_past_of_a_key(client: Client, place: bytes) -> None:
    key = place + b"a"
    for value in (b"1", b"2"):
        store(client, key, value=value)
    client.delete_range(prefix=place)
    last = store(client, key, value=b"3")
    store(client, key + b"b", value=b"other")
    found = list(client.history(key))
    assert [event.value for event in found] == [b"1", b"2", b"", b"3"]
    client.compact(last)
    assert [event.value for event in client.history(key)] == [b"3"]
    store(client, key, value=b"4")
    client.compact(last + 1)
    assert [event.value for event in client.history(key)] == [b"3", b"4"]


def test_the_history_of_a_deleted_key_ends_with_that(
    server: ModelServer, client: Client, place: bytes
) -> None:
    if isinstance(server, Etcd):
        pytest.skip("etcd before 3.4.25 says too soon that a watch is up to date (its 15220)")
    assert list(client.history(place)) == []
    store(client, place)
    client.delete_range(prefix=place)
    assert [event.kind for event in client.history(place)] == [EventKind.PUT, EventKind.DELETE]


def test_what_is_compacted_is_gone(client: Client, place: bytes) -> None:
    key = place + b"a"
    old = store(client, key, value=b"1")
    new = store(client, key, value=b"2")
    client.compact(new, physical=True)
    with pytest.raises(CompactedError):
        client.get_entry(key, revision=old)
    entry = client.get_entry(key, revision=new)
    assert entry is not None
    assert entry.value == b"2"
    with pytest.raises(CompactedError):
        client.compact(old)
    with pytest.raises(FutureRevisionError):
        client.compact(new + 1000)
    with (
        pytest.raises(CompactedError) as caught,
        client.watch(key, from_revision=old) as watch,
    ):
        next(watch)
    assert caught.value.oldest == new


def test_keys_go_with_their_lease(client: Client, place: bytes) -> None:
    key = place + b"a"
    with client.lease(5) as lease:
        assert lease.ttl >= 5
        assert client.put(key, b"1", lease=lease) is False
        assert client.put(key, b"2", lease=lease) is True
        entry = client.get_entry(key)
        assert entry is not None
        assert entry.lease == lease.id
        status = lease.status(keys=True)
        assert (status.id, status.granted_ttl, status.keys) == (lease.id, lease.ttl, (key,))
        assert 0 < status.ttl <= lease.ttl
        assert lease.id in client.leases()
        assert lease.renew() > lease.ttl - 1
    assert client.get_entry(key) is None
    assert client.lease_status(lease.id) is None


def test_a_lease_is_kept_alive_beyond_its_time(client: Client, place: bytes) -> None:
    key = place + b"a"
    with client.lease(1) as lease:
        client.put(key, b"1", lease=lease)
        assert not lease.wait_lost(timeout=2.5 * lease.ttl)
        assert client.get_entry(key) is not None
        lease.check()


def test_a_lease_that_nobody_keeps_ends_and_takes_its_keys_along(
    client: Client, place: bytes
) -> None:
    key = place + b"a"
    lease = client.lease(1).grant()
    client.put(key, b"1", lease=lease)
    with client.watch(key) as watch:
        lease.let_go()
        assert next(watch).kind is EventKind.DELETE
    with pytest.raises(LeaseLostError):
        lease.renew()


def test_a_lease_that_somebody_revokes_is_lost(client: Client) -> None:
    lease = client.lease(2).grant()
    client.revoke_lease(lease.id)
    assert lease.wait_lost(timeout=30)
    with pytest.raises(LeaseLostError):
        lease.revoke()
    with pytest.raises(LeaseNotFoundError):
        client.renew_lease(lease.id)


def test_a_lease_has_the_id_that_is_chosen(client: Client) -> None:
    with client.lease(5, lease_id=0x1234ABCD) as lease:
        assert lease.id == 0x1234ABCD
        assert client.renew_lease(lease.id) == lease.ttl
        with pytest.raises(ConflictError):
            client.lease(5, lease_id=lease.id).grant()


def test_one_at_a_time_holds_a_lock(server: ModelServer, place: bytes) -> None:
    holders = 0
    fences: list[int] = []

    def work(_: int) -> None:
        nonlocal holders
        with server.client() as client:
            for _ in range(3):
                with client.lock(place, ttl=10) as lock:
                    holders += 1
                    assert holders == 1
                    fences.append(lock.fence)
                    assert client.transaction().if_(lock.held).commit().succeeded
                    holders -= 1

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert len(fences) == 15
    assert fences == sorted(fences)


def test_a_lock_that_others_hold_can_be_waited_for_so_long(client: Client, place: bytes) -> None:
    with client.lock(place, ttl=10) as lock:
        other = client.lock(place, ttl=10, wait=0.05)
        with pytest.raises(DeadlineExceededError, match="others held it"):
            other.__enter__()
        assert other.acquire(wait=0) is False
        held = lock.held
    assert other.acquire(wait=0) is True
    assert not client.transaction().if_(held).commit().succeeded
    other.release()
    assert client.count(prefix=place) == 0


def test_a_lock_whose_lease_ended_is_lost(client: Client, place: bytes) -> None:
    lock = client.lock(place, ttl=2)
    assert lock.acquire()
    entry = client.range(prefix=place).list()[0]
    client.revoke_lease(entry.lease)
    assert not client.transaction().if_(lock.held).commit().succeeded
    assert lock.wait_lost(timeout=30)
    assert lock.lost
    with pytest.raises(LeaseLostError):
        lock.check()
    with pytest.raises(LeaseLostError):
        lock.release()


def test_a_waiter_whose_lease_ended_is_told(client: Client, place: bytes) -> None:
    with client.lock(place, ttl=10) as lock, ThreadPoolExecutor(1) as pool:
        other = client.lock(place, ttl=2)
        waiting = pool.submit(other.acquire, 30)
        with client.watch(prefix=place, from_revision=lock.fence + 1) as watch:
            client.revoke_lease(next(watch).entry.lease)
        with pytest.raises(LeaseLostError, match="lost while it waited"):
            waiting.result(30)


def test_locks_queue_with_those_of_etcdctl(
    server: ModelServer, place: bytes, tmp_path: Path
) -> None:
    if not isinstance(server, Etcd):
        pytest.skip("etcdctl is run against etcd here")
    name = place.decode().rstrip("/")
    # What it runs under the lock gets no standard input.
    held = tmp_path / "held"
    os.mkfifo(held)
    with server.client() as client:
        lock = client.lock(name.encode(), ttl=10)
        assert lock.acquire()
        holder = subprocess.Popen(
            ["etcdctl", f"--endpoints={server.address}", "lock", name, "cat", str(held)],
            env={"ETCDCTL_API": "3", "PATH": os.environ["PATH"]},
        )
        with client.watch(prefix=f"{name}/".encode(), from_revision=lock.fence + 1) as watch:
            theirs = next(watch)
            lock.release()
            assert next(watch).kind is EventKind.DELETE
            assert lock.acquire(wait=0) is False
            held.open("wb").close()
            assert holder.wait(30) == 0
            assert lock.acquire(wait=30) is True
            assert lock.fence > theirs.revision
            lock.release()


def test_leaders_follow_each_other_and_are_seen(server: ModelServer, place: bytes) -> None:
    seen: list[bytes] = []
    with server.client() as client, server.client() as observer:
        election = client.election(place, ttl=10)
        assert election.leader() is None
        leaders = observer.election(place).observe()

        def observe() -> None:
            for leader in leaders:
                seen.append(leader.value)
                if leader.value == b"last":
                    return

        watching = threading.Thread(target=observe)
        watching.start()
        with election.campaign(b"one") as first:
            leader = election.leader()
            assert leader is not None
            assert (leader.value, leader.create_revision) == (b"one", first.fence)
            with pytest.raises(DeadlineExceededError):
                election.campaign(b"two", wait=0.05).__enter__()
            first.proclaim(b"one, still")
            assert client.transaction().if_(first.held).commit().succeeded
        with election.campaign(b"two") as second:
            assert second.fence > leader.create_revision
            second.proclaim(b"last")
            watching.join(30)
        assert election.leader() is None
    assert seen[-1] == b"last"
    assert set(seen) <= {b"one", b"one, still", b"two", b"last"}


def test_asyncio_has_all_of_it(server: ModelServer, place: bytes) -> None:
    async def test() -> None:
        key = place + b"a"
        async with server.asynchronous() as client:
            async with client.lease(5) as lease, client.watch(prefix=place) as watch:
                assert await client.put(key, b"1", lease=lease) is False
                assert (await anext(watch)).value == b"1"
                assert [entry.value async for entry in client.range(prefix=place)] == [b"1"]
                read = Get(key)
                assert (await client.transaction().then(read).commit())[read].value == b"1"
                assert await client.count(prefix=place) == 1
            async with client.lock(place + b"lock", ttl=10) as lock:
                assert lock.fence > 0
            async with client.election(place + b"e", ttl=10).campaign(b"me") as leadership:
                async for leader in client.election(place + b"e").observe():
                    assert (leader.value, leader.create_revision) == (b"me", leadership.fence)
                    break

    asyncio.run(test())


def test_namespaces_know_nothing_of_each_other(
    server: ModelServer, place: bytes, transport: str
) -> None:
    if not isinstance(server, RestartedKvd) or server.namespace:
        pytest.skip("one kvd is enough")
    name = place.rstrip(b"/")
    with (
        server.client() as whole,
        Client(server.address, timeout=30, namespace=name) as beside,
        Client(f"kv://{server.address}?namespace={name.decode()}%2F&timeout=30") as inside,
        inside.watch() as watch,
    ):
        whole.put_many({name: b"the prefix itself", place + b"a": b"1", name + b"0": b"after"})
        (health,) = inside.health()
        assert (health.address, health.serving, health.error) == (server.address, True, None)
        assert dict(inside.get_many([b"a", b"b"])) == {b"a": b"1", b"b": None}
        inside.put(b"b", b"2")
        assert inside.get(b"b") == whole.get(place + b"b") == beside.get(b"/b") == b"2"
        with inside.pipeline() as pipe:
            assert pipe.put(b"c", b"3").get(b"c").delete(b"c").execute() == [False, b"3", True]
        assert [entry.key for entry in inside.range()] == [b"a", b"b"]
        assert [entry.key for entry in inside.range(reverse=True, page=1)] == [b"b", b"a"]
        assert [entry.key for entry in beside.range()] == [b"/a", b"/b", b"0"]
        assert inside.count() == 2
        assert [next(watch).key for _ in range(4)] == [b"a", b"b", b"c", b"c"]
        assert [event.value for event in inside.history(b"b")] == [b"2"]
        with inside.lease(10) as lease:
            inside.put(b"leased", b"", lease=lease)
            whole.put(name + b"0", b"after", lease=lease)
            assert lease.status(keys=True).keys == (b"leased",)
        assert inside.get(b"leased") is None
        with inside.lock(b"lock", ttl=10) as lock:
            assert lock.key.startswith(b"lock/")
            assert whole.get(place + lock.key) == b""
            assert inside.transaction().if_(lock.held).commit().succeeded
            # A lock of the same name elsewhere is another one.
            assert whole.lock(b"lock", ttl=10).acquire(wait=10)
            assert beside.lock(b"lock", ttl=10).acquire(wait=10)
        whole.put(name + b"0", b"after")
        assert inside.delete_range(prefix=b"", previous=True).previous[0].key == b"a"
        assert whole.get(name) == b"the prefix itself"
        assert whole.get(name + b"0") == b"after"
        assert inside.count() == 0
        long = b"k" * (1024 - len(place))
        assert inside.put(long, b"") is False
        with pytest.raises(BatchError, match=f"expected 1 to {len(long)} bytes in a namespace"):
            inside.put_many({long + b"k": b""})


def test_many_tasks_share_one_client(server: ModelServer, place: bytes) -> None:
    async def test() -> None:
        async with server.asynchronous() as client:

            async def one(number: int) -> int:
                key = place + b"%d" % number
                async with client.watch(key) as watch:
                    await client.transaction().then(Put(key, b"%d" % number)).commit()
                    return int((await anext(watch)).value)

            assert await asyncio.gather(*map(one, range(100))) == list(range(100))

    asyncio.run(test())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_or_doubled_while_the_server_is_killed(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with started(kind, tmp_path_factory.mktemp(kind)) as server:
        stop = threading.Event()

        def write() -> None:
            with server.client() as writer:
                number = 0
                while not stop.is_set():
                    number += 1

                    def put(draft: Draft, number: int = number) -> None:
                        draft.get(b"k/n")
                        draft.put(b"k/n", b"%d" % number)
                        draft.put(b"k/%d" % (number % 7), b"%d" % number)

                    try:
                        writer.transact(put)
                    except Exception:  # noqa: BLE001 - of a server that is being killed
                        continue

        with server.client() as client, client.watch(prefix=b"k/") as watch:
            begun = watch.revision
            writing = threading.Thread(target=write)
            writing.start()
            batches = watch.batches()
            found = []
            try:
                for round_ in range(4):
                    while len(found) < 60 * (round_ + 1):
                        found += [batch for batch in [next(batches)] if batch.events]
                    server.kill()
                    server.start()
                while len(found) < 300:
                    found += [batch for batch in [next(batches)] if batch.events]
            finally:
                stop.set()
                writing.join()
            last = found[-1].revision
            # All there is, from the past, by another watch.
            with client.watch(prefix=b"k/", from_revision=begun + 1) as again:
                whole = []
                for batch in again.batches():
                    if batch.events:
                        whole.append(batch)
                    if batch.revision >= last:
                        break
        assert found == whole


def test_a_watch_ends_with_ctrl_c(server: ModelServer, place: bytes) -> None:
    if not server.address:
        pytest.skip("no other process reaches it")
    program = f"""
import kvstore
with kvstore.Client({server.address!r}) as client, client.watch({place!r}) as watch:
    print("watching", flush=True)
    next(watch)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert process.returncode == -signal.SIGINT


def test_a_child_of_fork_leaves_the_parents_watch_alone(
    server: ModelServer, place: bytes, transport: str
) -> None:
    if transport == "grpcio":
        pytest.skip("grpcio's own threads don't survive a fork")
    if not server.address:
        pytest.skip("no other process reaches it")
    # A program of its own: this process has other threads, and grpcio's library in it.
    program = f"""
import os
import signal
import kvstore
with kvstore.Client({server.address!r}) as client, client.watch({place!r}) as watch:
    child = os.fork()
    if not child:
        signal.alarm(40)
        try:
            watch.next(timeout=1)
        except kvstore.ClosedError:
            os._exit(7 if client.get_entry({place!r}) is None else 1)
        os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 7, code
    with kvstore.Client({server.address!r}) as other:
        other.transaction().then(kvstore.Put({place!r}, b"v")).commit()
    assert next(watch).key == {place!r}
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def until_known(ask: Callable[[], object]) -> None:
    """Ask again while nobody knows what the last try came to."""
    while True:
        try:
            ask()
            return
        except OutcomeUnknownError:
            continue


def test_users_need_their_password(tmp_path_factory: pytest.TempPathFactory) -> None:
    with started("etcd", tmp_path_factory.mktemp("users")) as server:
        assert isinstance(server, Etcd)
        for words in (
            "user add root:secret",
            "user add reader:pass",
            "role add root",
            "user grant-role root root",
            "role add reads",
            "role grant-permission reads read k/ --prefix",
            "user grant-role reader reads",
            "auth enable",
        ):
            server.ctl(*words.split())
        address = server.address
        with Client(address, timeout=30, user="root", password="secret") as root:
            store(root, b"k/a")
            with Client(address, timeout=30, user="reader", password="pass") as reader:
                assert reader.count(prefix=b"k/") == 1
                with pytest.raises(PermissionDeniedError) as caught:
                    store(reader, b"k/a")
                assert caught.value.outcome is Outcome.NOT_APPLIED
                with pytest.raises(PermissionDeniedError):
                    reader.watch(b"secret").start()
                with reader.watch(prefix=b"k/") as watch:
                    # Its tokens are forgotten.
                    server.kill()
                    server.start_without_waiting()
                    # Of one that was under way when the connection went nobody knows whether it was
                    # done, by etcd's API.
                    until_known(lambda: store(root, b"k/b"))
                    assert next(watch).key == b"k/b"
                    assert reader.count(prefix=b"k/") == 2
        with (
            Client(address, timeout=30, user="root", password="wrong") as stranger,
            pytest.raises(UnauthenticatedError),
        ):
            stranger.count()
        with Client(address, timeout=30) as nobody, pytest.raises(UnauthenticatedError):
            nobody.count()
