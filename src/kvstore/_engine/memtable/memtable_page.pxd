"""A cursor over a part of the mutable memtable at a time, which is moved without the GIL.

The part, a *page*, is a copy of the pointers to entries, taken with the GIL; entries never move nor change.
So a long walk holds others up for a few microseconds a page. What is added later isn't in it: it is newer
than what the reader sees.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Cursor, Slice


# Over nothing as yet. NULL: out of memory.
cdef Cursor* memtable_page_cursor(MemTable* table) noexcept nogil
# Takes the page that begins with the user key, needs the GIL. Of the keys in it all versions are there that
# a reader at `sequence` may need. It ends before the user key `next`, borrowed from the memtable; NULL data:
# it is the last one. The cursor stands nowhere then.
cdef void memtable_page_fill(
    Cursor* cursor, Slice low, uint64_t sequence, Slice* next
) noexcept nogil
