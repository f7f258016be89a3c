"""A cursor over the memtable."""

from kvstore._engine.primitives.cursor cimport Cursor
from kvstore._engine.memtable.memtable_node cimport MemTable


# Survives later additions (it finds its place again); must then be moved with the GIL held.
cdef Cursor* memtable_cursor(MemTable* table) noexcept nogil        # NULL: out of memory
