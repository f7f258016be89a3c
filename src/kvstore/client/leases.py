"""Leases: keys that go when who put them is gone."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self

from kvstore.api.etcd import etcd_pb2
from kvstore.client.background import Runner
from kvstore.client.calls import Calls
from kvstore.client.renewals import HeldLease, Renewals, renew
from kvstore.client.requests import as_lease
from kvstore.errors import (
    ConflictError,
    Error,
    InvalidArgumentError,
    LeaseLostError,
    LeaseNotFoundError,
    Outcome,
)

__all__ = ["AsyncLease", "Lease", "LeaseStatus", "lease_status", "list_leases", "revoke_lease"]

# As etcd has it.
TTL_S_MAX = 9_000_000_000


class LeaseStatus(NamedTuple):
    """What a server says of a lease. ``ttl``: whole seconds left of the ``granted_ttl``; ``keys``:
    those that go with it, if they were asked for."""

    id: int
    ttl: int
    granted_ttl: int
    keys: tuple[bytes, ...]


class AsyncLease:
    """A lease that is kept alive as long as it is held; see :meth:`kvstore.Client.lease`."""

    def __init__(self, calls: Calls, renewals: Renewals, ttl: float, lease_id: int | None) -> None:
        if not 0 < ttl <= TTL_S_MAX:
            raise InvalidArgumentError(
                f"a TTL is more than 0 and at most {TTL_S_MAX:,} seconds, not {ttl!r}"
            )
        if lease_id == 0:
            raise InvalidArgumentError("a lease's id isn't 0")
        if lease_id is not None:
            as_lease(lease_id)
        self._calls = calls
        self._renewals = renewals
        self._wanted = math.ceil(ttl)
        self._drawn = lease_id is None
        self._held: HeldLease | None = None
        # Drawn here, so that a request which is sent again makes no second lease.
        self.id = lease_id or (int.from_bytes(os.urandom(8), "big") >> 1 or 1)

    @property
    def ttl(self) -> int:
        """Seconds that the server granted: at least those asked for; 0 before it was."""
        return 0 if self._held is None else self._held.ttl

    @property
    def left(self) -> float:
        """Seconds that it lives for at least, if nothing renews it any more; 0: it is lost."""
        return 0.0 if self._held is None else self._held.left

    @property
    def lost(self) -> bool:
        """Whether it was granted and has expired, or may have."""
        return self._held is not None and self._held.left <= 0

    def check(self) -> None:
        """Raises LeaseLostError if it is lost."""
        if self.lost:
            raise LeaseLostError(f"lease {self.id:x} has expired, or may have")

    async def grant(self, *, timeout: float | None = None) -> Self:
        """Get it, and keep it alive from now on.

        Raises ConflictError if there is one with the id that was chosen, and as calls do.
        """
        if self._held is not None:
            raise InvalidArgumentError("the lease was granted already")
        sent = self._calls.clock()
        request = etcd_pb2.LeaseGrantRequest(TTL=self._wanted, ID=self.id)
        try:
            answer = await self._calls.write_again(
                lambda server: server.etcd.lease_grant, request, timeout
            )
            ttl = answer.TTL
        except ConflictError as error:
            if not self._drawn or error.outcome is not Outcome.UNKNOWN:
                raise
            # An earlier try made it, and its answer was lost.
            status = await lease_status(self._calls, self.id, False, timeout)
            ttl = 0 if status is None else status.granted_ttl
        self._held = HeldLease(self.id, ttl, sent, self._calls.clock)
        self._renewals.keep(self._held)
        return self

    async def renew(self, *, timeout: float | None = None) -> float:
        """Renew it now; the seconds that it has then. Raises LeaseLostError."""
        held = self._granted()
        sent = self._calls.clock()
        (ttl,) = await renew(self._calls, [self.id], timeout)
        held.renewed(sent, ttl)
        self.check()
        return held.left

    async def status(self, *, keys: bool = False, timeout: float | None = None) -> LeaseStatus:
        """What the server says of it. Raises LeaseNotFoundError."""
        status = await lease_status(self._calls, self.id, keys, timeout)
        if status is None:
            raise LeaseNotFoundError(f"there is no lease {self.id:x}")
        return status

    async def wait_lost(self) -> None:
        """Wait until it is lost: for ever, if all goes well."""
        await self._granted().lost.wait()

    async def revoke(self, *, timeout: float | None = None) -> None:
        """End it, and remove its keys. Raises LeaseLostError if it had ended before."""
        held = self._granted()
        self._renewals.drop(held)
        try:
            await revoke_lease(self._calls, self.id, timeout)
        except LeaseNotFoundError as error:
            held.lost.set()
            raise LeaseLostError(f"lease {self.id:x} had expired") from error
        held.lost.set()

    def let_go(self) -> None:
        """Keep it alive no more; it goes, with its keys, when its time is over."""
        if self._held is not None:
            self._renewals.drop(self._held)

    def _granted(self) -> HeldLease:
        if self._held is None:
            raise InvalidArgumentError("the lease wasn't granted yet")
        return self._held

    async def __aenter__(self) -> Self:
        return await self.grant()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.revoke()
        except Error:
            # It ends by itself in any case; what the block raised matters more.
            if error is None:
                raise


class Lease:
    """A lease that is kept alive as long as it is held; see :meth:`kvstore.Client.lease`."""

    def __init__(self, run: Runner, lease: AsyncLease) -> None:
        self._run = run
        self._lease = lease

    @property
    def id(self) -> int:
        return self._lease.id

    @property
    def ttl(self) -> int:
        """Seconds that the server granted: at least those asked for; 0 before it was."""
        return self._lease.ttl

    @property
    def left(self) -> float:
        """Seconds that it lives for at least, if nothing renews it any more; 0: it is lost."""
        return self._lease.left

    @property
    def lost(self) -> bool:
        """Whether it was granted and has expired, or may have."""
        return self._lease.lost

    def check(self) -> None:
        """Raises LeaseLostError if it is lost."""
        self._lease.check()

    def grant(self, *, timeout: float | None = None) -> Self:
        """Get it, and keep it alive from now on.

        Raises ConflictError if there is one with the id that was chosen, and as calls do.
        """
        self._run(self._lease.grant(timeout=timeout))
        return self

    def renew(self, *, timeout: float | None = None) -> float:
        """Renew it now; the seconds that it has then. Raises LeaseLostError."""
        return self._run(self._lease.renew(timeout=timeout))

    def status(self, *, keys: bool = False, timeout: float | None = None) -> LeaseStatus:
        """What the server says of it. Raises LeaseNotFoundError."""
        return self._run(self._lease.status(keys=keys, timeout=timeout))

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until it is lost, for ``timeout`` seconds at most; whether it is."""
        return self._run(lost_within(self._lease.wait_lost(), timeout))

    def revoke(self, *, timeout: float | None = None) -> None:
        """End it, and remove its keys. Raises LeaseLostError if it had ended before."""
        self._run(self._lease.revoke(timeout=timeout))

    def let_go(self) -> None:
        """Keep it alive no more; it goes, with its keys, when its time is over."""
        self._run(_let_go(self._lease))

    def __enter__(self) -> Self:
        return self.grant()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._lease.__aexit__(kind, error, traceback))


async def lost_within(lost: Coroutine[Any, Any, None], timeout: float | None) -> bool:
    """Whether what is waited for comes in time."""
    try:
        async with asyncio.timeout(timeout):
            await lost
    except TimeoutError:
        return False
    return True


async def _let_go(lease: AsyncLease) -> None:
    lease.let_go()


async def lease_status(
    calls: Calls, lease: int, keys: bool, timeout: float | None
) -> LeaseStatus | None:
    """What a server says of a lease; None: there is none."""
    request = etcd_pb2.LeaseTimeToLiveRequest(ID=as_lease(lease), keys=keys)
    answer = await calls.call(lambda server: server.etcd.lease_time_to_live, request, timeout)
    if answer.TTL < 0:
        return None
    return LeaseStatus(answer.ID, answer.TTL, answer.grantedTTL, tuple(sorted(answer.keys)))


async def list_leases(calls: Calls, timeout: float | None) -> list[int]:
    """The ids of all leases that the member knows which answers."""
    request = etcd_pb2.LeaseLeasesRequest()
    answer = await calls.call(lambda server: server.etcd.lease_leases, request, timeout)
    return sorted(lease.ID for lease in answer.leases)


async def revoke_lease(calls: Calls, lease: int, timeout: float | None) -> None:
    """End a lease. Raises LeaseNotFoundError if there was none."""
    request = etcd_pb2.LeaseRevokeRequest(ID=as_lease(lease))
    try:
        await calls.write_again(lambda server: server.etcd.lease_revoke, request, timeout)
    except LeaseNotFoundError as error:
        # After a try whose answer was lost it is gone because of that.
        if error.outcome is not Outcome.UNKNOWN:
            raise
