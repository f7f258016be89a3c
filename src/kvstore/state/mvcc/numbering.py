"""Requests that a session numbered, as a slice of operations sees them: each is done once.

What is remembered of v1's writes (:mod:`kvstore.state.sessions`) is remembered of operations, and
the revision that they came to. Of one that was refused nothing is: a retry may be done yet.
"""

from __future__ import annotations

from typing import Protocol

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import Answer, DeleteRangeAnswer, RepeatedAnswer, TxnAnswer
from kvstore.state.mvcc.operations import fingerprint_of
from kvstore.state.mvcc.requests import Numbered, Operation
from kvstore.state.requests import word_of
from kvstore.state.sessions import Session, SessionParts

__all__ = ["Numbering", "OpenSessions"]


class OpenSessions(Protocol):
    """The sessions of the state, in either form."""

    @property
    def idle_ms(self) -> int:
        """How long one lives without a write."""

    def parts(self, name: bytes) -> SessionParts | None:
        """What there is of a session, be it that its time is over; None for none."""


class Numbering:
    """Of one slice. Changes nothing but itself: :attr:`used` is what is to be taken over."""

    __slots__ = ("_index", "_now_ms", "_place", "_sessions", "used")

    def __init__(self, sessions: OpenSessions) -> None:
        self._sessions = sessions
        self._index = self._place = self._now_ms = 0
        self.used: dict[bytes, Session] = {}
        """The sessions that were used, as they are then; the one that was used last comes last."""

    def begin_entry(self, index: int, now_ms: int) -> None:
        """What is asked from here on is of the entry ``index``, at that time of the log's clock."""
        self._index, self._now_ms, self._place = index, now_ms, 0

    def begin(self, request: Numbered, operation: Operation) -> RepeatedAnswer | None:
        """What a request came to that was done before, None for one that is to be done now.

        Raises EtcdError for one of which that can't be known, or that was another operation.
        """
        name, sequence, floor = request
        session = self._use(name)
        if session is None:
            raise EtcdError(Reason.SESSION_FORGOTTEN)
        session.advance(floor)
        if sequence < session.floor:
            raise EtcdError(Reason.SEQUENCE_PASSED)
        known = session.find(sequence)
        if not known:
            return None
        revision, count = session.answer(sequence)
        if known & ~1 != word_of(fingerprint_of(operation)) or not revision:
            raise EtcdError(Reason.NUMBER_REUSED)
        return RepeatedAnswer(revision, bool(known & 1), count)

    def remember(self, request: Numbered, operation: Operation, answer: Answer) -> None:
        """A request that :meth:`begin` knew nothing of was done."""
        succeeded = not isinstance(answer, TxnAnswer) or answer.succeeded
        word = word_of(fingerprint_of(operation)) | succeeded
        session = self.used[request.session]
        session.remember(request.sequence, word, answer.revision, _deleted(answer))

    def _use(self, name: bytes) -> Session | None:
        session = self.used.get(name)
        if session is None:
            parts = self._sessions.parts(name)
            if parts is None:
                return None
            session = Session.of_parts(parts)
        if session.used_ms + self._sessions.idle_ms > self._now_ms:
            session.used_ms = self._now_ms
            session.used = self._index, self._place
            self._place += 1
            self.used.pop(name, None)
            self.used[name] = session
            return session
        return None


def _deleted(answer: object) -> int:
    """How many keys were deleted, in all."""
    if isinstance(answer, TxnAnswer):
        return sum(map(_deleted, answer.answers))
    return answer.deleted if isinstance(answer, DeleteRangeAnswer) else 0
