"""Signs of life beside the messages: that a process runs, though its loop may be busy.

A caller whose messages wait behind work may exchange, on a way of its own, pulses that wait for
nothing: a leader's "I lead term T", and its followers' answers. They stand in for heartbeats in two
places alone, the election timer and CheckQuorum, and so are nothing that safety rests on: they
confirm no read and commit nothing.

Whoever is only felt does no work. So pulses count for ``Options.pulse_ticks`` after the last
message of the same member: then its loop hangs, or what carries the messages is broken where pulses
still come through, and another one must lead.
"""

from __future__ import annotations

from kvstore.raft.messages import NOBODY, Role
from kvstore.raft.state import State

__all__ = ["take"]


def take(state: State, member: int, term: int) -> None:
    """A member lives, in ``term``: the leader that is followed here, or one that follows."""
    if term != state.term or member == NOBODY:
        return
    if state.role is Role.LEADER:
        progress = state.progress.get(member)
        if progress is not None:
            progress.pulsed = state.now
    elif member == state.leader:
        state.pulsed = state.now
