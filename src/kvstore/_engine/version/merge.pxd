"""Several cursors walked as one, in internal key order. Same rules as its children's for threads."""

from kvstore._engine.primitives.native cimport Cursor


# `children` newest source first: of two entries with the same user key and sequence, whatever
# their kind, the newer source's comes first. Takes ownership of the cursors (not of the array), also
# when it fails. NULL: out of memory. A single child is returned as it is.
cdef Cursor* merge_cursor(Cursor** children, int count) noexcept nogil
