"""Point lookups through memtables and tables."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Slice
from kvstore._engine.table.native cimport Pinned, READ_AND_KEEP, READ_CHECKED, READ_ONCE
from kvstore._engine.version.native cimport Version


# ABSENT (then look into tables), FOUND or DELETED. Needs the GIL; `value` is borrowed from the
# memtable, of which it was written at `found_sequence`.
cdef int look_in_memory(
    Store store, Slice key, uint64_t sequence, Slice* value, uint64_t* found_sequence
) noexcept
cdef bint has_tables(Version* version) noexcept nogil
# The value of `key` as bytes, or `default`. The GIL is given up only to look into tables.
# `reading`: see Reading in sstable.pxd.
cdef inline int reading_of(bint fill_cache, bint verify_checksums) noexcept:
    return (READ_AND_KEEP if fill_cache else READ_ONCE) | (READ_CHECKED if verify_checksums else 0)
cdef object lookup(Store store, Slice key, uint64_t sequence, object default, int reading)
# (value, its sequence), or None. As lookup, with the sequence of the write that made the value.
cdef object lookup_versioned(Store store, Slice key, uint64_t sequence, int reading)
# Whether there is one; it is not copied.
cdef bint is_there(Store store, Slice key, uint64_t sequence) except -1
# The same two from memory alone: memtables, open tables and what the cache holds of them. `cold` or
# None where only the disk knows. Neither asks the disk nor gives the GIL up.
cdef object lookup_cached(Store store, Slice key, uint64_t sequence, object default, object cold)
cdef object is_there_cached(Store store, Slice key, uint64_t sequence)
cdef object lookup_versioned_cached(Store store, Slice key, uint64_t sequence, object cold)
# What these stand on, for those who want no object: FOUND, DELETED, ABSENT or COLD. Of FOUND alone
# `value` is borrowed, and `found_sequence` the sequence of the write that made it; both hold until the GIL
# may be given up, or anything is written. `pin` is to be given to pinned_release() then, and may be after
# every other answer.
cdef int look_without_disk(
    Store store, Slice key, uint64_t sequence, Slice* value, uint64_t* found_sequence, Pinned* pin
) except -1
# The same without what a map of a table says, which was checked only when it was first read.
cdef int look_without_maps(
    Store store, Slice key, uint64_t sequence, Slice* value, uint64_t* found_sequence, Pinned* pin
) except -1
# The values of many keys, all of one moment, giving the GIL up once.
cdef list lookup_many(Store store, list keys, object sequence, object default)
# The sequence to read at for a user's `sequence=` (None: now). InvalidArgumentError if it isn't kept.
cdef uint64_t readable_sequence(Store store, object sequence) except? 0
