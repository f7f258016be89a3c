"""Which indexes the records of a segment have, of the kinds that are not sticky."""

from libc.stdint cimport uint64_t


cdef struct Span:
    uint64_t lowest             # 0: there are none
    uint64_t highest
    uint64_t newest             # of the record that was written last
    bint ordered                # each is the one before plus one
    uint64_t bytes              # of the segment, up to the end of its records


cdef inline void span_clear(Span* span) noexcept nogil:
    span.lowest = span.highest = span.newest = span.bytes = 0
    span.ordered = True


cdef inline void span_note(Span* span, uint64_t index) noexcept nogil:
    """A record of this index follows; 0 is no index."""
    if index == 0:
        return
    if span.lowest == 0:
        span.lowest = span.highest = index
    else:
        if index != span.newest + 1:
            span.ordered = False
        if index < span.lowest:
            span.lowest = index
        if index > span.highest:
            span.highest = index
    span.newest = index
