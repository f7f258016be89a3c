"""Which segments of the log stay although tables hold what is in them: for change feeds."""

from libc.stdint cimport uint64_t


# The first segment that stays after a flush, under `flushing`: Log.drop_segments_before() takes the
# others, and log_removed() what came of it.
cdef uint64_t flushed_log_end(Store store) except? 0xFFFFFFFFFFFFFFFF
cdef int log_removed(Store store, int result, uint64_t failed) except -1
# The oldest sequence that a feed could begin with; None without a log.
cdef object oldest_change(Store store)
# On a full disk: those, too, that are only kept for feeds that may yet be opened. Whether there were any.
cdef bint remove_kept_log(Store store) except -1
