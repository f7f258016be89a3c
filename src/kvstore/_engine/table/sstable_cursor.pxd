"""A cursor over a whole table, in both directions."""

from kvstore._engine.primitives.native cimport Cursor


# Holds the table. `fill_cache` 0 for scans that should not push out the hot blocks (what is cached
# already is still used). `read_ahead` is the most bytes read at once by a forward walk, 0 off; the
# window starts small and doubles, so that short scans don't read what nobody asks for. NULL: no
# memory.
cdef Cursor* table_cursor(Table* table, bint fill_cache, size_t read_ahead) noexcept nogil
