"""Reading an open log's durable records in the order in which they were written, beside its writer."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from kvstore._engine.primitives.native cimport Status


cdef class LogTail:
    """A place in a log. It keeps one segment open; whoever owns it sees to it that it stays.

    Those without the GIL are for one thread at a time.
    """
    cdef Log log
    cdef SegmentReader reader
    cdef bint reading           # `reader` is open, and stands in `segment`
    cdef uint64_t segment       # 0: before the first one
    cdef bint at_head           # not `reading`: at its first record, whatever came before it
    cdef uint64_t offset        # otherwise: behind the record that ends here
    cdef uint32_t chain         # and has this header checksum
    cdef uint64_t end_segment   # what is known to be durable: up to this segment
    cdef uint64_t end_offset    # and this offset in it
    # Behind all that was appended; nobody may append meanwhile.
    cdef void go_to_end(self) noexcept nogil
    # At the head of the newest segment, not below `kept`, that begins with `index` or a lower one.
    # False: there is none; `oldest` is the lowest index that there is then, 0 without any.
    cdef bint go_before(self, uint64_t index, uint64_t kept, uint64_t* oldest) noexcept
    # Makes all that was appended so far durable, and known to be. -1 with `status`.
    cdef int make_durable(self, Status* status) noexcept nogil
    # 1: the next durable record of a user's kind, its payload borrowed until the next call; 0: none as
    # yet; -1 with `status`, and the place is the same.
    cdef int next(self, RecordHeader* record, const uint8_t** payload, Status* status) noexcept nogil
    cdef void close(self) noexcept nogil
    cdef uint64_t position(self) noexcept nogil
    cdef bint find_end(self, uint64_t* end) noexcept nogil
    cdef int enter(self, Status* status) noexcept nogil
    cdef void leave(self) noexcept nogil


# The oldest segment but the one that is written now; 0: there is none.
cdef uint64_t oldest_sealed(Log log) noexcept nogil
# The number of the segment from which on there are at least so many bytes of records; 0: never so many.
cdef uint64_t segment_of_tail(Log log, uint64_t least_bytes) noexcept nogil
