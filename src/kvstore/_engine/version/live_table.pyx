"""Tables by number: paths, reference counts, and the bound on how many are open."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from kvstore._engine.primitives.native cimport (
    Slice,
    Status,
    kv_calloc,
    kv_free,
    kv_malloc,
    load_acquire,
    lock_destroy,
    lock_init,
    lock_leave,
    lock_take,
    reference_add,
    reference_drop,
    slice_of,
)
from kvstore._engine.files.native cimport FileSystemOps
from kvstore._engine.table.native cimport (
    BlockCache,
    Table,
    TableSummary,
    cache_release,
    cache_retain,
    table_open,
    table_release,
    table_retain,
)


cdef OpenTables* open_tables_new(
    const FileSystemOps* ops, void* disk, BlockCache* cache, const char* directory, int max_open
) noexcept nogil:
    cdef OpenTables* tables = <OpenTables*> kv_calloc(1, sizeof(OpenTables))
    cdef size_t size = strlen(directory) + 1
    if tables == NULL:
        return NULL
    tables.directory = <char*> kv_malloc(size)
    if tables.directory == NULL:
        kv_free(tables)
        return NULL
    lock_init(&tables.lock)
    memcpy(tables.directory, directory, size)
    tables.references = 1
    tables.ops = ops
    tables.disk = disk
    tables.cache = cache
    if cache != NULL:
        cache_retain(cache)
    tables.max_open = max_open
    return tables


cdef void open_tables_release(OpenTables* tables) noexcept nogil:
    if not reference_drop(&tables.references):
        return
    if tables.cache != NULL:
        cache_release(tables.cache)
    lock_destroy(&tables.lock)
    kv_free(tables.directory)
    kv_free(tables)


cdef void table_path(const char* directory, uint64_t number, char* path) noexcept nogil:
    snprintf(path, MAX_PATH_BYTES, "%s/%06llu.sst", directory, <unsigned long long> number)


cdef LiveTable* live_table_new(
    OpenTables* tables, uint64_t number, const TableSummary* summary, Slice smallest, Slice largest
) noexcept nogil:
    cdef LiveTable* file = <LiveTable*> kv_calloc(1, sizeof(LiveTable) + smallest.size + largest.size)
    cdef uint8_t* keys
    if file == NULL:
        return NULL
    keys = <uint8_t*> file + sizeof(LiveTable)
    memcpy(keys, smallest.data, smallest.size)
    memcpy(keys + smallest.size, largest.data, largest.size)
    file.smallest = slice_of(keys, smallest.size)
    file.largest = slice_of(keys + smallest.size, largest.size)
    file.references = 1
    file.tables = tables
    reference_add(&tables.references)
    file.number = number
    file.summary = summary[0]
    return file


cdef void live_table_retain(LiveTable* file) noexcept nogil:
    reference_add(&file.references)


cdef void live_table_release(LiveTable* file) noexcept nogil:
    cdef OpenTables* tables = file.tables
    cdef Table* table
    cdef char path[MAX_PATH_BYTES]
    if not reference_drop(&file.references):
        return
    # Nobody opens it any more, but whoever opens another one may be closing it just now.
    lock_take(&tables.lock)
    table = file.table
    if table != NULL:
        unlink_open(file)
    lock_leave(&tables.lock)
    if table != NULL:
        table_release(table)
    if load_acquire(&file.obsolete):
        # A file that stays behind because this fails is removed at the next open.
        table_path(tables.directory, file.number, path)
        tables.ops.unlink(tables.disk, path)
    kv_free(file)
    open_tables_release(tables)


# --- the open ones: under the lock ----------------------------------------------------------

cdef void link_open(LiveTable* file) noexcept nogil:
    cdef OpenTables* tables = file.tables
    file.prev_open = NULL
    file.next_open = tables.newest
    if tables.newest != NULL:
        tables.newest.prev_open = file
    tables.newest = file
    tables.open_count += 1


cdef void unlink_open(LiveTable* file) noexcept nogil:
    cdef OpenTables* tables = file.tables
    if file.prev_open != NULL:
        file.prev_open.next_open = file.next_open
    else:
        tables.newest = file.next_open
    if file.next_open != NULL:
        file.next_open.prev_open = file.prev_open
    tables.open_count -= 1


cdef int open_tables_count(OpenTables* tables) noexcept nogil:
    lock_take(&tables.lock)
    cdef int count = tables.open_count
    lock_leave(&tables.lock)
    return count


cdef Table* close_least_used(OpenTables* tables) noexcept nogil:
    """The table to be released once the lock is off; whoever reads it still holds it open."""
    cdef LiveTable* file = tables.newest
    cdef LiveTable* oldest = file
    cdef Table* table
    while file != NULL:
        if file.used < oldest.used:
            oldest = file
        file = file.next_open
    table = oldest.table
    oldest.table = NULL
    unlink_open(oldest)
    return table


cdef Table* live_table_open(LiveTable* file, Status* status) noexcept nogil:
    cdef OpenTables* tables = file.tables
    cdef Table* table
    cdef Table* evicted = NULL
    cdef Table* surplus = NULL
    cdef char path[MAX_PATH_BYTES]
    lock_take(&tables.lock)
    tables.clock += 1
    file.used = tables.clock
    table = file.table
    if table != NULL:
        table_retain(table)
    lock_leave(&tables.lock)
    if table != NULL:
        return table
    # Opened outside the lock: it reads from disk. Two threads may; one result is dropped.
    table_path(tables.directory, file.number, path)
    table = table_open(tables.ops, tables.disk, path, file.number, tables.cache, status)
    if table == NULL:
        return NULL
    lock_take(&tables.lock)
    if file.table != NULL:
        surplus = table
        table = file.table
    else:
        if tables.open_count >= tables.max_open:
            evicted = close_least_used(tables)
        file.table = table
        link_open(file)
    table_retain(table)
    lock_leave(&tables.lock)
    if surplus != NULL:
        table_release(surplus)
    if evicted != NULL:
        table_release(evicted)
    return table
