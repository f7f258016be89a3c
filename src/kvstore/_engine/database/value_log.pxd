"""Large values stay where the log has them: which segments a flush makes value files, and which value
files are to be emptied.

A put of `value_log_bytes` or more notes where in the log its value lies (MemTable.places). A flush then
writes a pointer to that place into its table, and the segment gets a second name, as a value file
(a hard link), before the manifest's edit. So the log may let go of the segment, but must not use its file
again: Log.share. All of it under the GIL.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport PodVector
from kvstore._engine.memtable.native cimport MemTable, Place
from kvstore._engine.version.native cimport Home, LiveTable, ValueFile


cdef struct Adopted:
    # A segment that has a name as a value file, which is wanted while more may come to be pointed to.
    uint64_t segment
    ValueFile* file


cdef class Apart:
    """What a flush keeps apart: where the values lie, and which value files the segments are."""
    cdef PodVector[Place] places    # ascending by sequence
    cdef PodVector[Home] homes


# For the memtables, newest first; None: all values go into the table. The values are durable then, and the
# segments have their names as value files, to be synced with the table's own.
cdef Apart keep_apart(Store store, MemTable** tables, int count)
# Of the segments that the log has let go of: no flush to come points into them, they have their last size,
# and to empty them gives space back.
cdef int let_go_of_homes(Store store) except -1
# At closing: without unlinking any.
cdef void drop_homes(Store store) noexcept
# Numbers of the value files of which less than half is alive, ascending, into `store.emptying`.
cdef int survey_values(Store store) except -1
cdef bint points_into(LiveTable* file, PodVector[uint64_t]* numbers) noexcept
# Numbers and bytes: of values that tables point to, and of the files.
cdef tuple value_totals(Store store)
