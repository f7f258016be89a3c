"""Which of the core's answers ends which plain call."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.api.v1 import raft_pb2
from kvstore.errors import CorruptionError
from kvstore.raft.messages import Entry, EntryKind, Message, MessageKind
from kvstore.server.peers.unary import WAITING_MAX, UnaryCalls, append_message

K = MessageKind
VOTE = Message(K.VOTE, 2, 1, 4, log_index=9)
PRE_VOTE = Message(K.PRE_VOTE, 2, 1, 4, log_index=9)
APPEND = Message(K.APPEND, 2, 1, 4, log_index=9, entries=[Entry(4, 10, EntryKind.COMMAND, b"x")])


def said(kind: MessageKind, term: int, index: int = 0, *, reject: bool = False) -> Message:
    return Message(kind, 1, 2, term, log_index=index, reject=reject)


@pytest.mark.parametrize(
    ("request_", "answer", "ends"),
    [
        (VOTE, said(K.VOTE_RESPONSE, 4), True),
        (VOTE, said(K.VOTE_RESPONSE, 3), False),
        (VOTE, said(K.VOTE_RESPONSE, 5, reject=True), True),
        (VOTE, said(K.VOTE_RESPONSE, 3, reject=True), False),
        (VOTE, said(K.PRE_VOTE_RESPONSE, 4), False),
        (PRE_VOTE, said(K.PRE_VOTE_RESPONSE, 4), True),
        (PRE_VOTE, said(K.PRE_VOTE_RESPONSE, 5), False),
        (PRE_VOTE, said(K.PRE_VOTE_RESPONSE, 3, reject=True), True),
        (APPEND, said(K.APPEND_RESPONSE, 4, 10), True),
        (APPEND, said(K.APPEND_RESPONSE, 4, 8), False),
        (APPEND, said(K.APPEND_RESPONSE, 3, 10), False),
        (APPEND, said(K.APPEND_RESPONSE, 4, 9, reject=True), True),
        (APPEND, said(K.APPEND_RESPONSE, 6, 9, reject=True), True),
        (APPEND, said(K.APPEND_RESPONSE, 4, 7, reject=True), False),
    ],
)
def test_a_call_ends_with_what_can_be_said_to_it(
    request_: Message, answer: Message, ends: bool
) -> None:
    async def test() -> None:
        calls = UnaryCalls()
        waiting = calls.expect(request_)
        calls.hear(answer)
        assert waiting.done() is ends
        if ends:
            assert waiting.result() is answer

    asyncio.run(test())


def test_an_acknowledgement_ends_all_calls_whose_entries_it_covers() -> None:
    async def test() -> None:
        calls = UnaryCalls()
        entries = [Entry(4, index, EntryKind.COMMAND, b"x") for index in (10, 11, 12)]
        appends = [
            Message(K.APPEND, 2, 1, 4, log_index=entry.index - 1, entries=[entry])
            for entry in entries
        ]
        waiting = [calls.expect(append) for append in appends]
        calls.hear(said(K.APPEND_RESPONSE, 4, 11))
        assert [call.done() for call in waiting] == [True, True, False]
        calls.hear(said(K.APPEND_RESPONSE, 4, 12))
        assert waiting[2].done()

    asyncio.run(test())


def test_a_vote_ends_one_call() -> None:
    async def test() -> None:
        calls = UnaryCalls()
        waiting = [calls.expect(VOTE), calls.expect(VOTE)]
        calls.hear(said(K.VOTE_RESPONSE, 4))
        assert [call.done() for call in waiting] == [True, False]

    asyncio.run(test())


def test_calls_that_were_given_up_are_forgotten_and_take_nothing() -> None:
    async def test() -> None:
        calls = UnaryCalls()
        given_up, waiting = calls.expect(VOTE), calls.expect(VOTE)
        given_up.cancel()
        calls.hear(said(K.VOTE_RESPONSE, 4))
        assert await waiting == said(K.VOTE_RESPONSE, 4)
        await asyncio.sleep(0)
        assert not calls._waiting

    asyncio.run(test())


def test_calls_that_wait_are_bounded() -> None:
    async def test() -> None:
        calls = UnaryCalls()
        waiting = [calls.expect(VOTE) for _ in range(WAITING_MAX + 1)]
        with pytest.raises(TimeoutError):
            await waiting[0]
        assert not any(call.done() for call in waiting[1:])

    asyncio.run(test())


@pytest.mark.parametrize(
    ("places", "right"),
    [
        ([(2, 6), (3, 7)], True),
        ([(3, 6)], True),
        ([(2, 6), (2, 8)], False),
        ([(1, 6)], False),
        ([(3, 6), (2, 7)], False),
    ],
)
def test_entries_that_do_not_follow_each_other_are_refused(
    places: list[tuple[int, int]], right: bool
) -> None:
    """The one before the first is entry 5 of term 2."""
    request = raft_pb2.AppendEntriesRequest(term=9, prev_log_index=5, prev_log_term=2)
    for term, index in places:
        request.entries.add(term=term, index=index, kind=EntryKind.COMMAND)
    if right:
        assert [(e.term, e.index) for e in append_message(request, 1).entries] == places
    else:
        with pytest.raises(CorruptionError, match="doesn't follow"):
            append_message(request, 1)
