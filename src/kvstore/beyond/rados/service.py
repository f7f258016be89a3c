"""The rules of a request over a pool: the twin of :class:`kvstore.service.service.KVService`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvstore.beyond.rados.abandoned import Abandoned
from kvstore.beyond.rados.failing import is_final, read_failure
from kvstore.beyond.rados.hearing import Hearing
from kvstore.beyond.rados.objects import Objects
from kvstore.beyond.rados.objects import Operation as RadosOperation
from kvstore.beyond.rados.pool_clock import PoolClock
from kvstore.beyond.rados.reading import Reading
from kvstore.beyond.rados.waiting import Waiter, Waiting
from kvstore.beyond.rados.writing import Write, Writing
from kvstore.errors import (
    Error,
    ForgottenError,
    Refusal,
    UnavailableError,
    UnsupportedError,
)
from kvstore.service.calls import as_calls
from kvstore.service.limits import Limits
from kvstore.service.operations import Answered, Asked, Done, Method, Operation
from kvstore.service.request_ids import understand
from kvstore.state import delete_command, put_command
from kvstore.state.requests import word_of

__all__ = ["NO_SESSIONS", "RadosFigures", "RadosService"]

NO_SESSIONS: Final = (
    "a pool has no sessions: give each write a request_id of its own, and say of a retry how old "
    "it is (kvstore-attempt, kvstore-age-ms)"
)
CLOSED: Final = "this gateway is stopping; a retry with the same request_id is safe, at any other"
STARTING: Final = "the pool was not heard of yet"

SILENCE_S = 3.0
"""Without any answer for so long, all of the pool stands still, and not some placement groups."""
ABANDONED_SHARE = 4
"""One in so many of what was given up counts while only a part of the pool stands still: that part
alone shouldn't have calls for all others refused."""


@dataclass(frozen=True, slots=True)
class RadosFigures:
    """A moment of a service. ``reads``, ``turns``: under way in the pool; ``waiting``: calls that
    aren't answered; ``write_bytes``: of writes that are held; ``abandoned``, ``abandoned_bytes``:
    operations that nobody waits for, and the pool hasn't answered; ``conflicts``: turns that were
    done again, as another gateway was there first; ``failures``: operations that came to nothing,
    by errno; ``silent_s``: since the pool answered last, without end if it never did."""

    waiting: int
    reads: int
    turns: int
    write_bytes: int
    abandoned: int
    abandoned_bytes: int
    conflicts: int
    failures: dict[int, int]
    silent_s: float


class RadosService:
    """A :class:`kvstore.service.operations.Service`. One thread; knows no event loop.

    Whoever drives it calls :meth:`finished` with what the pool has finished, and :meth:`tick` every
    100 ms or so.
    """

    def __init__(
        self,
        objects: Objects,
        salt: bytes,
        *,
        now: Callable[[], float],
        world: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        draw: Callable[[int], bytes] = os.urandom,
        limits: Limits | None = None,
        fenced: Callable[[Error], None] = lambda error: None,
    ) -> None:
        """``now`` is the monotonic clock, of deadlines, and ``world`` one that goes on while the
        machine sleeps; both in seconds. ``later`` calls back after so many of them. ``salt``: the
        marker's. ``fenced`` hears, once, that the cluster takes nothing from this client any more.
        """
        self._now = now
        self._world = world
        self._draw = draw
        self._limits = limits or Limits()
        self._fenced = fenced
        self._failures: dict[int, int] = {}
        self._closed = False
        self._waiting = waiting = Waiting(self._limits)
        self._abandoned = abandoned = Abandoned(now)
        self.clock = PoolClock(objects, now=world, failed=self._ended)
        self._hearing = Hearing(objects, now=world, draw=draw)
        self._reading = Reading(objects, waiting, abandoned, salt, now=world, ended=self._ended)
        self._writing = Writing(
            objects,
            waiting,
            abandoned,
            self.clock,
            salt,
            now=world,
            later=self._guarded_later(later),
            draw=draw,
            ended=self._ended,
        )

    def _guarded_later(
        self, later: Callable[[float, Callable[[], None]], object]
    ) -> Callable[[float, Callable[[], None]], object]:
        def call_later(pause_s: float, call: Callable[[], None]) -> object:
            def then() -> None:
                call()
                self._go_on()

            return later(pause_s, then)

        return call_later

    @property
    def waiting(self) -> int:
        """Calls that are not answered yet."""
        return self._waiting.count

    def figures(self) -> RadosFigures:
        """This moment."""
        writing = self._writing
        return RadosFigures(
            self._waiting.count,
            self._reading.under_way,
            writing.under_way,
            writing.size,
            len(self._abandoned),
            self._abandoned.size,
            writing.conflicts,
            dict(self._failures),
            self.silent_s(),
        )

    def submit(self, operations: Sequence[Operation], deadline: float, done: Done) -> None:
        """See :class:`kvstore.service.operations.Service`."""
        if not operations:
            done(())
            return
        self.take(*as_calls(operations, deadline, done, lambda: self._draw(16)))

    def take(self, calls: Sequence[Asked], answered: Answered) -> None:
        """See :class:`kvstore.service.operations.Service`."""
        now = self._now()
        for call in calls:
            waiter = Waiter(call, answered)
            refusal = self._refusal(call, now)
            self._waiting.add(waiter)
            if refusal is not None:
                self._waiting.decide(waiter, refusal)
            elif call.method == Method.GET:
                self._reading.add(waiter)
            else:
                self._take_write(waiter)
        self._go_on()

    def _refusal(self, call: Asked, now: float) -> Error | None:
        limits = self._limits
        wrong = limits.breach(call.method, len(call.key), len(call.value), len(call.request_id))
        if wrong is not None:
            return wrong
        if self._closed:
            return UnavailableError(CLOSED)
        if call.deadline <= now:
            return limits.came_late()
        share = 1 if self._hearing.silent_s() > SILENCE_S else ABANDONED_SHARE
        count = self._waiting.count + len(self._abandoned) // share
        size = self._writing.size + self._abandoned.size // share
        if count >= limits.calls_max or size >= limits.gathered_bytes_max:
            return limits.overloaded(count)
        if call.method == Method.OPEN_SESSION:
            return UnsupportedError(NO_SESSIONS)
        if call.method != Method.GET and not self.clock.is_set:
            return UnavailableError(STARTING)
        return None

    def _take_write(self, waiter: Waiter) -> None:
        call = waiter.call
        named = understand(call.request_id, self._limits)
        if isinstance(named, Error):
            self._waiting.decide(waiter, named)
            return
        if named.sequence:
            # Of a group: whatever became of it there, nobody here can know.
            self._waiting.decide(waiter, ForgottenError(Refusal.SESSION_EXPIRED))
            return
        value = call.value if call.method == Method.PUT else None
        if value is None:
            command = delete_command(named.request, call.key)
        else:
            command = put_command(named.request, call.key, value)
        sent_at = None
        if call.age_s is not None:
            sent_at = self._world() - call.age_s - self._limits.delay_s
        word = word_of(command.fingerprint)
        self._writing.add(Write(waiter, value, named.request, word, sent_at))

    def finished(self, operations: Sequence[RadosOperation]) -> None:
        """Take what the pool has finished, and go on."""
        for operation in operations:
            if self._abandoned:
                self._abandoned.answered(operation)
            self._hearing.heard(operation)
            operation.done(operation)
        self._go_on()

    def tick(self) -> None:
        """Give up calls whose deadline has passed, and look at the pool's clock if that is due."""
        self._waiting.expire(self._now())
        self._abandoned.tick()
        if not self._closed:
            self.clock.tick()
            self._hearing.tick()
        self._go_on()

    def silent_s(self) -> float:
        """For how long the pool has not answered; without end if it never did."""
        return self._hearing.silent_s()

    def close(self) -> None:
        """Answer all that waits, and give up what is under way."""
        self._closed = True
        self._waiting.close(UnavailableError(CLOSED))
        self._abandoned.close()
        self.clock.close()
        self._hearing.close()
        self._waiting.answer()

    def _go_on(self) -> None:
        if not self._closed:
            self._reading.go_on()
            self._writing.go_on()
        self._waiting.answer()

    def _ended(self, code: int) -> None:
        self._failures[-code] = self._failures.get(-code, 0) + 1
        if is_final(code):
            self._fenced(read_failure(code))
