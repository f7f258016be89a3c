"""The check of a whole table, byte for byte."""

from kvstore._engine.primitives.native cimport Status


# Reads every byte of the file anew, past the cache: checksums, bounds, the order of all keys, each
# key's presence in its filter, and that the properties tell the truth. 0, or -1: see status.
cdef int table_verify(Table* table, Status* status) noexcept nogil
