"""Which segments of the log stay although tables hold what is in them: for change feeds."""

from libc.stdint cimport uint64_t


# Removes the segments that nobody needs. Under `flushing`, or before any other thread is there.
cdef int remove_flushed_log(Store store) except -1
# The same for who has other things to do without the GIL: the first segment that stays, for
# Log.drop_segments_before() (0: all stay), and what is to be done about its result.
cdef uint64_t flushed_log_end(Store store) except? 0xFFFFFFFFFFFFFFFF
cdef int log_removed(Store store, int result, uint64_t failed) except -1
# With the flush that puts all up to sequence `flushed` into tables, before its edit is made.
cdef int rest_log(Store store, uint64_t flushed) except -1
# The oldest sequence that a feed could begin with; None without a log.
cdef object oldest_change(Store store)
# On a full disk: those, too, that are only kept for feeds that may yet be opened. Whether there were any.
cdef bint remove_kept_log(Store store) except -1
