"""All watches of a process: events from what one local member applied, in order, to each of them.

Events are read from the member's state machine: those that just happened from memory, once for all
watches that are *live*; older ones beside the loop, a page for many watches that are behind
(:mod:`kvstore.service.etcd.watch_history`). Every watch knows its ``next`` revision, so that it can
go on from any member, after a snapshot was installed, and after a pause of any length, as long as
the history lasts. Nothing here waits for a watch, and nothing of a watch is ever skipped.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from kvstore.errors import ClosedError, Error, InternalError, StorageError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import Work
from kvstore.service.etcd.watch_history import History
from kvstore.service.etcd.watch_index import WatchIndex
from kvstore.service.etcd.watch_source import Reader, Source, Wanted
from kvstore.service.etcd.watch_stream import Watch, WatchStream
from kvstore.service.etcd.watch_topic import Chunk, Encode, Form, Topic, Writing
from kvstore.service.etcd.watch_words import Canceled
from kvstore.state import Cold
from kvstore.state.mvcc.answers import EventPage

__all__ = ["HubFigures", "WatchBounds", "WatchHub"]

LIVE_REVISIONS: Final = 1000
LIVE_BYTES: Final = 1 << 20
"""Of events that are read, and handed out, in one turn."""

LEAVING_MAX: Final = 100
"""Watches of streams that are gone, forgotten in one turn."""

WATCH_WEIGHT: Final = 1536
"""A watch's memory, beside its keys."""


@dataclass(frozen=True, slots=True)
class WatchBounds:
    """Bytes: that one ``stream`` may have queued, beyond one message; all streams ``held`` together
    (what several have counts once); all ``watches``, 1.5 KiB and their keys each.

    ``stuck_ticks``: so long reading one event of the disk may take before those who wait for it are
    told to try elsewhere.
    """

    stream: int = 16 << 20
    held: int = 128 << 20
    watches: int = 256 << 20
    stuck_ticks: int = 200


@dataclass(slots=True)
class _Counters:
    events: int = 0
    pages_live: int = 0
    pages_read: int = 0
    fell_behind: int = 0
    parked: int = 0
    compacted: int = 0


class HubFigures(NamedTuple):
    """For metrics. ``events``: handed to watches, since the start, and so with ``fell_behind``
    (watches), ``parked`` (streams), ``compacted`` (watches that history ended for)."""

    streams: int
    watches: int
    behind: int
    held_bytes: int
    events: int
    fell_behind: int
    parked: int
    compacted: int


class WatchHub:
    """One thread; knows no event loop and no clock but ``now``."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        work: Work,
        rng: random.Random,
        damaged: Callable[[StorageError], None],
        bounds: WatchBounds | None = None,
        notify_s: float = 600.0,
    ) -> None:
        """``soon`` calls back once, after this turn. ``work`` reads what lies on the disk.
        ``damaged`` is told that the member's storage can't be read; somebody then calls
        :meth:`follow`. ``notify_s``: between two messages of a watch that wants to hear of
        progress.
        """
        self.now = now
        self.bounds = bounds or WatchBounds()
        self.counters = _Counters()
        self.index = WatchIndex(rng)
        self.soon = soon
        self._rng = rng
        self._damaged = damaged
        self._notify_s = notify_s
        self._source: Source | None = None
        self.is_halted = False
        """Reading the source is of no use before another one is followed, or the next tick."""
        self._try_again = False
        self.delivered = 0
        """Up to here all live watches were handed what is theirs."""
        self._live = self._live_previous = 0
        # A revision of more than a page is on its way to the live watches.
        self._writing: Writing | None = None
        self._reader = Reader("watch", work)
        self._history = History(self, work)
        self._streams: dict[WatchStream, None] = {}
        self._watches_weight = 0
        self._behind = 0
        self._held = 0
        # The stream that came longest ago first.
        self._holding: OrderedDict[WatchStream, None] = OrderedDict()
        self._awaiting_progress: dict[WatchStream, None] = {}
        # When to look whether a watch is to be told of progress; nearly in order of time.
        self._notices: OrderedDict[Watch, float] = OrderedDict()
        self._pump_is_due = False
        # Of streams that are gone.
        self._leaving: deque[Watch] = deque()

    # --- the member it follows -------------------------------------------------------------------

    @property
    def source(self) -> Source:
        """What is read. Raises EtcdError while there is nothing."""
        if self._source is None:
            raise EtcdError(Reason.NO_LEADER)
        return self._source

    @property
    def revision(self) -> int:
        """Of the member that is followed."""
        return self.source.revision

    def follow(self, source: Source) -> None:
        """Read from ``source`` from now on: another member's, or this one's after an install.

        It may be ahead of the one before, or behind it: each watch goes on where it is.
        """
        self._reader.forget()
        self._history.forget()
        self.is_halted = self._try_again = False
        self._writing = None
        is_first = self._source is None
        self._source = source
        if is_first:
            self.delivered = source.revision
        elif source.revision < self.delivered:
            self._step_back(source.revision)
        self.applied()

    def _step_back(self, revision: int) -> None:
        """What the new source lacks live watches have already."""
        for stream in self._streams:
            for watch in stream.watches.values():
                if watch.live:
                    watch.next = max(watch.next, self.delivered + 1)
        self.delivered = revision

    def applied(self) -> None:
        """The member has applied something. Called after each slice, in the same turn."""
        if self._source is not None and not self.is_halted:
            self._pump()
            self._history.go_on()

    def tick(self) -> None:
        """To be called as often as members tick."""
        for reader in (self._reader, self._history.reader):
            reader.tick()
        if self._try_again:
            self.is_halted = self._try_again = False
            self.applied()
        self._end_stuck()
        self._send_notices()
        for stream in [*self._awaiting_progress]:
            self._look_at_progress(stream)

    def stop(self, error: Error) -> None:
        """End every stream with ``error``."""
        for stream in [*self._streams]:
            stream.end(error)

    @property
    def reading_ticks(self) -> int:
        """For how long a read of the disk has been at one event; 0 for none."""
        return max(self._reader.ticks, self._history.reader.ticks)

    def _end_stuck(self) -> None:
        """A disk that hangs: whoever waits for it is better served elsewhere."""
        stuck = self.bounds.stuck_ticks
        if self._reader.ticks >= stuck:
            self.stop(EtcdError(Reason.TIMED_OUT))
        elif self._history.reader.ticks >= stuck:
            for stream in [*self._streams]:
                if stream.behind:
                    stream.end(EtcdError(Reason.TIMED_OUT))

    # --- live ------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand out what has been applied since the last time."""
        source = self.source
        while self.delivered < source.revision and not self._reader.busy and not self.is_halted:
            if not self._live:
                self.delivered = source.revision
                break
            first = self.delivered + 1
            if first < source.compacted:
                self._overtaken()
                continue
            last = min(source.revision, self.delivered + LIVE_REVISIONS)
            page = self.recent(first, last, self._live_previous > 0, self.index.is_live)
            if page is None:
                break
            if isinstance(page, Cold):
                # Of what memory doesn't know, or of a revision that is large.
                self._read_page(source, first, 0)
                break
            self._hand_out(page)
            if self.delivered < source.revision:
                # Others want the loop, too.
                self._pump_soon()
                break

    def _pump_soon(self) -> None:
        if not self._pump_is_due:
            self._pump_is_due = True
            self.soon(self._pump_again)

    def _pump_again(self) -> None:
        self._pump_is_due = False
        self.applied()

    def recent(
        self, first: int, last: int, previous: bool, wanted: Wanted | None
    ) -> EventPage | Cold | None:
        """Events from memory; None: the source can't be read."""
        try:
            return self.source.events_cached(first, last, LIVE_BYTES, previous, wanted)
        except Error as error:
            self.trouble(error)
            return None

    def _read_page(self, source: Source, first: int, sub: int) -> None:
        self.counters.pages_read += 1
        previous = self._live_previous > 0
        last = source.revision
        # Of all keys: whoever becomes live meanwhile counts on it.
        self._reader.read(
            lambda wanted: source.events(first, last, LIVE_BYTES, previous, wanted, sub),
            partial(self._page_read, source),
        )

    def _page_read(self, source: Source, page: EventPage | Error) -> None:
        if isinstance(page, Error):
            if _is_compacted(page):
                self._overtaken()
            else:
                self.trouble(page)
        else:
            self._hand_out(page)
            if page.next_sub:
                self._read_page(source, page.next_revision, page.next_sub)
                return
        self.applied()

    def _hand_out(self, page: EventPage) -> None:
        """Give live watches their events; of a revision that is cut once all of it is there."""
        self.counters.pages_live += 1
        writing = self._writing or Writing(self.index.find)
        for revision, events in page.revisions:
            writing.add(revision, events, _live_of)
        if page.next_sub:
            self._writing = writing
            return
        self._writing = None
        first, self.delivered = self.delivered + 1, page.next_revision - 1
        for topic, chunk in writing.chunks(None):
            self._give(topic, chunk, first, lacking=topic in writing.lacking)
        self.relieve()

    def _give(self, topic: Topic, chunk: Chunk, first: int, *, lacking: bool) -> None:
        """To the live watches of a topic; whoever has no room for it isn't live any more."""
        for watch in [*topic.live]:
            part = chunk if watch.next <= first else chunk.since(watch.next)
            if part is None or watch.closed:
                continue
            if lacking or not watch.stream.offer(watch, part):
                self.fall_behind(watch, max(watch.next, first))
            else:
                self.counters.events += len(part.pieces)

    def _overtaken(self) -> None:
        """History that live watches still needed is gone: it is told to each by itself."""
        first = self.delivered + 1
        self._writing = None
        for stream in [*self._streams]:
            for watch in [*stream.watches.values()]:
                if watch.live:
                    self.fall_behind(watch, max(watch.next, first))
        self.delivered = self.revision

    def halt(self) -> None:
        """Tell nobody of anything before another source is followed."""
        self.is_halted = True
        self._try_again = False

    def trouble(self, error: Error) -> None:
        """The source couldn't be read: it is tried again, or another one followed."""
        self.is_halted = True
        if isinstance(error, ClosedError):
            return  # it was replaced: whoever did so says by what
        if isinstance(error, StorageError):
            self._try_again = error.retryable
            if not error.retryable:
                self._damaged(error)
            return
        raise InternalError(f"events can't be read: {error}") from error

    # --- watches ---------------------------------------------------------------------------------

    def open(
        self, encode: Encode, wake: Callable[[], None], ended: Callable[[Error], None]
    ) -> WatchStream:
        """A stream. ``encode`` makes events what it sends; ``wake`` is called when it has something
        to take after it had nothing, ``ended`` when it is to end, with the reason.

        Raises EtcdError while no member can be followed.
        """
        _ = self.source
        stream = WatchStream(self, encode, wake, ended)
        self._streams[stream] = None
        return stream

    def has_room(self, key: bytes, range_end: bytes) -> bool:
        """For one more watch."""
        weight = WATCH_WEIGHT + len(key) + len(range_end or key)
        return self._watches_weight + weight <= self.bounds.watches

    def join(self, key: bytes, range_end: bytes, form: Form) -> Topic:
        """The topic of a new watch."""
        place = self.index.place(key, range_end)
        topic = place.topics.get(form)
        if topic is None:
            topic = place.topics[form] = Topic(place, form)
        topic.watches += 1
        self._watches_weight += _weight(topic)
        return topic

    def begin(self, watch: Watch) -> None:
        """A watch that has joined is to get its events from ``next`` on."""
        if watch.next < self.source.compacted:
            self._cancel_compacted(watch)
        elif not self.make_live(watch):
            self._put_behind(watch)

    def leave(self, watch: Watch) -> None:
        """A watch is no more."""
        self._take_out(watch)
        self._notices.pop(watch, None)
        topic = watch.topic
        self._watches_weight -= _weight(topic)
        topic.watches -= 1
        if not topic.watches:
            place = topic.place
            del place.topics[topic.form]
            if not place.topics:
                self.index.remove(place)

    def make_live(self, watch: Watch) -> bool:
        """Let a watch have events as they happen, if it has all that happened before."""
        if not self._live and not self._reader.busy:
            self.delivered = self.revision
        # A revision that is handed out in parts it can't join in the middle of.
        floor = self.revision if self._writing is not None else self.delivered
        if watch.next <= floor:
            return False
        if watch in watch.stream.behind:
            self._take_out(watch)
        topic = watch.topic
        watch.live = True
        topic.live[watch] = None
        topic.place.live += 1
        self._live += 1
        self._live_previous += topic.form.prev_kv
        return True

    def fall_behind(self, watch: Watch, revision: int) -> None:
        """A watch gets what is from ``revision`` on out of the history."""
        if watch.live:
            self.counters.fell_behind += 1
        self._take_out(watch)
        watch.next = revision
        self._put_behind(watch)

    def _put_behind(self, watch: Watch) -> None:
        watch.stream.behind[watch] = None
        self._behind += 1
        self._history.may_go_on(watch.stream)

    def _take_out(self, watch: Watch) -> None:
        stream = watch.stream
        if watch.live:
            watch.live = False
            del watch.topic.live[watch]
            watch.topic.place.live -= 1
            self._live -= 1
            self._live_previous -= watch.topic.form.prev_kv
        elif watch in stream.behind:
            del stream.behind[watch]
            self._behind -= 1

    def cancel_if_compacted(self, watch: Watch) -> bool:
        """End a watch that is behind if what it needs is gone."""
        if watch.next >= self.source.compacted:
            return False
        self._take_out(watch)
        self._cancel_compacted(watch)
        return True

    def _cancel_compacted(self, watch: Watch) -> None:
        self.counters.compacted += 1
        ending = Canceled(watch.id, 0, compact_revision=self.source.compacted)
        watch.stream.cancel_later(watch, ending)

    # --- what streams hold -----------------------------------------------------------------------

    def hold(self, stream: WatchStream, chunk: Chunk) -> None:
        """A watch of ``stream`` has a chunk in its queue."""
        if not chunk.holders:
            self._held += chunk.weight
        chunk.holders += 1
        if stream not in self._holding:
            self._holding[stream] = None

    def release(self, chunk: Chunk) -> None:
        """A watch has a chunk no more."""
        chunk.holders -= 1
        if not chunk.holders:
            self._held -= chunk.weight

    def relieve(self) -> None:
        """Let go of what is too much: those who came for theirs longest ago have to wait.

        One stream may have more than all should: a single revision can be that large.
        """
        while self._held > self.bounds.held and len(self._holding) > 1:
            stream, _ = self._holding.popitem(last=False)
            self.counters.parked += 1
            stream.park()

    def took(self, stream: WatchStream) -> None:
        """A stream came for what is queued."""
        if stream.queued_weight:
            self._holding[stream] = None
            self._holding.move_to_end(stream)
        else:
            self._holding.pop(stream, None)
        if stream.behind:
            self._history.may_go_on(stream)

    def closed(self, stream: WatchStream, watches: Iterable[Watch]) -> None:
        """A stream is gone, and its watches are closed."""
        self._streams.pop(stream, None)
        self._holding.pop(stream, None)
        self._awaiting_progress.pop(stream, None)
        self._history.closed(stream)
        is_due = bool(self._leaving)
        self._leaving.extend(watches)
        if not is_due:
            self._let_leave()

    def _let_leave(self) -> None:
        """Forget watches that are closed; where they are many, some now and the rest later."""
        for _ in range(min(LEAVING_MAX, len(self._leaving))):
            self.leave(self._leaving.popleft())
        if self._leaving:
            self.soon(self._let_leave)

    # --- progress --------------------------------------------------------------------------------

    def await_progress(self, stream: WatchStream) -> None:
        """A stream was asked for progress and isn't up to date."""
        self._awaiting_progress[stream] = None

    def caught_up(self, stream: WatchStream) -> None:
        """All watches of a stream are live."""
        if stream in self._awaiting_progress:
            self._look_at_progress(stream)

    def _look_at_progress(self, stream: WatchStream) -> None:
        if stream.look_at_progress():
            del self._awaiting_progress[stream]

    def progress_of(self, watch: Watch) -> int:
        """Up to where a watch with an empty queue has everything; 0: nobody may say."""
        done = self.delivered
        is_told = watch.live and watch.least <= done and watch.next <= done + 1
        return done if is_told else 0

    def notify(self, watch: Watch) -> None:
        """Tell a watch of progress from time to time."""
        watch.sent_at = self.now()
        # Watches that began together don't all speak together.
        self._notify_at(watch, watch.sent_at + self._notify_s * self._rng.uniform(1.0, 1.1))

    def _notify_at(self, watch: Watch, when: float) -> None:
        self._notices[watch] = when
        self._notices.move_to_end(watch)

    def _send_notices(self) -> None:
        now = self.now()
        while self._notices:
            watch, when = next(iter(self._notices.items()))
            if when > now:
                break
            due = watch.sent_at + self._notify_s
            if due <= now:
                due = now + self._notify_s
                if self.progress_of(watch):
                    watch.stream.notify(watch)
            self._notify_at(watch, due)

    # --- figures ---------------------------------------------------------------------------------

    def figures(self) -> HubFigures:
        """This moment, for metrics."""
        counters = self.counters
        return HubFigures(
            streams=len(self._streams),
            watches=self._live + self._behind,
            behind=self._behind,
            held_bytes=self._held,
            events=counters.events,
            fell_behind=counters.fell_behind,
            parked=counters.parked,
            compacted=counters.compacted,
        )


def _live_of(topic: Topic) -> object:
    return topic.live


def _is_compacted(error: Error) -> bool:
    return isinstance(error, EtcdError) and error.reason is Reason.COMPACTED


def _weight(topic: Topic) -> int:
    place = topic.place
    return WATCH_WEIGHT + len(place.start) + len(place.end or b"")
