"""Calls of clients that a follower passes on to the leader, over the way that members talk.

The leader knows whom they come from as it knows every member. What it is passed, it answers or
refuses by itself: a call goes over two members at most, also when leadership moves meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from kvstore.api.handlers.admin import AdminHandlers, everybody
from kvstore.api.handlers.admin import Node as AdminNode
from kvstore.api.handlers.calls import Context
from kvstore.api.handlers.failures import TRAILER_KEYS, Failure, failure_of
from kvstore.api.handlers.guard import Guard
from kvstore.api.handlers.kv import KVHandlers
from kvstore.api.handlers.metadata import Said
from kvstore.api.handlers.sessions import SessionsHandlers
from kvstore.api.metadata_keys import LEADER_HINT_KEY
from kvstore.api.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    kv_pb2,
    kv_pb2_grpc,
    leases_pb2_grpc,
    proposals_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from kvstore.errors import NotLeaderError
from kvstore.server.peers.introductions import Introductions
from kvstore.server.peers.wire import Dialler
from kvstore.service import Service

__all__ = ["ForwardedAdmin", "ForwardedCalls", "ForwardedSessions", "Forwarder"]

# Those of other services than KV.
_STUBS: dict[str, Callable[[Any], Any]] = {
    "Open": session_pb2_grpc.SessionsStub,
    "Propose": proposals_pb2_grpc.ProposalPeerStub,
    "AskLessor": leases_pb2_grpc.LeasePeerStub,
    "Members": admin_pb2_grpc.AdminStub,
    "ChangeMembers": admin_pb2_grpc.AdminStub,
    "TransferLeadership": admin_pb2_grpc.AdminStub,
}

# What the leader's service says of a call. Anything else is said of the way there.
_ANSWERS = frozenset(
    (
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.INTERNAL,
    )
)


_JUDGEMENTS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_JUDGEMENT = "etcdserver: "
"""With what a judgement of the caller begins."""


class ForwardedCalls(KVHandlers):
    """``kvstore.v1.KV`` for other members only; ``admit`` ends the calls of anybody else.

    ``guard`` judges the clients, by what members say of them.
    """

    def __init__(
        self,
        service: Service,
        admit: Callable[[Context], Awaitable[int]],
        guard: Guard | None = None,
    ) -> None:
        super().__init__(service, guard=guard)
        self._admit = admit

    async def Put(self, request: kv_pb2.PutRequest, context: Context) -> kv_pb2.PutResponse:
        await self._admit(context)
        return await super().Put(request, context)

    async def Get(self, request: kv_pb2.GetRequest, context: Context) -> kv_pb2.GetResponse:
        await self._admit(context)
        return await super().Get(request, context)

    async def Delete(
        self, request: kv_pb2.DeleteRequest, context: Context
    ) -> kv_pb2.DeleteResponse:
        await self._admit(context)
        return await super().Delete(request, context)


class ForwardedSessions(SessionsHandlers):
    """``kvstore.v1.Sessions``, the same way."""

    def __init__(
        self,
        service: Service,
        admit: Callable[[Context], Awaitable[int]],
        guard: Guard | None = None,
    ) -> None:
        super().__init__(service, guard=guard)
        self._admit = admit

    async def Open(
        self, request: session_pb2.OpenSessionRequest, context: Context
    ) -> session_pb2.OpenSessionResponse:
        await self._admit(context)
        return await super().Open(request, context)


class ForwardedAdmin(AdminHandlers):
    """What another member's operator asks the leader; ``admit`` ends the calls of anybody else."""

    def __init__(self, node: AdminNode, admit: Callable[[Context], Awaitable[int]]) -> None:
        super().__init__(node, everybody)
        self._admit = admit

    async def Members(
        self, request: admin_pb2.MembersRequest, context: Context
    ) -> admin_pb2.MembersResponse:
        await self._admit(context)
        return await super().Members(request, context)

    async def ChangeMembers(
        self, request: admin_pb2.ChangeMembersRequest, context: Context
    ) -> admin_pb2.MembersResponse:
        await self._admit(context)
        return await super().ChangeMembers(request, context)

    async def TransferLeadership(
        self, request: admin_pb2.TransferLeadershipRequest, context: Context
    ) -> admin_pb2.TransferLeadershipResponse:
        await self._admit(context)
        return await super().TransferLeadership(request, context)

    async def Status(
        self, request: admin_pb2.StatusRequest, context: Context
    ) -> admin_pb2.StatusResponse:
        await self._admit(context)
        return await super().Status(request, context)

    async def _check(self, context: Context) -> None:
        """Checked already."""

    async def _at_leader(
        self, method: str, request: Any, error: NotLeaderError, context: Context
    ) -> Any:
        """A call goes over two members at most: who was asked as the leader and isn't says so."""
        failure = failure_of(error)
        await context.abort(failure.code, failure.details, failure.trailer)


class Forwarder:
    """A follower's side: one channel, to whoever leads. ``address_of`` knows the members."""

    def __init__(
        self,
        introductions: Introductions,
        dialler: Dialler,
        address_of: Callable[[int], str | None],
    ) -> None:
        self._introductions = introductions
        self._dialler = dialler
        self._address_of = address_of
        self._way: tuple[int, str] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def forward(
        self,
        method: str,
        request: Any,
        leader: int,
        timeout_s: float,
        said: Said,
    ) -> Any:
        """The response of member ``leader``, or the Failure that the call ends with.

        ``said``: metadata of the client's that goes along.
        None when it can't be passed on at all: the leader's address isn't known, or its kvd is too
        old to be asked. The client is then told who leads.
        """
        address = self._address_of(leader)
        if address is None:
            return None
        channel = self._to(leader, address)
        stub: Any = _STUBS.get(method, kv_pb2_grpc.KVStub)(channel)
        metadata = (*self._introductions.to(leader), *said)
        try:
            return await getattr(stub, method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._let_go(channel)
            return _failure(error, leader)
        except asyncio.CancelledError:
            # Of this very call it goes on its way; of a channel that is closed it means nothing to
            # a client, for whom gRPC would have no answer at all.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return Failure(
                grpc.StatusCode.UNAVAILABLE, f"member {leader} doesn't lead any more; try again"
            )

    def _to(self, leader: int, address: str) -> grpc.aio.Channel:
        if self._channel is None or self._way != (leader, address):
            former, self._channel = self._channel, self._dialler.dial(leader, address)
            self._way = (leader, address)
            if former is not None:
                self._close_soon(former)
        return self._channel

    def _close_soon(self, channel: grpc.aio.Channel) -> None:
        """Calls under way may still end well, for a second; nobody waits for that."""
        closing = asyncio.create_task(channel.close(grace=1.0))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _let_go(self, channel: grpc.aio.Channel) -> None:
        """Dial anew for the next call, with the certificates of that day."""
        if channel is self._channel:
            self._channel = None
            self._close_soon(channel)

    async def close(self) -> None:
        """Forward nothing any more."""
        if self._channel is not None:
            await self._channel.close(grace=None)
        await asyncio.gather(*self._closing)


def _failure(error: grpc.aio.AioRpcError, leader: int) -> Failure:
    metadata: Iterable[Any] = error.trailing_metadata() or ()
    trailer = tuple((key, value) for key, value in metadata if key in TRAILER_KEYS)
    moved = error.code() is grpc.StatusCode.FAILED_PRECONDITION and any(
        key == LEADER_HINT_KEY for key, _ in trailer
    )
    details = error.details() or error.code().name
    # The way there knows these two as well, but not in these words.
    judged = error.code() in _JUDGEMENTS and details.startswith(_JUDGEMENT)
    if moved or judged or error.code() in _ANSWERS:
        return Failure(error.code(), details, trailer)
    return Failure(grpc.StatusCode.UNAVAILABLE, f"member {leader}, the leader: {details}")
