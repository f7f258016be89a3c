"""The transport between members over gRPC: a link out to each, one listener in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING

from kvstore.api.handlers.admin import Node as AdminNode
from kvstore.api.handlers.guard import Guard
from kvstore.api.tolerant import tolerant
from kvstore.api.v1 import (
    admin_pb2_grpc,
    kv_pb2_grpc,
    leases_pb2_grpc,
    proposals_pb2_grpc,
    session_pb2_grpc,
)
from kvstore.errors import Error
from kvstore.raft.messages import Message
from kvstore.replica.packets import Encoder, Packet, SnapshotPart
from kvstore.server.long_lived import long_lived
from kvstore.server.peers.forwarding import ForwardedAdmin, ForwardedCalls, ForwardedSessions
from kvstore.server.peers.handlers import PeerHandlers, Receive
from kvstore.server.peers.introductions import Introductions
from kvstore.server.peers.leasing import AnswerQuestions, LeaseHandlers
from kvstore.server.peers.link import PeerLink
from kvstore.server.peers.proposing import ProposalHandlers, Take
from kvstore.server.peers.snapshots import SnapshotLane
from kvstore.server.peers.unary import UnaryCalls
from kvstore.server.peers.wire import PeerWire
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.service import Service

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink


class PeerTransport:
    """Carries packets of the replica. Used on the event loop's thread only.

    ``receive`` takes what peers sent, ``lost`` the id of a peer that messages were lost to,
    ``removed`` the id of one that says that this member was taken out of the cluster. ``lost`` may
    be called from within :meth:`send`. ``failed`` is told of a defect of what lives as long as it.
    """

    def __init__(
        self,
        introductions: Introductions,
        certificates: CertificateFiles | None,
        receive: Receive,
        lost: Callable[[int], None],
        removed: Callable[[int], None],
        failed: Callable[[Error], None],
        *,
        wire: PeerWire,
        snapshot_bytes_per_s: int,
    ) -> None:
        self._introductions = introductions
        self._certificates = certificates
        self._lost = lost
        self._removed = removed
        self._failed = failed
        self._unary = UnaryCalls()
        self._links: dict[int, PeerLink] = {}
        self._lanes: dict[int, SnapshotLane] = {}
        self._snapshot_bytes_per_s = snapshot_bytes_per_s
        self._closing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self.dialler = wire.dialler(introductions.identity.cluster_id, certificates)
        self._server = wire.server(certificates)
        self._handlers = PeerHandlers(
            introductions,
            receive,
            self._unary,
            None if certificates is None else certificates.handshakes,
        )
        self._handlers.register(self._server.services)

    def answer_forwarded(
        self, service: Service, node: AdminNode | None = None, guard: Guard | None = None
    ) -> None:
        """Let ``service`` answer the clients' calls that followers pass on, as far as ``guard``
        lets it, and ``node`` those of operators. To be called before :meth:`start`."""
        admit = self._handlers.admit_member
        server = tolerant(self._server.services)
        kv_pb2_grpc.add_KVServicer_to_server(ForwardedCalls(service, admit, guard), server)
        session_pb2_grpc.add_SessionsServicer_to_server(
            ForwardedSessions(service, admit, guard), server
        )
        if node is not None:
            admin_pb2_grpc.add_AdminServicer_to_server(ForwardedAdmin(node, admit), server)

    def trace_by(self, traces: TraceSink) -> None:
        """Have ``traces`` hear of what followers pass on."""
        self._server.trace_by(traces)

    def answer_proposals(self, take: Take) -> None:
        """Let ``take`` propose what followers pass on. To be called before :meth:`start`."""
        proposals_pb2_grpc.add_ProposalPeerServicer_to_server(
            ProposalHandlers(take, self._handlers.admit_member), tolerant(self._server.services)
        )

    def answer_lease_questions(self, answer: AnswerQuestions) -> None:
        """Let ``answer`` tell followers of leases. To be called before :meth:`start`."""
        leases_pb2_grpc.add_LeasePeerServicer_to_server(
            LeaseHandlers(answer, self._handlers.admit_member), tolerant(self._server.services)
        )

    def bind(self, address: str) -> str:
        """Take the listen address. Raises ConfigurationError when it can't be had."""
        return self._server.bind(address)

    async def start(self) -> None:
        """Let peers in."""
        await self._server.start()
        if self._certificates is not None:
            self._watching = long_lived(
                self._watch(self._certificates), "peer-certificates", self._failed
            )

    async def _watch(self, certificates: CertificateFiles) -> None:
        """Let no stream outlive the certificates that it was opened with."""
        known, ended = certificates.current(), certificates.has_ended
        while True:
            await asyncio.sleep(certificates.look_interval_s)
            current = certificates.current()
            certificates.handshakes.look()
            self._handlers.streams.end_expired()
            if (current, certificates.has_ended) == (known, ended):
                continue
            known, ended = current, certificates.has_ended
            self._handlers.streams.end_all()
            for link in self._links.values():
                link.redial()

    def update_members(self, addresses: Mapping[int, str]) -> None:
        """Talk to these members (without this one) and no others."""
        for peer, link in list(self._links.items()):
            if addresses.get(peer) != link.address:
                del self._links[peer]
                self._close_soon(link.close())
                if peer in self._lanes:
                    self._close_soon(self._lanes.pop(peer).close())
        for peer, address in addresses.items():
            if peer not in self._links:
                self._links[peer] = PeerLink(
                    peer,
                    address,
                    self._introductions,
                    self.dialler,
                    self._lost,
                    self._removed,
                    self._failed,
                )

    def send(self, packets: Iterable[Packet]) -> None:
        """Send what can be sent soon; the rest is lost. Never raises."""
        encoder = Encoder()
        links: set[PeerLink] = set()
        for packet in packets:
            if isinstance(packet, Message):
                self._unary.hear(packet)
            link = self._links.get(packet.to)
            if link is None:
                continue
            if isinstance(packet, SnapshotPart):
                self._lane(link).send(packet)
            else:
                link.send(packet, encoder)
                links.add(link)
        for link in links:
            link.push()

    def _lane(self, link: PeerLink) -> SnapshotLane:
        """Where snapshots to the peer of ``link`` go."""
        lane = self._lanes.get(link.peer)
        if lane is None:
            lane = self._lanes[link.peer] = SnapshotLane(
                link.peer,
                link.address,
                self._introductions,
                self.dialler,
                self._snapshot_bytes_per_s,
            )
        return lane

    def _close_soon(self, close: Coroutine[None, None, None]) -> None:
        closing = asyncio.create_task(close)
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def links(self) -> Mapping[int, PeerLink]:
        """The links by peer, for status and tests."""
        return self._links

    async def close(self) -> None:
        """End every stream and stop listening."""
        if self._watching is not None:
            self._watching.cancel()
        ways: list[PeerLink | SnapshotLane] = [*self._links.values(), *self._lanes.values()]
        self._links, self._lanes = {}, {}
        await asyncio.gather(*(way.close() for way in ways), *self._closing)
        await self._server.stop()
