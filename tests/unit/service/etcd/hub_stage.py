"""A hub on a stage: its clock, its turns, its jobs and its streams are the test's."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from kvstore.errors import Error, StorageError
from kvstore.service.etcd.hub import WatchBounds, WatchHub
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
from tests.unit.service.etcd.fake_source import FakeSource
from tests.watch_validator import Asked, Seen, Watched

__all__ = ["Client", "Stage", "encode"]


def encode(event: Event, prev_kv: bool) -> Event:
    """As itself, so that tests see what would have been sent."""
    return event if prev_kv else event._replace(previous=None)


class Client:
    """A stream's other end: takes what there is when the test says so, and notes it by watch."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.woken = 0
        self.ended: Error | None = None
        self.messages: list[Message] = []
        self.watched: dict[int, Watched] = {}
        self._asked: deque[WatchRequest] = deque()
        self.stream = stage.hub.open(encode, self._wake, self._end)

    def _wake(self) -> None:
        self.woken += 1

    def _end(self, error: Error) -> None:
        self.ended = error

    def create(self, key: bytes, range_end: bytes = b"", start: int = 0, **more: Any) -> None:
        request = WatchRequest(key, range_end, start, **more)
        self._asked.append(request)
        self.stream.create(request)

    def take(self) -> list[Message]:
        """One round: what is there, up to what is taken at one time."""
        messages = self.stream.take()
        self.messages += messages
        for message in messages:
            self._note(message)
        return messages

    def take_all(self) -> list[Message]:
        taken: list[Message] = []
        while messages := self.take():
            taken += messages
        return taken

    def _note(self, message: Message) -> None:
        match message:
            case Created(watch_id, revision):
                request = self._asked.popleft()
                start = request.start_revision or revision + 1
                asked = Asked(
                    request.key,
                    request.range_end,
                    start,
                    request.prev_kv,
                    request.no_puts,
                    request.no_deletes,
                )
                self.watched[watch_id] = Watched(asked)
            case Canceled(created=True):
                self._asked.popleft()
            case Canceled(watch_id, _, compacted):
                if compacted:
                    self.watched[watch_id].seen.append(Seen(0, compacted=compacted))
            case Events(watch_id, revision, chunks, fragment):
                events = tuple(piece for chunk in chunks for piece in chunk.pieces)
                self.watched[watch_id].seen.append(Seen(revision, events, fragment))
            case Progress(watch_id, revision):
                # Of one whose creation is on its way nobody has heard.
                all_of_them = self.stream.watches.keys() & self.watched.keys()
                for each in all_of_them if watch_id == NO_WATCH else (watch_id,):
                    self.watched[each].seen.append(Seen(revision))

    def events(self, watch_id: int = 0) -> list[Event]:
        """What came of a watch so far."""
        if watch_id not in self.watched:
            return []
        return [event for seen in self.watched[watch_id].seen for event in seen.events]


class Stage:
    """``run_jobs`` does what was asked of the disk, ``turn`` what was to be done soon."""

    def __init__(
        self,
        source: FakeSource | None = None,
        *,
        bounds: WatchBounds | None = None,
        notify_s: float = 600.0,
        seed: int = 1,
    ) -> None:
        self.source = source or FakeSource()
        self.clock = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self.jobs: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()
        self.damages: list[StorageError] = []
        self.hub = WatchHub(
            now=lambda: self.clock,
            soon=self.soon.append,
            work=self,
            rng=random.Random(seed),
            damaged=self.damages.append,
            bounds=bounds,
            notify_s=notify_s,
        )
        self.hub.follow(self.source)

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        assert kind in ("watch", "history")
        self.jobs.append((job, then))

    def put(self, *pairs: tuple[bytes, bytes]) -> int:
        revision = self.source.put(*pairs)
        self.hub.applied()
        return revision

    def delete(self, *keys: bytes) -> int:
        revision = self.source.delete(*keys)
        self.hub.applied()
        return revision

    def compact(self, revision: int) -> None:
        self.source.compacted = revision
        self.hub.applied()

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            self.soon.popleft()()

    def run_job(self) -> None:
        job, then = self.jobs.popleft()
        job()
        then()

    def settle(self, *clients: Client) -> None:
        """Until there is nothing to do, whatever the clients take."""
        busy = True
        while busy:
            taken = [client.take_all() for client in clients]
            busy = any(taken) or bool(self.soon or self.jobs)
            self.turn()
            if self.jobs:
                self.run_job()
