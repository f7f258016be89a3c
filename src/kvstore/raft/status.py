"""What a member says about itself, for operators, metrics and tests."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.raft.messages import Membership, Role
from kvstore.raft.progress import PeerState

__all__ = ["PeerStatus", "Status"]


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How far a peer is, as its leader sees it. ``silent_ticks``: since it was last heard."""

    member: int
    state: PeerState
    match: int
    next: int
    inflight_messages: int
    inflight_bytes: int
    pending_snapshot: int
    silent_ticks: int
    damaged: bool


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of a member; indexes are log indexes, ``log_bytes`` counts payloads in memory.

    ``peers`` is empty unless the member leads. ``transfer_to`` is the member that leadership is
    being handed to, or 0.
    """

    id: int
    role: Role
    term: int
    vote: int
    leader: int
    commit: int
    applied: int
    durable: int
    first_index: int
    last_index: int
    log_bytes: int
    membership: Membership
    membership_index: int
    damaged: bool
    has_quorum_contact: bool
    transfer_to: int
    reads_waiting: int
    peers: tuple[PeerStatus, ...]
