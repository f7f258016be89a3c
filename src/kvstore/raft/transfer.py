"""Handing leadership over (dissertation §3.10)."""

from __future__ import annotations

from kvstore.errors import InvalidArgumentError
from kvstore.raft.messages import NOBODY, MessageKind
from kvstore.raft.state import State

__all__ = ["flush", "resign", "start", "tick"]


def start(state: State, to: int) -> None:
    """Stop taking proposals, bring ``to`` up to date, then let it campaign."""
    progress = state.progress.get(to)
    if progress is None or to not in state.configurations.current.voters:
        raise InvalidArgumentError(f"member {to} is not another voter")
    if progress.damaged:
        raise InvalidArgumentError(f"member {to} lost part of its log and can't lead")
    state.transfer_to = to
    state.transfer_deadline = state.now + state.options.election_ticks
    state.transfer_told = -1


def flush(state: State) -> None:
    """Once the target has everything, tell it to campaign at once; again if that gets lost."""
    progress = state.progress.get(state.transfer_to)
    if progress is None or progress.match < state.log.last:
        return
    if state.transfer_told < 0 or state.now - state.transfer_told >= state.options.heartbeat_ticks:
        state.transfer_told = state.now
        _tell(state, state.transfer_to)


def tick(state: State) -> None:
    """Give up after an election timeout and take proposals again."""
    if state.transfer_to != NOBODY and state.now >= state.transfer_deadline:
        state.transfer_to = NOBODY


def resign(state: State) -> None:
    """Hand over without waiting: the leader is about to step down (dissertation §4.2.2)."""
    voters = state.configurations.current.voters
    best = max(
        (
            (progress.match, -member)
            for member, progress in state.progress.items()
            if member in voters and not progress.damaged
        ),
        default=None,
    )
    if best is not None and best[0] >= state.log.commit:
        _tell(state, -best[1])


def _tell(state: State, to: int) -> None:
    # From now on the target may win against every lease, whenever the message arrives (§6.4.1).
    state.lease_void = True
    state.send(MessageKind.TIMEOUT_NOW, to)
