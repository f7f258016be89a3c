"""``kvstore.v1.Admin``: what operators ask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import grpc.aio

from kvstore.api.v1 import admin_pb2, admin_pb2_grpc
from kvstore.version import version

Context = grpc.aio.ServicerContext[Any, Any]


class Node(Protocol):
    """The members of a process, as an operator sees them."""

    @property
    def mode(self) -> str: ...

    def leader(self) -> int:
        """The member that leads and can serve; 0 when there is none."""

    def member_statuses(self) -> Sequence[admin_pb2.MemberStatus]: ...


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
