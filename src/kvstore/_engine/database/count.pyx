"""Counting keys without making objects of them: a walk that gives the GIL up.

The mutable memtable is walked a page at a time (memtable_page.pxd), each page together with the same
range of all else.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Slice, slice_compare, slice_of
from kvstore._engine.memtable.native cimport memtable_page_fill
from kvstore._engine.version.native cimport UserCursor, user_narrow, user_next, user_resume, user_seek_to_first


cdef enum:
    # Keys, or entries passed over, between two looks at signals, and whether the database was closed.
    COUNTED_AT_ONCE = 1 << 16


cdef uint64_t count_keys(UserCursor* cursor, uint64_t most) noexcept nogil:
    """Moves over so many keys at most."""
    cdef uint64_t counted = 0
    while cursor.valid and counted < most:
        counted += 1
        user_next(cursor)
    return counted


@cython.no_gc_clear
@cython.final
cdef class Counting(StoreIterator):
    cdef uint64_t counted

    cdef int count_piece(self, Slice low, Slice high) except -1:
        """All that is seen in [low, high); NULL data: no bound."""
        self.enter()
        if user_narrow(&self.cursor, low, high) < 0:
            self.leave()
            raise MemoryError("no memory for a count")
        with nogil:
            user_seek_to_first(&self.cursor)
        while self.cursor.valid or self.cursor.paused:
            with nogil:
                user_resume(&self.cursor)
                self.counted += count_keys(&self.cursor, COUNTED_AT_ONCE)
            # Raises if the database was closed meanwhile.
            self.leave()
            PyErr_CheckSignals()
            if self.interrupt is not None:
                self.interrupt()
            self.enter()
        self.leave()
        return self.check_status()

    cdef int count_all(self) except -1:
        cdef Slice low = slice_of(NULL, 0)
        cdef Slice high = slice_of(NULL, 0)
        cdef Slice next
        if self.low is not None:
            low = slice_of(<const char*> self.low, len(self.low))
        if self.high is not None:
            high = slice_of(<const char*> self.high, len(self.high))
        while self.page != NULL:
            self.check()
            memtable_page_fill(self.page, low, self.cursor.sequence, &next)
            if next.data == NULL or (high.data != NULL and slice_compare(next, high) >= 0):
                break
            self.count_piece(low, next)
            low = next
        return self.count_piece(low, high)


cdef object count_range(
    Store store, object sequence, object start, object stop, object prefix, bytes within,
    bint fill_cache, object interrupt
):
    cdef Counting counting = Counting.__new__(Counting)
    counting.bound(start, stop, True, False, prefix, within)
    counting.begin(store, sequence, fill_cache, True)
    counting.cursor.patience = COUNTED_AT_ONCE
    counting.interrupt = interrupt
    try:
        counting.count_all()
    finally:
        counting.finish()
    return counting.counted
