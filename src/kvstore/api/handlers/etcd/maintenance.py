"""``etcdserverpb.Maintenance``: about the member that is asked, but for alarms, which are all's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Collection
from typing import Final, Protocol

import grpc
import structlog

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.register import Context
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.etcd.snapshot import Blobs
from kvstore.api.handlers.sending import GIVEN_UP, SlowReaderError, send_backup
from kvstore.errors import InvalidArgumentError, NotLeaderError, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService
from kvstore.state.mvcc.alarms import told_of
from kvstore.state.mvcc.requests import Alarm, AlarmKind

__all__ = ["ETCD_VERSION", "MaintenanceHandlers", "Member"]

ETCD_VERSION: Final = "3.5.21"
"""Whose behaviour this is, to clients that go by it. Of 3.5 the releases below 13 had progress
notifications that could be wrong."""

_VERSION = re.compile(r"v?\d+\.\d+(\.\d+)?([-+][0-9A-Za-z.+-]+)?")

_NO_KIND = -1
_ALARM_NAMES = {AlarmKind.NOSPACE: "NOSPACE", AlarmKind.CORRUPT: "CORRUPT"}

log = structlog.get_logger("kvstore.etcd")


class Member(Protocol):
    """What the process can do beside its service."""

    @property
    def quota_bytes(self) -> int:
        """Beyond which it takes no puts; 0 for no bound."""

    def voters(self) -> Collection[int]:
        """The members that may lead, as clients know them."""

    async def transfer_leadership(self, to: int) -> int:
        """Hand leadership to a voter; who leads then. Raises InvalidArgumentError for one that
        can't, NotLeaderError, UnavailableError when it didn't take over."""

    def save_sealed(self, stale: bool) -> AsyncGenerator[bytes, None]:
        """A backup file with its seal. Raises UnavailableError, StorageError."""


class MaintenanceHandlers:
    """Needs no leader but for alarms and a new leader."""

    def __init__(
        self, service: EtcdService, asking: Asking, rights: Rights, member: Member
    ) -> None:
        self._service = service
        self._asking = asking
        self._rights = rights
        self._member = member

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        service = self._service
        member = service.member
        if member is None:
            raise EtcdError(Reason.NO_LEADER)
        status = member.status()
        machine = member.machine
        stored = machine.stored_bytes
        errors = [] if service.has_leader else [Reason.NO_LEADER.text]
        errors += [
            f"memberID:{alarmed} alarm:{_ALARM_NAMES.get(AlarmKind(kind), kind)} "
            for alarmed, kind in sorted(told_of(machine.alarms))
        ]
        return pb.StatusResponse(
            header=self._asking.header(),
            version=ETCD_VERSION,
            dbSize=stored,
            dbSizeInUse=stored,
            dbSizeQuota=self._member.quota_bytes,
            leader=service.leader_id,
            raftIndex=status.raft.commit,
            raftTerm=status.raft.term,
            raftAppliedIndex=status.applied,
            errors=errors,
            isLearner=service.is_learner,
        )

    async def Alarm(self, request: pb.AlarmRequest, context: Context) -> pb.AlarmResponse:
        # It has the whole cluster refuse writes, until somebody notices.
        if request.action == pb.AlarmRequest.ACTIVATE:
            self._rights.check_operator(context)
        kind: int = request.alarm
        if kind == AlarmKind.DIFFERS:
            kind = _NO_KIND  # as etcd has it; for the servers alone to raise
        operation = Alarm(request.action, request.memberID, kind)
        answer = await self._asking.propose(operation, context)
        return pb.AlarmResponse(
            header=self._asking.header(answer.revision),
            alarms=[pb.AlarmMember(memberID=member, alarm=kind) for member, kind in answer.alarms],
        )

    async def Defragment(
        self, request: pb.DefragmentRequest, context: Context
    ) -> pb.DefragmentResponse:
        self._rights.check_upkeep(context)
        await self._asking.reclaim()
        return pb.DefragmentResponse(header=self._asking.header())

    async def Hash(self, request: pb.HashRequest, context: Context) -> pb.HashResponse:
        self._rights.check_upkeep(context)
        hashed = await self._asking.hash_kv(0)
        return pb.HashResponse(header=self._asking.header(hashed.revision), hash=hashed.hash)

    async def HashKV(self, request: pb.HashKVRequest, context: Context) -> pb.HashKVResponse:
        self._rights.check_upkeep(context)
        hashed = await self._asking.hash_kv(request.revision)
        return pb.HashKVResponse(
            header=self._asking.header(hashed.revision),
            hash=hashed.hash,
            compact_revision=hashed.compacted,
            hash_revision=hashed.hash_revision,
        )

    async def Snapshot(self, request: pb.SnapshotRequest, context: Context) -> None:
        """What was acknowledged before the call; where there is no leader, what this member has."""
        self._rights.check_upkeep(context)
        blobs = Blobs()
        header: pb.ResponseHeader | None = self._asking.header()

        async def send(piece: bytes) -> None:
            nonlocal header
            for blob, left in blobs.cut(piece):
                response = pb.SnapshotResponse(header=header, blob=blob, remaining_bytes=left)
                header = None
                await context.write(response)

        try:
            await send_backup(self._member.save_sealed(not self._service.has_leader), send)
        except SlowReaderError as error:
            log.warning(GIVEN_UP, peer=context.peer(), sent=error.sent)
            await context.abort(grpc.StatusCode.ABORTED, str(error))

    async def MoveLeader(
        self, request: pb.MoveLeaderRequest, context: Context
    ) -> pb.MoveLeaderResponse:
        self._rights.check_upkeep(context)
        service, target = self._service, request.targetID
        if not service.is_leader:
            raise EtcdError(Reason.NOT_LEADER)
        if target not in self._member.voters():
            raise EtcdError(Reason.BAD_TRANSFEREE)
        if target != service.member_id:
            await self._move_leader(target)
        return pb.MoveLeaderResponse(header=self._asking.header())

    async def _move_leader(self, target: int) -> None:
        try:
            async with asyncio.timeout(self._service.patience_s):
                leader = await self._member.transfer_leadership(target)
        except InvalidArgumentError:
            raise EtcdError(Reason.BAD_TRANSFEREE) from None
        except NotLeaderError:
            raise EtcdError(Reason.NOT_LEADER) from None
        except (UnavailableError, TimeoutError):
            raise EtcdError(Reason.TRANSFER_TIMED_OUT) from None
        if leader != target:
            raise EtcdError(Reason.TRANSFER_TIMED_OUT)

    async def Downgrade(
        self, request: pb.DowngradeRequest, context: Context
    ) -> pb.DowngradeResponse:
        """There is nothing to go down to."""
        if request.action == pb.DowngradeRequest.CANCEL:
            raise EtcdError(Reason.NO_INFLIGHT_DOWNGRADE)
        if request.action not in pb.DowngradeRequest.DowngradeAction.values():
            raise InvalidArgumentError(f"unknown action {request.action}")
        if not _VERSION.fullmatch(request.version):
            raise EtcdError(Reason.BAD_VERSION_FORMAT)
        raise EtcdError(Reason.BAD_TARGET_VERSION)
