"""The standard health service: SERVING only while there is a leader to serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from grpc_health.v1 import health, health_pb2

from kvstore.api.v1 import kv_pb2

KV_SERVICE = kv_pb2.DESCRIPTOR.services_by_name["KV"].full_name

# How often the answer is brought up to date. A probe can be wrong by this long, no longer.
REFRESH_S = 0.05

log = structlog.get_logger("kvstore.health")


class HealthWatch:
    """Keeps the health service true; ``""`` and ``kvstore.v1.KV`` both answer for KV."""

    def __init__(self, can_serve: Callable[[], bool]) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._can_serve = can_serve
        self._serving: bool | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._refresh()
        self._task = asyncio.create_task(self._watch(), name="health")

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
        serving = self._can_serve()
        if serving == self._serving:
            return
        self._serving = serving
        status = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if serving else status.NOT_SERVING
        for service in ("", KV_SERVICE):
            await self.servicer.set(service, value)
        log.info("serving" if serving else "not serving: no leader")
