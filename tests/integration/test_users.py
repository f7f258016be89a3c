"""Users under load and restarts: whoever comes after a right is gone is told so, by every face."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from kvstore.client import AsyncClient, Client, Put
from kvstore.errors import PermissionDeniedError
from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import Kvd

ROUNDS = 6
OUTCOMES_EACH = 5
TIMEOUT_S = 60.0

Ask = Callable[[int], Awaitable[object]]


class Asker:
    """Asks for the same again and again, and notes when it began and whether it was let."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.outcomes: list[tuple[float, bool]] = []
        self.changed = asyncio.Event()

    async def run(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            begun = now()
            try:
                await self.ask(len(self.outcomes))
                allowed = True
            except PermissionDeniedError:
                allowed = False
            self.outcomes.append((begun, allowed))
            self.changed.set()

    async def wait_for(self, allowed: bool, since: float) -> None:
        """Some such outcomes of what began since then; those before the first don't count."""
        while [one for begun, one in self.outcomes if begun >= since].count(
            allowed
        ) < OUTCOMES_EACH:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), TIMEOUT_S)


async def take_rights_away(cluster: Cluster) -> None:
    leader = cluster.leader()
    follower, other = (member for member in cluster.members if member != leader)
    addresses = ",".join(cluster.clients.values())
    async with AsyncExitStack() as stack:

        async def client(address: str, user: str | None = None) -> AsyncClient:
            return await stack.enter_async_context(
                AsyncClient(address, timeout=TIMEOUT_S, user=user, password=user)
            )

        anybody = await client(addresses)
        for name in ("root", "alice"):
            await anybody.auth.add_user(name, name)
        await anybody.auth.grant_role("root", "root")
        await anybody.auth.add_role("r")
        await anybody.auth.grant_permission("r", "readwrite", prefix=b"k")
        await anybody.auth.enable()
        root = await client(cluster.clients[follower], "root")
        alice = await client(addresses, "alice")
        elsewhere = await client(cluster.clients[other], "alice")
        askers = [
            *[
                Asker(lambda count, key=b"k%d" % place: alice.put(key, b"%d" % count))
                for place in range(4)
            ],
            *[Asker(lambda count: alice.get(b"k0")) for _ in range(2)],
            Asker(lambda count: alice.range(prefix=b"k").list()),
            Asker(lambda count: elsewhere.transaction().then(Put(b"k", b"")).commit()),
        ]
        now = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asker.run()) for asker in askers]
            for _ in range(ROUNDS):
                await root.auth.grant_role("alice", "r")
                granted = now()
                for asker in askers:
                    await asker.wait_for(True, granted)
                await root.auth.revoke_role("alice", "r")
                revoked = now()
                for asker in askers:
                    await asker.wait_for(False, revoked)
                    since = [allowed for begun, allowed in asker.outcomes if begun >= revoked]
                    assert not any(since), "it was told that the right is gone"
            for task in tasks:
                task.cancel()


def test_nothing_slips_past_a_right_that_is_gone(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        asyncio.run(take_rights_away(cluster))


def test_a_lease_ends_by_itself_where_users_are_asked_for(tmp_path: Path) -> None:
    """Also in a process that has seen no user ask for anything, after it was started again."""
    directory = tmp_path / "kvd"
    with Kvd(directory) as kvd:
        kvd.wait_serving()
        with Client(kvd.address, timeout=TIMEOUT_S) as client, EtcdCalls(kvd.address) as calls:
            client.auth.add_user("root", "root")
            client.auth.grant_role("root", "root")
            lease = calls.LeaseGrant(TTL=2).ID
            calls.Put(key=b"k", value=b"v", lease=lease)
            client.auth.enable()
        kvd.kill()
    with Kvd(directory) as kvd:
        kvd.wait_serving()
        with (
            Client(kvd.address, timeout=TIMEOUT_S, user="root", password="root") as root,
            root.watch(b"k", from_revision=1, puts=False, timeout=TIMEOUT_S) as watch,
        ):
            assert next(iter(watch)).key == b"k"
