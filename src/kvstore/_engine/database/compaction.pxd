"""Flushing memtables and moving tables down the levels. The GIL is given up while a job runs."""



# Flushes the oldest frozen memtable; False if there is none.
cdef bint flush_oldest(Store store) except -1
# Does the most urgent compaction; False if none is due (or what is due is under way).
cdef bint compact_once(Store store) except -1
# How urgent the most urgent compaction is: from 1 on it is due.
cdef double compaction_score(Store store) except? -1
cdef int compact_range(Store store, object start, object stop) except -1
