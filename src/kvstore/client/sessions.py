"""A client's session: numbers for its writes, and the floor below which all are done. No I/O here.

A write that finds no session to use, because another one is just opening it, the window is full or
the server has none to give, gets an id of its own instead: that is remembered too, if not for ever.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable

from kvstore.api.v1 import session_pb2
from kvstore.client import forks

__all__ = ["PlainWrite", "Session", "SessionWrite", "Sessions", "Write"]

REFUSED_S = 30.0
"""A server that had no session to give is asked again after this long."""


class PlainWrite:
    """A write with an id of its own."""

    __slots__ = ("request_id",)

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = uuid.uuid4().hex if request_id is None else request_id

    def done(self) -> None:
        """It won't be sent again."""


class SessionWrite:
    """A write that a session has numbered."""

    __slots__ = ("_sequence", "request_id", "session")

    def __init__(self, session: Session, sequence: int, floor: int) -> None:
        self.session = session
        self._sequence = sequence
        self.request_id = f"kvs1/{session.name}/{sequence}/{floor}"

    def done(self) -> None:
        """It won't be sent again."""
        self.session.finish(self._sequence)


Write = PlainWrite | SessionWrite


class Session:
    """One session, of this process: a child of ``fork`` that went on with it would repeat numbers,
    and its writes would be taken for those of its parent."""

    def __init__(
        self,
        opened: session_pb2.OpenSessionResponse,
        *,
        now: Callable[[], float] = time.monotonic,
        freed: Callable[[], None] = lambda: None,
    ) -> None:
        """``freed`` is called when it has room for more."""
        self._freed = freed
        self.name = opened.session
        self._window = opened.window
        self._idle_s = opened.idle_timeout_ms / 1000
        self.numbers_operations = opened.operations
        """Whether the server knows its numbers in etcd's API as well."""
        self._now = now
        self._began_at = now()
        self._used_at = now()
        self._process = forks.process
        self._last = 0
        # The oldest one under way, or the next one.
        self._floor = 1
        self._under_way: set[int] = set()

    @property
    def spent(self) -> bool:
        """Better to open another one: it was idle for half its time, or is a parent's."""
        return self._now() - self._used_at > self._idle_s / 2 or self._process != forks.process

    @property
    def age_s(self) -> float:
        """Since it was opened."""
        return self._now() - self._began_at

    @property
    def room(self) -> int:
        """How many more it can number until the oldest one under way is done."""
        return self._floor + self._window - 1 - self._last

    def begin(self) -> SessionWrite | None:
        """Number a write; None if the oldest one under way is too far behind."""
        if not self.room:
            return None
        sequence = self._last + 1
        self._last = sequence
        self._under_way.add(sequence)
        self._used_at = self._now()
        return SessionWrite(self, sequence, self._floor)

    def finish(self, sequence: int) -> None:
        """That one is done, well or not."""
        self._under_way.discard(sequence)
        if sequence == self._floor:
            while sequence <= self._last and sequence not in self._under_way:
                sequence += 1
            self._floor = sequence
            self._freed()


class Sessions:
    """The session that a client uses now, if any."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._session: Session | None = None
        # Operations that wait for a number.
        self._waiting: deque[Callable[[], None]] = deque()
        self._opening = False
        self._ask_again_at = now()

    @property
    def wanted(self) -> bool:
        """Whether the next write is to open one."""
        if self._session is not None and self._session.spent:
            self._session = None
        return self._session is None and not self._opening and self._now() >= self._ask_again_at

    def claim_for_operation(self) -> bool:
        """:meth:`claim`, also where there is a session whose numbers do for writes alone: its
        server, or one that took its place, may know better by now."""
        session = self._session
        if session and not session.numbers_operations and session.age_s >= REFUSED_S:
            self._session = None
        return self.claim()

    def claim(self) -> bool:
        """Whether the caller is to open a session now, and to say :meth:`opened` in any case."""
        if not self.wanted:
            return False
        self._opening = True
        return True

    def opened(self, opened: session_pb2.OpenSessionResponse | None, *, refused: bool) -> None:
        """What came of opening one; ``refused``: there is none to be had."""
        self._opening = False
        if opened is not None:
            self._session = Session(opened, now=self._now, freed=self._wake)
        elif refused:
            self._ask_again_at = self._now() + REFUSED_S
        self._wake()

    def expired(self, session: Session) -> None:
        """The server doesn't know that session any more."""
        if self._session is session:
            self._session = None

    def number(self) -> SessionWrite | None:
        """Number a write, if there is a session to use and room in its window."""
        session = self._session
        return None if session is None or session.spent else session.begin()

    def number_operation(self) -> SessionWrite | None:
        """Number a call of etcd's API; None where none of the servers is known to know of that, or
        where one :attr:`may_number` it later."""
        session = self._session
        return session.begin() if session and session.numbers_operations else None

    @property
    def may_number(self) -> bool:
        """Whether a session is just being opened, or numbers of one will be free again."""
        session = self._session
        return self._opening or bool(session and session.numbers_operations and not session.room)

    def await_number(self, call: Callable[[], None]) -> None:
        """``call`` once, when there may be a number for its caller."""
        self._waiting.append(call)

    def _wake(self) -> None:
        """Call as many of those that wait as there is room for; all, where there is no session."""
        session = self._session
        left = len(self._waiting) if session is None else min(session.room, len(self._waiting))
        for _ in range(left):
            self._waiting.popleft()()

    def begin(self) -> Write:
        """Number a write, or give it an id of its own."""
        session = self._session
        write = None if session is None else session.begin()
        return PlainWrite() if write is None else write
