"""Counting keys."""

from kvstore._engine.primitives.native cimport Cursor


# How many keys of the range a reader at `sequence` (None: now) sees; the bounds and `interrupt` as
# open_iterator's.
cdef object count_range(
    Store store, object sequence, object start, object stop, object prefix, bytes within,
    bint fill_cache, object interrupt
)
