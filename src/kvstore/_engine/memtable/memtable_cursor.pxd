"""A cursor over the memtable."""

from kvstore._engine.primitives.native cimport Cursor


# Survives later additions (it finds its place again); must then be moved with the GIL held.
cdef Cursor* memtable_cursor(MemTable* table) noexcept nogil        # NULL: out of memory
