"""What a change feed reads: the batches in the log, one after the other, once they are durable.

The log is read where it lies on disk, at whatever pace, so that a slow consumer costs no memory; its
segments stay for as long as log_retention.pyx says. A waiting feed is told of each write by
`Store.arrivals`.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Slice, Status
from kvstore._engine.log.native cimport LogTail


cdef enum:
    # What ChangeReader.advance() says; -1: `status` does.
    NOTHING_YET = 0
    AT_CHANGE = 1
    GO_ON = 2                   # it has read for long enough without looking whether it is closed
    SEQUENCES_MISSING = 3       # the log goes on with `at_sequence`, which isn't the next one


cdef class ChangeReader:
    """One thread at a time; a second one is refused. Closing works from any thread."""
    cdef object __weakref__
    cdef Store store
    cdef LogTail tail           # None: a read-only database without a log
    cdef bytes within           # a view's prefix, which keys are shown without
    cdef bytes low              # what the bounds are borrowed from
    cdef bytes high
    cdef Slice from_key         # the range: from here on
    cdef Slice to_key           # and below here
    cdef bint bounded           # else there is no such end
    cdef bint busy              # a thread is in it, perhaps without the GIL
    cdef readonly bint closed
    # Seconds that iteration waits for the next change; None: however long.
    cdef readonly object timeout
    # All changes up to it were given out, or are none of the range.
    cdef readonly uint64_t sequence
    # The batch at hand, in the tail's memory; its operations before `at` are done with.
    cdef bint holds
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef uint64_t at_sequence
    cdef uint64_t last_sequence
    # The operation at hand, which stands before `at`: to be given out next.
    cdef bint found
    cdef Operation operation
    cdef uint64_t found_sequence
    cdef int begin(self, object since) except -1
    cdef object lost(self, uint64_t oldest)
    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int let_go(self) except -1
    # Gives back its descriptor and buffer until it reads on, unless a batch is at hand. Whether it had any.
    cdef bint rest(self) noexcept
    cdef int rest_among_many(self) except -1
    # The next change, or batch, within `seconds` (None: however long); None if there was none.
    cdef object await_next(self, object seconds, bint whole_batch)
    # Whether a change is at hand; reads on until there is one, or no further one that may be seen.
    cdef bint look(self) except -1
    cdef int read_failed(self, Status* status) except -1
    cdef int advance(self, uint64_t visible, Status* status) noexcept nogil
    cdef int hold(self, uint64_t first, const uint8_t* payload, size_t size, Status* status) noexcept nogil
    # Onto the next operation of the range among the next `most` of the batch at hand, which ends here.
    cdef bint seek(self, uint32_t most) noexcept nogil
    cdef bint concerns(self) noexcept nogil
    cdef object take(self)
    cdef object take_batch(self)
    cdef object shown(self, Slice key)


# Has the feeds rest that nobody reads right now. Whether any gave something back.
cdef bint rest_feeds(Store store) except -1
