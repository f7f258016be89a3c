"""The bounds of the members' server and channels, whichever wire they are on."""

from __future__ import annotations

from kvstore.server.descriptors import PEER_CONNECTIONS_MAX as CONNECTIONS_MAX

__all__ = [
    "CALLS_MAX",
    "CONNECTIONS_MAX",
    "HEADER_BYTES_MAX",
    "KEEPALIVE_S",
    "KEEPALIVE_TIMEOUT_S",
    "STREAMS_MAX",
]

# Two peers that vanished must be noticed within five seconds, and before the next election is due
# messages must go to the member's new connection.
KEEPALIVE_S = 2.0
KEEPALIVE_TIMEOUT_S = 2.0

# From each of at most 31 others: two streams, a snapshot, a few unary calls, and as many calls that
# it forwards as one connection carries.
CALLS_MAX = 2048
STREAMS_MAX = 32

HEADER_BYTES_MAX = 16 * 1024
