"""What waits for the disk (Raft figure 2: "updated on stable storage before responding").

Writes are asynchronous (dissertation §10.2.1): a bundle goes to the disk while later ones are
made. An answer that promises something is held with the newest write that was made by then, and
leaves when that write is durable; writes become durable in order, so one number says it all.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.raft.messages import Bundle, Entry, HardState, Message, MessageKind
from kvstore.raft.state import State, Write

__all__ = ["commit_is_to_be_saved", "record", "stored"]

# Looking up a member of an enum costs ten times as much as a name.
_APPEND_RESPONSE = MessageKind.APPEND_RESPONSE


def commit_is_to_be_saved(state: State) -> bool:
    """Whether the commit index is to be written by itself.

    Else it goes with the entries after it, which costs nothing; but after the last ones, for as
    long as there are no others, a member that is started alone would hold them for uncommitted. So
    it is written once nothing was for ``election_ticks``.
    """
    log = state.log
    return (
        state.now - state.wrote >= state.options.election_ticks
        and min(log.commit, log.stable) > state.saved.commit
        and not state.writes
        and not state.ailing
    )


def record(state: State, bundle: Bundle, entries: Sequence[Entry]) -> None:
    """Put into the bundle what is to be written, and bind the held messages to it."""
    saved = state.saved
    log = state.log
    if (
        entries
        or state.installing is not None
        or state.term != saved.term
        or state.vote != saved.vote
        or state.damaged != saved.damaged
        or commit_is_to_be_saved(state)
    ):
        # The hint never names an entry that could be lost while the hint survives.
        commit = saved.commit
        if state.installing is None:
            commit = max(commit, min(log.commit, log.stable))
        hard_state = HardState(state.term, state.vote, commit, state.damaged)
        if hard_state != saved:
            bundle.hard_state = state.saved = hard_state
        bundle.snapshot = state.installing
        state.installing = None
        bundle.entries = entries
        bundle.must_sync = True
        state.wrote = state.now
        state.writes.append(Write(bundle.number, log.last, state.held))
        state.held = []
    elif state.held:
        if state.writes:
            state.writes[-1].held += state.held
        else:
            bundle.messages += state.held
        state.held = []


def stored(state: State, number: int) -> list[Message]:
    """Writes up to ``number`` are durable: move the marks, give back what waited for them.

    Of acknowledgements in a row the one of the highest index says it all.
    """
    log = state.log
    released: list[Message] = []
    writes = state.writes
    while writes and writes[0].number <= number:
        write = writes.popleft()
        if write.last > log.stable:
            log.stable = write.last
        for message in write.held:
            if not released or not _say_one_thing(message, released[-1]):
                released.append(message)
            elif message.log_index >= released[-1].log_index:
                released[-1] = message
    return released


def _say_one_thing(message: Message, earlier: Message) -> bool:
    """Both acknowledge entries to one leader: who hears of the higher index needs no other."""
    return (
        message.kind is _APPEND_RESPONSE
        and earlier.kind is _APPEND_RESPONSE
        and message.to == earlier.to
        and message.term == earlier.term
        and message.damaged == earlier.damaged
        and not message.reject
        and not earlier.reject
    )
