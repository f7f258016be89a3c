"""A table as the versions know it, and the bounded set of those that are open.

A LiveTable belongs to all versions that list it, by reference count. The last one to let go of an
obsolete file unlinks it. Any thread, no GIL.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Lock, Slice, Status
from kvstore._engine.files.native cimport FileSystemOps
from kvstore._engine.table.native cimport BlockCache, Table, TableSummary


cdef enum:
    MAX_PATH_BYTES = 4096


cdef struct OpenTables:
    # Every table of one database goes through this; it outlives them all (reference-counted).
    uint64_t references
    const FileSystemOps* ops
    void* disk
    BlockCache* cache
    char* directory
    Lock lock               # guards all below and the `table`, `used`, links of every LiveTable
    LiveTable* newest       # the open ones, in no order
    int open_count
    int max_open
    uint64_t clock


cdef struct LiveTable:
    uint64_t references
    OpenTables* tables
    uint64_t number
    TableSummary summary
    Slice smallest          # internal keys, in one piece of memory that the file owns
    Slice largest
    uint64_t obsolete       # atomic; 1: unlink when the last reference goes
    bint compacting         # GIL; a compaction job has it as input
    bint damaged            # GIL; a compaction couldn't read it: no other one tries
    Table* table            # NULL while it is not open
    uint64_t used           # OpenTables.clock at the last use
    LiveTable* next_open
    LiveTable* prev_open


cdef OpenTables* open_tables_new(
    const FileSystemOps* ops, void* disk, BlockCache* cache, const char* directory, int max_open
) noexcept nogil                        # NULL: out of memory
cdef void open_tables_release(OpenTables* tables) noexcept nogil
cdef int open_tables_count(OpenTables* tables) noexcept nogil
# `path` has room for MAX_PATH_BYTES.
cdef void table_path(const char* directory, uint64_t number, char* path) noexcept nogil

# Copies the keys. NULL: out of memory.
cdef LiveTable* live_table_new(
    OpenTables* tables, uint64_t number, const TableSummary* summary, Slice smallest, Slice largest
) noexcept nogil
cdef void live_table_retain(LiveTable* file) noexcept nogil
cdef void live_table_release(LiveTable* file) noexcept nogil
# The open table, retained for the caller. NULL: see status.
cdef Table* live_table_open(LiveTable* file, Status* status) noexcept nogil
