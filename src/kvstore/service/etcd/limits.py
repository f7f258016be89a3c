"""The bounds of what waits in a service of etcd's API."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EtcdLimits"]


@dataclass(frozen=True, slots=True)
class EtcdLimits:
    """Of one service.

    ``waiting_max``: proposals that wait at one time, and as many reads; ``waiting_bytes_max``: what
    the proposals may weigh. One more is refused. An entry of the log has up to
    ``entry_operations_max`` operations, or ``entry_bytes_max`` (one may be larger).
    ``full_patience_s``: so long a leader whose disk is full lets calls wait, in case another member
    takes over or room is made; from then on they are refused at once.
    ``patience_s``: so long, and two election timeouts, a call waits whose client would wait longer.
    """

    waiting_max: int = 16_384
    waiting_bytes_max: int = 64 << 20
    entry_operations_max: int = 256
    entry_bytes_max: int = 1 << 20
    full_patience_s: float = 2.0
    patience_s: float = 5.0
