"""Changing roles (Raft figure 4): the only place that changes term, role and leader."""

from __future__ import annotations

from kvstore.errors import InternalError
from kvstore.raft import reads
from kvstore.raft.messages import NOBODY, Entry, EntryKind, Role
from kvstore.raft.progress import Progress
from kvstore.raft.state import State

__all__ = [
    "become_candidate",
    "become_follower",
    "become_leader",
    "become_pre_candidate",
    "follow_configuration",
    "let_leave",
    "reset_timer",
]


def reset_timer(state: State) -> None:
    """Start the election timer anew with a fresh random timeout (Raft §5.2)."""
    ticks = state.options.election_ticks
    state.heard = state.now
    state.timeout = ticks + state.rng.randrange(ticks)


def become_follower(state: State, term: int, leader: int) -> None:
    """Follow ``leader`` (or nobody yet) in ``term``, which is never lower than the present one."""
    if term < state.term:
        raise InternalError("terms never fall (Raft §5.1)")
    if term > state.term:
        state.term = term
        state.vote = NOBODY
    _leave(state)
    state.role = Role.FOLLOWER
    state.leader = leader
    reset_timer(state)


def become_pre_candidate(state: State) -> None:
    """Ask whether an election could be won; term and vote stay (dissertation §9.6)."""
    if state.role is Role.LEADER:
        raise InternalError("a leader doesn't campaign")
    _leave(state)
    state.role = Role.PRE_CANDIDATE
    state.leader = NOBODY
    reset_timer(state)


def become_candidate(state: State) -> None:
    """Begin a new term and vote for oneself (Raft §5.2)."""
    if state.role is Role.LEADER:
        raise InternalError("a leader doesn't campaign")
    if state.damaged:
        raise InternalError("a damaged member doesn't campaign")
    _leave(state)
    state.term += 1
    state.vote = state.id
    state.role = Role.CANDIDATE
    state.leader = NOBODY
    reset_timer(state)


def become_leader(state: State) -> None:
    """Lead the term: know nothing of the others, append an entry of it (Raft §5.3, §8)."""
    if state.role is not Role.CANDIDATE:
        raise InternalError("only a candidate wins")
    _leave(state)
    state.role = Role.LEADER
    state.leader = state.id
    state.heard = state.now
    state.next_heartbeat = state.now
    state.term_start = state.log.last + 1
    follow_configuration(state)
    reads.take_over(state)
    state.append([Entry(state.term, state.term_start, EntryKind.EMPTY, b"")])


def follow_configuration(state: State) -> None:
    """Keep progress for the other members of the configuration that holds (leader).

    Members that it removed stay for a while, without a say, so that they learn of it.
    """
    members = state.configurations.current.members - {state.id}
    progress = state.progress
    for member, known in progress.items():
        known.leaving = member not in members
    for new in sorted(members - progress.keys()):
        progress[new] = Progress(state.log.last + 1, state.now)


def let_leave(state: State) -> None:
    """Forget removed members that know of it, or that are silent (leader, on heartbeats)."""
    index = state.configurations.index
    silent = state.now - state.options.election_ticks
    for member, known in list(state.progress.items()):
        if known.leaving and (
            min(known.match, known.commit_told) >= index or known.heard <= silent
        ):
            del state.progress[member]


def _leave(state: State) -> None:
    """Drop what belonged to the role and term that end."""
    state.votes = {}
    state.transfer_to = NOBODY
    reads.let_go(state)
    if state.progress:
        state.progress = {}
        state.fetches = []
