"""``etcdserverpb.Maintenance``: about the member that is asked, but for alarms, which are all's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.register import Context
from kvstore.errors import InvalidArgumentError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService
from kvstore.state.mvcc.requests import Alarm, AlarmKind

__all__ = ["ETCD_VERSION", "MaintenanceHandlers"]

ETCD_VERSION: Final = "3.5.21"
"""Whose behaviour this is, to clients that go by it. Of 3.5 the releases below 13 had progress
notifications that could be wrong."""

QUOTA_BYTES: Final = 2 << 30
"""etcd's own, where none is set."""

_VERSION = re.compile(r"v?\d+\.\d+(\.\d+)?([-+][0-9A-Za-z.+-]+)?")

_ALARM_NAMES = {AlarmKind.NOSPACE: "NOSPACE", AlarmKind.CORRUPT: "CORRUPT"}


class MaintenanceHandlers:
    """Needs no leader but for alarms. ``allows`` says who is an operator."""

    def __init__(
        self, service: EtcdService, asking: Asking, allows: Callable[[Context], bool]
    ) -> None:
        self._service = service
        self._asking = asking
        self._allows = allows

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        service = self._service
        member = service.member
        if member is None:
            raise EtcdError(Reason.NO_LEADER)
        status = member.status()
        machine = member.machine
        engine: Any = status.engine
        stored = engine["table_bytes"] + engine["memtable_bytes"]
        errors = [] if service.has_leader else [Reason.NO_LEADER.text]
        errors += [
            f"memberID:{alarmed} alarm:{_ALARM_NAMES.get(AlarmKind(kind), kind)} "
            for alarmed, kind in sorted(machine.alarms)
        ]
        return pb.StatusResponse(
            header=self._asking.header(),
            version=ETCD_VERSION,
            dbSize=stored,
            dbSizeInUse=stored,
            dbSizeQuota=QUOTA_BYTES,
            leader=service.leader_id,
            raftIndex=status.raft.commit,
            raftTerm=status.raft.term,
            raftAppliedIndex=status.applied,
            errors=errors,
            isLearner=service.is_learner,
        )

    async def Alarm(self, request: pb.AlarmRequest, context: Context) -> pb.AlarmResponse:
        # It has the whole cluster refuse writes, until somebody notices.
        if request.action == pb.AlarmRequest.ACTIVATE and not self._allows(context):
            raise EtcdError(Reason.PERMISSION_DENIED)
        operation = Alarm(request.action, request.memberID, request.alarm)
        answer = await self._asking.propose(operation, context)
        return pb.AlarmResponse(
            header=self._asking.header(answer.revision),
            alarms=[pb.AlarmMember(memberID=member, alarm=kind) for member, kind in answer.alarms],
        )

    async def Defragment(
        self, request: pb.DefragmentRequest, context: Context
    ) -> pb.DefragmentResponse:
        await self._asking.reclaim()
        return pb.DefragmentResponse(header=self._asking.header())

    async def Hash(self, request: pb.HashRequest, context: Context) -> pb.HashResponse:
        hashed = await self._asking.hash_kv(0)
        return pb.HashResponse(header=self._asking.header(hashed.revision), hash=hashed.hash)

    async def HashKV(self, request: pb.HashKVRequest, context: Context) -> pb.HashKVResponse:
        hashed = await self._asking.hash_kv(request.revision)
        return pb.HashKVResponse(
            header=self._asking.header(hashed.revision),
            hash=hashed.hash,
            compact_revision=hashed.compacted,
            hash_revision=hashed.hash_revision,
        )

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
