"""What either front takes at most."""

from __future__ import annotations

__all__ = [
    "CALLS_MAX",
    "CONNECTION_CALLS_MAX",
    "CONNECTION_STREAMING_MAX",
    "MESSAGE_BYTES_MAX",
    "PING_S_MIN",
    "STREAMING_MAX",
]

# A little over twice the largest lawful request (1 MiB value, 1 KiB key, 4 KiB id), and what etcd
# takes: up to here the service says what is too large; beyond, gRPC refuses with RESOURCE_EXHAUSTED
# unread.
MESSAGE_BYTES_MAX = 2 * 1024 * 1024 + 64 * 1024

# Calls being answered at one time in the whole process; one more is refused at once.
CALLS_MAX = 4096

# On one connection: a sixteenth of them.
CONNECTION_CALLS_MAX = 256

# Calls that stream, and may last for hours as watches do: beside the others, in the process and on
# a connection. clientv3 has all of its calls on one connection.
STREAMING_MAX = 16_384
CONNECTION_STREAMING_MAX = 4096

# Go's clients ping every 10 s on a connection that is silent; etcd lets them every 5 s.
PING_S_MIN = 5.0
