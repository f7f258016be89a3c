"""Dead ranges: see dead_range.pxd.

A queue deletes at its front, and whoever looks for its first entry passes over all that was deleted until a
flush and a compaction have dropped it. So a walk that passed over much notes between which keys there is
nothing, and the next one begins behind. That holds until a key is put there, whatever is flushed or
compacted; it is about what readers see, not about where it is. Kept in memory alone, of few ranges, under
the GIL.

Only a walk at the newest moment notes: what it doesn't see isn't there. One at an earlier moment may miss
what others at that moment still see, where history isn't kept of all keys.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memmove, memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    Slice,
    buffer_append,
    buffer_free,
    slice_compare,
    slice_of,
)


cdef enum:
    NOTED_KEY_BYTES = 4096      # of a longer key no range begins or ends


cdef inline Slice within(Buffer* buffer) noexcept nogil:
    return slice_of(buffer.data, buffer.size)


cdef DeadRange* dead_find(DeadRanges* self, Slice key, uint64_t sequence, bint below) noexcept nogil:
    cdef DeadRange* dead
    cdef int i, low, high
    for i in range(self.count):
        dead = &self.ranges[i]
        if dead.since > sequence:
            continue
        low = slice_compare(within(&dead.low), key)
        high = slice_compare(key, within(&dead.high))
        if (low < 0 and high <= 0) if below else (low <= 0 and high < 0):
            self.clock += 1
            dead.used = self.clock
            return dead
    return NULL


cdef bint keep(Buffer* into, Slice what) noexcept nogil:
    into.size = 0
    return buffer_append(into, what.data, what.size) == 0


cdef void drop(DeadRanges* self, int at) noexcept nogil:
    buffer_free(&self.ranges[at].low)
    buffer_free(&self.ranges[at].high)
    self.count -= 1
    memmove(
        &self.ranges[at], &self.ranges[at + 1], <size_t> (self.count - at) * sizeof(DeadRange)
    )


cdef void dead_note(DeadRanges* self, Slice low, Slice high, uint64_t sequence) noexcept nogil:
    cdef DeadRange* dead
    cdef int i
    cdef int oldest = 0
    if low.size > NOTED_KEY_BYTES or high.size > NOTED_KEY_BYTES or slice_compare(low, high) >= 0:
        return
    for i in range(self.count):
        dead = &self.ranges[i]
        if (
            slice_compare(within(&dead.low), high) <= 0
            and slice_compare(low, within(&dead.high)) <= 0
        ):
            # One range with what it touches. That holds from the later of both on.
            if (slice_compare(low, within(&dead.low)) < 0 and not keep(&dead.low, low)) or (
                slice_compare(high, within(&dead.high)) > 0 and not keep(&dead.high, high)
            ):
                drop(self, i)
            else:
                dead.since = max(dead.since, sequence)
                self.clock += 1
                dead.used = self.clock
            return
        if dead.used < self.ranges[oldest].used:
            oldest = i
    if self.count == DEAD_RANGES:
        drop(self, oldest)
    dead = &self.ranges[self.count]
    memset(dead, 0, sizeof(DeadRange))
    self.count += 1
    self.clock += 1
    dead.since = sequence
    dead.used = self.clock
    if not keep(&dead.low, low) or not keep(&dead.high, high):
        drop(self, self.count - 1)


cdef void dead_revive(DeadRanges* self, Slice key) noexcept nogil:
    cdef DeadRange* dead
    cdef int order
    cdef int i = 0
    while i < self.count:
        dead = &self.ranges[i]
        order = slice_compare(within(&dead.low), key)
        if order == 0:
            drop(self, i)
            continue
        if order < 0 and slice_compare(key, within(&dead.high)) < 0 and not keep(&dead.high, key):
            drop(self, i)
            continue
        i += 1


cdef void dead_forget(DeadRanges* self) noexcept nogil:
    while self.count:
        drop(self, self.count - 1)


cdef void dead_exchange_begins(DeadRanges* self) noexcept nogil:
    self.exchanging = True
    dead_forget(self)


cdef void dead_exchange_ends(DeadRanges* self) noexcept nogil:
    self.era += 1
    self.exchanging = False
