"""Catching up: watches that aren't live get their events from history, many of them by one page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from kvstore.errors import Error, InternalError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import Work
from kvstore.service.etcd.watch_index import Place
from kvstore.service.etcd.watch_source import Reader, Source, Wanted
from kvstore.service.etcd.watch_stream import Watch, WatchStream
from kvstore.service.etcd.watch_topic import Topic, Writing
from kvstore.state.mvcc.answers import EventPage

if TYPE_CHECKING:
    from kvstore.service.etcd.hub import WatchHub

__all__ = ["History"]

PAGE_REVISIONS: Final = 1000
PAGE_BYTES: Final = 1 << 20

BATCH_MAX: Final = 512
"""Watches that share a page."""

LOOKED_AT_MAX: Final = 4096
"""Watches, to find as many whose next revisions lie near each other."""

PLACES_TOLD_MAX: Final = 16
"""Up to so many different ranges events of other keys are passed over when a page is read."""

GAP_REVISIONS_MAX: Final = 256
"""What happened while a page was read is added from memory, up to here."""


class _Batch:
    """Watches that a page is read for. ``revision``: of the store at that time."""

    def __init__(self, watches: Sequence[Watch], last: int, revision: int) -> None:
        self.watches = watches
        self.first = min(watch.next for watch in watches)
        self.last = min(last, self.first + PAGE_REVISIONS - 1)
        self.revision = revision
        self.previous = any(watch.topic.form.prev_kv for watch in watches)
        self.topics: dict[Topic, list[Watch]] = {}
        for watch in watches:
            self.topics.setdefault(watch.topic, []).append(watch)

    def wanted(self) -> Wanted | None:
        """For the reader: it runs on another thread, and so knows of no watch."""
        places = {topic.place for topic in self.topics}
        return None if len(places) > PLACES_TOLD_MAX else partial(_is_in, _spans(places))


class History:
    """Reads for the watches of a hub that are behind. Only while their streams have room."""

    def __init__(self, hub: WatchHub, work: Work) -> None:
        self._hub = hub
        self.reader = Reader("history", work)
        # Streams with room and with watches that are behind, served longest ago first.
        self._hungry: OrderedDict[WatchStream, None] = OrderedDict()
        self._is_due = False

    def may_go_on(self, stream: WatchStream) -> None:
        """A stream has watches that are behind, and perhaps room."""
        if stream not in self._hungry and self._is_hungry(stream):
            self._hungry[stream] = None
            self._go_on_soon()

    def _is_hungry(self, stream: WatchStream) -> bool:
        room = self._hub.bounds.stream // 4
        return bool(stream.behind) and not stream.is_parked and stream.queued_weight <= room

    def closed(self, stream: WatchStream) -> None:
        """A stream is gone."""
        self._hungry.pop(stream, None)

    def forget(self) -> None:
        """The source is another one: what is being read is of no use."""
        self.reader.forget()
        if self._hungry:
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        # Watches that are created in one turn share a page.
        if not self._is_due:
            self._is_due = True
            self._hub.soon(self._go_on_now)

    def _go_on_now(self) -> None:
        self._is_due = False
        self.go_on()

    def go_on(self) -> None:
        """Read the next page, if there is somebody for whom."""
        if not self._hungry or self.reader.busy or self._hub.is_halted:
            return
        watches = self._choose()
        if watches:
            source = self._hub.source
            batch = _Batch(watches, self._hub.delivered, source.revision)
            self._read(batch, source, Writing(self._hub.index.find), batch.first, 0)

    def _choose(self) -> list[Watch]:
        """Watches that are near each other, beginning with the one that has waited longest."""
        chosen: list[Watch] = []
        left = LOOKED_AT_MAX
        for stream in [*islice(self._hungry, LOOKED_AT_MAX)]:
            if not self._is_hungry(stream):
                del self._hungry[stream]
                continue
            for watch in [*islice(stream.behind, left)]:
                left -= 1
                if self._is_to_be_read_for(watch) and (
                    not chosen or 0 <= watch.next - chosen[0].next < PAGE_REVISIONS
                ):
                    chosen.append(watch)
                    if len(chosen) == BATCH_MAX:
                        return chosen
            if not stream.behind:
                self._hub.caught_up(stream)
            if left <= 0:
                break
        return chosen

    def _is_to_be_read_for(self, watch: Watch) -> bool:
        hub = self._hub
        if hub.cancel_if_compacted(watch) or hub.make_live(watch):
            return False
        # What is being handed out it waits for.
        return watch.next <= hub.delivered

    def _read(self, batch: _Batch, source: Source, writing: Writing, first: int, sub: int) -> None:
        self._hub.counters.pages_read += 1
        events, last, previous = source.events, batch.last, batch.previous
        self.reader.read(
            lambda wanted: events(first, last, PAGE_BYTES, previous, wanted, sub),
            partial(self._page_read, batch, source, writing),
            batch.wanted(),
        )

    def _page_read(
        self, batch: _Batch, source: Source, writing: Writing, page: EventPage | Error
    ) -> None:
        hub = self._hub
        if isinstance(page, Error):
            self._refused(batch, page)
            return
        _add(writing, batch, page)
        if page.next_sub:
            self._read(batch, source, writing, page.next_revision, page.next_sub)
            return
        self._give(batch, writing, page.next_revision - 1, ())
        self._close_gap(batch, source)
        for watch in batch.watches:
            stream = watch.stream
            if watch in stream.behind:
                stream.behind[watch] = stream.behind.pop(watch)  # the others' turn
            if stream in self._hungry:
                self._hungry.move_to_end(stream)
            if not stream.behind:
                hub.caught_up(stream)
        hub.relieve()
        self._go_on_soon()

    def _refused(self, batch: _Batch, error: Error) -> None:
        hub = self._hub
        if isinstance(error, EtcdError) and error.reason is Reason.COMPACTED:
            behind = [watch for watch in batch.watches if watch in watch.stream.behind]
            gone = [watch for watch in behind if hub.cancel_if_compacted(watch)]
            if gone or not behind:
                self._go_on_soon()
                return
            error = InternalError("history that should be there is compacted")
        hub.trouble(error)

    def _give(self, batch: _Batch, writing: Writing, last: int, lacking: Iterable[Topic]) -> None:
        """Queue what was written for the watches of ``batch``, all up to ``last``."""
        first = batch.first
        full: set[Watch] = set()
        for topic in lacking:
            full.update(batch.topics[topic])
        for topic, chunk in writing.chunks(batch.revision):
            for watch in batch.topics[topic]:
                if watch not in full and _is_due(watch, first, last):
                    part = chunk.since(watch.next)
                    if part is None:
                        continue
                    if watch.stream.offer(watch, part):
                        self._hub.counters.events += len(part.pieces)
                    else:
                        full.add(watch)
        for watch in batch.watches:
            if watch not in full and _is_due(watch, first, last):
                watch.next = last + 1
        batch.first = last + 1

    def _close_gap(self, batch: _Batch, source: Source) -> None:
        """Bring those who are nearly there up to now, and let them be live."""
        hub = self._hub
        first, last = batch.first, hub.delivered
        if source.compacted <= first <= last <= first + GAP_REVISIONS_MAX:
            page = hub.recent(first, last, batch.previous, batch.wanted())
            if isinstance(page, EventPage):
                batch.revision = source.revision
                writing = Writing(hub.index.find)
                _add(writing, batch, page)
                self._give(batch, writing, page.next_revision - 1, writing.lacking)
        for watch in batch.watches:
            if watch in watch.stream.behind:
                hub.make_live(watch)


def _add(writing: Writing, batch: _Batch, page: EventPage) -> None:
    for revision, events in page.revisions:
        writing.add(revision, events, batch.topics.get)


def _is_due(watch: Watch, first: int, last: int) -> bool:
    """Still wants what is from ``first`` to ``last``: it may have ended, or gone back, since."""
    return not watch.closed and watch in watch.stream.behind and first <= watch.next <= last


def _spans(places: Iterable[Place]) -> list[tuple[bytes, bytes | None]]:
    return [(place.start, place.end) for place in places]


def _is_in(spans: Sequence[tuple[bytes, bytes | None]], key: bytes) -> bool:
    return any(start <= key and (end is None or key < end) for start, end in spans)
