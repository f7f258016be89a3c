"""When the log is too short for a follower (Raft §7): snapshots out, in, and their marks.

The core deals in marks alone; the bytes are the caller's to move and to verify.
"""

from __future__ import annotations

from kvstore.errors import InternalError, InvalidArgumentError
from kvstore.raft import damage
from kvstore.raft.membership import History
from kvstore.raft.messages import Message, MessageKind, SnapshotMeta
from kvstore.raft.progress import PeerState, Progress
from kvstore.raft.state import State

__all__ = [
    "compact",
    "goes_on_after",
    "handle_snapshot",
    "kept_after",
    "mark",
    "reported",
    "send_snapshot",
    "state_replaced",
]

KEPT_TIMEOUTS = 10
"""Nothing is kept for a follower that is silent for so many election timeouts."""


def mark(state: State, index: int) -> SnapshotMeta:
    """The mark of the state machine after ``index``."""
    log = state.log
    # Of a member that lost entries more may be applied than it knows to be committed.
    known = max(log.offset, min(log.applied, log.commit))
    if not log.offset <= index <= known or log.term(index) < 0:
        raise InvalidArgumentError(
            f"no mark for index {index}: entries {log.offset} to {known} are known applied"
        )
    return SnapshotMeta(index, log.term(index), state.configurations.at(index))


def goes_on_after(state: State, mark: SnapshotMeta) -> bool:
    """What ``mark`` stands for is committed, and durable in this log."""
    log = state.log
    return (
        state.installing is None
        and mark.index <= min(log.commit, log.stable)
        and log.term(mark.index) == mark.term
    )


def state_replaced(state: State, mark: SnapshotMeta) -> None:
    """The state machine holds all up to ``mark`` by another way than applying it."""
    log = state.log
    if not goes_on_after(state, mark):
        raise InternalError(f"the log doesn't go on after a state of index {mark.index}")
    log.offered = max(log.offered, mark.index)
    log.applied = max(log.applied, mark.index)


def compact(state: State, index: int) -> None:
    """Forget the log up to ``index`` but for the tail (Raft §7).

    What follows a snapshot that is under way stays, within bounds: the follower needs it next, and
    without it would need another snapshot, and so on for as long as there are writes.
    """
    log = state.log
    if index > log.applied:
        raise InvalidArgumentError(f"index {index} is not applied yet ({log.applied} is)")
    options = state.options
    tail = log.tail_start(options.tail_entries, options.tail_bytes)
    index = min(index, log.commit, log.handed, tail)
    _let_go(state, index)
    kept = kept_after(state, index)
    if kept < index:
        # Far enough from where the log asks for compactions (half of it).
        entries = options.log_entries_max // 4
        most = min(options.transfer_bytes, options.log_bytes_max // 4)
        index = min(index, max(kept, log.tail_start(entries, most)))
    if index > log.offset:
        log.compact(index)
        state.configurations.compact(index)


def kept_after(state: State, index: int) -> int:
    """The first index up to ``index`` whose next entries a follower needs after its snapshot."""
    for progress in state.progress.values():
        if progress.kept_after:
            index = min(index, max(progress.kept_after, progress.match))
    return index


def _let_go(state: State, index: int) -> None:
    """Nothing more is kept for those that have the log up to ``index``, or went silent."""
    silent = state.now - KEPT_TIMEOUTS * state.options.election_ticks
    for progress in state.progress.values():
        if progress.heard <= silent or (
            progress.state is not PeerState.SNAPSHOT
            and max(progress.kept_after, progress.match) >= index
        ):
            progress.kept_after = 0


def send_snapshot(state: State, member: int, progress: Progress) -> None:
    """A follower needs entries that are gone: offer the state machine instead (Raft §7).

    Only to one that answers, since the caller is about to move many bytes.
    """
    if state.now - progress.heard >= state.options.election_ticks:
        return
    snapshot = mark(state, max(state.log.applied, state.log.offset))
    progress.become_snapshot(snapshot.index)
    state.send(MessageKind.SNAPSHOT, member, snapshot=snapshot)


def reported(state: State, member: int, ok: bool) -> None:
    """The caller moved the snapshot, or could not: probe from after it, or from before."""
    progress = state.progress.get(member)
    if progress is None or progress.state is not PeerState.SNAPSHOT:
        return
    if not ok:
        progress.pending_snapshot = 0
        progress.kept_after = 0
    progress.become_probe()
    # Its own answer says soonest where it stands; without one the next heartbeat's lets go.
    progress.paused = True


def handle_snapshot(state: State, message: Message) -> None:
    """A verified snapshot has arrived (Raft §7, figure 13); the router has noted the leader."""
    snapshot = message.snapshot
    if snapshot is None:
        return
    log = state.log
    if snapshot.index <= log.commit:
        known = log.commit
    elif log.term(snapshot.index) == snapshot.term and snapshot.index <= log.whole:
        # The entries are here already: only the news that they are committed is new.
        log.commit = known = snapshot.index
    else:
        known = snapshot.index
        if log.hollow and snapshot.index < log.last:
            # What follows it may have been acknowledged, and is let go.
            damage.found(state)
        applied = log.applied
        log.restore(snapshot)
        # Of a member that lost its log the state may be further on: it stays, and goes on there.
        log.applied = log.offered = max(applied, snapshot.index)
        state.configurations = History(snapshot.index, snapshot.membership)
        state.installing = snapshot
        for write in state.writes:
            write.last = 0
    state.hold(
        Message(
            MessageKind.APPEND_RESPONSE,
            message.sender,
            state.id,
            state.term,
            log_index=known,
            damaged=state.damaged,
        )
    )
