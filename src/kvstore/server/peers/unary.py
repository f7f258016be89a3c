"""Raft's plain calls: RequestVote and AppendEntries (figure 2 of the paper).

The core answers with messages, whenever what they promise is durable, and doesn't say to which
request. So a call listens: it ends with the first answer to its caller that can be its own. Each
answer goes on the stream to that member all the same. Said twice it is harmless; kept from the
stream it would be missing there.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from kvstore.api.v1 import raft_pb2
from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft.messages import Entry, EntryKind, Message, MessageKind

# Calls of one peer that may wait for one kind of answer.
WAITING_MAX = 64

_ANSWER = {
    MessageKind.PRE_VOTE: MessageKind.PRE_VOTE_RESPONSE,
    MessageKind.VOTE: MessageKind.VOTE_RESPONSE,
    MessageKind.APPEND: MessageKind.APPEND_RESPONSE,
}

_Waiting = dict[asyncio.Future[Message], Message]


class UnaryCalls:
    """Calls that wait for the core's answer, oldest first, by caller and kind of answer."""

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[int, MessageKind], _Waiting] = defaultdict(dict)

    def expect(self, request: Message) -> asyncio.Future[Message]:
        """The answer to ``request``, of a peer; raises TimeoutError when too many wait."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        key = request.sender, _ANSWER[request.kind]
        waiting = self._waiting[key]
        waiting[future] = request
        future.add_done_callback(lambda done: self._forget(key, done))
        if len(waiting) > WAITING_MAX:
            oldest = next(iter(waiting))
            del waiting[oldest]
            if not oldest.done():
                oldest.set_exception(TimeoutError())
        return future

    def hear(self, message: Message) -> None:
        """The core says ``message``: it ends the oldest call whose answer it can be.

        An acknowledgement ends all whose entries it covers: the core says it once for them.
        """
        waiting = self._waiting.get((message.to, message.kind)) if self._waiting else None
        said = False
        for future, request in (waiting or {}).items():
            if future.done() or not _answers(message, request):
                continue
            if not said or _covers(message, request):
                future.set_result(message)
                said = True

    def _forget(self, key: tuple[int, MessageKind], future: asyncio.Future[Message]) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.pop(future, None)
            if not waiting:
                del self._waiting[key]


def _answers(message: Message, request: Message) -> bool:
    """Whether the core says such a thing to ``request``, and it is true of it."""
    if message.kind is MessageKind.PRE_VOTE_RESPONSE:
        return message.reject or message.term == request.term
    if message.reject:
        return message.term >= request.term and message.log_index in (0, request.log_index)
    if message.kind is MessageKind.VOTE_RESPONSE:
        return message.term == request.term
    # Of what is committed already the core only says how far that goes.
    return message.term == request.term and message.log_index >= request.log_index


def _covers(message: Message, request: Message) -> bool:
    """Whether an acknowledgement says that all of an append's entries are durable."""
    return (
        message.kind is MessageKind.APPEND_RESPONSE
        and not message.reject
        and message.log_index >= request.log_index + len(request.entries)
    )


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
