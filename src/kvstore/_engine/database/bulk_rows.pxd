"""Rows of columns, a chunk at a time, in the order of their keys.

Visited in that order, whatever order they come in, neighbours share the path through the memtable's
tree and the tables' blocks.
"""

from libc.stdint cimport uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Arena, Slice, prefetch


cdef enum:
    CHUNK_ROWS = 1 << 19        # sorted together
    AHEAD = 6                   # rows between the one looked at and the one prefetched


cdef extern from *:
    """
    #include <stdint.h>
    struct kv_row { uint64_t head; uint32_t row; };
    """
    struct Row "kv_row":
        uint64_t head           # of the key, see key_head.pxd
        uint32_t row


cdef struct Rows:
    Slice* keys
    Slice* values               # undefined after a sort, which uses them as its spare space
    Row* order
    Py_ssize_t count
    Arena memory


# Room for the chunks of a column of `most` rows. -1: no memory, nothing to free.
cdef int rows_open(Rows* rows, Py_ssize_t most) noexcept nogil
cdef void rows_free(Rows* rows) noexcept nogil
# Makes `order` that of the first `count` keys; equal ones keep theirs.
cdef void rows_sort(Rows* rows) noexcept nogil


cdef inline void rows_expect(const Rows* rows, Py_ssize_t done) noexcept nogil:
    """In the order of the keys the rows lie anywhere: bring those that come soon closer."""
    cdef uint32_t row
    if done + 2 * AHEAD < rows.count:
        row = rows.order[done + 2 * AHEAD].row
        prefetch(&rows.keys[row])
        prefetch(&rows.values[row])
        prefetch(rows.keys[rows.order[done + AHEAD].row].data)
