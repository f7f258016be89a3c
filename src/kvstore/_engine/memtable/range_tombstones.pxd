"""Range tombstones: which ranges of keys were deleted, and at which sequence.

A range tombstone hides from a reader at sequence q each version of a key of [start, stop) that is
older than itself, if it is not newer than q. Those of one table, or of one stretch of time in a
memtable, are a *run*: an interval tree laid out in arrays, which never changes once it is made and
is read from any thread without a lock. A memtable has a few runs, each made by merging, see RangeSet.
"""

from libc.stdint cimport uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice


cdef struct RangeTombstone:
    Slice start
    Slice stop                  # not included; above start
    uint64_t sequence
    int source                  # for who merges several runs: which one it came from


cdef struct RangeRun:
    # Reference-counted, one piece of memory. The keys are borrowed: whoever holds a run holds what
    # they lie in.
    uint64_t references
    uint32_t count              # at least 1
    uint64_t lowest             # sequences
    uint64_t highest
    size_t bytes                # what it takes
    RangeTombstone* tombstones  # by start
    # The tree: the part [low, high) has its root in the middle, and on either side of it a part.
    uint32_t* furthest          # at a root: which tombstone of its part stops last
    uint64_t* newest            # at a root: the highest sequence of its part
    Slice* edges                # all starts and stops, ascending: 2 * count


cdef enum:
    RANGE_RUNS_MAX = 32


cdef struct RangeSet:
    # The range tombstones of a memtable, in runs of ascending age. Each run is longer than the next,
    # as the digits of a binary counter: an addition merges log2(n) times on average and a search looks into at
    # most log2(n) runs.
    uint32_t count
    int runs_count
    size_t bytes
    RangeRun* runs[RANGE_RUNS_MAX]      # oldest first


# Of tombstones in any order. NULL: no memory. There must be at least one.
cdef RangeRun* range_run_new(const RangeTombstone* given, size_t count) noexcept nogil
cdef void range_run_retain(RangeRun* run) noexcept nogil
cdef void range_run_release(RangeRun* run) noexcept nogil
# The newest tombstone over the key that a reader at `sequence` sees; NULL: none.
cdef const RangeTombstone* range_run_find(
    const RangeRun* run, Slice key, uint64_t sequence
) noexcept nogil
# The edges around the key: the same tombstones lie over all of [low, high). NULL data where there is
# no edge on that side.
cdef void range_run_piece(const RangeRun* run, Slice key, Slice* low, Slice* high) noexcept nogil

# At least one; none older than what was added before. The keys are borrowed. -1: no memory, nothing
# changed.
cdef int range_set_add(RangeSet* ranges, const RangeTombstone* given, size_t count) noexcept nogil
cdef const RangeTombstone* range_set_find(
    const RangeSet* ranges, Slice key, uint64_t sequence
) noexcept nogil
cdef void range_set_free(RangeSet* ranges) noexcept nogil
