"""``etcdserverpb.Lease``."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking, deadline_of
from kvstore.api.handlers.etcd.auth_gate import is_user
from kvstore.api.handlers.etcd.register import Context
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd.lease_calls import LeaseCalls
from kvstore.service.etcd.lessor import TimeToLive
from kvstore.service.etcd.member import Model
from kvstore.service.etcd.read_calls import Step
from kvstore.state.mvcc.requests import TO_THE_END, LeaseGrant, LeaseRevoke

__all__ = ["LeaseHandlers", "grant_of"]

FIRST_KEY: Final = b"\0"

ENCODED_AT_ONCE: Final = 1024
"""Keys, or leases, of an answer."""

UNANSWERED_MAX: Final = 1024
"""Renewals of one stream; then nothing more is read from it."""


class LeaseHandlers:
    """Grants and revokes by way of the log, renews by way of the leader's lessor."""

    def __init__(self, asking: Asking, calls: LeaseCalls, ttl_min_s: int) -> None:
        """``ttl_min_s``: a lesser TTL is raised to this."""
        self._asking = asking
        self._calls = calls
        self._ttl_min_s = ttl_min_s

    async def LeaseGrant(
        self, request: pb.LeaseGrantRequest, context: Context
    ) -> pb.LeaseGrantResponse:
        operation = grant_of(request.ID, request.TTL, self._ttl_min_s)
        answer = await self._asking.propose(operation, context)
        return pb.LeaseGrantResponse(
            header=self._asking.header(answer.revision), ID=answer.id, TTL=answer.ttl
        )

    async def LeaseRevoke(
        self, request: pb.LeaseRevokeRequest, context: Context
    ) -> pb.LeaseRevokeResponse:
        answer = await self._asking.propose(LeaseRevoke(request.ID), context)
        return pb.LeaseRevokeResponse(header=self._asking.header(answer.revision))

    async def LeaseKeepAlive(
        self, requests: AsyncIterator[pb.LeaseKeepAliveRequest], context: Context
    ) -> None:
        stream = _KeepAlives(self._calls, self._asking, context)
        reading = asyncio.create_task(stream.read(requests))
        try:
            await stream.write(context)
            await reading
        finally:
            reading.cancel()

    async def LeaseTimeToLive(self, request: pb.LeaseTimeToLiveRequest, context: Context) -> bytes:
        await self._asking.gate.require(context, is_user)
        deadline = deadline_of(context)
        lives: TimeToLive = await self._asking.outcome(
            partial(self._calls.time_to_live, request.ID, deadline)
        )
        keys = b""
        if request.keys and lives.granted:
            keys = await self._keys_of(request.ID, context)
        head = pb.LeaseTimeToLiveResponse(
            header=self._asking.header(), ID=request.ID, TTL=lives.ttl, grantedTTL=lives.granted
        )
        return b"".join((head.SerializeToString(), keys))

    async def _keys_of(self, lease: int, context: Context) -> bytes:
        """The keys on a lease, all of which the caller must be allowed to read, as they stand in a
        response: there may be millions, which is nothing for the event loop."""
        caller = self._asking.gate.caller(context)

        def read(machine: Model, step: Step) -> bytes:
            keys = tuple(machine.lease_keys(lease, step))
            auth = machine.auth
            if auth.enabled:
                _check_all(auth.may_read, caller.user(auth), keys)
            return _encoded(lambda some: pb.LeaseTimeToLiveResponse(keys=some), keys)

        found: bytes = await self._asking.read_state(read, context, is_user, caller)
        return found

    async def LeaseLeases(self, request: pb.LeaseLeasesRequest, context: Context) -> bytes:
        auth = await self._asking.gate.users()
        listing = self._calls.listing()
        leases, encoded = await self._asking.listing(partial(_listed, listing))
        if auth.enabled:
            await self._check_leases(leases, context)
        head = pb.LeaseLeasesResponse(header=self._asking.header())
        return b"".join((head.SerializeToString(), encoded))

    async def _check_leases(self, leases: Sequence[int], context: Context) -> None:
        """Raise EtcdError unless the caller may read all keys of all leases."""
        caller = self._asking.gate.caller(context)

        def read(machine: Model, step: Step) -> None:
            auth = machine.auth
            if auth.enabled:
                keys = (key for lease in leases for key in machine.lease_keys(lease, step))
                _check_all(auth.may_read, caller.user(auth), keys)

        await self._asking.read_state(read, context, is_user, caller)


def grant_of(id: int, ttl: int, ttl_min_s: int) -> LeaseGrant:
    """What to propose: an id of 0 is chosen here, since nothing is drawn when it is applied."""
    return LeaseGrant(id or 1 + secrets.randbelow((1 << 63) - 1), max(ttl, ttl_min_s))


def _listed(listing: Callable[[], list[int]]) -> tuple[list[int], bytes]:
    """Leases, and how they stand in a response. On a worker."""
    leases = listing()
    return leases, _encoded(
        lambda some: pb.LeaseLeasesResponse(leases=[pb.LeaseStatus(ID=id) for id in some]), leases
    )


def _encoded(message_of: Callable[[Sequence[Any]], Any], items: Sequence[Any]) -> bytes:
    """A response with nothing but ``items``, made some at a time: what makes a message holds up all
    threads. Messages that follow each other are one with the fields of all."""
    slices = range(0, len(items), ENCODED_AT_ONCE)
    return b"".join(
        message_of(items[first : first + ENCODED_AT_ONCE]).SerializeToString() for first in slices
    )


class _Expected:
    """A request whose answer is to be written; ``outcome``: the TTL, or why there is none."""

    __slots__ = ("outcome", "response")

    def __init__(self, response: pb.LeaseKeepAliveResponse) -> None:
        self.response = response
        self.outcome: int | Error | None = None


def _check_all(may: Callable[[str, bytes, bytes], bool], user: str, keys: Iterable[bytes]) -> None:
    """Raise EtcdError unless ``user`` may do that with each of ``keys``."""
    if may(user, FIRST_KEY, TO_THE_END):
        return
    if not all(may(user, key, b"") for key in keys):
        raise EtcdError(Reason.PERMISSION_DENIED)


class _KeepAlives:
    """One stream: answers in the order of its requests, each when it is there."""

    def __init__(self, calls: LeaseCalls, asking: Asking, context: Context) -> None:
        self._calls = calls
        self._asking = asking
        self._context = context
        self._caller = asking.gate.caller(context)
        # Oldest first.
        self._expected: deque[_Expected] = deque()
        self._all_came = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def read(self, requests: AsyncIterator[pb.LeaseKeepAliveRequest]) -> None:
        """Ask for what comes, until the client has said all. Raises what is wrong with it."""
        try:
            async for request in requests:
                await self._check(request.ID)
                # Before it is renewed: the revision is never after the end of a lease that lives.
                response = pb.LeaseKeepAliveResponse(header=self._asking.header(), ID=request.ID)
                expected = _Expected(response)
                self._expected.append(expected)
                self._calls.renew(request.ID, None, partial(self._told, expected))
                while len(self._expected) >= UNANSWERED_MAX:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._all_came = True
            self._news.set()

    async def _check(self, lease: int) -> None:
        """Raise EtcdError unless the caller may write all keys of a lease."""
        gate, caller = self._asking.gate, self._caller
        auth = await gate.users()
        if not auth.enabled:
            return
        auth = await gate.known(caller)
        if auth.may_write(caller.user(auth), FIRST_KEY, TO_THE_END):
            return

        def read(machine: Model, step: Step) -> None:
            auth = machine.auth
            if auth.enabled:
                keys = machine.lease_keys(lease, step)
                _check_all(auth.may_write, caller.user(auth), keys)

        await self._asking.read_state(read, self._context, is_user, caller)

    def _told(self, expected: _Expected, outcome: int | Error) -> None:
        expected.outcome = outcome
        if self._expected[0] is expected:
            self._news.set()

    async def write(self, context: Context) -> None:
        """Answer until nothing more is to come. Raises the Error of a request that has no
        answer."""
        expected = self._expected
        while expected or not self._all_came:
            if not expected or expected[0].outcome is None:
                self._news.clear()
                await self._news.wait()
                continue
            response, outcome = expected[0].response, expected[0].outcome
            if isinstance(outcome, Error):
                raise outcome
            response.TTL = outcome
            await context.write(response)
            expected.popleft()
            self._room.set()
