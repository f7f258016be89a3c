"""Versions: building one from another, and finding the way to a key through the levels."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport qsort

from kvstore._engine.primitives.native cimport (
    Cursor,
    KIND_RANGE_DELETE,
    OK,
    Slice,
    Status,
    internal_compare,
    internal_trailer,
    internal_user_key,
    kv_calloc,
    kv_free,
    kv_zeroed,
    reference_add,
    reference_drop,
    slice_compare,
    status_clear,
    status_no_memory,
    trailer_kind,
)
from kvstore._engine.memtable.native cimport ABSENT, COLD, FAILED
from kvstore._engine.table.native cimport (
    Pinned,
    READ_NOTHING,
    Table,
    table_cursor,
    table_get,
    table_release,
)


cdef Version* version_empty() noexcept nogil:
    cdef Version* version = <Version*> kv_calloc(1, sizeof(Version))
    if version != NULL:
        version.references = 1
    return version


cdef void version_retain(Version* version) noexcept nogil:
    reference_add(&version.references)


cdef void version_release(Version* version) noexcept nogil:
    cdef int level, i
    if not reference_drop(&version.references):
        return
    for level in range(LEVELS):
        for i in range(version.levels[level].count):
            live_table_release(version.levels[level].files[i])
        kv_free(version.levels[level].files)
        kv_free(version.levels[level].ranged)
    kv_free(version)


cdef void version_release_removing(Version* version, OpenTables* tables) noexcept nogil:
    open_tables_expect_unwanted(tables)
    version_release(version)
    open_tables_remove_expected(tables)


# --- change ---------------------------------------------------------------------------------

cdef int newest_first(const void* a, const void* b) noexcept nogil:
    cdef uint64_t left = (<LiveTable**> a)[0].number
    cdef uint64_t right = (<LiveTable**> b)[0].number
    return -1 if left > right else (1 if left < right else 0)


cdef int by_smallest(const void* a, const void* b) noexcept nogil:
    return internal_compare((<LiveTable**> a)[0].smallest, (<LiveTable**> b)[0].smallest)


cdef bint is_among(const Change* changes, int count, int level, LiveTable* file) noexcept nogil:
    cdef int i
    for i in range(count):
        if changes[i].level == level and changes[i].file.number == file.number:
            return True
    return False


cdef Version* version_change(
    Version* base, const Change* removed, int removed_count, const Change* added, int added_count
) noexcept nogil:
    cdef Version* version = version_empty()
    cdef Level* level
    cdef int number, i
    if version == NULL:
        return NULL
    for number in range(LEVELS):
        level = &version.levels[number]
        level.files = <LiveTable**> kv_calloc(
            base.levels[number].count + added_count + 1, sizeof(LiveTable*)
        )
        if level.files == NULL:
            version_release(version)
            return NULL
        for i in range(base.levels[number].count):
            if not is_among(removed, removed_count, number, base.levels[number].files[i]):
                level.files[level.count] = base.levels[number].files[i]
                level.count += 1
        for i in range(added_count):
            if added[i].level == number:
                level.files[level.count] = added[i].file
                level.count += 1
        qsort(
            level.files, level.count, sizeof(LiveTable*),
            newest_first if number == 0 else by_smallest
        )
        for i in range(level.count):
            live_table_retain(level.files[i])
            level.bytes += level.files[i].summary.file_bytes
            level.ranged_count += level.files[i].summary.range_deletes != 0
        if level.ranged_count and list_ranged(level) < 0:
            version_release(version)
            return NULL
    return version


cdef int list_ranged(Level* level) noexcept nogil:
    cdef int found = 0
    cdef int i
    level.ranged = <LiveTable**> kv_calloc(level.ranged_count, sizeof(LiveTable*))
    if level.ranged == NULL:
        return -1
    for i in range(level.count):
        if level.files[i].summary.range_deletes:
            level.ranged[found] = level.files[i]
            found += 1
    return 0


cdef int version_check(Version* version) noexcept nogil:
    cdef int number, i
    cdef Level* level
    for number in range(LEVELS):
        level = &version.levels[number]
        for i in range(level.count):
            if internal_compare(level.files[i].smallest, level.files[i].largest) > 0:
                return -1
            if number == 0 or i == 0:
                continue
            if not ends_before(level.files[i - 1], internal_user_key(level.files[i].smallest)):
                return -1
    return 0


# --- search ---------------------------------------------------------------------------------

cdef bint ends_before(LiveTable* file, Slice user_key) noexcept nogil:
    cdef int order = slice_compare(internal_user_key(file.largest), user_key)
    # The last key of a table that ends with a range tombstone is the end of that, not included.
    return order < 0 or (
        order == 0 and trailer_kind(internal_trailer(file.largest)) == KIND_RANGE_DELETE
    )


cdef int level_find(const Level* level, Slice user_key) noexcept nogil:
    cdef int low = 0
    cdef int high = level.count
    cdef int middle
    while low < high:
        middle = (low + high) >> 1
        if ends_before(level.files[middle], user_key):
            low = middle + 1
        else:
            high = middle
    return low


cdef bint file_overlaps(LiveTable* file, const Slice* low, const Slice* high) noexcept nogil:
    if low != NULL and ends_before(file, low[0]):
        return False
    return high == NULL or slice_compare(internal_user_key(file.smallest), high[0]) <= 0


cdef void level_range(
    const Level* level, const Slice* low, const Slice* high, int* first, int* end
) noexcept nogil:
    first[0] = 0 if low == NULL else level_find(level, low[0])
    end[0] = level.count
    if high == NULL:
        return
    end[0] = level_find(level, high[0])
    if end[0] < level.count and file_overlaps(level.files[end[0]], low, high):
        end[0] += 1


cdef int file_get(
    LiveTable* file, Slice user_key, uint64_t sequence, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil:
    cdef Table* table
    # READ_CHECKED may come with it.
    if reading & READ_NOTHING:
        table = live_table_pin_open(file)
        if table == NULL:
            return COLD
    else:
        table = live_table_pin(file, status)
        if table == NULL:
            return FAILED
    status.table = file.number
    cdef int found = table_get(
        table, user_key, sequence, reading, value, found_sequence, pin, status
    )
    live_table_unpin(file)
    return found


cdef int version_get(
    Version* version, Slice user_key, uint64_t sequence, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil:
    cdef Level* level = &version.levels[0]
    cdef LiveTable* file
    cdef int i, number, found
    for i in range(level.count):
        file = level.files[i]
        if not file_overlaps(file, &user_key, &user_key):
            continue
        found = file_get(
            file, user_key, sequence, reading, value, found_sequence, pin, status
        )
        if found != ABSENT:
            return found
    for number in range(1, LEVELS):
        level = &version.levels[number]
        if level.count == 0:
            continue
        i = level_find(level, user_key)
        if i == level.count:
            continue
        file = level.files[i]
        if slice_compare(internal_user_key(file.smallest), user_key) > 0:
            continue
        found = file_get(
            file, user_key, sequence, reading, value, found_sequence, pin, status
        )
        if found != ABSENT:
            return found
    return ABSENT


# --- cursors --------------------------------------------------------------------------------

cdef struct LevelCursor:
    Cursor base
    LiveTable** files           # of the version that the caller keeps
    int count
    int at                      # the file that `inner` walks
    Cursor* inner               # NULL while no file is open
    bint fill_cache
    size_t read_ahead


cdef void drop_inner(LevelCursor* cursor) noexcept nogil:
    if cursor.inner != NULL:
        cursor.inner.free(cursor.inner)
        cursor.inner = NULL
    cursor.base.valid = False


cdef bint open_inner(LevelCursor* cursor, int at) noexcept nogil:
    """False where there is no such file, or it failed (see the status)."""
    cdef Table* table
    if cursor.inner != NULL and cursor.at == at:
        return True
    drop_inner(cursor)
    if at < 0 or at >= cursor.count:
        return False
    table = live_table_open(cursor.files[at], &cursor.base.status)
    if table == NULL:
        return False
    cursor.inner = table_cursor(table, cursor.fill_cache, cursor.read_ahead)
    table_release(table)
    if cursor.inner == NULL:
        status_no_memory(&cursor.base.status, b"memory for a cursor")
        return False
    cursor.at = at
    return True


cdef inline bint level_show(LevelCursor* cursor) noexcept nogil:
    """Takes over the inner cursor's place; False where it stands nowhere and hasn't failed."""
    cdef Cursor* inner = cursor.inner
    if inner.valid:
        cursor.base.key = inner.key
        cursor.base.value = inner.value
        cursor.base.valid = True
        return True
    cursor.base.valid = False
    if inner.status.code != OK:
        cursor.base.status = inner.status
        return True
    return False


cdef void level_seek_to_first(Cursor* self) noexcept nogil:
    cdef LevelCursor* cursor = <LevelCursor*> self.state
    status_clear(&self.status)
    self.valid = False
    if open_inner(cursor, 0):
        cursor.inner.seek_to_first(cursor.inner)
        if not level_show(cursor):
            forward_to_next_file(cursor)


cdef void level_seek_to_last(Cursor* self) noexcept nogil:
    cdef LevelCursor* cursor = <LevelCursor*> self.state
    status_clear(&self.status)
    self.valid = False
    if open_inner(cursor, cursor.count - 1):
        cursor.inner.seek_to_last(cursor.inner)
        if not level_show(cursor):
            back_to_previous_file(cursor)


cdef void forward_to_next_file(LevelCursor* cursor) noexcept nogil:
    while open_inner(cursor, cursor.at + 1):
        cursor.inner.seek_to_first(cursor.inner)
        if level_show(cursor):
            return


cdef void back_to_previous_file(LevelCursor* cursor) noexcept nogil:
    while open_inner(cursor, cursor.at - 1):
        cursor.inner.seek_to_last(cursor.inner)
        if level_show(cursor):
            return


cdef void level_seek(Cursor* self, Slice target) noexcept nogil:
    cdef LevelCursor* cursor = <LevelCursor*> self.state
    cdef Level level
    status_clear(&self.status)
    self.valid = False
    level.files = cursor.files
    level.count = cursor.count
    if open_inner(cursor, level_find(&level, internal_user_key(target))):
        cursor.inner.seek(cursor.inner, target)
        if not level_show(cursor):
            forward_to_next_file(cursor)


cdef void level_next(Cursor* self) noexcept nogil:
    cdef LevelCursor* cursor = <LevelCursor*> self.state
    if not self.valid:
        return
    cursor.inner.next(cursor.inner)
    if not level_show(cursor):
        forward_to_next_file(cursor)


cdef void level_prev(Cursor* self) noexcept nogil:
    cdef LevelCursor* cursor = <LevelCursor*> self.state
    if not self.valid:
        return
    cursor.inner.prev(cursor.inner)
    if not level_show(cursor):
        back_to_previous_file(cursor)


cdef void level_free(Cursor* self) noexcept nogil:
    cdef LevelCursor* cursor = <LevelCursor*> self.state
    drop_inner(cursor)
    kv_free(cursor)


cdef Cursor* level_cursor(
    LiveTable** files, int count, bint fill_cache, size_t read_ahead
) noexcept nogil:
    cdef LevelCursor* cursor = <LevelCursor*> kv_zeroed(sizeof(LevelCursor))
    if cursor == NULL:
        return NULL
    cursor.files = files
    cursor.count = count
    cursor.fill_cache = fill_cache
    cursor.read_ahead = read_ahead
    cursor.base.state = cursor
    cursor.base.seek_to_first = level_seek_to_first
    cursor.base.seek_to_last = level_seek_to_last
    cursor.base.seek = level_seek
    cursor.base.next = level_next
    cursor.base.prev = level_prev
    cursor.base.free = level_free
    status_clear(&cursor.base.status)
    return &cursor.base


cdef int version_cursor_count(Version* version) noexcept nogil:
    cdef int count = version.levels[0].count
    cdef int number
    for number in range(1, LEVELS):
        if version.levels[number].count:
            count += 1
    return count


cdef Cursor* file_cursor(
    LiveTable* file, bint fill_cache, size_t read_ahead, Status* status
) noexcept nogil:
    cdef Cursor* cursor
    cdef Table* table = live_table_open(file, status)
    if table == NULL:
        return NULL
    cursor = table_cursor(table, fill_cache, read_ahead)
    table_release(table)
    if cursor == NULL:
        status_no_memory(status, b"memory for a cursor")
    return cursor


cdef int version_cursors(
    Version* version, bint fill_cache, size_t read_ahead, Cursor** cursors, Status* status
) noexcept nogil:
    cdef int count = 0
    cdef int number
    cdef Cursor* cursor
    cdef Level* level = &version.levels[0]
    for number in range(level.count):
        cursor = file_cursor(level.files[number], fill_cache, read_ahead, status)
        if cursor == NULL:
            free_cursors(cursors, count)
            return -1
        cursors[count] = cursor
        count += 1
    for number in range(1, LEVELS):
        level = &version.levels[number]
        if level.count == 0:
            continue
        if level.count == 1:
            cursor = file_cursor(level.files[0], fill_cache, read_ahead, status)
            if cursor == NULL:
                free_cursors(cursors, count)
                return -1
        else:
            cursor = level_cursor(level.files, level.count, fill_cache, read_ahead)
            if cursor == NULL:
                free_cursors(cursors, count)
                return status_no_memory(status, b"memory for a cursor")
        cursors[count] = cursor
        count += 1
    return 0


cdef void free_cursors(Cursor** cursors, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        cursors[i].free(cursors[i])
