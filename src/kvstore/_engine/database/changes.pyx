"""ChangeReader: see changes.pxd."""

import math
import time
import weakref

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    KIND_PUT,
    KIND_RANGE_DELETE,
    OK,
    Slice,
    Status,
    max_sequence,
    slice_compare,
    slice_of,
    status_clear,
    status_error,
    status_set,
)
from kvstore._engine.log.native cimport LogTail, RecordHeader

from kvstore._engine.database.change import Change as GivenChange, ChangeKind
from kvstore.errors import (
    ClosedError,
    CompactedError,
    FutureRevisionError,
    InvalidArgumentError,
)


cdef enum:
    READ_AT_ONCE_BYTES = 1 << 20    # of batches without a change of the range, before it looks up
    SEEK_AT_ONCE = 64               # operations that are passed over with the GIL held
    # Of more feeds those that have caught up keep no descriptor and no buffer (some 240 KiB): to
    # open a segment again takes some 15 us, which few feeds need not spend on each change.
    FEEDS_AT_HAND = 64

cdef object GIVEN_CHANGE = GivenChange
cdef object KIND_OF_PUT = ChangeKind.PUT
cdef object KIND_OF_DELETE = ChangeKind.DELETE
cdef object KIND_OF_DELETE_RANGE = ChangeKind.DELETE_RANGE
cdef object new_tuple = tuple.__new__


# Freeing it still needs what it refers to: the collector must not clear the references first.
@cython.no_gc_clear
cdef class ChangeReader:
    def __init__(
        self, Store store not None, bytes within not None, since, start, stop, prefix, timeout
    ):
        if self.store is not None:
            raise InvalidArgumentError("a feed begins once")
        store.check_open()
        if store.log is None and not store.read_only:
            raise InvalidArgumentError(
                "changes are read from the log, and this database has none (wal=False)"
            )
        if prefix is not None and (start is not None or stop is not None):
            raise TypeError("prefix can't be given together with start or stop")
        if prefix is not None:
            self.low = within + as_bytes(prefix, "prefix")
            self.high = after_prefix(self.low)
        else:
            self.low = within + (b"" if start is None else as_bytes(start, "start"))
            self.high = after_prefix(within) if stop is None else within + as_bytes(stop, "stop")
        self.within = within
        self.from_key = slice_of_bytes(self.low)
        self.bounded = self.high is not None
        if self.bounded:
            self.to_key = slice_of_bytes(self.high)
        self.timeout = checked_timeout(timeout)
        if store.log is not None:
            self.tail = LogTail(store.log)
        self.store = store
        # Nothing lets other threads in before the segment that is found counts as needed.
        self.begin(since)
        store.feeds[id(self)] = weakref.ref(self, forget_feed(store.feeds, id(self)))

    def __reduce__(self):
        raise TypeError("a change feed can't be copied or pickled: keep its sequence")

    cdef int begin(self, object since) except -1:
        cdef uint64_t oldest = 0
        cdef uint64_t visible = self.store.visible
        self.sequence = visible
        if since is not None:
            since = as_sequence(since)
            if not 0 <= since < max_sequence():
                raise InvalidArgumentError(f"sequence {since} is outside [0, 2**56 - 1)")
            if since > visible:
                raise FutureRevisionError(
                    f"there are no changes after sequence {since} yet: the newest is {visible}"
                )
            self.sequence = since
        if self.sequence == self.store.assigned:
            if self.tail is not None:
                self.tail.go_to_end()
        elif self.tail is None or not self.tail.go_before(
            self.sequence + 1, self.store.log_kept, &oldest
        ):
            raise self.lost(oldest or visible + 1)
        return 0

    cdef object lost(self, uint64_t oldest):
        return CompactedError(
            f"the log doesn't have all changes after sequence {self.sequence} any more: "
            f"the oldest that is left is {oldest}", oldest,
        )

    # --- whose turn it is ---------------------------------------------------------------------

    cdef int enter(self) except -1:
        if self.store is None:
            raise ClosedError("the feed was not made by a database")
        self.store.check_open()
        if self.closed:
            raise ClosedError("the feed is closed")
        if self.busy:
            raise InvalidArgumentError("another thread is reading this feed")
        self.busy = True
        return 0

    cdef int leave(self) except -1:
        self.busy = False
        if self.closed:
            self.let_go()
        elif self.sequence >= self.store.visible:
            self.rest_among_many()
        return 0

    cdef bint rest(self) noexcept:
        if self.holds or self.tail is None or not self.tail.reading:
            return False
        self.tail.close()
        return True

    cdef int rest_among_many(self) except -1:
        if len(self.store.feeds) > FEEDS_AT_HAND:
            self.rest()
        return 0

    cdef int let_go(self) except -1:
        self.found = self.holds = False
        if self.tail is not None:
            self.tail.close()
        return 0

    def close(self):
        if self.store is None or self.closed or self.store.forked:
            return
        self.closed = True
        self.store.feeds.pop(id(self), None)
        if not self.busy:
            self.let_go()
        self.store.arrivals.advance()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    # --- what users call ----------------------------------------------------------------------

    def __iter__(self):
        return self

    def __next__(self):
        if self.closed:
            # By another thread perhaps: the loop ends in the same way wherever it was then.
            raise StopIteration
        self.enter()
        try:
            change = self.take() if self.found else self.await_next(self.timeout, False)
        finally:
            self.leave()
        if change is None:
            raise StopIteration
        return change

    def poll(self, timeout=0):
        timeout = checked_timeout(timeout)
        self.enter()
        try:
            return self.await_next(timeout, False)
        finally:
            self.leave()

    def poll_batch(self, timeout=0):
        timeout = checked_timeout(timeout)
        self.enter()
        try:
            return self.await_next(timeout, True)
        finally:
            self.leave()

    cdef object await_next(self, object seconds, bint whole_batch):
        cdef Store store = self.store
        until = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            seen = store.arrivals.count
            if self.look():
                return self.take_batch() if whole_batch else self.take()
            if self.closed or store.read_only:
                return None
            if store.failure is not None:
                store.check_writable()      # nothing will ever be written any more
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.rest_among_many()
            store.arrivals.wait(seen, left)

    # --- reading ------------------------------------------------------------------------------

    cdef bint look(self) except -1:
        cdef Store store = self.store
        cdef Status status
        cdef uint64_t visible
        cdef int result = GO_ON
        while not self.found:
            store.check_open()
            visible = store.visible
            if self.closed or (self.last_sequence if self.holds else self.sequence + 1) > visible:
                # Whoever writes next sees this before it looks whether somebody is to be told.
                store.feeds_wait = True
                return False
            if self.tail is None:
                raise self.lost(visible + 1)
            status_clear(&status)
            # Closing the database waits for it.
            store.running_tasks += 1
            try:
                with nogil:
                    result = self.advance(visible, &status)
            finally:
                store.running_tasks -= 1
                if not store.open:
                    store.changed.advance()
            if result < 0 or result == SEQUENCES_MISSING:
                self.read_failed(&status)
        return True

    cdef int read_failed(self, Status* status) except -1:
        """Raises why, unless it is to be tried again."""
        cdef Store store = self.store
        store.check_open()
        if self.tail.segment < store.log_kept and self.tail.segment:
            # Its segment was let go of, and may have been written over: what was read says nothing.
            raise self.lost(oldest_change(store))
        if status.code == OK:
            raise self.lost(self.at_sequence)
        error = status_error(status, store.log.path)
        if store.make_descriptors(error):
            return 0
        if store.log_has_failed():
            store.fail(error)
        raise error

    cdef int advance(self, uint64_t visible, Status* status) noexcept nogil:
        cdef RecordHeader record
        cdef const uint8_t* payload = NULL
        cdef uint64_t budget = READ_AT_ONCE_BYTES
        cdef bint durable = False
        cdef int result
        while True:
            if self.holds:
                if self.last_sequence > visible:
                    return NOTHING_YET
                if self.seek(0xFFFFFFFF):
                    return AT_CHANGE
            if self.sequence >= visible:
                return NOTHING_YET
            if budget == 0:
                return GO_ON
            result = self.tail.next(&record, &payload, status)
            if result < 0:
                return -1
            if result == 0:
                if durable:
                    # Written by an opening without a log.
                    self.at_sequence = visible + 1
                    return SEQUENCES_MISSING
                if self.tail.make_durable(status):
                    return -1
                durable = True
                continue
            budget -= min(budget, <uint64_t> record.payload_bytes)
            if record.kind != LOG_KIND_BATCH:
                return status_set(status, INVALID_RECORD, b"a log record of unknown kind", -1)
            result = self.hold(record.index, payload, record.payload_bytes, status)
            if result:
                return result

    cdef int hold(self, uint64_t first, const uint8_t* payload, size_t size, Status* status) noexcept nogil:
        cdef uint32_t count = 0
        if check_batch(payload, size, &count) < 0 or count == 0 or first > max_sequence() - count:
            return status_set(status, INVALID_RECORD, b"a log record without a valid batch", -1)
        if first > self.sequence + 1:
            self.at_sequence = first
            return SEQUENCES_MISSING
        if first + count - 1 <= self.sequence:
            return 0
        self.holds = True
        self.at = payload + BATCH_HEADER_BYTES
        self.end = payload + size
        self.at_sequence = first
        self.last_sequence = first + count - 1
        return 0

    cdef bint seek(self, uint32_t most) noexcept nogil:
        while self.at < self.end and most:
            self.at = decode_operation(self.at, self.end, &self.operation)
            self.found_sequence = self.at_sequence
            self.at_sequence += 1
            most -= 1
            if self.found_sequence > self.sequence and self.concerns():
                self.found = True
                return True
        if self.at == self.end:
            self.holds = False
            self.sequence = self.last_sequence
        return False

    cdef bint concerns(self) noexcept nogil:
        if self.bounded and slice_compare(self.operation.key, self.to_key) >= 0:
            return False
        if self.operation.kind == KIND_RANGE_DELETE:
            return slice_compare(self.operation.value, self.from_key) > 0
        return slice_compare(self.operation.key, self.from_key) >= 0

    # --- giving out ---------------------------------------------------------------------------

    cdef object take(self):
        """The operation at hand. All bytes are copied before anything may let other threads in."""
        cdef Slice key = self.operation.key
        cdef Slice end = self.operation.value
        cdef uint64_t sequence = self.found_sequence
        cdef uint64_t last = self.last_sequence
        cdef object kind = KIND_OF_DELETE
        cdef object value = None
        cdef object stop = None
        if self.operation.kind == KIND_PUT:
            kind = KIND_OF_PUT
            value = PyBytes_FromStringAndSize(<const char*> end.data, <Py_ssize_t> end.size)
        elif self.operation.kind == KIND_RANGE_DELETE:
            kind = KIND_OF_DELETE_RANGE
            if slice_compare(key, self.from_key) < 0:
                key = self.from_key
            if self.bounded and slice_compare(end, self.to_key) > 0:
                end = self.to_key
            stop = self.shown(end)
        shown = self.shown(key)
        self.found = False
        self.sequence = sequence
        self.seek(SEEK_AT_ONCE)
        return new_tuple(GIVEN_CHANGE, (sequence, kind, shown, value, stop, last))

    cdef object shown(self, Slice key):
        """Without the view's prefix; None for where the view ends, which no key of it says."""
        cdef size_t strip = len(self.within)
        if key.size < strip or (strip and slice_compare(
            slice_of(key.data, strip), slice_of_bytes(self.within)
        )):
            return None
        return PyBytes_FromStringAndSize(
            <const char*> key.data + strip, <Py_ssize_t> (key.size - strip)
        )

    cdef object take_batch(self):
        """What is left of the batch at hand."""
        cdef uint64_t last = self.last_sequence
        changes = []
        while self.found and self.last_sequence == last:
            changes.append(self.take())
            if not self.found and self.holds:
                self.seek(0xFFFFFFFF)
        self.store.check_open()
        return changes


cdef object forget_feed(dict feeds, object key):
    """What a weak reference to a feed does once that is gone; it keeps nothing of it."""
    def forget(_):
        feeds.pop(key, None)
    return forget


cdef bint rest_feeds(Store store) except -1:
    cdef ChangeReader feed
    cdef bint rested = False
    for reference in list(store.feeds.values()):
        feed = reference()
        if feed is not None and not feed.busy:
            rested |= feed.rest()
    return rested


cdef object checked_timeout(object timeout):
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise InvalidArgumentError(f"timeout={timeout} is not 0 or more")
    return timeout
