"""The transport between members over gRPC: a link out to each, one listener in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from kvstore.api.v1 import raft_pb2_grpc
from kvstore.raft.messages import Message
from kvstore.server.certificate_files import CertificateFiles
from kvstore.server.listener import bind
from kvstore.server.peer_handlers import PeerHandlers, Receive
from kvstore.server.peer_introductions import Introductions
from kvstore.server.peer_link import Dialler, PeerLink
from kvstore.server.peer_listener import new_peer_server
from kvstore.server.peer_unary import UnaryCalls


class PeerTransport:
    """Carries the core's messages. Used on the event loop's thread only.

    ``receive`` takes what peers sent, ``lost`` the id of a peer that messages were lost to.
    ``lost`` may be called from within :meth:`send`.
    """

    def __init__(
        self,
        introductions: Introductions,
        certificates: CertificateFiles | None,
        receive: Receive,
        lost: Callable[[int], None],
    ) -> None:
        self._introductions = introductions
        self._certificates = certificates
        self._lost = lost
        self._unary = UnaryCalls()
        self._links: dict[int, PeerLink] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.dialler = Dialler(introductions.identity.cluster_id, certificates)
        self._server = new_peer_server()
        handlers = PeerHandlers(introductions, receive, self._unary)
        raft_pb2_grpc.add_RaftPeerServicer_to_server(handlers, self._server)

    def bind(self, address: str) -> str:
        """Take the listen address. Raises ConfigurationError when it can't be had."""
        credentials = (
            None if self._certificates is None else self._certificates.server_credentials()
        )
        return bind(self._server, address, credentials)

    async def start(self) -> None:
        """Let peers in."""
        await self._server.start()

    def update_members(self, addresses: Mapping[int, str]) -> None:
        """Talk to these members (without this one) and no others."""
        for peer, link in list(self._links.items()):
            if addresses.get(peer) != link.address:
                del self._links[peer]
                closing = asyncio.create_task(link.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        for peer, address in addresses.items():
            if peer not in self._links:
                self._links[peer] = PeerLink(
                    peer, address, self._introductions, self.dialler, self._lost
                )

    def send(self, messages: Iterable[Message]) -> None:
        """Send what can be sent soon; the rest is lost. Never raises."""
        for message in messages:
            link = self._links.get(message.to)
            if not self._unary.answers(message) and link is not None:
                link.send(message)

    def links(self) -> Mapping[int, PeerLink]:
        """The links by peer, for status and tests."""
        return self._links

    async def close(self) -> None:
        """End every stream and stop listening."""
        links = [link.close() for link in self._links.values()]
        self._links = {}
        await asyncio.gather(*links, *self._closing)
        await self._server.stop(grace=None)
