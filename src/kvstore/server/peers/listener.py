"""The gRPC server that other members reach, apart from the one for clients.

Its own port, bounds and certificate authority: whatever clients do, members hear each other.
"""

from __future__ import annotations

import grpc.aio

from kvstore.server.descriptors import PEER_CONNECTIONS_MAX
from kvstore.server.peers.frames import FRAME_BYTES_MAX

# Two peers that vanished must be noticed within five seconds, and before the next election is due
# messages must go to the member's new connection.
KEEPALIVE_MS = 2_000
KEEPALIVE_TIMEOUT_MS = 2_000

# From each of at most 31 others: a stream, a snapshot, a few unary calls, and as many calls that it
# forwards as one connection carries.
CALLS_MAX = 2048

PEER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 32),
    ("grpc.max_allowed_incoming_connections", PEER_CONNECTIONS_MAX),
    ("grpc.server.max_pending_requests", 4096),
    ("grpc.server.max_pending_requests_hard_limit", 8192),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A connection of its own for each channel: a snapshot must not stand before heartbeats.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    # Members are dialled directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
]


def new_peer_server() -> grpc.aio.Server:
    """Return a server with a peer's bounds, not bound to an address yet."""
    return grpc.aio.server(options=PEER_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX)
