"""A version: which tables make up the database, level by level. Immutable, reference-counted.

Level 0 holds flushed memtables, newest first, whose ranges overlap. In each level below, tables
are in key order and no user key is in two of them.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Cursor, Slice, Status
from kvstore._engine.table.native cimport Pinned


cdef enum:
    LEVELS = 7


cdef struct Level:
    LiveTable** files
    int count
    uint64_t bytes
    LiveTable** ranged          # those of them that have range tombstones, in the same order
    int ranged_count


cdef struct Version:
    uint64_t references
    Level levels[LEVELS]


cdef struct Change:
    # One table that a new version has and the old has not, or the other way round.
    int level
    LiveTable* file


cdef Version* version_empty() noexcept nogil                    # NULL: out of memory
cdef void version_retain(Version* version) noexcept nogil
cdef void version_release(Version* version) noexcept nogil
# The same, and open_tables_remove_unwanted: nobody else is told that there are such.
cdef void version_release_removing(Version* version, OpenTables* tables) noexcept nogil
# The base without `removed` and with `added`; NULL: out of memory.
cdef Version* version_change(
    Version* base, const Change* removed, int removed_count, const Change* added, int added_count
) noexcept nogil
# -1 unless every level's tables are in order and apart from each other.
cdef int version_check(Version* version) noexcept nogil

# Lookup codes and meaning as table_get.
cdef int version_get(
    Version* version, Slice user_key, uint64_t sequence, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil
# The first table of a sorted level that doesn't end before the user key; `count` if none.
cdef int level_find(const Level* level, Slice user_key) noexcept nogil
# The tables [first, end) of a level that may hold a user key in [low, high] (NULL: no bound);
# in level 0 simply the first and the end of all.
cdef void level_range(
    const Level* level, const Slice* low, const Slice* high, int* first, int* end
) noexcept nogil
# Whether all keys of the table are below the user key.
cdef bint ends_before(LiveTable* file, Slice user_key) noexcept nogil
cdef bint file_overlaps(LiveTable* file, const Slice* low, const Slice* high) noexcept nogil

# All tables of a sorted level, one after another; opens one at a time. The caller keeps the version.
cdef Cursor* level_cursor(
    LiveTable** files, int count, bint fill_cache, size_t read_ahead
) noexcept nogil                                                # NULL: out of memory
# A cursor over each table of level 0 and each further level, newest first, into `cursors`, which
# has room for version_cursor_count. -1: see status; then none is left.
cdef int version_cursor_count(Version* version) noexcept nogil
cdef int version_cursors(
    Version* version, bint fill_cache, size_t read_ahead, Cursor** cursors, Status* status
) noexcept nogil
