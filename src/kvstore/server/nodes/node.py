"""What a process serves: one member of a cluster, all five of an embedded one, or a pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from kvstore.api.handlers.calls import Forward
from kvstore.api.handlers.etcd.cluster import ClusterMember
from kvstore.api.handlers.guard import Guard
from kvstore.api.v1 import admin_pb2
from kvstore.beyond.rados import RadosFigures
from kvstore.errors import Error
from kvstore.replica import Replica
from kvstore.server.nodes.backups import Form
from kvstore.server.nodes.driver import LoopFigures
from kvstore.server.peers.link import LinkFigures
from kvstore.server.peers.pulse_thread import PulseFigures
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.hub import HubFigures, WatchHub
from kvstore.service.etcd.leases import LeaseFigures, Leases
from kvstore.service.etcd.quota import QuotaFigures
from kvstore.service.operations import Service

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink


SWITCHED_OFF: Final = "etcd's API is switched off on this server (--etcd_api=false)"


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What metrics are made of. ``links``: streams to peers by member; ``certificates``: by use;
    ``exposed``: what is open to whoever reaches it; ``pulses``, ``watches``, ``leases``,
    ``quota``: None where there are none. ``waiting``: unanswered calls, by API. ``saved_at``:
    when a backup was last taken whole since the start, in seconds since 1970; 0 for never.
    ``rados``: of a gateway."""

    replicas: Sequence[Replica]
    loop: LoopFigures
    links: Mapping[int, LinkFigures] = field(default_factory=dict)
    certificates: Mapping[str, CertificateFiles] = field(default_factory=dict)
    exposed: Sequence[str] = ()
    pulses: PulseFigures | None = None
    watches: HubFigures | None = None
    leases: LeaseFigures | None = None
    quota: QuotaFigures | None = None
    waiting: Mapping[str, int] = field(default_factory=dict)
    saved_at: float = 0.0
    rados: RadosFigures | None = None


class Node(Protocol):
    """The members of this process, running. Used on the event loop's thread only."""

    @property
    def mode(self) -> str:
        """``embedded``, ``cluster-node`` or ``rados``."""

    @property
    def service(self) -> Service:
        """Where the calls of clients go."""

    @property
    def guard(self) -> Guard:
        """Who of them may do what."""

    @property
    def no_etcd(self) -> str:
        """Why etcd's API isn't served, where it isn't."""

    @property
    def etcd(self) -> EtcdService:
        """Where the calls of etcd's API go; asked only where that is served."""

    @property
    def leases(self) -> Leases:
        """Which leases live, and calls about that."""

    @property
    def watches(self) -> WatchHub:
        """All watches of that API."""

    def etcd_members(self, address: str) -> Sequence[ClusterMember]:
        """Who belongs to the cluster, to clients of that API; ``address``: where this process
        listens for them."""

    @property
    def quota_bytes(self) -> int:
        """Beyond which the store takes no puts; 0 for no bound."""

    @property
    def forward(self) -> Forward | None:
        """Passes calls on that :attr:`service` leaves to another member; None: nobody does."""

    @property
    def failed(self) -> asyncio.Future[Error]:
        """Done, with the reason as its result, when the process must stop: a failed disk."""

    def leader(self) -> int:
        """The member that leads and can serve through :attr:`service`; 0 when there is none."""

    def storage_trouble(self) -> str:
        """Why the storage of the member that would serve takes no writes; empty when it does."""

    def member_statuses(self) -> Sequence[admin_pb2.MemberStatus]:
        """What each member here has to say."""

    def trace_by(self, traces: TraceSink) -> None:
        """Have ``traces`` hear of the calls that other members pass on to this one."""

    def figures(self) -> NodeFigures:
        """This moment, for metrics; takes no time and no disk."""

    def members(self) -> admin_pb2.MembersResponse:
        """Who belongs to the cluster. This and the next two raise what ``Operators`` raises."""

    async def change_members(
        self, request: admin_pb2.ChangeMembersRequest
    ) -> admin_pb2.MembersResponse:
        """Add, promote or remove a member, and wait until that is committed."""

    async def transfer_leadership(self, to: int) -> int:
        """Hand leadership over, and wait for the one who leads then."""

    async def forget_introduction(self, member: int) -> bool:
        """Forget what is remembered of a member's directory; False when nothing was.

        Raises InvalidArgumentError, StorageError.
        """

    def repair(self, begin: bool) -> admin_pb2.RepairResponse:
        """What its members repair; ``begin``: they check all that they hold, from now on.

        Raises UnavailableError.
        """

    async def forward_admin(self, method: str, request: Any, leader: int, timeout_s: float) -> Any:
        """What ``leader`` says to an operator's call; a Failure, or None if it can't be asked."""

    def exposures(self) -> Mapping[str, str]:
        """What its own ports are open to, by what, in words for operators."""

    async def hand_over(self) -> int:
        """Before the end: let another lead. Returns who does then, 0 if this one led nobody.

        Raises UnavailableError when nobody can take over, or does in time.
        """

    def save_snapshot(self, stale: bool, form: Form = iter) -> AsyncGenerator[bytes, None]:
        """A backup file's bytes; see ``Backups.stream``. Raises UnavailableError."""

    async def close(self) -> None:
        """Stop the members and close their files. Nothing acknowledged depends on it."""
