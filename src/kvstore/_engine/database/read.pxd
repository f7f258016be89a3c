"""Point lookups through memtables and tables."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Slice
from kvstore._engine.version.native cimport Version


# ABSENT (then look into tables), FOUND or DELETED. Needs the GIL; `value` is borrowed from the
# memtable.
cdef int look_in_memory(Store store, Slice key, uint64_t sequence, Slice* value) noexcept
cdef bint has_tables(Version* version) noexcept nogil
# The value of `key` as bytes, or `default`. The GIL is given up only to look into tables.
cdef object lookup(Store store, Slice key, uint64_t sequence, object default, bint fill_cache)
# Whether there is one; it is not copied.
cdef bint is_there(Store store, Slice key, uint64_t sequence) except -1
# The same two from memory alone: memtables, open tables and what the cache holds of them. `cold` or
# None where only the disk knows. Neither asks the disk nor gives the GIL up.
cdef object lookup_cached(Store store, Slice key, uint64_t sequence, object default, object cold)
cdef object is_there_cached(Store store, Slice key, uint64_t sequence)
# The values of many keys, all of one moment, giving the GIL up once.
cdef list lookup_many(Store store, list keys, object sequence, object default)
# The sequence to read at for a user's `sequence=` (None: now). InvalidArgumentError if it isn't kept.
cdef uint64_t readable_sequence(Store store, object sequence) except? 0
