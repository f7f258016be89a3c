"""A queue of those who want the same, by the order in which their keys came into being.

As clientv3's ``concurrency`` package builds locks and elections, so that all of them queue
together: the key is ``name/`` and the id of its owner's lease in hexadecimal, and whose is the
oldest has the turn. Each waits for the one before it alone. Steps that write can be repeated: they
are bound to the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from kvstore.api.etcd import etcd_pb2
from kvstore.client.calls import Calls
from kvstore.client.entries import KeyValue, entry_of
from kvstore.client.keys import Compare, Keys, single, with_prefix
from kvstore.client.leases import AsyncLease
from kvstore.client.renewals import Renewals
from kvstore.client.requests import BytesLike, as_bytes
from kvstore.client.transactions import Get, Parts, Put, TransactionResult
from kvstore.client.watch_stream import WatchStream
from kvstore.client.watching import AsyncWatch, watch_request
from kvstore.errors import (
    CompactedError,
    Error,
    InvalidArgumentError,
    LeaseLostError,
    LeaseNotFoundError,
)

__all__ = ["Turn", "oldest_of", "queue_prefix"]


def queue_prefix(name: BytesLike) -> bytes:
    """What the keys of a queue begin with. Raises InvalidArgumentError for an empty name."""
    return single(name).key + b"/"


async def oldest_of(
    calls: Calls, prefix: bytes, timeout: float | None
) -> tuple[KeyValue | None, int]:
    """The key that has the turn, if any, and the revision of that."""
    keys = with_prefix(prefix)
    request = etcd_pb2.RangeRequest(
        key=keys.key,
        range_end=keys.end,
        limit=1,
        sort_target=etcd_pb2.RangeRequest.CREATE,
        sort_order=etcd_pb2.RangeRequest.ASCEND,
    )
    answer = await calls.call(lambda server: server.etcd.range, request, timeout)
    return (entry_of(answer.kvs[0]) if answer.kvs else None), answer.header.revision


class Turn:
    """One place in a queue. ``value``: of its key."""

    def __init__(
        self,
        calls: Calls,
        renewals: Renewals,
        stream: WatchStream,
        name: BytesLike,
        value: BytesLike,
        ttl: float,
    ) -> None:
        self._calls = calls
        self._stream = stream
        self._prefix = queue_prefix(name)
        self.value = as_bytes(value, "value")
        self._new_lease = partial(AsyncLease, calls, renewals, ttl, None)
        self._lease: AsyncLease | None = None
        self.revision = 0
        """The create revision of its key: greater than that of everybody who had the turn
        before. 0 without one."""

    @property
    def key(self) -> bytes:
        """What stands for it in the store."""
        return b"%s%x" % (self._prefix, self.lease.id)

    @property
    def lease(self) -> AsyncLease:
        """Raises InvalidArgumentError while there is none."""
        if self._lease is None:
            raise InvalidArgumentError("nobody waits, or has the turn, with this")
        return self._lease

    @property
    def taken(self) -> bool:
        """Whether it has the turn, as far as is known here."""
        return self.revision > 0 and not self.lease.lost

    @property
    def held(self) -> Compare:
        """The condition that it still has the turn."""
        if not self.revision:
            raise InvalidArgumentError("nobody has the turn with this")
        return Keys(single(self.key)).create_revision == self.revision

    async def take(self, wait: float | None) -> bool:
        """Wait for the turn; False if it isn't ours within ``wait`` seconds. Raises Error."""
        if self._lease is not None:
            raise InvalidArgumentError("somebody waits, or has the turn, with this already")
        self._lease = self._new_lease()
        try:
            return await self._take(wait)
        finally:
            if not self.revision:
                await self._withdraw()

    async def _take(self, wait: float | None) -> bool:
        # The wait is for others: being asked, servers have the client's timeout.
        lease = await self.lease.grant()
        created = await self._join()
        before = await self._one_before(created)
        if before is not None and not await self._wait(lease, created, before, wait):
            return False
        await self._check_place(created)
        self.revision = created
        return True

    async def _wait(
        self, lease: AsyncLease, created: int, before: tuple[bytes, int], wait: float | None
    ) -> bool:
        lost = asyncio.ensure_future(lease.wait_lost())
        turn = asyncio.ensure_future(self._wait_for_those_before(created, before))
        try:
            done, _ = await asyncio.wait(
                [lost, turn], timeout=wait, return_when=asyncio.FIRST_COMPLETED
            )
            if turn in done:
                turn.result()
            elif done:
                raise LeaseLostError(f"lease {lease.id:x} was lost while it waited")
            return bool(done)
        finally:
            lost.cancel()
            turn.cancel()
            await asyncio.wait([lost, turn])

    async def leave(self) -> None:
        """Let the next one have it. Raises LeaseLostError if it was lost before."""
        lost = self.lease.lost
        self.revision = 0
        lease, self._lease = self.lease, None
        await lease.revoke()
        if lost:
            raise LeaseLostError(f"lease {lease.id:x} was lost")

    async def proclaim(self, value: bytes) -> None:
        """Store something else under the key. Raises LeaseLostError if it isn't ours any more."""
        put = Put(self.key, value, lease=self.lease)
        if not (await self._transact(Parts().if_(self.held).then(put))).succeeded:
            raise LeaseLostError(f"key {self.key!r} is gone: somebody else may have the turn")
        self.value = value

    async def _join(self) -> int:
        """Put the key, or find it; its create revision."""
        key = Keys(single(self.key))
        put = Put(self.key, self.value, lease=self.lease)
        there = Get(self.key)
        parts = Parts().if_(key.absent()).then(put).else_(there)
        result = await self._transact(parts)
        if result.succeeded:
            return result.revision
        entry = result[there].entry
        assert entry is not None  # it isn't absent
        return entry.create_revision

    async def _transact(self, parts: Parts) -> TransactionResult:
        """What may be done twice, as it depends on the key of this lease."""
        response = await self._calls.write_again(
            lambda server: server.etcd.txn, parts.message, None
        )
        return parts.result(response, response.header.revision)

    async def _wait_for_those_before(self, created: int, before: tuple[bytes, int]) -> None:
        """Until no key of the queue is older than ours, the next one of which is ``before``."""
        older: tuple[bytes, int] | None = before
        while older is not None:
            await self._wait_for_delete(*older)
            older = await self._one_before(created)

    async def _one_before(self, created: int) -> tuple[bytes, int] | None:
        """The youngest key that is older than ours, and the revision at which it is there."""
        keys = with_prefix(self._prefix)
        request = etcd_pb2.RangeRequest(
            key=keys.key,
            range_end=keys.end,
            limit=1,
            sort_target=etcd_pb2.RangeRequest.CREATE,
            sort_order=etcd_pb2.RangeRequest.DESCEND,
            max_create_revision=created - 1,
            keys_only=True,
        )
        answer = await self._calls.call(lambda server: server.etcd.range, request, None)
        return (answer.kvs[0].key, answer.header.revision) if answer.kvs else None

    async def _wait_for_delete(self, key: bytes, revision: int) -> None:
        """Until the key, which was there at that revision, is gone."""
        request = watch_request(single(key), revision, previous=False, puts=False, deletes=True)
        watch = AsyncWatch(self._stream, request, self._calls.timeout)
        # If so much time has passed that history is forgotten, what there is now is looked at.
        with contextlib.suppress(CompactedError):
            async with watch:
                await watch.next()

    async def _check_place(self, created: int) -> None:
        """Nobody is before us; so it is ours, if our key is still there."""
        request = etcd_pb2.RangeRequest(key=self.key, keys_only=True)
        answer = await self._calls.call(lambda server: server.etcd.range, request, None)
        if not answer.kvs or answer.kvs[0].create_revision != created:
            raise LeaseLostError(f"key {self.key!r} is gone: its lease has expired")

    async def _withdraw(self) -> None:
        """Give up waiting: the key goes with its lease."""
        lease, self._lease = self.lease, None
        if not lease.ttl:
            return
        try:
            await lease.revoke()
        except (LeaseLostError, LeaseNotFoundError):
            pass
        except Error:
            lease.let_go()  # it goes when its time is over
