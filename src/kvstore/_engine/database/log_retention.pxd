"""Which segments of the log stay although tables hold what is in them: for change feeds."""

from libc.stdint cimport uint64_t


# Removes the segments that nobody needs. Under `flushing`, or before any other thread is there.
cdef int remove_flushed_log(Store store) except -1
# With the flush that puts all up to sequence `flushed` into tables, before its edit is made.
cdef int rest_log(Store store, uint64_t flushed) except -1
# The oldest sequence that a feed could begin with; None without a log.
cdef object oldest_change(Store store)
# On a full disk: those, too, that are only kept for feeds that may yet be opened. Whether there were any.
cdef bint remove_kept_log(Store store) except -1
