"""What members talk over: the native wire, where it is built, or grpcio.

Both speak gRPC, so members of either kind understand each other. Apart from the listener of
clients, whatever that one is: its own port, bounds and certificate authority. Whatever clients
do, members hear each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from kvstore.server.peers.grpcio_wire import GrpcioWire
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.wire import available

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink

__all__ = ["Dialler", "PeerServer", "PeerWire", "choose_wire"]


class Dialler(Protocol):
    """Makes channels to members."""

    def dial(self, member: int, address: str) -> grpc.aio.Channel:
        """A channel to a member, on a connection of its own; with TLS, nobody else can answer."""


class PeerServer(Protocol):
    """What other members reach, not bound to an address yet."""

    @property
    def services(self) -> Any:
        """What generated code registers services with."""

    def bind(self, address: str) -> str:
        """Take ``host:port``; the address with the port that it really has.

        Raises ConfigurationError that says why the address can't be had.
        """

    def trace_by(self, traces: TraceSink) -> None:
        """Have ``traces`` hear of the unary calls, where that can be."""

    async def start(self) -> None:
        """Let peers in."""

    async def stop(self) -> None:
        """End every call and connection."""


class PeerWire(Protocol):
    """Both sides of one kind. Without ``certificates``: in plain text."""

    def server(self, certificates: CertificateFiles | None) -> PeerServer:
        """A server with a peer's bounds."""

    def dialler(self, cluster_id: str, certificates: CertificateFiles | None) -> Dialler:
        """For members of ``cluster_id``, by whose names their certificates are checked."""


def choose_wire(front: str) -> PeerWire:
    """That of ``--front``, which decides for clients and members alike."""
    if front == "grpcio" or not available():
        return GrpcioWire()
    # Needs what may not be built.
    from kvstore.server.peers.native_wire import NativeWire

    return NativeWire()
