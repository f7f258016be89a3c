"""Which range tombstone lies over a key, for one that walks memtables and tables at one moment.

Made of the runs of the memtables and, one table at a time, those of the version's levels. It
remembers the piece of the key space around the last key that it was asked for, within which the
answer is the same: a walk asks once for each piece. One thread at a time, no GIL.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.memtable.native cimport MemTable, RangeRun, RangeTombstone
from kvstore._engine.primitives.native cimport Slice, Status, slice_compare
from kvstore._engine.table.native cimport Table


cdef struct CoverSource:
    int child                   # of the merged cursor: what its later children have is older
    RangeRun* run               # of a memtable, held; or of `table`
    MemTable* memory            # held
    LiveTable** tables          # of the version: the ranged ones of a level, or one of level 0
    int tables_count
    int at                      # the one that is open
    Table* table                # held


cdef struct RangeCover:
    uint64_t sequence           # of the reader: newer tombstones don't count
    const RangeTombstone* newest    # over the last key; NULL: none
    int child                   # of its source
    # The answer is that of all keys in [low, high); NULL data: no bound. Nothing, while not `known`.
    bint known
    Slice low
    Slice high
    int count
    CoverSource* sources        # right behind this struct


# Of these memtables, whose cursors are the children `memory_children` of the merged cursor, and of
# the tables of the version, which the caller keeps, whose cursors begin with the child
# `first_table_child`. `cover` is NULL where there are no range tombstones. -1: no memory.
cdef int cover_open(
    RangeCover** cover, MemTable** memories, const int* memory_children, int memories_count,
    Version* version, int first_table_child, uint64_t sequence
) noexcept nogil
# NULL is fine.
cdef void cover_close(RangeCover* cover) noexcept nogil
# What lies over the key into `newest`, `child`, `low` and `high`. -1: see status.
cdef int cover_look(RangeCover* cover, Slice key, Status* status) noexcept nogil


cdef inline int cover_find(RangeCover* cover, Slice key, Status* status) noexcept nogil:
    """cover_look, unless it is known already."""
    if cover.known and (
        cover.low.data == NULL or slice_compare(cover.low, key) <= 0
    ) and (cover.high.data == NULL or slice_compare(key, cover.high) < 0):
        return 0
    return cover_look(cover, key, status)
