"""``etcdserverpb.Cluster``: who belongs to the cluster, and who is to.

A member has one address for its peers here, and a number that nobody had before for its id. It
begins as a learner; one that isn't added as such votes as soon as it has caught up, and asks for
that itself, when it also says where clients reach it (``kvstore.server.nodes.publishing``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import grpc

from kvstore.addresses import HostPort
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.failures import Failure
from kvstore.api.metadata_keys import OUTCOME_KEY
from kvstore.api.v1 import admin_pb2
from kvstore.errors import (
    InvalidArgumentError,
    NotLeaderError,
    OutcomeUnknownError,
    UnavailableError,
)
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService

__all__ = ["ClusterHandlers", "ClusterMember", "Node"]


class ClusterMember(NamedTuple):
    """As clients see it; the URLs have their scheme. One that hasn't begun has no name."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


class Node(Protocol):
    """How the members are changed."""

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse:
        """Answered when it is committed. Raises what ``Operators`` raises."""

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        """The leader's response, a Failure, or None when it can't be asked."""


class ClusterHandlers:
    """Tells clients the members that this one knows, and has the leader change them."""

    def __init__(
        self,
        service: EtcdService,
        asking: Asking,
        rights: Rights,
        node: Node,
        members: Callable[[], Sequence[ClusterMember]],
    ) -> None:
        self._service = service
        self._asking = asking
        self._rights = rights
        self._node = node
        self._members = members

    async def MemberList(
        self, request: pb.MemberListRequest, context: Context
    ) -> pb.MemberListResponse:
        """Where members reach each other isn't for everybody to know, as in ``kvstore.v1``."""
        if request.linearizable:
            await self._asking.read_point(context)
        members = self._messages()
        if not self._rights.may_keep_up(context):
            for member in members:
                member.ClearField("peerURLs")
        return pb.MemberListResponse(header=self._asking.header(0), members=members)

    async def MemberAdd(
        self, request: pb.MemberAddRequest, context: Context
    ) -> pb.MemberAddResponse:
        self._rights.check_operator(context)
        peer = _peer_address(request.peerURLs)
        self._refuse_taken(peer, 0)
        new = admin_pb2.Member(
            member_id=self._unused_id(),
            # What is known of it; it says more when it begins.
            client_address=peer,
            peer_address=peer,
            votes_when_ready=not request.isLearner,
        )
        change = admin_pb2.ChangeMembersRequest(add=new)
        members = await self._change(change, Reason.UNHEALTHY, context)
        added = next((member for member in members if new.member_id == member.ID), None)
        if added is None:  # somebody has removed it since
            raise EtcdError(Reason.MEMBER_NOT_FOUND)
        return pb.MemberAddResponse(header=self._asking.header(0), member=added, members=members)

    async def MemberRemove(
        self, request: pb.MemberRemoveRequest, context: Context
    ) -> pb.MemberRemoveResponse:
        self._rights.check_operator(context)
        self._find(request.ID)
        if {member.id for member in self._members() if not member.is_learner} == {request.ID}:
            raise EtcdError(Reason.NOT_ENOUGH_STARTED)
        change = admin_pb2.ChangeMembersRequest(remove=request.ID)
        members = await self._change(change, Reason.UNHEALTHY, context)
        return pb.MemberRemoveResponse(header=self._asking.header(0), members=members)

    async def MemberUpdate(
        self, request: pb.MemberUpdateRequest, context: Context
    ) -> pb.MemberUpdateResponse:
        self._rights.check_operator(context)
        peer = _peer_address(request.peerURLs)
        self._find(request.ID)
        self._refuse_taken(peer, request.ID)
        update = admin_pb2.Member(member_id=request.ID, peer_address=peer)
        change = admin_pb2.ChangeMembersRequest(update=update)
        members = await self._change(change, Reason.UNHEALTHY, context)
        return pb.MemberUpdateResponse(header=self._asking.header(0), members=members)

    async def MemberPromote(
        self, request: pb.MemberPromoteRequest, context: Context
    ) -> pb.MemberPromoteResponse:
        self._rights.check_operator(context)
        if not self._find(request.ID).is_learner:
            raise EtcdError(Reason.NOT_LEARNER)
        change = admin_pb2.ChangeMembersRequest(promote=request.ID)
        members = await self._change(change, Reason.LEARNER_NOT_READY, context)
        return pb.MemberPromoteResponse(header=self._asking.header(0), members=members)

    # --- what is there -------------------------------------------------------------------------

    def _messages(self) -> list[pb.Member]:
        return [
            pb.Member(
                ID=member.id,
                name=member.name,
                peerURLs=member.peer_urls,
                clientURLs=member.client_urls,
                isLearner=member.is_learner,
            )
            for member in self._members()
        ]

    def _find(self, id: int) -> ClusterMember:
        for member in self._members():
            if member.id == id:
                return member
        raise EtcdError(Reason.MEMBER_NOT_FOUND)

    def _refuse_taken(self, peer: str, but_by: int) -> None:
        for member in self._members():
            if member.id != but_by and any(urlsplit(u).netloc == peer for u in member.peer_urls):
                raise EtcdError(Reason.PEER_URL_EXISTS)

    def _unused_id(self) -> int:
        """As far as this member knows: the leader refuses one that is used all the same."""
        member = self._service.member
        if member is None:
            raise EtcdError(Reason.NO_LEADER)
        membership = member.membership
        return max(membership.members | membership.removed, default=0) + 1

    # --- changes -------------------------------------------------------------------------------

    async def _change(
        self, change: admin_pb2.ChangeMembersRequest, unavailable: Reason, context: Context
    ) -> list[pb.Member]:
        """Have the leader do it; returns the members as this one sees them then.

        ``unavailable``: why the leader refuses what the others could not finish.
        """
        if not self._service.has_leader:
            raise EtcdError(Reason.NO_LEADER)
        left_s = context.time_remaining()
        patience_s = self._service.patience_s
        if left_s is not None:
            patience_s = min(patience_s, left_s)
        try:
            async with asyncio.timeout(patience_s):
                await self._ask_leader(change, unavailable, patience_s)
                if change.remove != self._service.member_id:
                    await self._asking.read_point(context)
        except TimeoutError:
            raise EtcdError(Reason.TIMED_OUT) from None
        return self._messages()

    async def _ask_leader(
        self, change: admin_pb2.ChangeMembersRequest, unavailable: Reason, timeout_s: float
    ) -> None:
        try:
            await self._node.change_members(change)
        except NotLeaderError as error:
            answer = await self._node.forward_admin(
                "ChangeMembers", change, error.leader, timeout_s
            )
            if answer is None:
                raise EtcdError(Reason.LEADER_CHANGED) from None
            if isinstance(answer, Failure):
                raise _refusal(answer, unavailable) from None
        except OutcomeUnknownError:
            raise
        except UnavailableError:
            raise EtcdError(unavailable) from None


def _refusal(failure: Failure, unavailable: Reason) -> Exception:
    """What the leader's refusal is to a client of etcd's API."""
    match failure.code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidArgumentError(failure.details)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return EtcdError(Reason.LEADER_CHANGED)
        case grpc.StatusCode.UNAVAILABLE if OUTCOME_KEY in dict(failure.trailer):
            return EtcdError(unavailable)
        case _:
            return EtcdError(Reason.TIMED_OUT)


def _peer_address(urls: Sequence[str]) -> str:
    """The address in a member's only URL. Raises EtcdError for what is none, and
    InvalidArgumentError for more of them."""
    addresses = [_address(url) for url in urls]
    if not addresses:
        raise EtcdError(Reason.BAD_MEMBER_URLS)
    if len(addresses) > 1:
        raise InvalidArgumentError("a member has one peer URL here")
    return addresses[0]


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:  # a port that is none
        known = False
    if not known or parts.path or parts.query or parts.fragment:
        raise EtcdError(Reason.BAD_MEMBER_URLS)
    if HostPort.parse(parts.netloc) is None:
        raise EtcdError(Reason.BAD_MEMBER_URLS)
    return parts.netloc
