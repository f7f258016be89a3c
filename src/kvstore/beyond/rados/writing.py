"""Puts and deletes: turns of a bucket, each a read and one guarded write for all that waits.

A turn reads what the writes depend on, decides them (:mod:`kvstore.beyond.rados.deciding`), and
writes the outcome under the version that it has read. If another gateway was there in between,
nothing was written, and it is all done anew. At one gateway there is one turn of a bucket at a
time; what comes meanwhile makes up the next one. Large values are written first, as objects of
their own that nobody knows yet.
"""

from __future__ import annotations

import errno
import random
from collections import deque
from collections.abc import Callable
from functools import partial

from kvstore.beyond.rados.abandoned import Abandoned
from kvstore.beyond.rados.deciding import DROPPED_PAGES_MAX, Found, Page, Wish, decide
from kvstore.beyond.rados.failing import in_doubt, read_failure, write_failure
from kvstore.beyond.rados.layout import (
    HEAD_KEY,
    INLINE_BYTES_MAX,
    VALUE_KEY,
    Apart,
    Entry,
    Head,
    bucket_name,
    bucket_of,
    decode_entry,
    decode_head,
    decode_page,
    decode_request,
    entry_key,
    new_value,
    page_key,
    request_key,
    value_checksum,
    value_name,
)
from kvstore.beyond.rados.objects import ABSENT, ANY, CONFLICTS, Objects, Operation
from kvstore.beyond.rados.pool_clock import PoolClock
from kvstore.beyond.rados.under_way import UnderWay
from kvstore.beyond.rados.waiting import Waiter, Waiting
from kvstore.errors import (
    CorruptionError,
    Error,
    NoSpaceError,
    Outcome,
    OutcomeUnknownError,
    UnavailableError,
)

__all__ = ["TURNS_MAX", "TURN_S_MAX", "TURN_WRITES_MAX", "Write", "Writing"]

TURNS_MAX = 1024
"""Buckets that are written at one time; others wait. Slow turns don't count: of these there are no
more than calls that wait."""
TURN_WRITES_MAX = 64
TURN_BYTES_MAX = 4 << 20
"""Of a turn: writes, and their keys and values (one may be larger)."""
TURN_S_MAX = 60.0
"""After which a turn isn't tried again: clearing away values that nobody knows relies on it."""
HINTS_MAX = 4096
"""Buckets of which it is kept in mind that they have pages of requests."""
PATIENCE_TRIES = 3
"""Lost races after which a turn waits a little before it tries again, longer each time:"""
PAUSE_S, PAUSE_S_MAX = 0.002, 0.1


class Write:
    """One put or delete."""

    __slots__ = ("apart", "digest", "sent_at", "size", "value", "waiter", "word")

    def __init__(
        self, waiter: Waiter, value: bytes | None, digest: bytes, word: int, sent_at: float | None
    ) -> None:
        """See :class:`kvstore.beyond.rados.deciding.Wish`."""
        self.waiter = waiter
        self.value = value
        self.digest = digest
        self.word = word
        self.sent_at = sent_at
        self.size = len(waiter.call.key) + (0 if value is None else len(value))
        self.apart: Apart | None = None

    @property
    def key(self) -> bytes:
        return self.waiter.call.key

    @property
    def is_large(self) -> bool:
        return self.value is not None and len(self.value) > INLINE_BYTES_MAX

    def wish(self) -> Wish:
        value = b"" if self.apart is not None else self.value
        return Wish(self.key, value, self.digest, self.word, self.sent_at, self.apart)


class _Turn:
    """One turn: a :class:`kvstore.beyond.rados.waiting.Job` of all its writes."""

    __slots__ = (
        "began_at",
        "bucket",
        "end",
        "found",
        "head",
        "in_doubt",
        "is_over",
        "operations",
        "pages",
        "tries",
        "version",
        "writes",
        "wrote",
    )

    def __init__(
        self, bucket: int, writes: list[Write], began_at: float, end: Callable[[_Turn], None]
    ) -> None:
        self.bucket = bucket
        self.writes = writes
        self.began_at = began_at
        self.end = end
        self.tries = 0
        # Of the try that is under way: what was read, and of which version of the bucket.
        self.found: dict[bytes, bytes] | None = None
        self.head = Head()
        self.version = 0
        self.pages: range = range(0)
        self.operations: set[Operation] = set()
        # The bucket's own write is under way.
        self.wrote = False
        self.is_over = False
        # A guard failed, and nobody has looked yet whether it was for what this turn did itself: an
        # OSD that forgot that it did an operation does it again.
        self.in_doubt = False

    def give_up(self) -> None:
        """Nobody waits for it any more once that is so of all its writes."""
        # One that pauses sees that for itself.
        if self.operations and all(write.waiter.decided for write in self.writes):
            self.end(self)


class Writing:
    """All puts and deletes. One thread."""

    def __init__(
        self,
        objects: Objects,
        waiting: Waiting,
        abandoned: Abandoned,
        clock: PoolClock,
        salt: bytes,
        *,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        draw: Callable[[int], bytes],
        ended: Callable[[int], None],
    ) -> None:
        """``now``: seconds that pass also while the machine sleeps. ``ended`` hears with what code
        an operation ended that came to nothing."""
        self._objects = objects
        self._waiting = waiting
        self._abandoned = abandoned
        self._clock = clock
        self._salt = salt
        self._now = now
        self._later = later
        self._draw = draw
        self._ended = ended
        self._rng = random.Random(int.from_bytes(draw(8), "little"))
        # Writes that no turn has yet, by bucket, and the buckets in the order of their turns.
        self._queues: dict[int, deque[Write]] = {}
        self._ready: deque[int] = deque()
        self._turns: dict[int, _Turn] = {}
        self._under_way = UnderWay[_Turn](now)
        # Pages that a bucket had when it was last seen.
        self._hints: dict[int, range] = {}
        self.size = 0
        """Bytes of keys and values that are held."""
        self.conflicts = 0
        """Turns that were tried again since another gateway was there first."""

    @property
    def under_way(self) -> int:
        """Turns."""
        return len(self._turns)

    def add(self, write: Write) -> None:
        """Have it done with the next :meth:`go_on`."""
        bucket = bucket_of(write.key, self._salt)
        self.size += write.size
        queue = self._queues.get(bucket)
        if queue is None:
            queue = self._queues[bucket] = deque()
            if bucket not in self._turns:
                self._ready.append(bucket)
        queue.append(write)

    def go_on(self) -> None:
        """Begin what waits, as far as there is room."""
        while self._ready and self._under_way.fresh_size() < TURNS_MAX:
            self._begin(self._ready.popleft())

    def _begin(self, bucket: int) -> None:
        queue = self._queues[bucket]
        writes: list[Write] = []
        room = TURN_BYTES_MAX
        while queue and len(writes) < TURN_WRITES_MAX and (not writes or queue[0].size <= room):
            write = queue.popleft()
            if write.waiter.decided:
                self.size -= write.size
                continue
            room -= write.size
            writes.append(write)
        if not queue:
            del self._queues[bucket]
        if not writes:
            return
        turn = self._turns[bucket] = _Turn(bucket, writes, self._now(), self._abandon)
        self._under_way.add(turn)
        for write in writes:
            write.waiter.job = turn
        self._try(turn)

    # One try.

    def _try(self, turn: _Turn) -> None:
        turn.found = None
        turn.wrote = False
        turn.pages = self._hints.get(turn.bucket, range(0))
        for write in turn.writes:
            if write.is_large and write.apart is None:
                self._write_value(turn, write)
        keys = [HEAD_KEY, *{entry_key(write.key): None for write in turn.writes}]
        if turn.pages:
            keys += self._keys_of_older(turn)
        self._ask(turn, keys, self._looked)

    def _ask(
        self, turn: _Turn, keys: list[bytes], then: Callable[[_Turn, Operation], None]
    ) -> None:
        def done(operation: Operation) -> None:
            turn.operations.discard(operation)
            if not turn.is_over:
                then(turn, operation)

        turn.operations.add(self._objects.read_pairs(bucket_name(turn.bucket), keys, done))

    @staticmethod
    def _keys_of_older(turn: _Turn) -> list[bytes]:
        return [
            *{request_key(write.digest): None for write in turn.writes},
            *map(page_key, turn.pages[:DROPPED_PAGES_MAX]),
        ]

    def _looked(self, turn: _Turn, operation: Operation) -> None:
        """The bucket was read, with those of its pages that it was known to have."""
        code = operation.code
        if code == -errno.ENOENT and self._objects.is_there():
            turn.found, turn.head, turn.version = {}, Head(), ABSENT
            turn.pages = range(0)
            self._go_on_with(turn)
            return
        if code:
            self._ended(code)
            self._end(turn, read_failure(code))
            return
        asked = turn.pages
        turn.found, turn.version = operation.pairs, operation.version
        try:
            turn.head = head = decode_head(turn.bucket, turn.found.get(HEAD_KEY, b""))
        except CorruptionError as damage:
            self._end(turn, damage)
            return
        turn.pages = range(head.first_page, head.next_page)
        self._keep_in_mind(turn)
        if turn.pages[:DROPPED_PAGES_MAX] != asked[:DROPPED_PAGES_MAX]:
            self._ask(turn, self._keys_of_older(turn), self._looked_deeper)
        else:
            self._go_on_with(turn)

    def _keep_in_mind(self, turn: _Turn) -> None:
        self._hints.pop(turn.bucket, None)
        if turn.pages:
            self._hints[turn.bucket] = turn.pages
            if len(self._hints) > HINTS_MAX:
                del self._hints[next(iter(self._hints))]

    def _looked_deeper(self, turn: _Turn, operation: Operation) -> None:
        """Its pages were read."""
        assert turn.found is not None
        if operation.code:
            self._ended(operation.code)
            self._end(turn, read_failure(operation.code))
        elif operation.version != turn.version:
            self._try_again(turn)
        else:
            turn.found |= operation.pairs
            self._go_on_with(turn)

    def _write_value(self, turn: _Turn, write: Write) -> None:
        value = write.value
        assert value is not None
        name = new_value(self._clock.stamp_ms(), self._draw(8))
        apart = Apart(len(value), value_checksum(write.key, value), name)

        def done(operation: Operation) -> None:
            turn.operations.discard(operation)
            if turn.is_over:
                if not operation.code:
                    self._remove(turn.bucket, [name])
                return
            if operation.code:
                self._ended(operation.code)
                # Nothing knows of it, so nothing was written.
                failure = write_failure(operation.code)
                if isinstance(failure, OutcomeUnknownError):
                    failure = read_failure(operation.code)
                failure.outcome = Outcome.NOT_APPLIED
                self._waiting.decide(write.waiter, failure)
            else:
                write.apart = apart
            self._go_on_with(turn)

        turn.operations.add(
            self._objects.write(
                value_name(turn.bucket, name), ANY, {VALUE_KEY: write.key}, None, value, done
            )
        )

    def _go_on_with(self, turn: _Turn) -> None:
        """Decide the writes, if all that they need is there."""
        if turn.operations or turn.found is None:
            return
        # Those whose values could not be written are out of it; who went away is served all the
        # same, as far as nothing has begun for it.
        self._leave(turn, [write for write in turn.writes if write.is_large and not write.apart])
        if all(write.waiter.decided for write in turn.writes):
            self._end(turn, None)
            return
        if self._now() - turn.began_at > TURN_S_MAX:
            self._end(turn, UnavailableError("the pool was too slow"))
            return
        try:
            found, damaged = _understand(turn)
        except CorruptionError as damage:
            self._end(turn, damage)
            return
        if damaged:
            # What became of these the first time isn't known. The others are done.
            for write, reason in damaged:
                self._waiting.decide(write.waiter, reason)
            lost = [write for write, _ in damaged]
            if not turn.in_doubt:
                self._remove(turn.bucket, [write.apart.name for write in lost if write.apart])
            self._leave(turn, lost)
            if not turn.writes:
                self._end(turn, None)
                return
        decision = decide(
            found,
            [write.wish() for write in turn.writes],
            stamp_ms=self._clock.stamp_ms(),
            known_ms=self._clock.known_ms,
            since_ms=self._clock.since_ms,
        )
        turn.in_doubt = False
        if not decision.pairs:
            self._done(turn, decision.results, decision.unused)
            return

        def done(operation: Operation) -> None:
            turn.operations.discard(operation)
            gone = decision.gone + decision.unused
            if not turn.is_over:
                self._written(turn, decision.results, gone, operation)
            elif not operation.code:
                self._remove(turn.bucket, gone)

        turn.wrote = True
        turn.operations.add(
            self._objects.write(
                bucket_name(turn.bucket),
                turn.version,
                decision.pairs,
                decision.removed,
                None,
                done,
                decision.size,
            )
        )

    def _written(
        self, turn: _Turn, results: list[bool | Error], gone: list[bytes], operation: Operation
    ) -> None:
        code = operation.code
        if not code:
            self._done(turn, results, gone)
        elif code in CONFLICTS:
            self._try_again(turn)
        else:
            self._ended(code)
            failure = write_failure(code)
            deletes = [write for write in turn.writes if write.value is None]
            if isinstance(failure, NoSpaceError) and len(deletes) < len(turn.writes):
                # They take no room.
                puts = [write for write in turn.writes if write.value is not None]
                failure.outcome = Outcome.NOT_APPLIED
                for write in puts:
                    self._waiting.decide(write.waiter, failure)
                self._remove(turn.bucket, [write.apart.name for write in puts if write.apart])
                self._leave(turn, puts)
                if deletes:
                    self._try(turn)
                    return
            self._end(turn, failure)

    def _try_again(self, turn: _Turn) -> None:
        """Another gateway was there first."""
        self.conflicts += 1
        turn.tries += 1
        turn.in_doubt = True
        if all(write.waiter.decided for write in turn.writes):
            self._end(turn, None)
        elif turn.tries <= PATIENCE_TRIES:
            self._try(turn)
        else:
            most = min(PAUSE_S * (1 << min(turn.tries - PATIENCE_TRIES, 10)), PAUSE_S_MAX)
            self._later(self._rng.random() * most, partial(self._after_pause, turn))

    def _after_pause(self, turn: _Turn) -> None:
        if all(write.waiter.decided for write in turn.writes):
            self._end(turn, None)
            self.go_on()
        else:
            self._try(turn)

    # Its end.

    def _done(self, turn: _Turn, results: list[bool | Error], gone: list[bytes]) -> None:
        for write, result in zip(turn.writes, results, strict=True):
            self._waiting.decide(write.waiter, result)
        self._remove(turn.bucket, gone)
        self._end(turn, None)

    def _abandon(self, turn: _Turn) -> None:
        """Nobody waits for it any more, and the pool has not answered."""
        self._abandoned.add(turn.operations, sum(write.size for write in turn.writes))
        turn.operations.clear()
        if not turn.wrote and not turn.in_doubt:
            self._remove(turn.bucket, [write.apart.name for write in turn.writes if write.apart])
        self._end(turn, None)

    def _end(self, turn: _Turn, failure: Error | None) -> None:
        """It is over; ``failure`` is for what isn't decided yet."""
        if failure is not None:
            if turn.in_doubt:
                if isinstance(failure, UnavailableError):
                    failure = in_doubt(failure)
            elif not isinstance(failure, OutcomeUnknownError):
                failure.outcome = Outcome.NOT_APPLIED
                unknown = [write.apart.name for write in turn.writes if write.apart]
                self._remove(turn.bucket, unknown)
            for write in turn.writes:
                self._waiting.decide(write.waiter, failure)
        self._leave(turn, turn.writes)
        turn.is_over = True
        for operation in list(turn.operations):
            operation.cancel()
        bucket = turn.bucket
        del self._turns[bucket]
        self._under_way.discard(turn)
        if bucket in self._queues:
            self._ready.append(bucket)

    def _leave(self, turn: _Turn, writes: list[Write]) -> None:
        """They are no part of the turn any more."""
        if writes:
            self.size -= sum(write.size for write in writes)
            gone = set(map(id, writes))
            turn.writes = [write for write in turn.writes if id(write) not in gone]

    def _remove(self, bucket: int, names: list[bytes]) -> None:
        """Objects of values that nobody knows any more, as well as it goes."""
        removing = [self._objects.remove(value_name(bucket, name), _nothing) for name in names]
        self._abandoned.add(removing)


def _nothing(operation: Operation) -> None:
    """What isn't removed is cleared away some time (docs/beyond.md)."""


def _understand(turn: _Turn) -> tuple[Found, list[tuple[Write, CorruptionError]]]:
    """What was read, and the writes whose requests' records are damaged. Raises CorruptionError for
    what all depend on."""
    found, bucket = turn.found, turn.bucket
    assert found is not None
    if turn.version == ABSENT:
        return Found(bucket, turn.head, {}), []
    entries: dict[bytes, Entry] = {}
    older = {}
    damaged = []
    for write in turn.writes:
        data = found.get(entry_key(write.key))
        if data is not None:
            try:
                entries[write.key] = decode_entry(write.key, data)
            except CorruptionError:
                # It is there, and is replaced or removed: that mends it.
                entries[write.key] = b""
        data = found.get(request_key(write.digest))
        if data is not None:
            try:
                older[write.digest] = decode_request(bucket, write.digest, data)
            except CorruptionError as damage:
                damaged.append((write, damage))
    pages = []
    for number in turn.pages[:DROPPED_PAGES_MAX]:
        data = found.get(page_key(number))
        if data is None:
            raise CorruptionError("a page of requests isn't there")
        pages.append(Page(number, *decode_page(bucket, number, data)))
    return Found(bucket, turn.head, entries, older, pages), damaged
