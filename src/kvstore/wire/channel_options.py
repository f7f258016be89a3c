"""What can be said of a channel: sizes, times and bounds."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

__all__ = ["ChannelOptions", "ChannelTLS"]


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """One channel's. Times in seconds.

    ``message_bytes_max``: of a message that comes. ``send_bytes_max``: of one that goes.
    ``window_bytes``: what a server may send of one call before it is read, and of all together.
    A connection that nothing was heard on for ``keepalive_s`` is asked for a sign of life while
    calls are under way, or always ``keepalive_without_calls``; without one in
    ``keepalive_timeout_s`` it ends. After a failure to connect, calls fail at once until a pause is
    over, of ``backoff_first_s`` to ``backoff_max_s``. Calls that wait for a connection, or for the
    server to allow more at a time, are ``waiting_calls_max`` of ``waiting_bytes_max`` at most; the
    next one fails with RESOURCE_EXHAUSTED.
    """

    message_bytes_max: int = 4 << 20
    send_bytes_max: int = 32 << 20
    window_bytes: int = 1 << 20
    connection_window_bytes: int = 16 << 20
    keepalive_s: float = 20.0
    keepalive_timeout_s: float = 5.0
    keepalive_without_calls: bool = False
    connect_timeout_s: float = 10.0
    backoff_first_s: float = 0.05
    backoff_max_s: float = 1.0
    waiting_calls_max: int = 16_384
    waiting_bytes_max: int = 64 << 20
    user_agent: str = "kvstore-python"


@dataclass(frozen=True, slots=True)
class ChannelTLS:
    """``server_name``: what the certificate must say, where that isn't the host of the address."""

    context: ssl.SSLContext
    server_name: str | None = None
