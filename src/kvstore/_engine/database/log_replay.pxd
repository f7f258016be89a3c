"""The log's batches into the memtable while the log is opened: see log_replay.pyx."""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Slice
from kvstore._engine.log.native cimport Applier, RecordHeader


cdef struct Waiting:
    Slice value
    uint64_t sequence
    int kind


cdef class LogApplier(Applier):
    """Puts what tables don't have yet into the store's memtable, and freezes it where it is full.

    settle() once more at the end, then let_go().
    """
    cdef Store store
    cdef uint64_t added         # operations, in all
    cdef int trouble            # what settle() raises
    cdef int trouble_kind
    cdef uint64_t trouble_first
    # What waits, once the log is large; else `bytes` is NULL.
    cdef Rows rows
    cdef Waiting* waiting
    cdef uint8_t* bytes         # copies of keys and values
    cdef size_t used
    cdef void let_go(self) noexcept nogil
    cdef int begin_waiting(self) noexcept nogil
    cdef int stop(self, int trouble, const RecordHeader* record) noexcept nogil
    cdef int delete_range(self, Operation* operation, uint64_t sequence) noexcept nogil
    cdef int add(self, Operation* operation, uint64_t sequence) noexcept nogil
    cdef Slice copied(self, Slice what) noexcept nogil
    cdef int add_waiting(self) noexcept nogil
    cdef object damaged(self, str what, object code)
