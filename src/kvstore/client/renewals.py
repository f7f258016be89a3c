"""Keeping leases alive: all of a client's that are due go out together, in one short call.

A lease counts as lost once the time that it was last granted has passed since the request for that
was sent, on a clock that goes on while the machine sleeps. Servers count from later on, so who
holds a lease by what is said here has stopped before anybody else can have it, as far as its
threads run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import grpc
import grpc.aio

from kvstore.api.etcd import etcd_pb2
from kvstore.client.calls import Calls
from kvstore.client.logs import log
from kvstore.client.options import RetryPolicy
from kvstore.client.servers import Server
from kvstore.errors import Error
from kvstore.wire.errors import Metadata, RpcError

__all__ = ["HeldLease", "Renewals", "renew"]

# Of one call.
LEASES_MAX: Final = 256

# A lease is renewed when a third of its time has passed, with those that will be soon.
DUE_PART: Final = 1 / 3
SOON_PART: Final = 1 / 10

# Between a renewal that failed, its own tries included, and the next.
AGAIN_S: Final = 0.1

RENEWAL_MIN_S: Final = 0.25


class HeldLease:
    """A lease that is kept alive; for the loop that it was granted on.

    ``ttl``: seconds that it was granted, by a request that was sent at ``sent`` on ``clock``.
    """

    def __init__(self, lease_id: int, ttl: int, sent: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.id = lease_id
        self.ttl = ttl
        self.lost = asyncio.Event()
        self._until = sent + ttl
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self.left, self.look)

    @property
    def left(self) -> float:
        """Seconds that it surely lives for; 0: it is lost."""
        return 0.0 if self.lost.is_set() else max(self._until - self._clock(), 0.0)

    @property
    def due(self) -> float:
        """Seconds until it should be renewed."""
        return self.left - self.ttl * (1 - DUE_PART)

    def renewed(self, sent: float, ttl: int) -> None:
        """A server has answered: it lives for ``ttl`` from then on; with 0 there is none."""
        if ttl <= 0:
            self.lost.set()
        self.ttl = ttl
        self._until = max(self._until, sent + ttl)

    def given_up(self) -> None:
        """Nobody wants to know any more."""
        self._timer.cancel()

    def look(self) -> None:
        """See whether it is lost by now."""
        self._timer.cancel()
        if self.left <= 0:
            self.lost.set()
        else:
            self._timer = self._loop.call_later(self.left, self.look)


class Renewals:
    """The leases of one client, on its loop."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._leases: set[HeldLease] = set()
        self._task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    def keep(self, lease: HeldLease) -> None:
        """Keep it alive from now on."""
        self._leases.add(lease)
        self._more.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def drop(self, lease: HeldLease) -> None:
        """Let it be."""
        lease.given_up()
        self._leases.discard(lease)
        self._more.set()

    def look(self) -> None:
        """The clock has leapt: see which of them are lost."""
        for lease in self._leases:
            lease.look()
        self._more.set()

    async def close(self) -> None:
        """Keep none alive any more."""
        for lease in self._leases:
            lease.given_up()
        self._leases.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        """As long as there are leases."""
        try:
            while leases := {lease for lease in self._leases if lease.left > 0}:
                self._leases = leases
                pause = min(lease.due for lease in leases)
                if pause > 0:
                    await self._wait(pause)
                else:
                    await self._renew()
        finally:
            self._task = None

    async def _wait(self, seconds: float) -> None:
        """Until then, or there are others."""
        self._more.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._more.wait()
        except TimeoutError:
            pass

    async def _renew(self) -> None:
        """All that are due, the shortest-lived first."""
        due = [lease for lease in self._leases if lease.due <= lease.ttl * SOON_PART]
        due = sorted(due, key=lambda lease: lease.left)[:LEASES_MAX]
        sent = self._calls.clock()
        timeout = max(due[0].left / 2, RENEWAL_MIN_S)
        policy = replace(
            self._calls.policy,
            attempt_timeout_s=min(self._calls.policy.attempt_timeout_s, timeout / 2),
        )
        try:
            ttls = await renew(self._calls, [lease.id for lease in due], timeout, policy)
        except Error as error:
            log.info("renewing %d leases: %s", len(due), error)
            # Whatever it is may pass; if it doesn't in time, they are lost.
            await asyncio.sleep(AGAIN_S)
            return
        for lease, ttl in zip(due, ttls, strict=True):
            lease.renewed(sent, ttl)
            if ttl <= 0:
                log.warning("lease %x is lost: the server knows it no more", lease.id)


async def renew(
    calls: Calls, leases: Sequence[int], timeout: float | None, policy: RetryPolicy | None = None
) -> list[int]:
    """Renew leases once; the seconds that each has then, 0 for one that there isn't."""
    answers = await calls.call(_Renewing, leases, timeout, policy=policy)
    return [answer.TTL for answer in answers]


class _Renewing:
    """LeaseKeepAlive as a call with one answer: what is asked goes out, as many answers come."""

    def __init__(self, server: Server) -> None:
        self._method = server.etcd.lease_keep_alive

    async def __call__(
        self, request: Sequence[int], *, timeout: float | None, metadata: Metadata | None
    ) -> list[etcd_pb2.LeaseKeepAliveResponse]:
        call = self._method(timeout=timeout, metadata=metadata)
        try:
            try:
                for lease in request:
                    await call.write(etcd_pb2.LeaseKeepAliveRequest(ID=lease))
                await call.done_writing()
            except asyncio.InvalidStateError:
                pass  # it has ended; reading says why
            answers: list[etcd_pb2.LeaseKeepAliveResponse] = []
            while len(answers) < len(request):
                answer = await call.read()
                if answer is grpc.aio.EOF:  # type: ignore[attr-defined]
                    raise RpcError(grpc.StatusCode.UNAVAILABLE, "the server ended the renewal")
                answers.append(answer)
            return answers
        finally:
            call.cancel()
