"""``kvstore.v1.Admin``: what operators ask."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
import structlog

from kvstore.api.handlers.failures import Failure, failure_of
from kvstore.api.handlers.sending import GIVEN_UP, SlowReaderError, send_backup
from kvstore.api.operator_access import is_operator
from kvstore.api.v1 import admin_pb2, admin_pb2_grpc
from kvstore.errors import Error, NotLeaderError
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

    async def forget_introduction(self, member: int) -> bool: ...

    def repair(self, begin: bool) -> admin_pb2.RepairResponse: ...

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        """The leader's response, a Failure, or None when it can't be asked."""

    def save_snapshot(self, stale: bool) -> AsyncGenerator[bytes, None]: ...


# How long a change may take that says nothing about it.
DEFAULT_DEADLINE_S = 10.0

log = structlog.get_logger("kvstore.admin")

REFUSAL = (
    "this needs an operator: on the member's machine, with 'kvctl --dir DATA_DIR', or with a "
    "client certificate that says so ('kvctl pki issue --client NAME --operator'), which kvd asks "
    "for where it has --tls_client_ca"
)


def everybody(context: Context) -> bool:
    """``admin = "everybody"``: whoever reaches the port is an operator."""
    return True


class AdminHandlers(admin_pb2_grpc.AdminServicer):
    """Answers operators from what the process knows; what only the leader can answer is passed on.

    ``allows`` says who is an operator. Anybody may ask for the status, and for the members without
    their peer addresses: leaders name each other to clients anyway. ``warnings`` are shown with it.
    ``slow_calls``: the newest ones.
    """

    def __init__(
        self,
        node: Node,
        allows: Callable[[Context], bool] = is_operator,
        warnings: Sequence[str] = (),
        slow_calls: Callable[[], admin_pb2.SlowCallsResponse] = admin_pb2.SlowCallsResponse,
    ) -> None:
        self._node = node
        self._allows = allows
        self._warnings = warnings
        self._slow_calls = slow_calls
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
            warnings=self._warnings,
        )

    async def Members(
        self, request: admin_pb2.MembersRequest, context: Context
    ) -> admin_pb2.MembersResponse:
        allowed = self._allows(context)
        try:
            answer = self._node.members()
        except NotLeaderError as error:
            if not allowed:
                await _refuse(context, error)
            return await self._at_leader("Members", request, error, context)  # type: ignore[no-any-return]
        except Error as error:
            await _refuse(context, error)
        if not allowed:
            for member in answer.members:
                member.ClearField("peer_address")
        return answer

    async def ChangeMembers(
        self, request: admin_pb2.ChangeMembersRequest, context: Context
    ) -> admin_pb2.MembersResponse:
        await self._check(context)
        try:
            return await self._node.change_members(request)
        except NotLeaderError as error:
            return await self._at_leader("ChangeMembers", request, error, context)  # type: ignore[no-any-return]
        except Error as error:
            await _refuse(context, error)

    async def TransferLeadership(
        self, request: admin_pb2.TransferLeadershipRequest, context: Context
    ) -> admin_pb2.TransferLeadershipResponse:
        await self._check(context)
        try:
            leader = await self._node.transfer_leadership(request.to)
        except NotLeaderError as error:
            return await self._at_leader("TransferLeadership", request, error, context)  # type: ignore[no-any-return]
        except Error as error:
            await _refuse(context, error)
        return admin_pb2.TransferLeadershipResponse(leader_id=leader)

    async def ForgetIntroduction(
        self, request: admin_pb2.ForgetIntroductionRequest, context: Context
    ) -> admin_pb2.ForgetIntroductionResponse:
        await self._check(context)
        try:
            known = await self._node.forget_introduction(request.member_id)
        except Error as error:
            await _refuse(context, error)
        return admin_pb2.ForgetIntroductionResponse(known=known)

    async def Repair(
        self, request: admin_pb2.RepairRequest, context: Context
    ) -> admin_pb2.RepairResponse:
        await self._check(context)
        try:
            return self._node.repair(request.begin)
        except Error as error:
            await _refuse(context, error)

    async def SlowCalls(
        self, request: admin_pb2.SlowCallsRequest, context: Context
    ) -> admin_pb2.SlowCallsResponse:
        await self._check(context)
        return self._slow_calls()

    async def SaveSnapshot(  # type: ignore[override]
        self, request: admin_pb2.SaveSnapshotRequest, context: Context
    ) -> None:
        await self._check(context)

        async def send(piece: bytes) -> None:
            await context.write(admin_pb2.SaveSnapshotResponse(data=piece))

        try:
            await send_backup(self._node.save_snapshot(request.stale), send)
        except SlowReaderError as error:
            log.warning(GIVEN_UP, peer=context.peer(), sent=error.sent)
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        except Error as error:
            await _refuse(context, error)

    async def _check(self, context: Context) -> None:
        """End the call unless it is an operator's."""
        if not self._allows(context):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSAL)

    async def _at_leader(
        self, method: str, request: Any, error: NotLeaderError, context: Context
    ) -> Any:
        """The leader's answer to an operator of this member, whom it trusts as a member's word."""
        left = context.time_remaining()
        timeout_s = DEFAULT_DEADLINE_S if left is None else left
        answer = await self._node.forward_admin(method, request, error.leader, timeout_s)
        if isinstance(answer, Failure):
            await context.abort(answer.code, answer.details, answer.trailer)
        if answer is None:
            await _refuse(context, error)
        return answer


async def _refuse(context: Context, error: Error) -> NoReturn:
    failure = failure_of(error)
    await context.abort(failure.code, failure.details, failure.trailer)
