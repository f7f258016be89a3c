"""Several cursors walked as one, in internal key order. Same rules as its children's for threads."""

from kvstore._engine.primitives.native cimport Cursor


# `children` newest source first: of two entries with the same user key and sequence, whatever
# their kind, the newer source's comes first. Takes ownership of the cursors (not of the array), also
# when it fails. NULL: out of memory. A single child is returned as it is.
cdef Cursor* merge_cursor(Cursor** children, int count) noexcept nogil
# Brings the children after `newest` forward to the internal key `target` where they stand before it, or
# back before it where they stand at or after it, and looks anew which entry comes next: for who knows
# that nothing of theirs is to be shown in between. False: none was moved. A merge of a single child is
# that child, number 0. It must have been moved in that direction last.
cdef bint merge_skip_forward(Cursor* self, int newest, Slice target) noexcept nogil
cdef bint merge_skip_back(Cursor* self, int newest, Slice target) noexcept nogil
