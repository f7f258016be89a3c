"""Raft's plain calls: RequestVote and AppendEntries (figure 2 of the paper).

The core answers with messages, whenever what they promise is durable. A call waits for the
answer that goes to its caller; members that use the stream never come here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque

from kvstore.api.v1 import raft_pb2
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft.messages import Entry, EntryKind, Message, MessageKind

# Calls of one peer that may wait for one kind of answer.
WAITING_MAX = 64

Waiting = deque[asyncio.Future[Message]]


class UnaryCalls:
    """Calls that wait for the core's answer, oldest first, by peer and kind."""

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[int, MessageKind], Waiting] = defaultdict(deque)

    def expect(self, peer: int, kind: MessageKind) -> asyncio.Future[Message]:
        """The next answer of ``kind`` to ``peer``; raises TimeoutError when too many wait."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[peer, kind]
        waiting.append(future)
        if len(waiting) > WAITING_MAX:
            oldest = waiting.popleft()
            if not oldest.done():
                oldest.set_exception(TimeoutError())
        return future

    def answers(self, message: Message) -> bool:
        """Give ``message`` to the call that waits for it; False when there is none."""
        if not self._waiting:
            return False
        waiting = self._waiting.get((message.to, message.kind))
        if waiting is None:
            return False
        taken = False
        while waiting and not taken:
            future = waiting.popleft()
            if not future.done():
                future.set_result(message)
                taken = True
        if not waiting:
            del self._waiting[message.to, message.kind]
        return taken


def vote_message(request: raft_pb2.RequestVoteRequest, member: int) -> Message:
    """The core's form of a request for a vote."""
    return Message(
        MessageKind.PRE_VOTE if request.pre_vote else MessageKind.VOTE,
        member,
        request.candidate_id,
        _bounded(request.term),
        log_index=_bounded(request.last_log_index),
        log_term=_bounded(request.last_log_term),
    )


def append_message(request: raft_pb2.AppendEntriesRequest, member: int) -> Message:
    """The core's form of an append. Raises CorruptionError for entries that don't follow."""
    entries = []
    last_term = request.prev_log_term
    for offset, entry in enumerate(request.entries, 1):
        if entry.index != request.prev_log_index + offset or entry.term < last_term:
            raise CorruptionError(
                f"entry {entry.index} of term {entry.term} doesn't follow the one before it",
                code=IntegrityCode.INVALID_RECORD,
            )
        if entry.kind not in tuple(EntryKind):
            raise CorruptionError(
                f"entry {entry.index} has the unknown kind {entry.kind}",
                code=IntegrityCode.INVALID_OPERATION,
            )
        last_term = _bounded(entry.term)
        entries.append(
            Entry(entry.term, _bounded(entry.index), EntryKind(entry.kind), entry.payload)
        )
    return Message(
        MessageKind.APPEND,
        member,
        request.leader_id,
        _bounded(request.term),
        log_index=_bounded(request.prev_log_index),
        log_term=_bounded(request.prev_log_term),
        commit=_bounded(request.leader_commit),
        entries=entries,
    )


def vote_response(answer: Message) -> raft_pb2.RequestVoteResponse:
    """What a call for a vote is told."""
    return raft_pb2.RequestVoteResponse(term=answer.term, vote_granted=not answer.reject)


def append_response(answer: Message) -> raft_pb2.AppendEntriesResponse:
    """What an append is told."""
    if answer.reject:
        return raft_pb2.AppendEntriesResponse(
            term=answer.term,
            success=False,
            conflict_index=answer.hint_index,
            conflict_term=answer.log_term,
        )
    return raft_pb2.AppendEntriesResponse(
        term=answer.term, success=True, match_index=answer.log_index
    )


def _bounded(number: int) -> int:
    if number >= 1 << 63:
        raise CorruptionError(f"{number} is out of range", code=IntegrityCode.INVALID_RECORD)
    return number
