"""The watches of one stream, and what it is to send, in order.

A queue of watches that have something, and not of messages: while a stream's last write is pending
what happens is added to what a watch has, and goes out as one message. What a stream may queue is
bounded; a watch for whose events there is no room isn't live any more and gets them from history
once there is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvstore.errors import Error
from kvstore.etcd_errors import Reason
from kvstore.service.etcd.watch_topic import Chunk, Encode, Form, Topic
from kvstore.service.etcd.watch_words import (
    DUPLICATE_ID,
    EMPTY_RANGE,
    NO_WATCH,
    Canceled,
    Created,
    Events,
    Message,
    Progress,
    WatchRequest,
)

if TYPE_CHECKING:
    from kvstore.service.etcd.hub import WatchHub

__all__ = ["Watch", "WatchStream"]

TAKE_WEIGHT: Final = 64 << 10
"""Of messages that are taken at one time, if there are several."""

MERGED_WEIGHT: Final = 64 << 10
"""Events of several chunks become one message up to here."""

FRAGMENT_WEIGHT: Final = 2 << 20
"""From here on a message is cut, where the client can join it: etcd's limit of a request and half
a MiB more."""

WHOLE_WEIGHT_MAX: Final = 32 << 20
"""From here on it is cut whatever the client can do: no front could send it."""

QUEUED_MESSAGES_MAX: Final = 1000
"""Beyond so many watches and messages in its queue a stream should take no more requests."""

MESSAGE_WEIGHT: Final = 64
"""Of a message without events."""


_NOTHING: Final[deque[Chunk]] = deque()
"""What a watch has queued most of the time; an own one would be a third of its memory."""


class Watch:
    """One watch of a stream.

    ``next``: the least revision of which it hasn't got everything yet; while it is ``live`` every
    event from there on is handed to it, and ``next`` stands still. ``least``: no revision below is
    spoken of. ``ending``: why it ends, once its queue is empty.
    """

    __slots__ = (
        "closed",
        "ending",
        "fragment",
        "id",
        "is_queued",
        "least",
        "live",
        "next",
        "notify",
        "pending",
        "sent_at",
        "stream",
        "topic",
    )

    def __init__(self, stream: WatchStream, watch_id: int, topic: Topic, fragment: bool) -> None:
        self.stream = stream
        self.id = watch_id
        self.topic = topic
        self.fragment = fragment
        self.next = self.least = 0
        self.live = False
        self.pending = _NOTHING
        self.is_queued = False
        self.ending: Canceled | None = None
        self.notify = False
        self.sent_at = 0.0
        self.closed = False


class _Mark:
    """Stands in a queue where progress was asked for."""


_MARK: Final = _Mark()


class WatchStream:
    """What a front has of a stream, and tells it. One thread; made by ``WatchHub.open``."""

    def __init__(
        self,
        hub: WatchHub,
        encode: Encode,
        wake: Callable[[], None],
        ended: Callable[[Error], None],
    ) -> None:
        self._hub = hub
        self._encode = encode
        self._wake = wake
        self._ended = ended
        self._next_id = 0
        self._queue: deque[Watch | Message | _Mark] = deque()
        # Progress was asked for: whether that stands in the queue, and whether once more since.
        self._is_marked = self._again = False
        self.watches: dict[int, Watch] = {}
        self.behind: dict[Watch, None] = {}
        """Those that aren't live, the one that was served longest ago first."""
        self.queued_weight = 0
        self.is_parked = False
        """What it had queued was let go of, and nobody came for it since."""

    # --- what a front tells ----------------------------------------------------------------------

    def create(self, request: WatchRequest) -> None:
        """Begin a watch; whether it did stands in the messages."""
        revision = self._hub.revision
        key = request.key or b"\0"
        reason = self._refusal(request, key)
        if reason:
            self.refuse(reason)
            return
        watch_id = request.watch_id or self._free_id()
        form = Form(self._encode, request.prev_kv, request.no_puts, request.no_deletes)
        topic = self._hub.join(key, request.range_end, form)
        watch = self.watches[watch_id] = Watch(self, watch_id, topic, request.fragment)
        self._put(Created(watch_id, revision))
        watch.next = request.start_revision or revision + 1
        watch.least = request.start_revision
        self._hub.begin(watch)
        if request.progress_notify:
            self._hub.notify(watch)

    def refuse(self, reason: str) -> None:
        """Answer to a request for a watch that is none, and why."""
        self._put(Canceled(NO_WATCH, self._hub.revision, reason=reason, created=True))

    def _refusal(self, request: WatchRequest, key: bytes) -> str:
        if request.range_end not in (b"", b"\0") and key >= request.range_end:
            return EMPTY_RANGE
        if request.watch_id and request.watch_id in self.watches:
            return DUPLICATE_ID
        if request.start_revision < 0:
            return Reason.COMPACTED.text
        if not self._hub.has_room(key, request.range_end):
            return Reason.TOO_MANY_REQUESTS.text
        return ""

    def _free_id(self) -> int:
        while self._next_id in self.watches:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def cancel(self, watch_id: int, reason: str = "") -> None:
        """End a watch: no event of it follows. There may be no such watch."""
        watch = self.watches.get(watch_id)
        if watch is None:
            return
        ending = watch.ending or Canceled(watch_id, self._hub.revision, reason=reason)
        self._remove(watch)
        self._put(ending)

    def request_progress(self) -> None:
        """Have it said up to where all was sent, as soon as all watches are up to date."""
        if self._is_marked:
            self._again = True
        elif self.watches:
            self._is_marked = True
            self._put(_MARK)

    @property
    def is_congested(self) -> bool:
        """It has more to say than it should: take no more requests until it has said some."""
        return len(self._queue) > max(QUEUED_MESSAGES_MAX, 2 * len(self.watches))

    def take(self) -> list[Message]:
        """What is to be sent next; nothing: ``wake`` is called when there is something.

        To be called when all that was taken before was sent: what is taken waits elsewhere.
        """
        messages: list[Message] = []
        weight = 0
        queue = self._queue
        while queue and weight < TAKE_WEIGHT:
            item = queue.popleft()
            if isinstance(item, Watch):
                weight += self._take_of(item, messages)
            elif isinstance(item, _Mark):
                self._take_progress(messages)
            else:
                messages.append(item)
            weight += MESSAGE_WEIGHT
        self.is_parked = False
        self._hub.took(self)
        return messages

    def close(self) -> None:
        """The stream is gone, and its watches with it."""
        watches = [*self.watches.values()]
        for watch in watches:
            watch.closed = True
            self._let_go(watch)
        self.watches.clear()
        self._queue.clear()
        self._hub.closed(self, watches)

    # --- what the hub tells ----------------------------------------------------------------------

    def end(self, error: Error) -> None:
        """It is to end, with this error."""
        self.close()
        self._ended(error)

    def offer(self, watch: Watch, chunk: Chunk) -> bool:
        """Queue events of a watch; False where there is no room for them."""
        if self.is_parked:
            return False
        if self.queued_weight and self.queued_weight + chunk.weight > self._hub.bounds.stream:
            return False
        if not watch.pending:
            watch.pending = deque()
        watch.pending.append(chunk)
        self.queued_weight += chunk.weight
        self._hub.hold(self, chunk)
        self._enqueue(watch)
        return True

    def cancel_later(self, watch: Watch, ending: Canceled) -> None:
        """End a watch once what it has queued was sent; it gets nothing any more."""
        watch.ending = ending
        self._enqueue(watch)

    def notify(self, watch: Watch) -> None:
        """Say up to where all of a watch was sent."""
        watch.notify = True
        self._enqueue(watch)

    def park(self) -> None:
        """Let go of the events that are queued: they are read again when somebody comes."""
        for watch in [*self.watches.values()]:
            if watch.pending:
                first = watch.pending[0].revisions[0]
                self._let_go(watch)
                if watch.ending is None:
                    self._hub.fall_behind(watch, first)
        self.is_parked = True

    def look_at_progress(self) -> bool:
        """Whether progress that was asked for can be told of now; then it will be."""
        if not self._is_up_to_date(self._hub.delivered):
            return False
        self._put(_MARK)
        return True

    # --- its queue -------------------------------------------------------------------------------

    def _put(self, item: Message | _Mark) -> None:
        self._queue.append(item)
        if len(self._queue) == 1:
            self._wake()

    def _enqueue(self, watch: Watch) -> None:
        if not watch.is_queued:
            watch.is_queued = True
            self._queue.append(watch)
            if len(self._queue) == 1:
                self._wake()

    def _take_of(self, watch: Watch, messages: list[Message]) -> int:
        """Take what a watch has, as one message; returns its weight."""
        watch.is_queued = False
        if watch.closed:
            return 0
        weight = 0
        if watch.pending:
            weight = self._take_events(watch, messages)
            watch.sent_at = self._hub.now()
            watch.notify = False
        elif watch.notify:
            watch.notify = False
            revision = self._hub.progress_of(watch)
            if revision:
                messages.append(Progress(watch.id, revision))
        if watch.pending:
            self._enqueue(watch)
            return weight
        watch.pending = _NOTHING
        if watch.ending is not None:
            messages.append(watch.ending)
            self._remove(watch)
        return weight

    def _take_events(self, watch: Watch, messages: list[Message]) -> int:
        chunks: list[Chunk] = []
        weight = 0
        while watch.pending and (not chunks or weight + watch.pending[0].weight <= MERGED_WEIGHT):
            chunk = watch.pending.popleft()
            self._release(chunk)
            weight += chunk.weight
            chunks.append(chunk)
        revision = chunks[-1].revision
        if weight < (FRAGMENT_WEIGHT if watch.fragment else WHOLE_WEIGHT_MAX):
            messages.append(Events(watch.id, revision, tuple(chunks)))
            return weight
        assert len(chunks) == 1, "what is merged is less"
        parts = [*chunks[0].parts(FRAGMENT_WEIGHT)]
        messages += [Events(watch.id, revision, (part,), fragment=True) for part in parts[:-1]]
        messages.append(Events(watch.id, revision, (parts[-1],)))
        return weight

    def _take_progress(self, messages: list[Message]) -> None:
        revision = self._hub.delivered
        for watch in self.watches.values():
            if watch.pending:
                revision = min(revision, watch.pending[0].revisions[0] - 1)
        if not self._is_up_to_date(revision):
            self._hub.await_progress(self)
            return
        self._is_marked = False
        messages.append(Progress(NO_WATCH, revision))
        if self._again:
            self._again = False
            self.request_progress()

    def _is_up_to_date(self, revision: int) -> bool:
        """Every watch has, or has queued, all up to ``revision``, and may be told so."""
        return all(
            watch.live and watch.least <= revision and watch.next <= revision + 1
            for watch in self.watches.values()
        )

    def _remove(self, watch: Watch) -> None:
        watch.closed = True
        del self.watches[watch.id]
        self._let_go(watch)
        self._hub.leave(watch)

    def _let_go(self, watch: Watch) -> None:
        for chunk in watch.pending:
            self._release(chunk)
        watch.pending = _NOTHING

    def _release(self, chunk: Chunk) -> None:
        self.queued_weight -= chunk.weight
        self._hub.release(chunk)
