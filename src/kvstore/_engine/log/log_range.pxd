"""Reading entries by their index from one segment, beside whoever writes the log."""

from libc.stdint cimport uint64_t, uint8_t

from kvstore._engine.primitives.native cimport Buffer, Status


cdef struct Place:
    # Where to look, and what counts of what is there.
    uint64_t segment
    Span span
    uint64_t limit              # entries from this index on are replaced by those of a later segment
    uint64_t end                # of the records there that are durable


cdef struct RangeEntry:
    uint64_t index
    uint64_t term
    size_t start                # of its payload
    size_t size
    int kind


cdef struct RangeEntries:
    Buffer entries              # of RangeEntry, in the order of their indexes
    Buffer payloads


# Fills `into` with entries from `first` to `last` at most, without a gap, until `bytes_max` is
# passed; at least one. -1 with `status` where that can't be read or is damaged; the caller frees
# `into` in both cases.
cdef int read_place(
    SegmentReader* reader, const Place* place, const uint8_t* log_id, uint64_t first,
    uint64_t last, size_t bytes_max, RangeEntries* into, Status* status
) noexcept nogil
