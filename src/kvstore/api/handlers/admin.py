"""``kvstore.v1.Admin``: what operators ask."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, NoReturn, Protocol

import grpc.aio

from kvstore.api.handlers.failures import failure_of
from kvstore.api.v1 import admin_pb2, admin_pb2_grpc
from kvstore.errors import Error
from kvstore.version import version

Context = grpc.aio.ServicerContext[Any, Any]


class Node(Protocol):
    """The members of a process, as an operator sees them."""

    @property
    def mode(self) -> str: ...

    def leader(self) -> int:
        """The member that leads and can serve; 0 when there is none."""

    def member_statuses(self) -> Sequence[admin_pb2.MemberStatus]: ...

    def members(self) -> admin_pb2.MembersResponse:
        """Who belongs to the cluster. This and the next three raise kvstore's errors."""

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse: ...

    async def transfer_leadership(self, to: int) -> int: ...

    def forget_introduction(self, member: int) -> bool: ...

    def save_snapshot(self, stale: bool) -> AsyncGenerator[bytes, None]: ...


class AdminHandlers(admin_pb2_grpc.AdminServicer):
    """Answers from what the process knows; asks nobody else."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._started = time.monotonic()

    async def Status(
        self, request: admin_pb2.StatusRequest, context: Context
    ) -> admin_pb2.StatusResponse:
        return admin_pb2.StatusResponse(
            version=version(),
            mode=self._node.mode,
            leader_id=self._node.leader(),
            members=self._node.member_statuses(),
            uptime_seconds=time.monotonic() - self._started,
        )

    async def Members(
        self, request: admin_pb2.MembersRequest, context: Context
    ) -> admin_pb2.MembersResponse:
        try:
            return self._node.members()
        except Error as error:
            await _refuse(context, error)

    async def ChangeMembers(
        self, request: admin_pb2.ChangeMembersRequest, context: Context
    ) -> admin_pb2.MembersResponse:
        try:
            return await self._node.change_members(request)
        except Error as error:
            await _refuse(context, error)

    async def TransferLeadership(
        self, request: admin_pb2.TransferLeadershipRequest, context: Context
    ) -> admin_pb2.TransferLeadershipResponse:
        try:
            leader = await self._node.transfer_leadership(request.to)
        except Error as error:
            await _refuse(context, error)
        return admin_pb2.TransferLeadershipResponse(leader_id=leader)

    async def ForgetIntroduction(
        self, request: admin_pb2.ForgetIntroductionRequest, context: Context
    ) -> admin_pb2.ForgetIntroductionResponse:
        try:
            known = self._node.forget_introduction(request.member_id)
        except Error as error:
            await _refuse(context, error)
        return admin_pb2.ForgetIntroductionResponse(known=known)

    async def SaveSnapshot(
        self, request: admin_pb2.SaveSnapshotRequest, context: Context
    ) -> AsyncIterator[admin_pb2.SaveSnapshotResponse]:
        try:
            async with contextlib.aclosing(self._node.save_snapshot(request.stale)) as pieces:
                async for piece in pieces:
                    yield admin_pb2.SaveSnapshotResponse(data=piece)
        except Error as error:
            await _refuse(context, error)


async def _refuse(context: Context, error: Error) -> NoReturn:
    failure = failure_of(error)
    await context.abort(failure.code, failure.details, failure.trailer)
