"""What a member says about itself, for operators, metrics and tests."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.raft import mending
from kvstore.raft.messages import Membership, Role
from kvstore.raft.progress import PeerState
from kvstore.raft.state import State

__all__ = ["PeerStatus", "Status", "take"]


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
    ailing: bool


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of a member; indexes are log indexes, ``log_bytes`` counts payloads in memory.

    ``peers`` is empty unless the member leads. ``transfer_to`` is the member that leadership is
    being handed to, or 0. ``hollow``: entries whose data is damaged here, and asked for; ``lost``:
    the first of them that is damaged at every other member too, or 0.
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
    hollow: int
    lost: int
    ailing: bool
    has_quorum_contact: bool
    transfer_to: int
    reads_waiting: int
    peers: tuple[PeerStatus, ...]


def take(state: State) -> Status:
    """The status of this moment."""
    log = state.log
    return Status(
        id=state.id,
        role=state.role,
        term=state.term,
        vote=state.vote,
        leader=state.leader,
        commit=log.commit,
        applied=log.applied,
        durable=log.stable,
        first_index=log.offset + 1,
        last_index=log.last,
        log_bytes=log.size,
        membership=state.configurations.current,
        membership_index=state.configurations.index,
        damaged=state.damaged,
        hollow=len(log.hollow),
        lost=mending.lost(state) if log.hollow else 0,
        ailing=state.ailing,
        has_quorum_contact=state.has_quorum_contact(),
        transfer_to=state.transfer_to,
        reads_waiting=len(state.reads.own),
        peers=tuple(
            PeerStatus(
                member=member,
                state=progress.state,
                match=progress.match,
                next=progress.next,
                inflight_messages=len(progress.inflight),
                inflight_bytes=progress.inflight_bytes,
                pending_snapshot=progress.pending_snapshot,
                silent_ticks=state.now - progress.heard,
                damaged=progress.damaged,
                ailing=progress.ailing,
            )
            for member, progress in sorted(state.progress.items())
        ),
    )
