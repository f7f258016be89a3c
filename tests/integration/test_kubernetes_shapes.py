"""A store used as Kubernetes' API servers use theirs, while its leader is killed.

Optimistic updates on hot keys, lists in pages, watches from a list's revision on, and compaction
all the while. Whoever has listed and watched must have what a Range finds, and no update may be
lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path

import pytest

from kvstore.client import AsyncClient, Delete, EventKind, Get, KeyValue, Put
from kvstore.errors import CompactedError, OutcomeUnknownError, UnavailableError
from tests.integration.cluster import Cluster

PREFIX = b"/registry/pods/"
KEYS = 30
PAGE = 7
WRITERS = 4
UPDATES = 120
COMPACT_EACH = 40
PATIENCE_S = 60.0

Objects = dict[bytes, KeyValue]


class Informer:
    """A cache of all objects: a list in pages, then events; another list when it was too slow."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.objects: Objects = {}
        self.revision = 0
        self.lists = 0
        self._moved = asyncio.Condition()

    async def run(self) -> None:
        while True:
            listed = self._client.range(prefix=PREFIX, page=PAGE)
            try:
                self.objects = {entry.key: entry async for entry in listed}
                self.lists += 1
                await self._reached(listed.revision)
                await self._follow()
            except CompactedError:
                continue  # between two pages, or while it was slow

    async def _follow(self) -> None:
        watch = self._client.watch(prefix=PREFIX, from_revision=self.revision + 1, previous=True)
        async with watch:
            await watch.ask_progress()
            async for batch in watch.batches():
                for event in batch.events:
                    assert event.previous == self.objects.get(event.key), event
                    if event.kind is EventKind.PUT:
                        self.objects[event.key] = event.entry
                    else:
                        del self.objects[event.key]
                await self._reached(batch.revision)

    async def _reached(self, revision: int) -> None:
        async with self._moved:
            assert revision >= self.revision
            self.revision = revision
            self._moved.notify_all()

    async def wait_for(self, revision: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self.revision >= revision)


class Writer:
    """Increments objects, makes those that aren't there and removes some; only what it has read."""

    def __init__(self, client: AsyncClient, seed: int) -> None:
        self._client = client
        self._draw = random.Random(seed)
        self.sure: Counter[bytes] = Counter()
        self.unsure: Counter[bytes] = Counter()
        self.conflicts = 0

    async def update(self) -> None:
        """One object, however often somebody else is faster."""
        key = PREFIX + b"%03d" % min(self._draw.randrange(KEYS), self._draw.randrange(KEYS))
        entry = await self._client.get_entry(key)
        while True:
            seen = entry.mod_revision if entry else 0
            count = int(entry.value) if entry else 0
            read = Get(key)
            step = self._client.transaction().if_(self._client.key(key).mod_revision == seen)
            try:
                result = await step.then(Put(key, b"%d" % (count + 1))).else_(read).commit()
            except (OutcomeUnknownError, UnavailableError):
                self.unsure[key] += 1
                return
            if result.succeeded:
                self.sure[key] += 1
                return
            self.conflicts += 1
            entry = result[read].entry

    async def replace(self, key: bytes) -> None:
        """Remove an object that nobody counts in, and make it again."""
        entry = await self._client.get_entry(key)
        if entry is None:
            await self._client.put(key, b"new")
            return
        step = self._client.transaction().if_(
            self._client.key(key).mod_revision == entry.mod_revision
        )
        try:
            await step.then(Delete(key)).commit()
        except (OutcomeUnknownError, UnavailableError):
            return


async def load(cluster: Cluster) -> None:
    addresses = list(cluster.clients.values())
    clients = [
        AsyncClient([*addresses[n % 3 :], *addresses[: n % 3]], timeout=PATIENCE_S)
        for n in range(WRITERS + 2)
    ]
    informers = [Informer(client) for client in clients[WRITERS:]]
    following = [asyncio.create_task(informer.run()) for informer in informers]
    writers = [Writer(client, number) for number, client in enumerate(clients[:WRITERS])]
    done = 0

    async def write(writer: Writer, number: int) -> None:
        nonlocal done
        for turn in range(UPDATES):
            await writer.update()
            if turn % 10 == 0:
                await writer.replace(PREFIX + b"replaced-%d" % number)
            done += 1
            if done % COMPACT_EACH == 0:
                # As API servers do: at a revision that was the newest a while ago.
                revision = max(1, min(informer.revision for informer in informers))
                with contextlib.suppress(CompactedError):  # somebody was faster
                    await clients[0].compact(revision)
            if done == WRITERS * UPDATES // 2:
                leader = await asyncio.to_thread(cluster.leader)
                await asyncio.to_thread(cluster.kill, leader)
                await asyncio.to_thread(cluster.start, leader)

    try:
        await asyncio.gather(*(write(writer, n) for n, writer in enumerate(writers)))
        listed = clients[0].range(prefix=PREFIX)
        found = {entry.key: entry async for entry in listed}
        # A revision beyond the list, which events must reach.
        await clients[0].put(PREFIX + b"last", b"")
        for informer in informers:
            await informer.wait_for(listed.revision + 1)
            assert informer.objects.pop(PREFIX + b"last").value == b""
            assert informer.objects == found
            assert informer.lists
    finally:
        for task in following:
            task.cancel()
        ended = await asyncio.gather(*following, return_exceptions=True)
        for client in clients:
            await client.close()
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended
    sure = sum((writer.sure for writer in writers), Counter[bytes]())
    unsure = sum((writer.unsure for writer in writers), Counter[bytes]())
    for key in sure | unsure:
        count = int(found[key].value) if key in found else 0
        assert sure[key] <= count <= sure[key] + unsure[key], key
    assert sum(writer.conflicts for writer in writers)


@pytest.mark.timeout(240)
def test_caches_and_counts_are_right_while_the_leader_dies(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        asyncio.run(load(cluster))
