"""Clearing away values that no key names: what gateways left that died between two writes.

A large value is written before its key names it, and removed after another one took its place. A
gateway that ends in between leaves an object that nobody will ever read. Once a day one gateway
walks over all objects and looks at each value that is older than any turn can be
(:data:`kvstore.beyond.rados.writing.TURN_S_MAX`; requests are remembered for longer than that):

1. It reads the value's key, and what the key's bucket says of it. If it is named it stays.
2. It writes into the bucket's head, under the version that it has read, that values so old are
   swept. From then on whatever was begun before, and might yet name the value, is refused by its
   own guard; and if it tries again, as after its machine stood still, by what the head says.
3. It removes the value.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from kvstore.beyond.rados.deciding import REMEMBERED_MS
from kvstore.beyond.rados.layout import (
    CLOCK_KEY,
    HEAD_KEY,
    SWEEP_NAME,
    VALUE_KEY,
    Apart,
    Head,
    bucket_name,
    decode_clock,
    decode_entry,
    decode_head,
    encode_clock,
    encode_head,
    entry_key,
    parse_name,
    time_of_value,
    value_name,
)
from kvstore.beyond.rados.objects import ABSENT, Objects, Operation
from kvstore.beyond.rados.pool_clock import PoolClock
from kvstore.errors import StorageError

__all__ = ["EVERY_MS", "LOOKS_MAX", "Sweep"]

EVERY_MS = 86_400_000
"""Between two walks, whichever gateways make them."""
LOOKS_MAX = 4
"""Values that are looked at side by side: it is never urgent."""


class Sweep:
    """One gateway's part in it. One thread."""

    def __init__(self, objects: Objects, clock: PoolClock) -> None:
        self._objects = objects
        self._clock = clock
        self._queue: deque[tuple[int, bytes]] = deque()
        self._under_way = 0
        self._done: Callable[[], None] | None = None
        self.removed = 0

    def claim(self, decided: Callable[[bool], None]) -> None:
        """Say whether this gateway is to walk now; no other one is then, for a day."""

        def written(operation: Operation) -> None:
            decided(operation.code == 0)

        def read(operation: Operation) -> None:
            if operation.code not in (0, -errno.ENOENT) or not self._clock.is_set:
                decided(False)
                return
            data = (operation.pairs or {}).get(CLOCK_KEY)
            try:
                last_ms = 0 if data is None else decode_clock(data)
            except StorageError:
                last_ms = 0
            if self._clock.known_ms - last_ms < EVERY_MS:
                decided(False)
                return
            guard = operation.version if operation.code == 0 else ABSENT
            pairs = {CLOCK_KEY: encode_clock(self._clock.known_ms)}
            self._objects.write(SWEEP_NAME, guard, pairs, None, None, written)

        self._objects.read_pairs(SWEEP_NAME, [CLOCK_KEY], read)

    def look_at(self, names: Iterable[bytes], done: Callable[[], None]) -> None:
        """Look at the values among ``names``, then call ``done``. One lot at a time."""
        assert self._done is None
        self._done = done
        before_ms = self._clock.known_ms - REMEMBERED_MS
        for name in names:
            parsed = parse_name(name)
            if parsed is not None and parsed[1] and time_of_value(parsed[1]) < before_ms:
                self._queue.append(parsed)
        self._go_on()

    def _go_on(self) -> None:
        while self._queue and self._under_way < LOOKS_MAX:
            self._under_way += 1
            bucket, name = self._queue.popleft()
            read = partial(self._key_read, bucket, name)
            self._objects.read_pairs(value_name(bucket, name), [VALUE_KEY], read)
        if not self._under_way and self._done is not None:
            done, self._done = self._done, None
            done()

    def _next(self, operation: Operation | None = None) -> None:
        """That one is done with, or left for the next walk."""
        self._under_way -= 1
        self._go_on()

    def _key_read(self, bucket: int, name: bytes, operation: Operation) -> None:
        key = (operation.pairs or {}).get(VALUE_KEY)
        if operation.code or key is None:
            self._next()
            return
        read = partial(self._bucket_read, bucket, name, key)
        self._objects.read_pairs(bucket_name(bucket), [HEAD_KEY, entry_key(key)], read)

    def _bucket_read(self, bucket: int, name: bytes, key: bytes, operation: Operation) -> None:
        pairs = operation.pairs or {}
        if operation.code == -errno.ENOENT and self._objects.is_there():
            guard, head = ABSENT, Head()
        elif operation.code or HEAD_KEY not in pairs:
            self._next()
            return
        else:
            guard, head = operation.version, None
        entry = pairs.get(entry_key(key))
        try:
            if head is None:
                head = decode_head(bucket, pairs[HEAD_KEY])
            named = None if entry is None else decode_entry(key, entry)
        except StorageError:
            # What there is isn't known.
            self._next()
            return
        if isinstance(named, Apart) and named.name == name:
            self._next()
            return
        head.swept_ms = max(head.swept_ms, time_of_value(name))
        written = partial(self._bucket_written, bucket, name)
        marked = {HEAD_KEY: encode_head(bucket, head)}
        self._objects.write(bucket_name(bucket), guard, marked, None, None, written)

    def _bucket_written(self, bucket: int, name: bytes, operation: Operation) -> None:
        if operation.code:
            self._next()
            return
        self.removed += 1
        self._objects.remove(value_name(bucket, name), self._next)
