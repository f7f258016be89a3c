"""Calls of the hot methods: taken and answered in batches, whichever connection they came by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from kvstore._wire.native import WHOLE, HotCall, answer_all, living
from kvstore.wire.server.call import UNREAD
from kvstore.wire.server.identity import INSECURE, AuthContext
from kvstore.wire.server.limits import RETRY_PUSHBACK
from kvstore.wire.server.slow import SlowSink
from kvstore.wire.server.traces import TraceSink

if TYPE_CHECKING:
    from kvstore.wire.server.connection import Connection
    from kvstore.wire.server.server import Server

__all__ = ["HotCalls", "TakeHot", "shares"]

log = structlog.get_logger("kvstore.wire")

TakeHot = Callable[[list[HotCall]], None]
"""Gets the calls of a turn; each is answered once, by :meth:`HotCalls.answer` or ``end``."""

# Of a batch that is slow, how many are looked at.
SLOW_LOOK_MAX = 256

# Taken in one turn of the loop; beyond it connections get equal shares.
CALLS_A_TURN = 1024

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


class HotCalls:
    """Those of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        # Of the methods that the metrics are told of, by number.
        self._paths: dict[int, str] = {}
        self._take_decoded: TakeHot | None = None
        self._take_whole: TakeHot | None = None

    def take_by(self, take: TakeHot, paths: Sequence[str], first: int = 0) -> None:
        """Have ``take`` called with the calls of ``paths``, which are numbered from ``first`` on:
        those that are decoded, or those that are taken whole."""
        self._paths |= dict(enumerate(paths, start=first))
        if first < WHOLE:
            self._take_decoded = take
        else:
            self._take_whole = take

    def take(self) -> bool:
        """Hand on what came in this turn. True: there is more, for the next turn."""
        waiting = self._server.hot
        if len(waiting) <= CALLS_A_TURN:
            # Whoever pours in calls and gives them up gets no more done than their decoding.
            calls = living(waiting)
            waiting.clear()
        else:
            calls, waiting[:], late = shares(waiting)
            if late and self._server.counter is not None:
                self._count(late)
        room = self._server.limits.calls_max - self._server.calls
        if len(calls) > room:
            self._refuse(calls[max(room, 0) :])
            del calls[max(room, 0) :]
        if calls:
            self._server.calls += len(calls)
            decoded = [call for call in calls if call.method < WHOLE]
            self._hand_on(self._take_decoded, decoded)
            if len(decoded) < len(calls):
                self._hand_on(self._take_whole, [call for call in calls if call.method >= WHOLE])
        return bool(waiting)

    def _hand_on(self, take: TakeHot | None, calls: list[HotCall]) -> None:
        if not calls or take is None:
            return
        try:
            take(calls)
        except Exception:
            log.exception("a handler raised", method=self._paths.get(calls[0].method))
            for call in calls:
                if not call.answered:
                    self.end(call, _broken)

    def answer(self, calls: list[HotCall], results: list[Any]) -> list[int]:
        """Answer those whose result is one: True, False, bytes or None.

        Returns the places of the others, whose results are errors, or messages that have no room
        yet; they are to be ended by :meth:`end`.
        """
        owners: set[Connection] = set()
        left = answer_all(calls, results, owners)
        for owner in owners:
            owner.touch()
        self._server.calls -= len(calls) - len(left)
        if self._server.counter is not None:
            others = set(left)
            self._count([call for place, call in enumerate(calls) if place not in others])
        if self._server.slow is not None:
            self._look_at(self._server.slow, calls)
        if self._server.traces is not None:
            self._tell(self._server.traces, calls)
        return left

    def end(self, call: HotCall, answer: Callable[[HotCall], None]) -> None:
        """Answer one call by ``answer``, which calls one of its methods."""
        session = call.session
        if session is not None:
            answer(call)
            session.owner.touch()
        self._server.calls -= 1
        if self._server.counter is not None:
            self._count([call])
        if self._server.slow is not None:
            self._look_at(self._server.slow, [call])
        if self._server.traces is not None:
            self._tell(self._server.traces, [call])

    def refuse_unread(self, call: HotCall) -> None:
        """End one whose message has no room, and isn't to wait for it."""
        self._server.counters.refused_unread += 1
        # Not RESOURCE_EXHAUSTED, which says that nothing was done.
        self.end(call, lambda ended: ended.fail(_UNAVAILABLE, UNREAD, RETRY_PUSHBACK))

    def caller(self, call: HotCall) -> tuple[AuthContext, str]:
        """What is known of who makes a call: as ``auth_context`` and ``peer`` of a context."""
        session = call.session
        return (INSECURE, "") if session is None else (session.owner.auth, session.owner.peer)

    def count_refused(self) -> None:
        """Tell the metrics of calls that the sessions refused."""
        refused = self._server.hot_refused
        if self._server.counter is not None:
            for (method, status), count in refused.items():
                if method in self._paths:
                    self._server.counter(self._paths[method], _NAMES[status], 0.0, count)
        refused.clear()

    def _refuse(self, calls: list[HotCall]) -> None:
        self._server.counters.refused_calls += len(calls)
        for call in calls:
            _fail(call, _EXHAUSTED, "too many calls at one time; try again")
        if self._server.counter is not None:
            self._count(calls)

    def _look_at(self, slow: SlowSink, calls: Sequence[HotCall]) -> None:
        """Tell of the slow ones, if there are any: the first of a batch has waited longest."""
        if not calls:
            return
        now = monotonic()
        if now - calls[0].received_at < slow.slow_s:
            return
        groups: dict[tuple[int, int, float], tuple[int, int]] = {}
        for call in calls[:SLOW_LOOK_MAX]:
            if call.answered:
                kind = call.method, call.status, call.received_at
                number, size = groups.get(kind, (0, 0))
                groups[kind] = number + 1, size + _size(call)
        for (method, status, received_at), (number, size) in groups.items():
            if now - received_at >= slow.slow_s and method in self._paths:
                code = _NAMES.get(status, "CANCELLED")
                slow.note(self._paths[method], code, received_at, now, number, size)

    def _tell(self, traces: TraceSink, calls: Sequence[HotCall]) -> None:
        """Tell of those with metadata, which are few, whether they are traced or not."""
        now = monotonic()
        for call in calls:
            if call.metadata and call.answered and call.method in self._paths:
                path, code = self._paths[call.method], _NAMES.get(call.status, "CANCELLED")
                traces.note(path, code, call.received_at, now, call.metadata, _size(call))

    def _count(self, calls: Sequence[HotCall]) -> None:
        """Tell the metrics. Calls of a batch came together more often than not."""
        counter = self._server.counter
        assert counter is not None
        now = monotonic()
        alike: dict[tuple[int, int, float], int] = {}
        for call in calls:
            kind = call.method, call.status, call.received_at
            alike[kind] = alike.get(kind, 0) + 1
        for (method, status, received_at), count in alike.items():
            code = _NAMES.get(status, "CANCELLED")
            if method in self._paths:
                counter(self._paths[method], code, now - received_at, count)


def shares(waiting: list[HotCall]) -> tuple[list[HotCall], list[HotCall], list[HotCall]]:
    """Divide what waits into this turn's calls, of each connection alike, the rest, and
    those whose time was over, which are answered.

    Those that are gone are none of these.
    """
    now = monotonic()
    late: list[HotCall] = []
    by_session: dict[Any, list[HotCall]] = {}
    for call in waiting:
        session = call.session
        if session is None:
            continue
        if call.deadline <= now:
            _fail(call, _LATE, "the deadline passed before the call's turn")
            late.append(call)
            continue
        by_session.setdefault(session, []).append(call)
    share = max(1, CALLS_A_TURN // max(1, len(by_session)))
    taken: list[HotCall] = []
    rest: list[HotCall] = []
    for calls in by_session.values():
        taken += calls[:share]
        rest += calls[share:]
    return taken, rest, late


def _size(call: HotCall) -> int:
    """Of its request. A decoded one has no message, one that is taken whole nothing else."""
    return sum(map(len, filter(None, (call.key, call.value, call.message))))


def _broken(call: HotCall) -> None:
    call.fail(grpc.StatusCode.INTERNAL.value[0], "the handler of the batch raised")


def _fail(call: HotCall, status: int, details: str) -> None:
    session = call.session
    if session is not None:
        call.fail(status, details, RETRY_PUSHBACK if status == _EXHAUSTED else ())
        session.owner.touch()
