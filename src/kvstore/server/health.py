"""The standard health service: SERVING only while there is a leader, and storage that works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from grpc_health.v1 import health, health_pb2

from kvstore.api.v1 import kv_pb2
from kvstore.errors import Error
from kvstore.server.long_lived import long_lived

KV_SERVICE = kv_pb2.DESCRIPTOR.services_by_name["KV"].full_name

# "" is the server as a whole.
SERVICES = ("", KV_SERVICE)

# How often the answer is brought up to date. A probe can be wrong by this long, no longer.
REFRESH_S = 0.05

log = structlog.get_logger("kvstore.health")


class _Servicer(health.aio.HealthServicer):  # type: ignore[name-defined,misc]
    """grpcio's, with the method that its protocol has got and it has not."""

    async def List(self, request: Any, context: Any) -> Any:
        statuses = {
            service: await self.Check(health_pb2.HealthCheckRequest(service=service), context)
            for service in SERVICES
        }
        return health_pb2.HealthListResponse(statuses=statuses)


class HealthWatch:
    """Keeps the health service true; ``""`` and ``kvstore.v1.KV`` both answer for KV."""

    def __init__(self, leader: Callable[[], int], storage_trouble: Callable[[], str]) -> None:
        """``leader`` is the member that serves, 0 for none; ``storage_trouble`` says why a member
        takes no writes, empty when it does."""
        self.servicer = _Servicer()
        self._leader = leader
        self._storage_trouble = storage_trouble
        self.failed: asyncio.Future[Error] = asyncio.get_running_loop().create_future()
        """Done, with the reason, should the watch end for a defect."""
        self._before: tuple[int, bool] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._refresh()
        self._task = long_lived(self._watch(), "health", self.failed.set_result)

    async def stop(self) -> None:
        """Answer NOT_SERVING from now on, so that balancers look elsewhere while calls drain."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.servicer.enter_graceful_shutdown()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._refresh()

    async def _refresh(self) -> None:
        leader, trouble, before = self._leader(), self._storage_trouble(), self._before
        if (leader, not trouble) == before:
            return
        self._before = leader, not trouble
        status = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if leader and not trouble else status.NOT_SERVING
        for service in SERVICES:
            await self.servicer.set(service, value)
        if trouble:
            log.warning("not serving: storage", reason=trouble, leader=leader)
        elif leader:
            log.info("serving", leader=leader)
        elif before is not None:
            log.warning("not serving: no leader", leader_before=before[0])
