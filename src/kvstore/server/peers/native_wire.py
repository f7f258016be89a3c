"""Members' server and channels over the native wire."""

from __future__ import annotations

from math import inf
from typing import Any, cast

import grpc.aio

from kvstore.server.listeners.addresses import bind
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
from kvstore.server.tls.server_tls import ServerTls
from kvstore.wire.channel import Channel
from kvstore.wire.channel_options import ChannelOptions, ChannelTLS
from kvstore.wire.server import Server, ServerLimits
from kvstore.wire.server.traces import TraceSink
from kvstore.wire.tls import client_context

__all__ = ["NativeWire"]

MIB = 1 << 20

LIMITS = ServerLimits(
    connections_max=CONNECTIONS_MAX,
    # Members may share a machine, or an address.
    connections_per_address_max=CONNECTIONS_MAX,
    calls_max=CALLS_MAX,
    streams_max=STREAMS_MAX,
    message_bytes_max=FRAME_BYTES_MAX,
    header_bytes_max=HEADER_BYTES_MAX,
    received_bytes_max=256 * MIB,
    # Twice the largest frame: one that is taken, and the next.
    connection_received_bytes_max=2 * FRAME_BYTES_MAX,
    connection_unsent_bytes_max=FRAME_BYTES_MAX,
    window_bytes=4 * MIB,
    connection_window_bytes=8 * MIB,
    # Streams between members last for months; they end with their certificates.
    age_s=inf,
    idle_s=inf,
    keepalive_s=KEEPALIVE_S,
    keepalive_timeout_s=KEEPALIVE_TIMEOUT_S,
)

OPTIONS = ChannelOptions(
    message_bytes_max=FRAME_BYTES_MAX,
    send_bytes_max=FRAME_BYTES_MAX,
    keepalive_s=KEEPALIVE_S,
    keepalive_timeout_s=KEEPALIVE_TIMEOUT_S,
    keepalive_without_calls=True,
)


class NativeWire:
    """A :class:`kvstore.server.peers.wire.PeerWire`."""

    def server(self, certificates: CertificateFiles | None) -> NativeServer:
        return NativeServer(certificates)

    def dialler(self, cluster_id: str, certificates: CertificateFiles | None) -> NativeDialler:
        return NativeDialler(cluster_id, certificates)


class NativeServer:
    """A :class:`kvstore.server.peers.wire.PeerServer`."""

    def __init__(self, certificates: CertificateFiles | None) -> None:
        tls = None if certificates is None else ServerTls(certificates)
        self._server = Server(LIMITS, tls=tls)

    @property
    def services(self) -> Any:
        return self._server

    def bind(self, address: str) -> str:
        return bind(self._server, address)

    def trace_by(self, traces: TraceSink) -> None:
        self._server.traces = traces

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)


class NativeDialler:
    """A :class:`kvstore.server.peers.wire.Dialler`."""

    def __init__(self, cluster_id: str, certificates: CertificateFiles | None) -> None:
        self._cluster_id = cluster_id
        self._certificates = certificates

    def dial(self, member: int, address: str) -> grpc.aio.Channel:
        tls = None
        if self._certificates is not None:
            current = self._certificates.watched()
            context = client_context(current.ca, current.cert, current.key)
            tls = ChannelTLS(context, member_name(self._cluster_id, member))
        # It has what stubs and streams need of one.
        return cast("grpc.aio.Channel", Channel(address, OPTIONS, tls))
