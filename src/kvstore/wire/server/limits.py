"""The bounds of a server: connections, calls, bytes and time."""

from __future__ import annotations

import dataclasses

__all__ = ["RETRY_PUSHBACK", "ServerLimits"]

MIB = 1 << 20

# What a refused call is told: come back after so many milliseconds. gRPC's own name for it (A6).
RETRY_PUSHBACK = (("grpc-retry-pushback-ms", "100"),)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Each has an answer for whoever goes beyond; docs/wire-protocol.md lists them.

    Connections beyond ``connections_max``, and beyond ``connections_per_address_max`` from one
    address (of IPv6: from one /64), are closed at once; 0 is a quarter of all. One is half open
    until its preface and SETTINGS came, for ``half_open_s``; of more than ``half_open_max`` the
    oldest is closed.

    ``calls_max`` at one time in the process, ``streams_max`` on a connection; those that stream,
    and may last, have ``streaming_max`` and ``connection_streaming_max`` beside both. A call's
    headers have ``headers_s``, the rest of its request ``request_s`` unless it is a stream, and its
    answer ``answer_s`` from its end to be taken; a connection, or a stream of answers, that takes
    no byte for ``stalled_s`` ends.

    Bytes of messages that come in and that go out: ``received_bytes_max``, ``unsent_bytes_max`` of
    the process and ``connection_…`` of one connection, which has half of what is free at most.

    A connection lives for ``age_s``, give or take a tenth, and for as long as a call streams on it,
    and is then given ``age_grace_s``; without a call it lives for ``idle_s``. After ``keepalive_s``
    of silence its peer is pinged and has ``keepalive_timeout_s`` to answer. ``inf`` turns these
    off.
    """

    connections_max: int
    connections_per_address_max: int = 0
    half_open_max: int = 256
    half_open_s: float = 5.0
    calls_max: int = 4096
    streaming_max: int = 1024
    connection_streaming_max: int = 32
    streams_max: int = 256
    message_bytes_max: int = 2 * MIB + 64 * 1024
    header_bytes_max: int = 16 * 1024
    headers_s: float = 5.0
    request_s: float = 30.0
    answer_s: float = 10.0
    stalled_s: float = 60.0
    received_bytes_max: int = 256 * MIB
    unsent_bytes_max: int = 256 * MIB
    # 64 calls of 1 MiB on one connection are usual.
    connection_received_bytes_max: int = 80 * MIB
    connection_unsent_bytes_max: int = 80 * MIB
    window_bytes: int = 1 * MIB
    connection_window_bytes: int = 8 * MIB
    age_s: float = 3600.0
    age_grace_s: float = 30.0
    idle_s: float = 900.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 10.0

    @property
    def per_address_max(self) -> int:
        """Connections from one address."""
        return self.connections_per_address_max or max(1, self.connections_max // 4)

    @property
    def tick_s(self) -> float:
        """How often connections are looked at: often enough for the shortest of these times."""
        return min(
            1.0,
            self.half_open_s / 4,
            self.headers_s / 4,
            self.request_s / 4,
            self.answer_s / 4,
            self.keepalive_s / 4,
            self.keepalive_timeout_s / 4,
        )
