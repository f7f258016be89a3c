"""Handing leadership over (dissertation §3.10)."""

from __future__ import annotations

from kvstore.errors import InvalidArgumentError
from kvstore.raft import roles
from kvstore.raft.messages import NOBODY, MessageKind
from kvstore.raft.state import State

__all__ = ["flush", "hand_over", "resign", "start", "tick"]


def start(state: State, to: int) -> None:
    """Stop taking proposals, bring ``to`` up to date, then let it campaign."""
    progress = state.progress.get(to)
    if progress is None or to not in state.configurations.current.voters:
        raise InvalidArgumentError(f"member {to} is not another voter")
    if progress.damaged:
        raise InvalidArgumentError(f"member {to} lost part of its log and can't lead")
    if progress.ailing:
        raise InvalidArgumentError(f"member {to} can't write to its disk for now")
    state.transfer_to = to
    state.transfer_deadline = state.now + state.options.election_ticks
    state.transfer_told = -1


def hand_over(state: State) -> None:
    """Let the voter lead that has most of the log and can, if there is one."""
    best = _best(state)
    if state.transfer_to == NOBODY and best != NOBODY:
        start(state, best)


def flush(state: State) -> None:
    """Once the target has everything, tell it to campaign at once; again if that gets lost."""
    progress = state.progress.get(state.transfer_to)
    if progress is None or progress.match < state.log.last:
        return
    if state.transfer_told < 0 or state.now - state.transfer_told >= state.options.heartbeat_ticks:
        state.transfer_told = state.now
        _tell(state, state.transfer_to)


def tick(state: State) -> None:
    """Give up after an election timeout and take proposals again.

    A leader whose storage takes nothing hands over by itself, and steps down where that fails; but
    only while the others can do without it. Otherwise nobody could do better: it still serves reads
    and, as far as the others' disks make a quorum, writes.
    """
    failed = state.transfer_to != NOBODY and state.now >= state.transfer_deadline
    if failed:
        state.transfer_to = NOBODY
    if state.ailing and state.transfer_to == NOBODY and state.others_suffice():
        if failed:
            roles.become_follower(state, state.term, NOBODY)
        else:
            start(state, _best(state))


def resign(state: State) -> None:
    """Hand over without waiting: the leader is about to step down (dissertation §4.2.2)."""
    best = _best(state)
    if best != NOBODY and state.progress[best].match >= state.log.commit:
        _tell(state, best)


def _best(state: State) -> int:
    """The other voter that has most of the log and can lead; NOBODY when there is none."""
    voters = state.configurations.current.voters
    return max(
        (
            member
            for member, progress in state.progress.items()
            if member in voters and not progress.damaged and not progress.ailing
        ),
        key=lambda member: (state.answers(member), state.progress[member].match, -member),
        default=NOBODY,
    )


def _tell(state: State, to: int) -> None:
    state.send(MessageKind.TIMEOUT_NOW, to)
