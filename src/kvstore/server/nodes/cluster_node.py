"""Cluster mode: one member in this process, the others reached over the network."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from kvstore._engine.files.native import PosixFileSystem
from kvstore.addresses import is_loopback
from kvstore.api.handlers.calls import Forward
from kvstore.api.handlers.etcd.cluster import ClusterMember
from kvstore.api.handlers.guard import Guard
from kvstore.api.v1 import admin_pb2
from kvstore.engine import Options as EngineOptions
from kvstore.errors import (
    ConfigurationError,
    CorruptionError,
    Error,
    NotLeaderError,
    UnavailableError,
)
from kvstore.raft import Membership
from kvstore.raft import Options as RaftOptions
from kvstore.replica import Identity, Packet, Replica, ReplicaOptions, WorkerThreads, is_fresh
from kvstore.replica.ticks import ticks_of
from kvstore.server.config.cluster_config import ClusterConfig, Node
from kvstore.server.config.data_directory import MARKER, member_path, refuse_links
from kvstore.server.config.options import ServerOptions
from kvstore.server.exposure import peer_exposures
from kvstore.server.nodes.backups import Backups, Form
from kvstore.server.nodes.comparison import ComparisonReport, raise_alarms
from kvstore.server.nodes.driver import Driver
from kvstore.server.nodes.history import keep_history
from kvstore.server.nodes.members import member_status
from kvstore.server.nodes.node import SWITCHED_OFF, NodeFigures
from kvstore.server.nodes.operators import Operators
from kvstore.server.nodes.publishing import Publishing
from kvstore.server.nodes.quota import watch_quota
from kvstore.server.nodes.repairs import repairs_of
from kvstore.server.nodes.scrub_report import ScrubReport
from kvstore.server.nodes.small_files import SmallFiles, marker_again
from kvstore.server.nodes.storage_report import StorageReport
from kvstore.server.peers.addresses import founding_membership, nodes_of
from kvstore.server.peers.forwarding import Forwarder
from kvstore.server.peers.identity import FILE as IDENTITY_FILE
from kvstore.server.peers.identity import (
    MemberIdentity,
    Stage,
    lost_log,
    reach_stage,
    save_identity,
    start_identity,
)
from kvstore.server.peers.introductions import (
    COMPARES,
    FEATURES,
    LENDS,
    MENDS,
    Introductions,
)
from kvstore.server.peers.leasing import AskingLeader
from kvstore.server.peers.noting import judged
from kvstore.server.peers.proposing import PassingOn
from kvstore.server.peers.pulse_thread import PulseThread
from kvstore.server.peers.pulses import Pulses
from kvstore.server.peers.registration import register
from kvstore.server.peers.registry import FILE as PEERS_FILE
from kvstore.server.peers.registry import PeerRegistry
from kvstore.server.peers.secret import read_secret
from kvstore.server.peers.transport import PeerTransport
from kvstore.server.peers.wire import choose_wire
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.service import KVService, Service
from kvstore.service.etcd import EtcdService, cluster_number
from kvstore.service.etcd.auth_tokens import new_tokens
from kvstore.service.etcd.leases import Leases
from kvstore.service.etcd.watch_following import Following

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink

__all__ = ["ClusterNode", "open_cluster_node", "tell_lost_memory"]

ENGINE_OPTIONS = EngineOptions(wal=False, write_buffer_size=64 << 20, lru_cache_size=256 << 20)
SEGMENT_BYTES = 64 << 20

# What a follower that is behind may be sent at once: while it is encoded nobody else is served.
INFLIGHT_BYTES_MAX = 8 << 20

# A member whose loop is held up counts as alive for so long after its last message. One that hangs
# for longer serves nobody, and can't lead.
PULSE_GRACE_S = 4.0

# From a failure to the end of the process: what was queued for peers and clients goes out.
LAST_WORDS_S = 0.1
# How long the leader may take for what a member has to say of itself.
SAYING_S = 10.0

ADVICE_ALONE = (
    "no other voter has what is damaged, so it can't be repaired: begin anew with a backup, 'kvctl "
    "snapshot restore'"
)

_DISK = PosixFileSystem()

log = structlog.get_logger("kvstore.cluster")


async def open_cluster_node(
    config: ClusterConfig, options: ServerOptions, directory: Path
) -> ClusterNode:
    """Open the member below ``directory`` and let it talk to the others.

    A founder that starts for the first time waits here until a majority of the founders knows it
    (``peer_registration``). Raises ConfigurationError, CorruptionError, StorageError.
    """
    identity = start_identity(directory, config)
    refuse_links(member_path(directory, config.self_id))
    _refuse_lost_log(directory, identity)
    tell_lost_memory(directory, identity, config)
    members = [node.node_id for node in config.nodes]
    secret = None if config.peer_secret_file is None else read_secret(config.peer_secret_file)
    pulses = Pulses(identity.member)
    registry = PeerRegistry(directory, identity.incarnation)
    introductions = Introductions(identity, registry, members, secret, pulses)
    level = log.warning if is_loopback(config.peer_addr) else log.error
    for what, text in peer_exposures(config).items():
        level("exposed", what=what, reason=text)
    certificates = None
    if config.peer_tls is not None:
        tls = config.peer_tls
        certificates = CertificateFiles(cert=tls.cert, key=tls.key, ca=tls.ca)
    node = ClusterNode(config, directory, introductions, certificates, pulses, options)
    try:
        await node.join_others()
    except BaseException:
        await node.close()
        raise
    return node


def _refuse_lost_log(directory: Path, identity: MemberIdentity) -> None:
    """A member whose log is gone has forgotten its votes: it must not begin a new one."""
    if identity.stage is Stage.MEMBER and is_fresh(_DISK, member_path(directory, identity.member)):
        raise lost_log(directory, identity)


def tell_lost_memory(directory: Path, identity: MemberIdentity, config: ClusterConfig) -> None:
    """Say that the list of the others' directories is gone: they tell it anew as they are met.

    Until then this member would take one of them that was wiped for what it says it is.
    """
    registry = directory / PEERS_FILE
    if identity.stage is Stage.MEMBER and len(config.nodes) > 1 and not registry.exists():
        log.warning("the memory of the other members is gone", path=str(registry))


class ClusterNode:
    """A :class:`kvstore.server.nodes.node.Node` of one member."""

    mode = "cluster-node"

    def __init__(
        self,
        config: ClusterConfig,
        directory: Path,
        introductions: Introductions,
        certificates: CertificateFiles | None,
        pulses: Pulses,
        options: ServerOptions,
    ) -> None:
        """Take the peer address. Raises ConfigurationError when it can't be had."""
        self._config = config
        self._options = options
        self._directory = directory
        self._introductions = introductions
        self._certificates = certificates
        self._loop = asyncio.get_running_loop()
        self._driver = Driver(config.heartbeat_ms / 1000)
        self._work = WorkerThreads(self._driver.post)
        introductions.registry.save_aside(self._work)
        self._replica: Replica | None = None
        self._transport = PeerTransport(
            introductions,
            certificates,
            self._receive,
            self._lost,
            self._told_of_removal,
            self._driver.fail,
            wire=choose_wire(options.front),
            snapshot_bytes_per_s=config.snapshot_mib_per_s << 20,
        )
        self._nodes: Mapping[int, Node] = {node.node_id: node for node in config.nodes}
        self._membership = Membership()
        self._say_removed: set[int] = set()
        self._leave: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self._settled = Membership()
        self._leaving = frozenset[int]()
        self.peer_address = self._transport.bind(config.peer_addr)
        self._pulses = pulses
        self._pulse_thread = PulseThread(pulses, config.heartbeat_ms / 1000)
        # One that has failed leads nobody, however long it takes to end.
        self._driver.failed.add_done_callback(lambda _: pulses.stand(0, 0))
        self._operators = Operators(self._self_or_reason)
        own = config.node(config.self_id)
        self._publishing = None if own is None else Publishing(own, self._ask_for_itself)
        self._backups = Backups()
        self.service: Service
        self._service = self.service = KVService(
            self._self_or_reason,
            now=time.monotonic,
            soon=self._loop.call_soon,
            later=self._loop.call_later,
            work=self._work,
        )
        self.guard = Guard(lambda: self._replica, self._self_or_reason, new_tokens())
        self._transport.answer_forwarded(self.service, self, self.guard.of_forwarded())
        self._forwarder = Forwarder(introductions, self._transport.dialler, self._peer_address_of)
        self.etcd = EtcdService(
            lambda: self._replica,
            cluster_id=cluster_number(config.cluster_id),
            member_id=config.self_id,
            election_timeout_s=config.election_timeout_ms / 1000,
            all_know=self._all_know,
            now=time.monotonic,
            soon=self._loop.call_soon,
            later=self._loop.call_later,
            work=self._work,
            pass_on=PassingOn(self._forwarder),
        )
        owner = str(introductions.identity.incarnation)
        keep_history(self.etcd, self._options, directory, owner, self._work)
        self._quota = watch_quota(self.etcd, self._options, self._work, self._votes_alone)
        raise_alarms(self.etcd, self._replicas)
        self.leases = Leases(
            self.etcd,
            now=time.monotonic,
            soon=self._loop.call_soon,
            ask_leader=AskingLeader(self._forwarder),
        )
        self._transport.answer_proposals(self.etcd.take)
        self._transport.answer_lease_questions(self.leases.calls.answer)
        self.watches = Following(
            self.etcd,
            now=time.monotonic,
            soon=self._driver.post,
            work=self._work,
            rng=random.SystemRandom(),
        ).hub

    def _all_know(self, level: int) -> bool:
        """Each member is known to understand that level of the state."""
        members = self._membership.members
        return (
            self._options.etcd_api
            and bool(members)
            and self._introductions.all_have(FEATURES[level - 1], members)
        )

    def _votes_alone(self) -> bool:
        membership = self._membership
        return membership.voters | membership.outgoing == {self._config.self_id}

    def etcd_members(self, address: str) -> Sequence[ClusterMember]:
        clients = "https" if self._options.tls_profile == "secure" else "http"
        peers = "http" if self._config.peer_tls is None else "https"
        return [
            ClusterMember(
                member,
                f"{self._config.cluster_id}-{member}" if has_begun else "",
                (f"{peers}://{node.peer_addr}",),
                (f"{clients}://{node.client_addr}",) if has_begun else (),
                member in self._membership.learners,
            )
            for member, node in sorted(self._nodes.items())
            if member in self._membership.members
            # Else it has yet to say where clients reach it.
            for has_begun in (node.client_addr != node.peer_addr,)
        ]

    @property
    def no_etcd(self) -> str:
        return SWITCHED_OFF

    @property
    def quota_bytes(self) -> int:
        return self._options.quota_mib << 20

    @property
    def forward(self) -> Forward | None:
        return self._forwarder.forward if self._config.forward else None

    def _peer_address_of(self, member: int) -> str | None:
        node = self._nodes.get(member)
        return None if node is None else node.peer_addr

    async def join_others(self) -> None:
        """Talk to the other members, and open the replica as soon as it may."""
        introductions = self._introductions
        await self._transport.start()
        others = self._others()
        self._pulse_thread.follow(others)
        self._pulse_thread.start(self.peer_address)
        if introductions.identity.stage is Stage.REGISTERING:
            await register(introductions, self._transport.dialler, others)
            self._reach(Stage.FOUNDING)
        self._transport.update_members(others)
        self._open_replica()
        self._reach(Stage.MEMBER)

    def _reach(self, stage: Stage) -> None:
        if self._introductions.identity.stage is not stage:
            self._introductions.identity = reach_stage(
                self._directory, self._introductions.identity, stage
            )

    def _others(self) -> dict[int, str]:
        """The peer addresses of all members but this one."""
        return {
            member: node.peer_addr
            for member, node in self._nodes.items()
            if member != self._config.self_id
        }

    def _open_replica(self) -> None:
        config = self._config
        founders = None
        if self._introductions.identity.stage is Stage.FOUNDING:
            founders = founding_membership(config.nodes)
        tick_s = config.heartbeat_ms / 1000
        ticks = round(config.election_timeout_ms / config.heartbeat_ms)
        self._replica = replica = Replica(
            Identity(config.cluster_id, config.self_id),
            member_path(self._directory, config.self_id),
            self._transport,
            options=ReplicaOptions(
                raft=RaftOptions(
                    election_ticks=ticks,
                    inflight_bytes_max=INFLIGHT_BYTES_MAX,
                    heartbeat_ticks=1,
                    pulse_ticks=ticks_of(PULSE_GRACE_S, tick_s),
                ),
                engine=ENGINE_OPTIONS,
                segment_bytes=SEGMENT_BYTES,
                log_tail_bytes=config.log_tail_mib << 20,
                catch_up_bytes_per_s=config.snapshot_mib_per_s << 20,
                tick_s=tick_s,
                scrub_round_s=self._options.scrub_round_hours * 3600.0,
            ),
            rng=random.SystemRandom(),
            wake=self._driver.wake,
            founders=founders,
            on_failure=self._member_failed,
            work=self._work,
            judge_membership=nodes_of,
            later=self._loop.call_later,
            understands_probes=lambda member: self._introductions.all_have(COMPARES, (member,)),
            understands_mending=lambda member: self._introductions.all_have(MENDS, (member,)),
            understands_lending=lambda member: self._introductions.all_have(LENDS, (member,)),
        )
        self._driver.watch(replica.notify_fd, replica.storage_ready)
        replica.listen(self.etcd.told_by(replica))
        reports = (
            StorageReport(self._replicas),
            ComparisonReport(self._replicas),
            ScrubReport(self._replicas, self._small_files(replica).check),
        )
        self._driver.start(
            self._turn,
            self._tick,
            *(report.tick for report in reports),
            self._service.expire,
            self.etcd.tick,
        )
        log.info(
            "member opened",
            cluster=config.cluster_id,
            member=config.self_id,
            peer_address=self.peer_address,
            applied=replica.machine.applied_index,
        )

    def _small_files(self, replica: Replica) -> SmallFiles:
        directory, introductions = self._directory, self._introductions
        rewrite: dict[str, Callable[[], None]] = {
            MARKER: marker_again(directory, self.mode),
            IDENTITY_FILE: lambda: save_identity(directory, introductions.identity),
        }
        if introductions.registry.known():
            rewrite[PEERS_FILE] = introductions.registry.rewrite
        return SmallFiles(directory, self._work, rewrite, replica.scrub.found_beside)

    # --- driving it ------------------------------------------------------------------------------

    def _tick(self) -> None:
        replica = self._replica
        assert replica is not None
        # First what was heard while this loop was held up: of that nobody is to suffer.
        for member, term in self._pulses.take().items():
            replica.pulse(member, term)
        replica.tick()
        self._introductions.registry.save_again()
        self._pulse_thread.look_up()

    def _turn(self) -> None:
        replica = self._replica
        assert replica is not None
        replica.turn()
        self._pulses.stand(replica.term, replica.leader)
        membership = replica.membership
        leaving = replica.leaving
        if membership.members and (membership is not self._membership or leaving != self._leaving):
            self._follow(membership, leaving)
        if self._membership is not self._settled and replica.membership_is_committed:
            self._settle()

    def _follow(self, membership: Membership, leaving: frozenset[int]) -> None:
        """Talk to the members of the newest configuration, and to those that leave by it."""
        nodes = dict(nodes_of(membership))
        others = {member: node.peer_addr for member, node in nodes.items()}
        others |= {
            member: self._nodes[member].peer_addr
            for member in leaving - nodes.keys()
            if member in self._nodes
        }
        others.pop(self._config.self_id, None)
        # Where they are reached, for as long as they are told.
        nodes |= {m: self._nodes[m] for m in others.keys() - nodes.keys()}
        self._membership, self._leaving, self._nodes = membership, leaving, nodes
        self._introductions.follow(membership.members)
        self._transport.update_members(others)
        self._pulse_thread.follow(others)
        self._settled = Membership()
        if self._publishing is not None:
            self._publishing.follow(membership)

    def _settle(self) -> None:
        """The configuration holds for good: whoever isn't in it any more never comes back."""
        membership = self._settled = self._membership
        registry = self._introductions.registry
        gone = [
            member
            for member in sorted(membership.removed - self._leaving)
            if not registry.is_removed(member)
        ]
        if gone:
            log.info("members removed", members=gone)
            registry.remove(gone)
        if self._config.self_id in membership.removed:
            self._stop_removed()

    def _told_of_removal(self, peer: int) -> None:
        """A member says that this one was removed: it was away when that was committed.

        It is believed once a majority of the other voters says so: one of them could lie.
        """
        self._say_removed.add(peer)
        voters = self._membership.voters | self._membership.outgoing
        others = (voters or frozenset(self._nodes)) - {self._config.self_id}
        if len(others & self._say_removed) > len(others) // 2:
            self._stop_removed()

    def _stop_removed(self) -> None:
        """End, with a clear line. Not at once: a leader that took itself out has to say so to the
        others, and which of them is to lead next."""
        if self._leave is not None:
            return
        config = self._config
        log.warning("this member was removed: stopping", member=config.self_id)
        error = ConfigurationError(
            f"member {config.self_id} was removed from cluster {config.cluster_id!r}; its id can't "
            f"come back: add a member under a new id, with an empty data_dir "
            f"({config.data_dir} holds what the removed one had)"
        )
        delay_s = 2 * config.election_timeout_ms / 1000
        self._leave = self._loop.call_later(delay_s, self._driver.fail, error)

    def _member_failed(self, error: Error) -> None:
        """End, but only once those who wait for an answer, and who is to lead next, were told."""
        is_lost = isinstance(error, CorruptionError) and self._votes_alone()
        log.error(
            "this member has stopped",
            member=self._config.self_id,
            reason=str(error),
            advice=ADVICE_ALONE if is_lost else "",
        )
        self._last_words = self._loop.call_later(LAST_WORDS_S, self._driver.fail, error)

    def _receive(self, packets: Sequence[Packet]) -> None:
        if self._replica is not None:
            self._replica.receive(packets)

    def _lost(self, peer: int) -> None:
        # Possibly from within a send: the core isn't to be entered twice.
        if self._replica is not None:
            self._loop.call_soon(self._replica.unreachable, peer)

    # --- what it is ------------------------------------------------------------------------------

    @property
    def failed(self) -> asyncio.Future[Error]:
        return self._driver.failed

    def leader(self) -> int:
        """The leader that this member hears, or is: who isn't it says where it is."""
        replica = self._replica
        if replica is None or not replica.has_quorum_contact:
            return 0
        return replica.leader

    def storage_trouble(self) -> str:
        return "" if self._replica is None else self._replica.storage_trouble

    def member_statuses(self) -> Sequence[admin_pb2.MemberStatus]:
        if self._replica is None:
            return []
        own = self._nodes.get(self._config.self_id)
        return [
            member_status(
                self._replica,
                client_address="" if own is None else own.client_addr,
                peer_address="" if own is None else own.peer_addr,
            )
        ]

    def _replicas(self) -> Sequence[Replica]:
        return () if self._replica is None else (self._replica,)

    def trace_by(self, traces: TraceSink) -> None:
        self._transport.trace_by(traces)

    def figures(self) -> NodeFigures:
        return NodeFigures(
            self._replicas(),
            self._driver.figures(),
            {peer: link.figures() for peer, link in self._transport.links().items()},
            {} if self._certificates is None else {"peer": self._certificates},
            tuple(self.exposures()),
            self._pulse_thread.figures(),
            leases=self.leases.figures(),
            watches=self.watches.figures(),
            quota=self._quota.figures(),
            waiting={"kvstore": self._service.waiting, "etcd": self.etcd.waiting},
            saved_at=self._backups.saved_at,
        )

    def _self_or_reason(self) -> Replica | Error:
        replica = self._replica
        if replica is None or not replica.has_quorum_contact:
            return UnavailableError("no leader, or no contact with a majority; try again")
        if replica.is_leader:
            return replica
        leader = self._nodes.get(replica.leader)
        return NotLeaderError(replica.leader, None if leader is None else leader.client_addr)

    def members(self) -> admin_pb2.MembersResponse:
        return self._operators.members()

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse:
        return await self._operators.change(request)

    async def _ask_for_itself(self, request: admin_pb2.ChangeMembersRequest) -> None:
        """Have the leader change what concerns this member; the answer says nothing new."""
        try:
            await self.change_members(request)
        except NotLeaderError as error:
            await self.forward_admin("ChangeMembers", request, error.leader, SAYING_S)

    async def transfer_leadership(self, to: int) -> int:
        return await self._operators.transfer(to)

    async def forget_introduction(self, member: int) -> bool:
        registry = self._introductions.registry
        known = registry.knows(member)
        await judged(registry, partial(registry.forget, member))
        log.warning("introduction forgotten at an operator's wish", member=member, known=known)
        return known

    def repair(self, begin: bool) -> admin_pb2.RepairResponse:
        if self._replica is None:
            raise UnavailableError("this member is starting; try again")
        return repairs_of((self._replica,), begin=begin)

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        return await self._forwarder.forward(method, request, leader, timeout_s, ())

    def exposures(self) -> Mapping[str, str]:
        return peer_exposures(self._config)

    async def hand_over(self) -> int:
        replica = self._replica
        if replica is None or not replica.is_leader:
            return 0
        if replica.membership.voters == {replica.member}:
            return 0
        return await self._operators.transfer(0)

    def save_snapshot(self, stale: bool, form: Form = iter) -> AsyncGenerator[bytes, None]:
        if self._replica is None:
            raise UnavailableError("this member is starting; try again")
        return self._backups.stream(self._replica, stale, form)

    async def close(self) -> None:
        for timer in (self._leave, self._last_words):
            if timer is not None:
                timer.cancel()
        if self._publishing is not None:
            self._publishing.close()
        self._driver.stop()
        self.etcd.close()
        self.leases.close()
        self._pulse_thread.close()
        await self._forwarder.close()
        await self._transport.close()
        self._work.close()
        if self._replica is not None:
            self._replica.close()
