"""grpcio's server with the bounds of clients, and its address."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from kvstore.addresses import HostPort
from kvstore.server.listeners.addresses import reason_of, start_failure
from kvstore.server.listeners.bounds import (
    CONNECTION_CALLS_MAX,
    CONNECTION_STREAMING_MAX,
    MESSAGE_BYTES_MAX,
    PING_S_MIN,
)
from kvstore.server.listeners.calls_bound import CallsBound

__all__ = ["LISTENER_OPTIONS", "bind", "new_server"]

LISTENER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A range of keys has no bound; clients have one for what they take.
    ("grpc.max_send_message_length", -1),
    # With SO_REUSEPORT a second kvd would share the port in silence and take half of the calls.
    ("grpc.so_reuseport", 0),
    # gRPC can't tell calls that stream from those that don't.
    ("grpc.max_concurrent_streams", CONNECTION_CALLS_MAX + CONNECTION_STREAMING_MAX),
    # gRPC's own queue of calls that nobody has asked for yet: by default it drops some at random
    # from 1,000 on, with CANCELLED. Beyond the bounds they end with a status that says so instead.
    ("grpc.server.max_pending_requests", 8192),
    ("grpc.server.max_pending_requests_hard_limit", 16384),
    ("grpc.max_metadata_size", 16 * 1024),
    # Whoever doesn't finish a TLS or HTTP/2 handshake is dropped.
    ("grpc.server_handshake_timeout_ms", 5_000),
    # No age at which a connection ends: gRPC would end its watches with it, every hour.
    ("grpc.max_connection_idle_ms", 900_000),
    # Peers that vanished are noticed; peers that ping too much are cut off.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", int(1000 * PING_S_MIN)),
    ("grpc.http2.max_ping_strikes", 2),
]


def new_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (), *, connections_max: int
) -> grpc.aio.Server:
    """Return a server with our bounds, not bound to an address yet.

    Connections beyond ``connections_max`` are closed at once.
    """
    return grpc.aio.server(
        interceptors=[*interceptors, CallsBound()],
        options=[*LISTENER_OPTIONS, ("grpc.max_allowed_incoming_connections", connections_max)],
    )


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Bind ``server`` to ``host:port`` and return the address with the port it really has.

    Raises ConfigurationError that says why the address can't be had.
    """
    parsed = HostPort.parse(address)
    if parsed is None:
        raise start_failure(address, "malformed address; expected host:port")
    _probe(address, parsed.host, parsed.port)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise start_failure(address, "the address can't be bound") from error
    if port == 0:
        raise start_failure(address, "the address can't be bound")
    return str(HostPort(parsed.host, port))


def _probe(address: str, host: str, port: int) -> None:
    """Bind and let go with a plain socket: the system's reason is better than gRPC's."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except socket.gaierror as error:
        raise start_failure(address, f"cannot resolve {host!r}: {error.strerror}") from error
    for family, kind, protocol, _, endpoint in found:
        with socket.socket(family, kind, protocol) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(endpoint)
            except OSError as error:
                raise start_failure(address, reason_of(error)) from error
