"""A table as the manifest has it, from and to what the versions keep; the bytes are in edit.pyx."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Slice
from kvstore._engine.table.native cimport TableSummary


# The TableEntry of a table; its bounds are internal keys.
cdef object entry_of(
    int level, uint64_t number, const TableSummary* summary, Slice smallest, Slice largest
)
# What an entry says, but for its bounds.
cdef int entry_summary(object entry, TableSummary* summary) except -1
