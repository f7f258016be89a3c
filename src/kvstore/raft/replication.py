"""The leader's log to the followers, and what follows from their answers (Raft §5.3, §5.4)."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.raft import mending, older, quorum, snapshots
from kvstore.raft.messages import Entry, Message, MessageKind
from kvstore.raft.progress import PeerState, Progress
from kvstore.raft.state import State

__all__ = [
    "advance_commit",
    "commit_untold",
    "flush",
    "handle_append",
    "handle_append_response",
    "handle_heartbeat",
    "handle_heartbeat_response",
    "tell_commit",
]

# Looking up a member of an enum costs ten times as much as a name: these are on every entry's way.
_APPEND = MessageKind.APPEND
_APPEND_RESPONSE = MessageKind.APPEND_RESPONSE
_HEARTBEAT = MessageKind.HEARTBEAT
_PROBE = PeerState.PROBE
_REPLICATE = PeerState.REPLICATE
_SNAPSHOT = PeerState.SNAPSHOT
_SENT = older.Outcome.SENT
_GONE = older.Outcome.GONE


def flush(state: State) -> None:
    """Send each follower what it lacks, as far as its window allows (leader).

    Everything that was proposed since the last bundle goes in one APPEND; what finds no room
    is sent when answers make some. The commit index goes along; by itself only where it is wanted.
    """
    log = state.log
    last = log.last
    options = state.options
    taken: dict[int, Sequence[Entry]] = {}
    for member, progress in state.progress.items():
        while (
            progress.next <= last or (progress.match < last and progress.state is _PROBE)
        ) and progress.may_send(options.inflight_messages_max, options.inflight_bytes_max):
            if progress.next <= log.offset:
                outcome = older.send(state, member, progress)
                if outcome is _SENT:
                    continue
                if outcome is _GONE:
                    snapshots.send_snapshot(state, member, progress)
                break
            _send_append(state, member, progress, taken)
        if progress.commit_told < progress.commit_wanted and progress.match > progress.commit_told:
            _tell_commit(state, member, progress)


def tell_commit(state: State) -> None:
    """Let each follower know of the commit index without an APPEND, as soon as it has the entries.

    For what can't wait for the next APPEND or heartbeat to bring it.
    """
    for progress in state.progress.values():
        progress.commit_wanted = state.log.commit


def commit_untold(state: State) -> bool:
    """A follower has entries that are committed and wasn't told so (leader)."""
    commit = state.log.commit
    for progress in state.progress.values():
        if progress.commit_told < commit and progress.commit_told < progress.match:
            return True
    return False


def _send_append(
    state: State, member: int, progress: Progress, taken: dict[int, Sequence[Entry]]
) -> None:
    """``taken``: what was sent to others just now, by its first index: the same objects."""
    log = state.log
    first = progress.next
    entries = taken.get(first, ())
    if not entries and first <= log.last:
        options = state.options
        upto = min(log.last, first + options.message_entries_max - 1)
        entries = taken[first] = log.slice(first, upto, options.message_bytes_max)
    upto = first + len(entries) - 1
    size = log.bytes_between(first - 1, upto)
    state.messages.append(
        Message(
            _APPEND,
            member,
            state.id,
            state.term,
            first - 1,
            log.term(first - 1),
            log.commit,
            entries=entries,
        )
    )
    progress.sent(upto, size)
    if progress.state is _REPLICATE:
        progress.commit_told = log.commit if log.commit < upto else upto


def _tell_commit(state: State, member: int, progress: Progress) -> None:
    told = min(state.log.commit, progress.match)
    progress.commit_told = told
    state.messages.append(
        Message(
            _HEARTBEAT,
            member,
            state.id,
            state.term,
            log_index=progress.match,
            commit=told,
        )
    )


def handle_append(state: State, message: Message) -> None:
    """Take entries from the leader (Raft §5.3, figure 2); the router has noted the leader."""
    log = state.log
    before = message.log_index
    entries = message.entries
    if before < log.commit:
        # What is committed is equal everywhere (§5.4.3): older entries need no second look.
        _acknowledge(state, message.sender, log.commit)
        return
    if log.term(before) != message.log_term or (log.hollow and before > log.whole):
        _refuse(state, message)
        return
    if entries:
        last = entries[-1]
        if entries[0][1] != before + 1 or last[1] != before + len(entries):
            return
        if entries[0][0] < message.log_term or last[0] > message.term:
            return
        new = log.news(entries)
        if new < len(entries) and not _has_room(state, entries):
            # The caller must compact first; the leader tries again later.
            return
        if new < len(entries):
            state.append(entries[new:] if new else entries)
    matched = before + len(entries)
    if log.hollow:
        mending.offered(state, entries)
        matched = min(matched, log.whole)
    commit = message.commit if message.commit < matched else matched
    if commit > log.commit:
        log.commit = commit
    _acknowledge(state, message.sender, matched)


def _has_room(state: State, entries: Sequence[Entry]) -> bool:
    log = state.log
    options = state.options
    if len(log.entries) >= options.log_entries_max:
        return False
    room = options.log_bytes_max - log.size
    return room > options.message_bytes_max or sum(len(e[3]) for e in entries) <= room


def _acknowledge(state: State, to: int, index: int) -> None:
    """Say that all up to ``index`` is equal and durable, once it is."""
    state.held.append(
        Message(
            _APPEND_RESPONSE,
            to,
            state.id,
            state.term,
            index,
            damaged=state.damaged,
        )
    )


def _refuse(state: State, message: Message) -> None:
    """The entry before is missing or different: hint where the logs may be equal (§5.3)."""
    log = state.log
    hint = max(log.common(min(message.log_index, log.whole), message.log_term), log.commit)
    state.send(
        _APPEND_RESPONSE,
        message.sender,
        reject=True,
        log_index=message.log_index,
        hint_index=hint,
        log_term=max(log.term(hint), 0),
        damaged=state.damaged,
    )


def handle_append_response(state: State, message: Message) -> None:
    """Move a follower's marks (Raft §5.3); the caller then lets the commit index follow."""
    progress = state.progress.get(message.sender)
    if progress is None:
        return
    _heard(state, progress, message)
    if message.reject:
        retry = state.log.common(message.hint_index, message.log_term)
        progress.rejected(message.log_index, retry)
        return
    if message.log_index > state.log.last:
        return
    if not progress.acknowledged(message.log_index) and progress.state is _REPLICATE:
        return
    if progress.state is _PROBE or (
        progress.state is _SNAPSHOT and progress.match >= state.log.offset
    ):
        progress.become_replicate()


def advance_commit(state: State) -> bool:
    """Commit what a quorum holds durably, if it is of this term (Raft §5.4.2; figure 8).

    The leader's own log counts like any other, once it is durable (dissertation §10.2.1).
    """
    log = state.log
    if log.commit == log.last:
        return False
    index = quorum.agreed(state.configurations.current, state.match)
    if index <= log.commit or index < state.term_start:
        return False
    log.commit = index if index < log.last else log.last
    return True


def handle_heartbeat(state: State, message: Message) -> bool:
    """Note the leader's commit index and answer; True when this member finds that it lost
    entries which it had acknowledged: the leader remembers more than is here.

    The answer waits for nothing: it promises no entry, only that no later term is known here.
    """
    log = state.log
    if message.log_index > log.last:
        return True
    commit = min(message.commit, log.whole)
    if commit > log.commit:
        log.commit = commit
    if message.context:
        state.send(
            MessageKind.HEARTBEAT_RESPONSE,
            message.sender,
            context=message.context,
            damaged=state.damaged,
            ailing=state.ailing,
        )
    return False


def handle_heartbeat_response(state: State, message: Message) -> None:
    """A follower lives: note the round, and find out whether APPENDs were lost."""
    progress = state.progress.get(message.sender)
    if progress is None:
        return
    _heard(state, progress, message)
    progress.ailing = message.ailing
    if message.context > progress.round:
        progress.round = min(message.context, state.reads.round)
    if progress.state is _PROBE:
        progress.paused = False
    elif progress.state is _REPLICATE and progress.match < state.log.last:
        _look_for_loss(state, message.sender, progress)


def _look_for_loss(state: State, member: int, progress: Progress) -> None:
    """Find out whether APPENDs to a follower that lacks something got lost, or are just slow.

    An APPEND without entries after all that was sent tells: it is acknowledged, or refused, and
    then the follower is probed (Raft §5.3). Where the term there isn't known any more, probe at
    once.
    """
    before = progress.next - 1
    term = older.term_before(state.log, progress)
    if term < 0:
        progress.become_probe()
        return
    state.messages.append(
        Message(
            _APPEND,
            member,
            state.id,
            state.term,
            before,
            term,
            min(state.log.commit, progress.match),
        )
    )


def _heard(state: State, progress: Progress, message: Message) -> None:
    progress.heard = state.now
    progress.damaged = message.damaged
