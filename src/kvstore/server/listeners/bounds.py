"""What either front takes at most."""

from __future__ import annotations

__all__ = ["CALLS_MAX", "MESSAGE_BYTES_MAX"]

# A little over twice the largest lawful request (1 MiB value, 1 KiB key, 4 KiB id): up to here the
# service says what is too large; beyond, gRPC refuses with RESOURCE_EXHAUSTED unread.
MESSAGE_BYTES_MAX = 2 * 1024 * 1024 + 64 * 1024

# Calls being answered at one time in the whole process; one more is refused at once.
CALLS_MAX = 4096
