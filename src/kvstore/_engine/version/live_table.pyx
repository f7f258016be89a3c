"""Tables by number: paths, reference counts, and the bound on how many are open."""

from libc.errno cimport EMFILE, ENFILE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from kvstore._engine.primitives.native cimport (
    PyThreadState,
    Slice,
    Status,
    UNSUPPORTED_VERSION,
    gil_ask,
    gil_have,
    kv_calloc,
    kv_free,
    kv_malloc,
    let_go_of_gil,
    load_acquire,
    lock_destroy,
    lock_init,
    lock_leave,
    lock_take,
    reference_add,
    reference_drop,
    slice_of,
    status_set,
    take_gil,
)
from kvstore._engine.files.native cimport FileSystemOps
from kvstore._engine.table.native cimport (
    BlockCache,
    Table,
    TableSummary,
    cache_forget_table,
    cache_next_table_id,
    cache_release,
    cache_retain,
    table_map,
    table_open,
    table_release,
    table_retain,
)


cdef extern from *:
    """
    #define KV_LIVE_OPEN ((uint64_t) 1 << 63)
    /* Whether the table is open; it stays so until kv_live_unpin. */
    static inline int kv_live_pin(uint64_t* state) {
        return (__atomic_fetch_add(state, 1, __ATOMIC_ACQUIRE) & KV_LIVE_OPEN) != 0;
    }
    static inline void kv_live_unpin(uint64_t* state) {
        __atomic_fetch_sub(state, 1, __ATOMIC_RELEASE);
    }
    static inline int kv_live_is_open(const uint64_t* state) {
        return (__atomic_load_n(state, __ATOMIC_ACQUIRE) & KV_LIVE_OPEN) != 0;
    }
    static inline void kv_live_opened(uint64_t* state) {
        __atomic_fetch_or(state, KV_LIVE_OPEN, __ATOMIC_RELEASE);
    }
    /* Closed, unless somebody is looking at it. */
    static inline int kv_live_close(uint64_t* state) {
        uint64_t idle = KV_LIVE_OPEN;
        return __atomic_compare_exchange_n(
            state, &idle, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static inline void kv_live_used(uint64_t* used) {
        /* Mostly it is set already: no need to take the cache line from the other cores. */
        if (!__atomic_load_n(used, __ATOMIC_RELAXED)) __atomic_store_n(used, 1, __ATOMIC_RELAXED);
    }
    static inline int kv_live_was_used(uint64_t* used) {
        return (int) __atomic_exchange_n(used, 0, __ATOMIC_RELAXED);
    }
    """
    bint state_pin "kv_live_pin"(uint64_t* state) noexcept nogil
    void state_unpin "kv_live_unpin"(uint64_t* state) noexcept nogil
    bint state_is_open "kv_live_is_open"(const uint64_t* state) noexcept nogil
    void state_opened "kv_live_opened"(uint64_t* state) noexcept nogil
    bint state_close "kv_live_close"(uint64_t* state) noexcept nogil
    void mark_used "kv_live_used"(uint64_t* used) noexcept nogil
    bint was_used "kv_live_was_used"(uint64_t* used) noexcept nogil


cdef enum:
    CLOSED_AT_ONCE = 8          # where descriptors are lacking
    MOST_TRIES = 64             # to open a table: others may take what was given up for it


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
    file.cache_id = cache_next_table_id()
    return file


cdef void live_table_retain(LiveTable* file) noexcept nogil:
    reference_add(&file.references)


cdef void live_table_release(LiveTable* file) noexcept nogil:
    cdef OpenTables* tables = file.tables
    cdef Table* table
    cdef void (*left)(void* owner) noexcept nogil
    cdef void* owner
    cdef bint first
    if not reference_drop(&file.references):
        return
    # Nobody opens it any more, but whoever opens another one may be closing it just now.
    lock_take(&tables.lock)
    table = NULL
    if state_is_open(&file.state):
        table = file.table
        unlink_open(file)
    left = tables.left if load_acquire(&file.obsolete) else NULL
    if left != NULL:
        owner = tables.owner
        first = tables.unwanted == NULL and tables.expecting == 0
        file.next_open = tables.unwanted
        tables.unwanted = file
    lock_leave(&tables.lock)
    if table != NULL:
        table_release(table)
    if left == NULL:
        remove_table(file)
    elif first:
        gil_ask()
        left(owner)
        gil_have()


cdef void open_tables_leave_to(
    OpenTables* tables, void* owner, void (*left)(void* owner) noexcept nogil
) noexcept nogil:
    lock_take(&tables.lock)
    tables.owner = owner
    tables.left = left
    lock_leave(&tables.lock)


cdef bint open_tables_has_unwanted(OpenTables* tables) noexcept nogil:
    lock_take(&tables.lock)
    cdef bint has = tables.unwanted != NULL
    lock_leave(&tables.lock)
    return has


cdef void open_tables_expect_unwanted(OpenTables* tables) noexcept nogil:
    lock_take(&tables.lock)
    tables.expecting += 1
    lock_leave(&tables.lock)


cdef void open_tables_remove_unwanted(OpenTables* tables) noexcept nogil:
    open_tables_expect_unwanted(tables)
    open_tables_remove_expected(tables)


cdef void open_tables_remove_expected(OpenTables* tables) noexcept nogil:
    cdef LiveTable* file
    while True:
        lock_take(&tables.lock)
        file = tables.unwanted
        if file != NULL:
            tables.unwanted = file.next_open
        else:
            # Not before: what comes after this is told of again.
            tables.expecting -= 1
        lock_leave(&tables.lock)
        if file == NULL:
            return
        remove_table(file)


cdef void remove_table(LiveTable* file) noexcept nogil:
    """Its file too, where it is obsolete. Nobody has it any more."""
    cdef OpenTables* tables = file.tables
    cdef char path[MAX_PATH_BYTES]
    if load_acquire(&file.obsolete):
        # A file that stays behind because this fails is removed at the next open.
        table_path(tables.directory, file.number, path)
        tables.ops.unlink(tables.disk, path)
        if tables.cache != NULL:
            cache_forget_table(tables.cache, file.cache_id)
    kv_free(file)
    open_tables_release(tables)


# --- the open ones: under the lock ----------------------------------------------------------

cdef void link_open(LiveTable* file) noexcept nogil:
    cdef OpenTables* tables = file.tables
    file.prev_open = NULL
    file.next_open = tables.newest
    if tables.newest != NULL:
        tables.newest.prev_open = file
    else:
        tables.oldest = file
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
    else:
        tables.oldest = file.prev_open
    tables.open_count -= 1


cdef int open_tables_count(OpenTables* tables) noexcept nogil:
    lock_take(&tables.lock)
    cdef int count = tables.open_count
    lock_leave(&tables.lock)
    return count


cdef int open_tables_mapped(OpenTables* tables) noexcept nogil:
    cdef int count = 0
    cdef LiveTable* file
    lock_take(&tables.lock)
    file = tables.newest
    while file != NULL:
        count += file.table.map != NULL and not load_acquire(&file.table.packed)
        file = file.next_open
    lock_leave(&tables.lock)
    return count


cdef Table* close_least_used(OpenTables* tables) noexcept nogil:
    """The table to be released once the lock is off. NULL: all are being looked at.

    From the oldest on; one that was used since the last pass, or is used now, goes to the front
    instead. A use sets a flag and takes no lock, so this order is nearly that of the last use.
    """
    cdef int left = 2 * tables.open_count
    cdef LiveTable* file
    while left:
        left -= 1
        file = tables.oldest
        unlink_open(file)
        if not was_used(&file.used) and state_close(&file.state):
            return file.table
        link_open(file)
    return NULL


cdef int open_tables_close_some(OpenTables* tables) noexcept nogil:
    cdef Table* unwanted[CLOSED_AT_ONCE]
    cdef int count = 0
    cdef int i
    lock_take(&tables.lock)
    while count < CLOSED_AT_ONCE:
        unwanted[count] = close_least_used(tables)
        if unwanted[count] == NULL:
            break
        count += 1
    lock_leave(&tables.lock)
    for i in range(count):
        table_release(unwanted[i])
    return count


# --- opening --------------------------------------------------------------------------------

cdef Table* open_from_disk(LiveTable* file, Status* status) noexcept nogil:
    cdef OpenTables* tables = file.tables
    cdef Table* table
    cdef char path[MAX_PATH_BYTES]
    table_path(tables.directory, file.number, path)
    table = table_open(
        tables.ops, tables.disk, path, file.number, file.summary.file_id, tables.cache,
        file.cache_id, status,
    )
    if table != NULL and tables.mapped:
        table_map(table)
    if table != NULL and table.identity.read_only_compatible and not tables.read_only:
        table_release(table)
        status_set(
            status, UNSUPPORTED_VERSION, b"table that this program may read but not compact", 16
        )
        return NULL
    return table


cdef Table* open_and_pin(LiveTable* file, Status* status) noexcept nogil:
    """Opened outside the lock: it reads from disk. Two threads may; one result is dropped."""
    cdef OpenTables* tables = file.tables
    cdef Table* unwanted = NULL
    cdef int tries = 1
    cdef Table* table = open_from_disk(file, status)
    while (
        table == NULL and status.os_error in (EMFILE, ENFILE) and tries < MOST_TRIES
        and open_tables_close_some(tables)
    ):
        tries += 1
        table = open_from_disk(file, status)
    if table == NULL:
        return NULL
    lock_take(&tables.lock)
    if state_is_open(&file.state):
        unwanted = table
    else:
        if tables.open_count >= tables.max_open:
            unwanted = close_least_used(tables)
        file.table = table
        state_opened(&file.state)
        link_open(file)
    state_pin(&file.state)
    table = file.table
    lock_leave(&tables.lock)
    if unwanted != NULL:
        table_release(unwanted)
    return table


cdef Table* live_table_pin_open(LiveTable* file) noexcept nogil:
    if state_pin(&file.state):
        mark_used(&file.used)
        return file.table
    state_unpin(&file.state)
    return NULL


cdef Table* live_table_pin(LiveTable* file, Status* status) noexcept nogil:
    cdef PyThreadState* own
    cdef Table* table = live_table_pin_open(file)
    if table != NULL:
        return table
    own = let_go_of_gil()
    table = open_and_pin(file, status)
    take_gil(own)
    return table


cdef void live_table_unpin(LiveTable* file) noexcept nogil:
    state_unpin(&file.state)


cdef Table* live_table_open(LiveTable* file, Status* status) noexcept nogil:
    cdef Table* table = live_table_pin(file, status)
    if table != NULL:
        table_retain(table)
        live_table_unpin(file)
    return table
