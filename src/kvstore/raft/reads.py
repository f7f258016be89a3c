"""Linearizable reads without a log entry (dissertation §6.4).

The leader notes its commit index, proves by a round of heartbeats that it still led after the
reads had come, and lets them go on once that index is applied. All reads that wait share the next
round; rounds overlap up to a bound. A round's number is fresh each time it is sent, and an answer
to a later round confirms the earlier ones too.

A follower asks its leader for the index (§6.4). Each try has an id of its own, never used again:
an answer to a try that was given up must not complete a later one, least of all after a change
of leader (etcd #20418).

There are no leases (§6.4.1): a process that stood still (SIGSTOP, a paused machine) would serve
stale reads by one, whatever clocks are assumed.
"""

from __future__ import annotations

from kvstore.errors import InvalidArgumentError, UnavailableError
from kvstore.raft import quorum
from kvstore.raft.messages import NOBODY, Message, MessageKind, ReadState, Role
from kvstore.raft.state import State

__all__ = [
    "ROUNDS_MAX",
    "begin_round",
    "confirm",
    "flush",
    "handle_read",
    "handle_read_response",
    "let_go",
    "request",
    "take_over",
    "tick",
]

ROUNDS_MAX = 8
"""Rounds with reads that may be under way at once; later reads wait and share the next."""


def request(state: State, context: int) -> None:
    """Register a read of the caller's."""
    reads = state.reads
    if context in reads.own:
        raise InvalidArgumentError(f"read context {context} is in use")
    if len(reads.own) >= state.options.reads_waiting_max:
        raise UnavailableError(f"{len(reads.own)} reads wait for a read point already")
    if not state.configurations.current.voters:
        raise UnavailableError("this member knows no cluster yet")
    ticks = state.options.read_ticks_max or 2 * state.options.election_ticks
    reads.own[context] = state.now + ticks
    if state.role is Role.LEADER:
        reads.waiting.append((state.id, context))
    else:
        reads.queue.append(context)


def let_go(state: State) -> None:
    """The role ends: own reads start over, those of others are tried again by their askers."""
    reads = state.reads
    reads.queue = list(reads.own)
    reads.tries.clear()
    reads.waiting = []
    reads.rounds.clear()
    reads.round = 0


def take_over(state: State) -> None:
    """This member leads now: what it would have asked for it can find out itself."""
    reads = state.reads
    reads.waiting = [(state.id, context) for context in reads.queue]
    reads.queue = []


def begin_round(state: State) -> None:
    """Send heartbeats with a fresh round number (leader)."""
    reads = state.reads
    reads.round += 1
    commit = state.log.commit
    for member, progress in state.progress.items():
        told = commit if commit < progress.match else progress.match
        progress.commit_told = max(progress.commit_told, told)
        state.messages.append(
            Message(
                MessageKind.HEARTBEAT,
                member,
                state.id,
                state.term,
                log_index=progress.match,
                commit=told,
                context=reads.round,
            )
        )


def flush(state: State) -> None:
    """Start what waits: a round for the leader's reads, or a try at the leader."""
    reads = state.reads
    if state.role is Role.LEADER:
        if reads.waiting:
            _serve(state)
    elif reads.queue and state.leader != NOBODY:
        reads.try_id = (reads.try_id + 1) % (1 << 62)
        reads.tries[reads.try_id] = (state.now, reads.queue)
        reads.queue = []
        state.send(MessageKind.READ, state.leader, context=reads.try_id)


def _serve(state: State) -> None:
    reads = state.reads
    # The commit index is current only once an entry of this term is committed (§6.4 step 1).
    if state.log.commit < state.term_start:
        return
    if len(reads.rounds) < ROUNDS_MAX:
        begin_round(state)
        reads.rounds.append((reads.round, state.log.commit, reads.waiting))
        reads.waiting = []
        confirm(state)


def confirm(state: State) -> None:
    """Complete the reads of all rounds that a quorum has answered (§6.4 step 2)."""
    reads = state.reads
    if not reads.rounds:
        return

    def answered(member: int) -> int:
        if member == state.id:
            return reads.round
        progress = state.progress.get(member)
        return progress.round if progress is not None else 0

    confirmed = quorum.agreed(state.configurations.current, answered)
    while reads.rounds and reads.rounds[0][0] <= confirmed:
        _, index, served = reads.rounds.popleft()
        _complete(state, index, served)


def _complete(state: State, index: int, served: list[tuple[int, int]]) -> None:
    reads = state.reads
    for asker, context in served:
        if asker != state.id:
            progress = state.progress.get(asker)
            if progress is not None:
                # It waits for that index, and nothing else may be due that tells it.
                progress.commit_wanted = max(progress.commit_wanted, index)
            state.send(MessageKind.READ_RESPONSE, asker, context=context, log_index=index)
        elif reads.own.pop(context, None) is not None:
            reads.done.append(ReadState(context, index))


def handle_read(state: State, message: Message) -> None:
    """A follower asks for the read index; without room it tries again later."""
    waiting = state.reads.waiting
    if state.role is Role.LEADER and len(waiting) < state.options.reads_waiting_max:
        waiting.append((message.sender, message.context))


def handle_read_response(state: State, message: Message) -> None:
    """The leader's read index for a try; late answers to abandoned tries find nothing."""
    reads = state.reads
    _, contexts = reads.tries.pop(message.context, (0, ()))
    for context in contexts:
        if reads.own.pop(context, None) is not None:
            reads.done.append(ReadState(context, message.log_index))


def tick(state: State) -> None:
    """Give up reads that waited too long and repeat tries that got no answer."""
    reads = state.reads
    while reads.own:
        context, deadline = next(iter(reads.own.items()))
        if deadline > state.now:
            break
        del reads.own[context]
        reads.failed.append(context)
    if not reads.own:
        reads.queue = []
        reads.tries.clear()
        return
    patience = max(2, state.options.election_ticks // 2)
    late = [key for key, (sent, _) in reads.tries.items() if state.now - sent >= patience]
    for key in late:
        _, contexts = reads.tries.pop(key)
        reads.queue.extend(context for context in contexts if context in reads.own)
