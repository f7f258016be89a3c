"""Gets: one read of a pair, and of an object where the value has one."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable

from kvstore.beyond.rados.abandoned import Abandoned
from kvstore.beyond.rados.failing import read_failure
from kvstore.beyond.rados.layout import (
    Apart,
    bucket_name,
    bucket_of,
    check_value,
    decode_entry,
    entry_key,
    value_name,
)
from kvstore.beyond.rados.objects import Objects, Operation
from kvstore.beyond.rados.under_way import UnderWay
from kvstore.beyond.rados.waiting import Waiter, Waiting
from kvstore.errors import CorruptionError, IntegrityCode, UnavailableError
from kvstore.service.operations import Result

__all__ = ["READS_MAX", "Reading"]

READS_MAX = 1024
"""Gets that the pool is asked for at one time; others wait for their turn. Slow ones don't count:
of these there are no more than calls that wait."""
VALUE_BYTES_MAX = 64 << 20
"""Of values with objects of their own, that are under way at one time, without the slow ones; and
with them:"""
ALL_VALUE_BYTES_MAX = 256 << 20
LOOKS_MAX = 16
"""How often a value that isn't where its key said is looked for anew: others replace it."""


class _Get:
    """One get: a :class:`kvstore.beyond.rados.waiting.Job`."""

    __slots__ = ("apart", "bucket", "end", "key", "looks", "operation", "pair", "waiter")

    def __init__(self, waiter: Waiter, salt: bytes, end: Callable[[_Get], None]) -> None:
        key = waiter.call.key
        self.waiter = waiter
        self.key = key
        self.bucket = bucket_of(key, salt)
        self.pair = entry_key(key)
        self.end = end
        self.looks = 0
        self.apart: Apart | None = None
        self.operation: Operation | None = None

    def give_up(self) -> None:
        # One that is in a queue is left out when its turn comes.
        if self.operation is not None:
            self.end(self)


class Reading:
    """All gets. One thread."""

    def __init__(
        self,
        objects: Objects,
        waiting: Waiting,
        abandoned: Abandoned,
        salt: bytes,
        *,
        now: Callable[[], float],
        ended: Callable[[int], None],
    ) -> None:
        """``now``: seconds. ``ended`` hears with what code an operation ended that came to
        nothing."""
        self._objects = objects
        self._waiting = waiting
        self._abandoned = abandoned
        self._salt = salt
        self._ended = ended
        self._queue: deque[_Get] = deque()
        self._large: deque[_Get] = deque()
        self._under_way = UnderWay[_Get](now)
        # Those that read a value, by its bytes.
        self._values = UnderWay[_Get](now)

    @property
    def under_way(self) -> int:
        """Gets that the pool is asked for."""
        return len(self._under_way)

    def add(self, waiter: Waiter) -> None:
        """Have it read with the next :meth:`go_on`."""
        waiter.job = get = _Get(waiter, self._salt, self._abandon)
        self._queue.append(get)

    def go_on(self) -> None:
        """Begin what waits, as far as there is room."""
        while self._large and self._has_room():
            self._read_value(self._large.popleft())
        while self._queue and self._under_way.fresh_size() < READS_MAX:
            get = self._queue.popleft()
            if not get.waiter.decided:
                self._under_way.add(get)
                self._look(get)

    def _has_room(self) -> bool:
        values = self._values
        return values.fresh_size() < VALUE_BYTES_MAX and values.size < ALL_VALUE_BYTES_MAX

    def _look(self, get: _Get) -> None:
        get.looks += 1
        get.operation = self._objects.read_pairs(
            bucket_name(get.bucket), [get.pair], lambda operation: self._found(get, operation)
        )

    def _abandon(self, get: _Get) -> None:
        """Nobody waits for it any more, and the pool has not answered."""
        assert get.operation is not None
        self._abandoned.add([get.operation], self._values.size_of(get))
        get.operation = None
        self._under_way.discard(get)
        self._values.discard(get)

    def _found(self, get: _Get, operation: Operation) -> None:
        if get.operation is not operation:
            return
        get.operation = None
        code = operation.code
        if code == -errno.ENOENT and self._objects.is_there():
            self._decide(get, None)
        elif code:
            self._fail(get, code)
        else:
            data = operation.pairs.get(get.pair)
            try:
                entry = None if data is None else decode_entry(get.key, data)
            except CorruptionError as damage:
                self._decide(get, damage)
                return
            if not isinstance(entry, Apart):
                self._decide(get, entry)
            elif entry == get.apart:
                self._decide(get, _missing(entry))
            else:
                get.apart = entry
                if self._has_room():
                    self._read_value(get)
                else:
                    self._large.append(get)

    def _read_value(self, get: _Get) -> None:
        apart = get.apart
        assert apart is not None
        if get.waiter.decided:
            self._under_way.discard(get)
            return
        self._values.add(get, apart.size)
        get.operation = self._objects.read_data(
            value_name(get.bucket, apart.name),
            apart.size + 1,
            lambda operation: self._read(get, apart, operation),
        )

    def _read(self, get: _Get, apart: Apart, operation: Operation) -> None:
        if get.operation is not operation:
            return
        get.operation = None
        self._values.discard(get)
        if operation.code == -errno.ENOENT and self._objects.is_there():
            # Another value has taken its place since: then its key says so.
            if get.looks < LOOKS_MAX:
                self._look(get)
            else:
                self._decide(get, UnavailableError("the key changes faster than it can be read"))
        elif operation.code:
            self._fail(get, operation.code)
        else:
            try:
                check_value(get.key, apart, operation.data)
            except CorruptionError as damage:
                self._decide(get, damage)
            else:
                self._decide(get, operation.data)

    def _fail(self, get: _Get, code: int) -> None:
        self._ended(code)
        self._decide(get, read_failure(code))

    def _decide(self, get: _Get, result: Result) -> None:
        self._under_way.discard(get)
        self._waiting.decide(get.waiter, result)


def _missing(apart: Apart) -> CorruptionError:
    return CorruptionError(
        f"a value of {apart.size} bytes isn't there", code=IntegrityCode.INVALID_RECORD
    )
