"""Ranges without a key, as walks over deleted ones found them: the next walk needn't begin there."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice


cdef enum:
    DEAD_RANGES = 8


cdef struct DeadRange:
    # No key in [low, high) is there for whoever reads at `since` or later.
    Buffer low
    Buffer high
    uint64_t since
    uint64_t used               # when it was last of use, by `DeadRanges.clock`


cdef struct DeadRanges:
    DeadRange ranges[DEAD_RANGES]
    int count
    uint64_t clock
    uint64_t puts               # how often a key was put: a walk's range counts only ...
    uint64_t last_put           # ... if none was since it began, and it sees the newest one
    uint64_t era                # how often tables were exchanged for others, of which walks that ...
    bint exchanging             # ... began before know nothing; meanwhile nothing is noted


# The range that `key` lies in, of a reader at `sequence`; NULL. `below`: that the keys just below it lie in.
cdef DeadRange* dead_find(DeadRanges* self, Slice key, uint64_t sequence, bint below) noexcept nogil
# Found between two keys, at `sequence`; what it touches becomes one range with it. Without memory nothing
# is remembered.
cdef void dead_note(DeadRanges* self, Slice low, Slice high, uint64_t sequence) noexcept nogil
# A key comes to life: a range ends before it.
cdef void dead_revive(DeadRanges* self, Slice key) noexcept nogil
cdef void dead_forget(DeadRanges* self) noexcept nogil
# Around an exchange of tables for others that may hold other keys.
cdef void dead_exchange_begins(DeadRanges* self) noexcept nogil
cdef void dead_exchange_ends(DeadRanges* self) noexcept nogil


cdef inline void dead_put(DeadRanges* self, Slice key, uint64_t sequence) noexcept nogil:
    """With every put."""
    self.puts += 1
    self.last_put = sequence
    if self.count:
        dead_revive(self, key)
