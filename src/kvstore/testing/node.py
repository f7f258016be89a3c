"""The member of a store in memory: what kvd runs, on a disk in memory and a clock that leaps."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.api.handlers.admin import AdminHandlers, everybody
from kvstore.api.handlers.calls import Forward
from kvstore.api.handlers.etcd.cluster import ClusterMember
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.guard import Guard
from kvstore.api.handlers.kv import KVHandlers
from kvstore.api.handlers.sessions import SessionsHandlers
from kvstore.api.tolerant import tolerant
from kvstore.api.v1 import admin_pb2, admin_pb2_grpc, kv_pb2_grpc, session_pb2_grpc
from kvstore.engine import Options as EngineOptions
from kvstore.errors import Error, InternalError, InvalidArgumentError, UnavailableError
from kvstore.raft import Options as RaftOptions
from kvstore.replica import Group, Replica, ReplicaOptions
from kvstore.replica.ticks import TICK_S
from kvstore.replica.work import AtOnce
from kvstore.server.etcd_services import EtcdServices
from kvstore.server.nodes.backups import Backups, Form
from kvstore.server.nodes.driver import Driver
from kvstore.server.nodes.members import member_status
from kvstore.server.nodes.node import NodeFigures
from kvstore.server.nodes.repairs import repairs_of
from kvstore.service import KVService, Service
from kvstore.service.etcd import EtcdService, cluster_number
from kvstore.service.etcd.auth_tokens import Tokens
from kvstore.service.etcd.leases import Leases
from kvstore.service.etcd.watch_following import Following
from kvstore.testing.channel import Services
from kvstore.testing.logs import keep_off_stdout

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink

__all__ = ["MemoryNode"]

CLUSTER_ID: Final = "memory"
MEMBER: Final = 1

# As of an embedded kvd, whose least TTL of a lease comes of it.
RAFT_OPTIONS: Final = RaftOptions(election_ticks=20, heartbeat_ticks=4)
ENGINE_OPTIONS: Final = EngineOptions(wal=False, write_buffer_size=4 << 20, lru_cache_size=4 << 20)
ELECTION_S: Final = RAFT_OPTIONS.election_ticks * TICK_S

# After a step of the clock that is longer a leader wonders whether it still leads.
STEP_S: Final = ELECTION_S / 4

# What is waited for in real time, at most: it takes some turns of the loop.
PATIENCE_S: Final = 30.0

SERVING: Final = b"\x08\x01"
NOT_SERVING: Final = b"\x08\x02"


class MemoryNode:
    """A :class:`kvstore.server.nodes.node.Node` without threads, files or sockets."""

    mode = "memory"
    quota_bytes = 0
    no_etcd = ""

    def __init__(self, disk: MemoryFileSystem, clock: Callable[[], float]) -> None:
        """Open what is on ``disk``, on the running event loop.

        ``clock``: in seconds, of leases, tokens and what the log says of time. What calls have of
        time goes by the real one.
        """
        keep_off_stdout()
        now = time.monotonic
        loop = asyncio.get_running_loop()
        self._driver = driver = Driver()
        work = AtOnce()
        rng = random.SystemRandom()
        self._group = group = Group(
            "",
            cluster=CLUSTER_ID,
            wake=driver.wake,
            rng=rng,
            members=1,
            options=ReplicaOptions(raft=RAFT_OPTIONS, engine=ENGINE_OPTIONS, segment_bytes=1 << 20),
            filesystem=disk,
            on_failure=lambda _, error: driver.fail(error),
            threaded=False,
            work=work,
            now=clock,
            later=loop.call_later,
        )
        self._backups = Backups()
        self.service: Service
        self._service = self.service = KVService(
            self._leader_or_reason, now=now, soon=loop.call_soon, work=work
        )
        self.guard = Guard(
            group.leader_replica,
            self._leader_or_reason,
            Tokens(now=clock, clock=time.time, draw=rng.randbytes),
        )
        self.etcd = EtcdService(
            group.leader_replica,
            cluster_id=cluster_number(CLUSTER_ID),
            member_id=MEMBER,
            election_timeout_s=ELECTION_S,
            all_know=lambda level: True,
            now=now,
            soon=loop.call_soon,
            later=loop.call_later,
            work=work,
        )
        self.leases = Leases(self.etcd, now=now, soon=loop.call_soon, clock=clock)
        self.watches = Following(
            self.etcd, now=now, soon=driver.post, work=work, rng=random.Random(rng.getrandbits(64))
        ).hub
        for replica in group.replicas.values():
            replica.listen(self.etcd.told_by(replica))
        self._etcd_services = EtcdServices(self, CLUSTER_ID, Rights(everybody, everybody))
        self.services = self._services()
        driver.start(self._turn, group.tick, self._service.expire, self.etcd.tick)

    def _services(self) -> Services:
        services = Services()
        known = tolerant(services)  # type: ignore[arg-type]  # it registers, as a server does
        kv_pb2_grpc.add_KVServicer_to_server(KVHandlers(self.service, None, self.guard), known)
        session_pb2_grpc.add_SessionsServicer_to_server(
            SessionsHandlers(
                self.service,
                None,
                self.guard,
                numbers_operations=lambda: self.etcd.numbers_requests,
            ),
            known,
        )
        admin_pb2_grpc.add_AdminServicer_to_server(AdminHandlers(self, everybody, ()), known)
        check = grpc.unary_unary_rpc_method_handler(self._health)
        services.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),)
        )
        self._etcd_services.add(services)
        return services

    async def _health(self, request: bytes, context: object) -> bytes:
        return SERVING if self.leader() else NOT_SERVING

    def _turn(self) -> None:
        self._group.turn()
        for replica in self._group.replicas.values():
            if replica.storage_busy:
                replica.sync_storage()

    async def ready(self) -> None:
        """Wait until it serves. Raises InternalError."""
        await self._until(lambda: self.etcd.model_enabled and self.etcd.numbers_requests)

    def tick(self) -> None:
        """The clock has moved by a step: note which leases have run out."""
        self.leases.lessor.tick()

    async def confirm(self) -> None:
        """Let the leader make sure that it leads."""
        confirmed: list[Error | None] = []
        leader = self._group.leader_replica()
        if leader is not None:
            leader.read(confirmed.append)
            await self._until(lambda: bool(confirmed))

    async def settle(self) -> None:
        """Wait until those are gone. Raises InternalError."""
        await self._until(lambda: not self.leases.lessor.is_behind)

    async def _until(self, come: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S
        while not come():
            if self.failed.done():
                raise self.failed.result()
            if loop.time() > end:
                raise InternalError(f"the store in memory isn't ready after {PATIENCE_S:g} s")
            self._group.tick()
            self.etcd.tick()
            await asyncio.sleep(0.001)

    # --- a Node --------------------------------------------------------------------------------

    @property
    def forward(self) -> Forward | None:
        return None

    @property
    def failed(self) -> asyncio.Future[Error]:
        return self._driver.failed

    def _leader_or_reason(self) -> Replica | Error:
        leader = self._group.leader_replica()
        return UnavailableError("no leader yet; try again") if leader is None else leader

    def etcd_members(self, address: str) -> Sequence[ClusterMember]:
        return [ClusterMember(MEMBER, CLUSTER_ID, (), (), is_learner=False)]

    def leader(self) -> int:
        leader = self._group.leader_replica()
        return 0 if leader is None else leader.member

    def storage_trouble(self) -> str:
        leader = self._group.leader_replica()
        return "" if leader is None else leader.storage_trouble

    def member_statuses(self) -> Sequence[admin_pb2.MemberStatus]:
        return [member_status(replica) for replica in self._group.replicas.values()]

    def trace_by(self, traces: TraceSink) -> None:
        pass  # there are no other members

    def figures(self) -> NodeFigures:
        return NodeFigures(tuple(self._group.replicas.values()), self._driver.figures())

    def members(self) -> admin_pb2.MembersResponse:
        _refuse()

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse:
        _refuse()

    async def transfer_leadership(self, to: int) -> int:
        _refuse()

    async def forget_introduction(self, member: int) -> bool:
        _refuse()

    def repair(self, begin: bool) -> admin_pb2.RepairResponse:
        return repairs_of(self._group.replicas.values(), begin=begin)

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        return None

    def exposures(self) -> Mapping[str, str]:
        return {}

    async def hand_over(self) -> int:
        return 0

    def save_snapshot(self, stale: bool, form: Form = iter) -> AsyncGenerator[bytes, None]:
        leader = self._leader_or_reason()
        if isinstance(leader, Error):
            raise leader
        return self._backups.stream(leader, stale, form)

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """The same, also where the event loop is closed already."""
        with contextlib.suppress(RuntimeError):
            self._driver.stop()
        self._etcd_services.close()
        self.etcd.close()
        self.leases.close()
        self._group.close()


def _refuse() -> NoReturn:
    raise InvalidArgumentError("a store in memory has one member, which is itself")
