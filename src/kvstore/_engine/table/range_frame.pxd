"""The range tombstones of a table: the meta frame `range-deletes`.

    u32 how many, then for each, ascending by start,
    varint start bytes | start | varint stop bytes | stop | varint sequence
"""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.memtable.native cimport RangeRun
from kvstore._engine.primitives.native cimport Buffer, Slice, Status


cdef enum:
    RANGE_FRAME_HEADER_BYTES = 4

# A frame is begun by this, gets its ranges one by one, and the count at the end. -1: no memory.
cdef int range_frame_begin(Buffer* into) noexcept nogil
cdef int range_frame_add(Buffer* into, Slice start, Slice stop, uint64_t sequence) noexcept nogil
cdef void range_frame_finish(Buffer* frame, uint64_t count) noexcept nogil
# Checks every byte, against what the table's properties say too, and makes the run of it, whose keys are
# borrowed from `data`. `offset` is for the status. NULL: see there.
cdef RangeRun* range_frame_open(
    const uint8_t* data, size_t size, const Properties* properties, uint64_t offset, Status* status
) noexcept nogil
