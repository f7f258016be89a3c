"""Watchers: they follow keys for as long as a run lasts, through one member after the other, and
go on where they were whenever a connection, a member or history ends."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError
from kvstore.service.etcd.watch_stream import WatchStream
from kvstore.service.etcd.watch_words import (
    NO_WATCH,
    Canceled,
    Created,
    Events,
    Message,
    Progress,
    WatchRequest,
)
from kvstore.state.mvcc.answers import Event
from tests.simulator.agenda import MILLISECOND, SECOND, Agenda
from tests.simulator.etcd_client import KEYS
from tests.simulator.etcd_member import EtcdMember
from tests.simulator.plan import Plan
from tests.simulator.process import Process
from tests.simulator.trace import Trace, Violation
from tests.watch_validator import Asked, History, Seen, Watched, violations

__all__ = ["Watcher"]

RANGES = [(b"\0", b"\0"), (b"etcd-", b"etcd."), (b"etcd-1", b"etcd-3"), (b"key-", b"key.")]
LOOK_US = 100 * MILLISECOND
"""Between two looks at whether the connection is still there."""
STAY_US = (200 * MILLISECOND, 6 * SECOND)
"""So long a watcher stays with a member."""
BREAKS = 0.02
"""How many messages are the last that come over their connection."""
PROGRESS = 0.1
"""How often such a look asks for progress."""


def encode(event: Event, prev_kv: bool) -> Event:
    """As itself."""
    return event if prev_kv else event._replace(previous=None)


@dataclass(slots=True)
class _Followed:
    """Keys that are followed. ``next``: the first revision that isn't known yet, 0 where that is
    the next one when the watch begins."""

    request: WatchRequest
    next: int = 0


class _Connection:
    """A stream of watches at one member, as its client has it."""

    def __init__(self, followed: Sequence[_Followed]) -> None:
        self.is_open = True
        self.etcd: EtcdMember | None = None
        self.stream: WatchStream | None = None
        self.is_taking = False
        self.arrives_at = 0
        # Those that aren't created yet, and those that are, by their ids.
        self.to_come = deque(followed)
        self.watches: dict[int, tuple[_Followed, Watched]] = {}


class Watcher:
    """One client with a stream of one or two watches at a time."""

    def __init__(
        self,
        number: int,
        *,
        plan: Plan,
        agenda: Agenda,
        trace: Trace,
        processes: Callable[[], Sequence[Process]],
    ) -> None:
        self.number = number
        self._plan = plan
        self._agenda = agenda
        self._trace = trace
        self._processes = processes
        self._rng = random.Random(f"{plan.seed}/watcher/{number}")
        self._breaks = BREAKS if plan.troubles else 0.0
        self._followed = [self._draw() for _ in range(self._rng.choice((1, 1, 2)))]
        self._watched: list[Watched] = []
        self._connection: _Connection | None = None
        self._leave_at = 0
        self._goal: int | None = None
        self._look()

    def _draw(self) -> _Followed:
        rng = self._rng
        key, range_end = rng.choice(RANGES) if rng.random() < 0.8 else (rng.choice(KEYS), b"")
        filtered = rng.random()
        return _Followed(
            WatchRequest(
                key,
                range_end,
                prev_kv=rng.random() < 0.5,
                no_puts=filtered < 0.1,
                no_deletes=filtered >= 0.9,
            ),
            # From then on, from the first one on, or from one that is still to come.
            rng.choice((0, 0, 1, 60)),
        )

    def calm(self) -> None:
        """The troubles are over."""
        self._breaks = 0.0

    def finish(self, revision: int) -> None:
        """Follow up to ``revision``, which is the last one."""
        self._goal = revision

    @property
    def is_finished(self) -> bool:
        """It was told of all up to the last revision."""
        goal = self._goal
        return goal is not None and all(one.next > goal for one in self._followed)

    def check(self, history: History) -> int:
        """All that was ever seen, once it is finished: how many events. Raises Violation."""
        assert self._goal is not None
        latest = {id(watched) for _, watched in self._present().values()}
        for watched in self._watched:
            applied = self._goal if id(watched) in latest else None
            for wrong in violations(watched, history, applied=applied):
                raise Violation(f"watcher {self.number}, {watched.asked}: {wrong}")
        return sum(len(seen.events) for watched in self._watched for seen in watched.seen)

    def _present(self) -> dict[int, tuple[_Followed, Watched]]:
        return {} if self._connection is None else self._connection.watches

    # --- connections -----------------------------------------------------------------------------

    def _look(self) -> None:
        """From time to time: is there a connection, and is it of any use?"""
        self._agenda.after(LOOK_US, self._look)
        connection = self._connection
        if self.is_finished:
            return
        if connection is None:
            self._connect()
        elif connection.etcd is not None and connection.etcd.is_over:
            self._lose(connection, "its member ended")
        elif self._agenda.now >= self._leave_at:
            self._lose(connection, "it moves on")
        elif self._goal is not None or self._rng.random() < PROGRESS:
            self._ask_for_progress(connection)

    def _connect(self) -> None:
        running = [process for process in self._processes() if process.etcd is not None]
        if not running:
            return
        process = self._rng.choice(running)
        # One that begins with the next revision of all would keep progress from being told.
        left = [one for one in self._followed if self._goal is None or one.next <= self._goal]
        connection = self._connection = _Connection(left)
        self._leave_at = self._agenda.now + self._rng.randint(*STAY_US)
        self._later(lambda: process.ask_etcd(lambda etcd: self._open(etcd, connection)))

    def _later(self, call: Callable[[], None]) -> None:
        self._agenda.after(self._rng.randint(*self._plan.delay_us), call)

    def _lose(self, connection: _Connection, why: str) -> None:
        """The client's end; the member learns of it later."""
        if not connection.is_open:
            return
        connection.is_open = False
        self._connection = None
        self._trace.note(f"watcher {self.number} loses its connection: {why}")
        self._at_member(connection, WatchStream.close)

    def _at_member(self, connection: _Connection, call: Callable[[WatchStream], None]) -> None:
        """Something that the client sends has come there."""

        def arrive() -> None:
            etcd, stream = connection.etcd, connection.stream
            if etcd is not None and stream is not None and not etcd.is_over:
                etcd.soon(lambda: None if connection.stream is None else call(stream))

        self._later(arrive)

    def _ask_for_progress(self, connection: _Connection) -> None:
        self._at_member(connection, WatchStream.request_progress)

    # --- at the member ---------------------------------------------------------------------------

    def _open(self, etcd: EtcdMember, connection: _Connection) -> None:
        if not connection.is_open:
            return
        connection.etcd = etcd

        def wake() -> None:
            if not connection.is_taking:
                connection.is_taking = True
                etcd.soon(lambda: self._take(etcd, connection))

        def ended(error: Error) -> None:
            connection.stream = None
            self._later(lambda: self._lose(connection, str(error)))

        try:
            stream = connection.stream = etcd.hub.open(encode, wake, ended)
        except EtcdError as error:
            ended(error)
            return
        for one in connection.to_come:
            stream.create(one.request._replace(start_revision=one.next))

    def _take(self, etcd: EtcdMember, connection: _Connection) -> None:
        """Write what there is; when that is done, what there is then."""
        stream = connection.stream
        messages = [] if stream is None else stream.take()
        if not messages:
            connection.is_taking = False
            return
        rng = self._rng
        written_us = rng.randint(0, self._plan.etcd.reading_us)
        now = self._agenda.now
        arrives_at = max(
            now + written_us + rng.randint(*self._plan.delay_us), connection.arrives_at
        )
        connection.arrives_at = arrives_at
        self._agenda.after(arrives_at - now, lambda: self._receive(connection, messages))
        self._agenda.after(written_us, lambda: self._go_on(etcd, connection))

    def _go_on(self, etcd: EtcdMember, connection: _Connection) -> None:
        if not etcd.is_over:
            etcd.soon(lambda: self._take(etcd, connection))

    # --- messages --------------------------------------------------------------------------------

    def _receive(self, connection: _Connection, messages: Sequence[Message]) -> None:
        for message in messages:
            if not connection.is_open:
                return
            self._note(connection, message)
            if self._rng.random() < self._breaks:
                self._lose(connection, "it broke")

    def _note(self, connection: _Connection, message: Message) -> None:
        watches = connection.watches
        match message:
            case Canceled(created=True, reason=reason):
                self._lose(connection, reason)
            case Created(watch_id, revision):
                self._created(connection, watch_id, revision)
            case Canceled(watch_id, _, compacted):
                followed, watched = watches.pop(watch_id)
                if not compacted:
                    raise Violation(f"watcher {self.number}: {watched.asked} ended for no reason")
                watched.seen.append(Seen(0, compacted=compacted))
                followed.next = max(followed.next, compacted)
                self._lose(connection, f"compacted to {compacted}")
            case Events(watch_id, revision, chunks, fragment):
                followed, watched = watches[watch_id]
                events = tuple(piece for chunk in chunks for piece in chunk.pieces)
                watched.seen.append(Seen(revision, events, fragment))
                if not fragment:
                    followed.next = max(followed.next, events[-1].kv.mod_revision + 1)
            case Progress(watch_id, revision):
                for each in [*watches] if watch_id == NO_WATCH else [watch_id]:
                    followed, watched = watches[each]
                    watched.seen.append(Seen(revision))
                    followed.next = max(followed.next, revision + 1)

    def _created(self, connection: _Connection, watch_id: int, revision: int) -> None:
        followed = connection.to_come.popleft()
        request = followed.request
        followed.next = followed.next or revision + 1
        watched = Watched(
            Asked(
                request.key,
                request.range_end,
                followed.next,
                request.prev_kv,
                request.no_puts,
                request.no_deletes,
            )
        )
        connection.watches[watch_id] = followed, watched
        self._watched.append(watched)
