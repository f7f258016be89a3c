"""A table as the versions know it, and the bounded set of those that are open.

A LiveTable belongs to all versions that list it, by reference count. When the last one has let go
of an obsolete one its file is unlinked, by whom `open_tables_leave_to` says. Any thread, no GIL.
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
    bint read_only          # the database is: tables that this program may only read are fine
    bint mapped             # lookups read maps of tables (table_map)
    int max_open            # a few more are open while all of these are being looked at
    Lock lock               # guards all below, and opening, closing and the links of every LiveTable
    LiveTable* newest       # the open ones; those near `oldest` are closed first
    LiveTable* oldest
    int open_count
    LiveTable* unwanted     # obsolete ones that nobody has any more, to be removed
    int expecting           # threads that will do so soon
    void (*left)(void* owner) noexcept nogil    # see open_tables_leave_to
    void* owner


cdef struct LiveTable:
    uint64_t references
    OpenTables* tables
    uint64_t number
    TableSummary summary
    Slice smallest          # internal keys, in one piece of memory that the file owns
    Slice largest
    uint64_t obsolete       # atomic; 1: its file goes after the last reference
    bint compacting         # GIL; a compaction job has it as input
    bint damaged            # GIL; a compaction couldn't read it: no other one tries
    uint64_t cache_id       # what its blocks are cached under, whether it is open or not
    Table* table            # valid while `state` says that it is open
    uint64_t state          # atomic: LIVE_OPEN, plus how many are looking at `table`
    uint64_t used           # atomic; 1: since eviction last passed by
    LiveTable* next_open    # towards `oldest`; of an unwanted one, the next of those
    LiveTable* prev_open


cdef OpenTables* open_tables_new(
    const FileSystemOps* ops, void* disk, BlockCache* cache, const char* directory, int max_open
) noexcept nogil                        # NULL: out of memory
cdef void open_tables_release(OpenTables* tables) noexcept nogil
cdef int open_tables_count(OpenTables* tables) noexcept nogil
# Of these, those that lookups read in a map.
cdef int open_tables_mapped(OpenTables* tables) noexcept nogil
# Closes some of those that were used least and nobody is looking at; how many. For when the process
# or the system has no descriptor left.
cdef int open_tables_close_some(OpenTables* tables) noexcept nogil
# To unlink a table takes long, and whoever lets go of it last, a reader perhaps, is in a hurry: from
# here on it is only told `left`, that somebody is to call open_tables_remove_unwanted. With NULL, as
# at first, who lets go of a table removes it.
cdef void open_tables_leave_to(
    OpenTables* tables, void* owner, void (*left)(void* owner) noexcept nogil
) noexcept nogil
cdef void open_tables_remove_unwanted(OpenTables* tables) noexcept nogil
cdef bint open_tables_has_unwanted(OpenTables* tables) noexcept nogil
# Who lets go of tables and will remove them itself: nobody is told in between.
cdef void open_tables_expect_unwanted(OpenTables* tables) noexcept nogil
cdef void open_tables_remove_expected(OpenTables* tables) noexcept nogil
# `path` has room for MAX_PATH_BYTES.
cdef void table_path(const char* directory, uint64_t number, char* path) noexcept nogil

# Copies the keys. NULL: out of memory.
cdef LiveTable* live_table_new(
    OpenTables* tables, uint64_t number, const TableSummary* summary, Slice smallest, Slice largest
) noexcept nogil
cdef void live_table_retain(LiveTable* file) noexcept nogil
cdef void live_table_release(LiveTable* file) noexcept nogil
# The open table, which stays open until live_table_unpin: two atomic operations where it is open
# already; else it lets go of the GIL and reads from disk. NULL: see status.
cdef Table* live_table_pin(LiveTable* file, Status* status) noexcept nogil
# The same where it is open already; NULL: it isn't, and the disk was not asked.
cdef Table* live_table_pin_open(LiveTable* file) noexcept nogil
cdef void live_table_unpin(LiveTable* file) noexcept nogil
# The open table, retained for the caller. NULL: see status.
cdef Table* live_table_open(LiveTable* file, Status* status) noexcept nogil
