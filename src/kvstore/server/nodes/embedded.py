"""Embedded mode: five replicas in this process, talking through memory."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from kvstore.addresses import dialled
from kvstore.api.handlers.calls import Forward
from kvstore.api.handlers.etcd.cluster import ClusterMember
from kvstore.api.handlers.guard import Guard
from kvstore.api.v1 import admin_pb2
from kvstore.engine import Options as EngineOptions
from kvstore.errors import Error, StorageError, UnavailableError
from kvstore.raft import Options as RaftOptions
from kvstore.replica import Group, Replica, ReplicaOptions, WorkerThreads
from kvstore.replica.ticks import TICK_S
from kvstore.server.config.data_directory import MARKER, member_path, refuse_links
from kvstore.server.config.options import ServerOptions
from kvstore.server.nodes.backups import Backups, Form
from kvstore.server.nodes.comparison import ComparisonReport, raise_alarms
from kvstore.server.nodes.driver import Driver
from kvstore.server.nodes.history import keep_history
from kvstore.server.nodes.members import member_status
from kvstore.server.nodes.node import SWITCHED_OFF, NodeFigures
from kvstore.server.nodes.operators import refuse_embedded
from kvstore.server.nodes.quota import watch_quota
from kvstore.server.nodes.repairs import repairs_of
from kvstore.server.nodes.scrub_report import ScrubReport
from kvstore.server.nodes.small_files import SmallFiles, marker_again
from kvstore.server.nodes.storage_report import StorageReport
from kvstore.service import KVService, Service
from kvstore.service.etcd import EtcdService, cluster_number
from kvstore.service.etcd.auth_tokens import new_tokens
from kvstore.service.etcd.leases import Leases
from kvstore.service.etcd.watch_following import Following

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink

__all__ = ["EmbeddedNode", "open_embedded"]

MEMBERS = 5
CLUSTER_ID = "embedded"

# To clients of etcd's API the five are one: there is one address, and who asks a member for what it
# holds must ask the same one again.
ETCD_MEMBER = 1

# Ticks are driver.TICK_S long. The members share a process, so silence means a stopped member and
# never a slow network; long timeouts cost nothing, and the first leader is not waited for (Group
# lets the member that knows most stand at once).
RAFT_OPTIONS = RaftOptions(election_ticks=20, heartbeat_ticks=4)
ENGINE_OPTIONS = EngineOptions(wal=False, write_buffer_size=16 << 20, lru_cache_size=32 << 20)
ADVICE = (
    "before a restart, which may refuse that member's files: kvctl --dir DATA snapshot save FILE, "
    "then kvctl snapshot restore FILE --data-dir NEW"
)
"""No member of an embedded kvd can be replaced by itself."""

log = structlog.get_logger("kvstore.embedded")


async def open_embedded(options: ServerOptions, directory: Path) -> EmbeddedNode:
    """Open the five members below ``directory``; raises what :class:`Group` raises."""
    for member in range(1, MEMBERS + 1):
        refuse_links(member_path(directory, member))
    return EmbeddedNode(directory, options)


class EmbeddedNode:
    """A :class:`kvstore.server.nodes.node.Node` of five members."""

    mode = "embedded"

    def __init__(self, directory: Path, options: ServerOptions) -> None:
        self._options = options
        self._driver = driver = Driver()
        self._stopped: set[int] = set()
        self._work = WorkerThreads(driver.post)
        rng = random.SystemRandom()
        loop = asyncio.get_running_loop()
        self._group = group = Group(
            str(directory),
            cluster=CLUSTER_ID,
            wake=driver.wake,
            rng=rng,
            members=MEMBERS,
            options=ReplicaOptions(
                raft=RAFT_OPTIONS,
                engine=ENGINE_OPTIONS,
                scrub_round_s=options.scrub_round_hours * 3600.0,
            ),
            on_failure=self._member_failed,
            work=self._work,
            later=loop.call_later,
        )
        self._backups = Backups()
        self.service: Service
        self._service = self.service = KVService(
            self._leader_or_reason,
            now=time.monotonic,
            soon=loop.call_soon,
            later=loop.call_later,
            work=self._work,
        )
        self.guard = Guard(group.leader_replica, self._leader_or_reason, new_tokens())
        self.etcd = EtcdService(
            group.leader_replica,
            cluster_id=cluster_number(CLUSTER_ID),
            member_id=ETCD_MEMBER,
            election_timeout_s=RAFT_OPTIONS.election_ticks * TICK_S,
            all_know=lambda level: options.etcd_api,
            now=time.monotonic,
            soon=loop.call_soon,
            later=loop.call_later,
            work=self._work,
        )
        keep_history(self.etcd, options, directory, group.replicas[1].log_id.hex(), self._work)
        self._quota = watch_quota(self.etcd, options, self._work, lambda: True)
        raise_alarms(self.etcd, group.replicas.values)
        self.leases = Leases(self.etcd, now=time.monotonic, soon=loop.call_soon)
        self.watches = Following(
            self.etcd, now=time.monotonic, soon=driver.post, work=self._work, rng=rng
        ).hub
        for replica in group.replicas.values():
            driver.watch(replica.notify_fd, replica.storage_ready)
            replica.listen(self.etcd.told_by(replica))
        replicas = group.replicas.values
        found = group.replicas[1].scrub.found_beside
        marker = {MARKER: marker_again(directory, self.mode)}
        small_files = SmallFiles(directory, self._work, marker, found)
        reports = (
            StorageReport(replicas),
            ComparisonReport(replicas),
            ScrubReport(replicas, small_files.check),
        )
        driver.start(
            group.turn,
            group.tick,
            *(report.tick for report in reports),
            self._service.expire,
            self.etcd.tick,
        )

    def _member_failed(self, member: int, error: Error) -> None:
        """A member's storage failed, or its state is damaged: the others go on without it.

        Each syncs files of its own, so what the others acknowledge is as durable as before. It all
        ends with the last majority, and at once for a defect, which any of them may have.
        """
        self._stopped.add(member)
        left = MEMBERS - len(self._stopped)
        goes_on = left > MEMBERS // 2 and isinstance(error, StorageError)
        advice = ADVICE if goes_on else ""
        log.error(
            "a member has stopped", member=member, reason=str(error), left=left, advice=advice
        )
        if not goes_on:
            self._driver.fail(error)

    def etcd_members(self, address: str) -> Sequence[ClusterMember]:
        scheme = "https" if self._options.tls_profile == "secure" else "http"
        url = f"{scheme}://{dialled(address)}"
        return [ClusterMember(ETCD_MEMBER, CLUSTER_ID, (), (url,), is_learner=False)]

    @property
    def no_etcd(self) -> str:
        return SWITCHED_OFF

    @property
    def quota_bytes(self) -> int:
        return self._options.quota_mib << 20

    @property
    def forward(self) -> Forward | None:
        return None  # every member is here

    @property
    def failed(self) -> asyncio.Future[Error]:
        return self._driver.failed

    def leader(self) -> int:
        leader = self._group.leader_replica()
        return 0 if leader is None else leader.member

    def storage_trouble(self) -> str:
        leader = self._group.leader_replica()
        return "" if leader is None else leader.storage_trouble

    def member_statuses(self) -> Sequence[admin_pb2.MemberStatus]:
        return [member_status(replica) for replica in self._group.replicas.values()]

    def trace_by(self, traces: TraceSink) -> None:
        pass  # clients' calls come by no other way than the listener of clients

    def figures(self) -> NodeFigures:
        return NodeFigures(
            tuple(self._group.replicas.values()),
            self._driver.figures(),
            leases=self.leases.figures(),
            watches=self.watches.figures(),
            quota=self._quota.figures(),
            waiting={"kvstore": self._service.waiting, "etcd": self.etcd.waiting},
            saved_at=self._backups.saved_at,
        )

    def _leader_or_reason(self) -> Replica | Error:
        leader = self._group.leader_replica()
        return UnavailableError("no leader yet; try again") if leader is None else leader

    def members(self) -> admin_pb2.MembersResponse:
        """All of them, at no addresses of their own. Raises UnavailableError without a leader."""
        leader = self._leader_or_reason()
        if isinstance(leader, Error):
            raise leader
        members = [admin_pb2.Member(member_id=member) for member in sorted(self._group.replicas)]
        return admin_pb2.MembersResponse(members=members, leader_id=leader.member)

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse:
        refuse_embedded()

    async def transfer_leadership(self, to: int) -> int:
        refuse_embedded()

    async def forget_introduction(self, member: int) -> bool:
        refuse_embedded()

    def repair(self, begin: bool) -> admin_pb2.RepairResponse:
        return repairs_of(self._group.replicas.values(), begin=begin)

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        return None  # every member is here

    def exposures(self) -> Mapping[str, str]:
        return {}

    async def hand_over(self) -> int:
        return 0  # all of them stop together

    def save_snapshot(self, stale: bool, form: Form = iter) -> AsyncGenerator[bytes, None]:
        # All five stop together: what any of them holds is the leader's as well.
        leader = self._leader_or_reason()
        if isinstance(leader, Error):
            raise leader
        return self._backups.stream(leader, stale, form)

    async def close(self) -> None:
        self._driver.stop()
        self.etcd.close()
        self.leases.close()
        self._work.close()
        self._group.close()
