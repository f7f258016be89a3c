"""The ordered in-memory table of the newest writes.

Concurrency: the mutable memtable is touched only with the GIL held (the GIL is its lock; a
Python-level put or get is shorter than a lock's round trip). Once frozen it never changes and is
read from any thread without the GIL. Reference-counted; every cursor holds a reference.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Slice


cdef enum Lookup:
    ABSENT = 0              # nothing known here: look further down
    FOUND = 1
    DELETED = 2             # a tombstone: stop looking
    FAILED = 3              # see the status
    COLD = 4                # only the disk knows, and it was not to be asked


# Meant for about so many bytes. NULL: out of memory.
cdef MemTable* memtable_new(size_t meant_for) noexcept nogil
cdef void memtable_retain(MemTable* table) noexcept nogil
cdef void memtable_release(MemTable* table) noexcept nogil
# Copies key and value into the arena. -1: out of memory, nothing changed. What the key had at this
# very sequence before, put or tombstone, is replaced. `ascending` saves
# time; only for a key that isn't below the one added last, with a sequence above all others.
cdef int memtable_add(
    MemTable* table, Slice user_key, uint64_t sequence, int kind, Slice value, bint ascending
) noexcept nogil
# Room for `count` additions of keys and values of `bytes` in all: none of them can lack memory then,
# where each key and value is within the limits. -1: no memory, nothing changed.
cdef int memtable_provide(MemTable* table, size_t count, size_t bytes) noexcept nogil
# Takes range tombstones, at least one and none older than those it has. Copies the keys, and lets
# `given` point to the copies. -1: out of memory, nothing changed.
cdef int memtable_delete_ranges(MemTable* table, RangeTombstone* given, size_t count) noexcept nogil
# Brings the node that an addition of this key will change closer; changes nothing. `ascending`: no
# key is added before it that is below the one added last.
cdef void memtable_prefetch(MemTable* table, Slice user_key, bint ascending) noexcept nogil
# The newest version with sequence <= `sequence`, DELETED if a range tombstone that `sequence` sees is
# newer; its sequence in `found_sequence`. `value` is
# borrowed for as long as the caller holds a reference to the table.
cdef int memtable_get(
    MemTable* table, Slice user_key, uint64_t sequence, Slice* value, uint64_t* found_sequence
) noexcept nogil
cdef size_t memtable_bytes(MemTable* table) noexcept nogil          # memory held, arena slack included
# The same without what is left of the present chunk: how full it is.
cdef size_t memtable_used(MemTable* table) noexcept nogil
cdef size_t memtable_entries(MemTable* table) noexcept nogil       # range tombstones not counted
cdef bint memtable_is_empty(MemTable* table) noexcept nogil         # of either
# The largest user key, put or deleted. False: there is none.
cdef bint memtable_largest(MemTable* table, Slice* user_key) noexcept nogil
# The first entry that is >= (user_key, trailer) and its place; NULL where there is none.
cdef Entry memtable_find(
    MemTable* table, Slice user_key, uint64_t trailer, Leaf** at, int* slot
) noexcept nogil
