"""Members' server and channels over grpcio: the reference that the native ones are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from kvstore.server.listeners.grpcio_server import bind
from kvstore.server.peers.bounds import (
    CALLS_MAX,
    CONNECTIONS_MAX,
    HEADER_BYTES_MAX,
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    STREAMS_MAX,
)
from kvstore.server.peers.frames import FRAME_BYTES_MAX
from kvstore.server.peers.names import member_name
from kvstore.server.tls.certificate_files import CertificateFiles

if TYPE_CHECKING:
    from kvstore.wire.server.traces import TraceSink

__all__ = ["GrpcioWire"]

PEER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
    ("grpc.server.max_pending_requests", 4096),
    ("grpc.server.max_pending_requests_hard_limit", 8192),
    ("grpc.max_metadata_size", HEADER_BYTES_MAX),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", int(1000 * KEEPALIVE_S)),
    ("grpc.keepalive_timeout_ms", int(1000 * KEEPALIVE_TIMEOUT_S)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", int(500 * KEEPALIVE_S)),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.keepalive_time_ms", int(1000 * KEEPALIVE_S)),
    ("grpc.keepalive_timeout_ms", int(1000 * KEEPALIVE_TIMEOUT_S)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A connection of its own for each channel: a snapshot must not stand before heartbeats.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    # Members are dialled directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
]


class GrpcioWire:
    """A :class:`kvstore.server.peers.wire.PeerWire`."""

    def server(self, certificates: CertificateFiles | None) -> GrpcioServer:
        return GrpcioServer(certificates)

    def dialler(self, cluster_id: str, certificates: CertificateFiles | None) -> GrpcioDialler:
        return GrpcioDialler(cluster_id, certificates)


class GrpcioServer:
    """A :class:`kvstore.server.peers.wire.PeerServer`."""

    def __init__(self, certificates: CertificateFiles | None) -> None:
        self._certificates = certificates
        self._server = grpc.aio.server(options=PEER_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX)

    @property
    def services(self) -> Any:
        return self._server

    def bind(self, address: str) -> str:
        credentials = None
        if self._certificates is not None:
            credentials = self._certificates.server_credentials()
        return bind(self._server, address, credentials)

    def trace_by(self, traces: TraceSink) -> None:
        pass  # no more than the listener of clients, which has said so

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(grace=None)


class GrpcioDialler:
    """A :class:`kvstore.server.peers.wire.Dialler`."""

    def __init__(self, cluster_id: str, certificates: CertificateFiles | None) -> None:
        self._cluster_id = cluster_id
        self._certificates = certificates

    def dial(self, member: int, address: str) -> grpc.aio.Channel:
        if self._certificates is None:
            return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        name = member_name(self._cluster_id, member)
        return grpc.aio.secure_channel(
            address,
            self._certificates.channel_credentials(),
            options=[*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name)],
        )
