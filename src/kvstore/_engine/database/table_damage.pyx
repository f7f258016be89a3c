"""Which keys a damaged table may have lost: what another database is to be asked for.

The table is walked from either end, past the cache, to the first block that can't be read: whatever lies
between may be gone, and both keys that the walks stood on last are counted in, since other versions of
theirs may lie there. Of a table that can't be opened, or whose damage isn't among its entries, that is all
it covers.
"""

from libc.errno cimport EMFILE, ENFILE, ENOMEM
from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    Buffer,
    Cursor,
    IO_ERROR,
    KIND_MAX,
    KIND_RANGE_DELETE,
    OK,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    internal_compare,
    internal_trailer,
    internal_user_key,
    max_sequence,
    slice_compare,
    slice_of,
    status_clear,
    status_error_in,
    status_no_memory,
    trailer_kind,
    trailer_pack,
)
from kvstore._engine.table.native cimport (
    Table,
    table_cursor,
    table_offset_of,
    table_open,
    table_release,
)
from kvstore._engine.version.native cimport (
    LEVELS,
    LiveTable,
    MAX_PATH_BYTES,
    Version,
    live_table_pin,
    live_table_release,
    live_table_retain,
    live_table_unpin,
    table_path,
    version_release,
    version_retain,
)


cdef enum:
    EXAMINING_READ_AHEAD_BYTES = 1 << 18


cdef struct WholeEnds:
    # The entries that can be read at either end of a table, and the user key of the last of them.
    uint64_t before
    uint64_t after
    Buffer low
    Buffer high


cdef int walk_end(
    Cursor* cursor, bint forward, uint64_t* seen, Buffer* key, Status* status
) noexcept nogil:
    """1: all of it can be read; 0: up to some entry, maybe none; -1: see status."""
    cdef Slice user_key
    (cursor.seek_to_first if forward else cursor.seek_to_last)(cursor)
    while cursor.valid:
        user_key = internal_user_key(cursor.key)
        key.size = 0
        if buffer_append(key, user_key.data, user_key.size) < 0:
            return status_no_memory(status, b"memory for a key")
        seen[0] += 1
        (cursor.next if forward else cursor.prev)(cursor)
    return cursor.status.code == OK


cdef int survey(LiveTable* file, WholeEnds* ends, Status* status) noexcept nogil:
    """1: `ends` tells what is whole; 0: nothing is known; -1: see status."""
    cdef char path[MAX_PATH_BYTES]
    cdef Table* table
    cdef Cursor* cursor
    cdef int result
    table_path(file.tables.directory, file.number, path)
    table = table_open(
        file.tables.ops, file.tables.disk, path, file.number, file.summary.file_id, NULL, 0, status
    )
    if table == NULL:
        # What the system lacked says nothing of the table.
        return -1 if status.code == IO_ERROR and (
            status.os_error in (EMFILE, ENFILE, ENOMEM)
        ) else 0
    cursor = table_cursor(table, False, EXAMINING_READ_AHEAD_BYTES)
    table_release(table)
    if cursor == NULL:
        return status_no_memory(status, b"memory for a cursor")
    result = walk_end(cursor, True, &ends.before, &ends.low, status)
    if result == 0:
        result = walk_end(cursor, False, &ends.after, &ends.high, status)
        # What could be read from one end can be read by now: it passes, or the disk makes it up.
        result = -1 if result < 0 else not result
    elif result > 0:
        result = 0
    cursor.free(cursor)
    return result


cdef bytes slice_bytes(Slice key):
    return <bytes> (<const char*> key.data)[: key.size] if key.size else b""


cdef bint lies_within(LiveTable* file, Slice low, Slice high) noexcept nogil:
    cdef int order = slice_compare(internal_user_key(file.largest), high)
    return slice_compare(internal_user_key(file.smallest), low) >= 0 and (order < 0 or (
        order == 0 and trailer_kind(internal_trailer(file.largest)) == KIND_RANGE_DELETE
    ))


cdef LiveTable* live_table_of(Store store, uint64_t number) noexcept:
    cdef int level, i
    for level in range(LEVELS):
        for i in range(store.version.levels[level].count):
            if store.version.levels[level].files[i].number == number:
                return store.version.levels[level].files[i]
    return NULL


cdef object damage_of_table(Store store, uint64_t number):
    cdef LiveTable* file = live_table_of(store, number)
    cdef WholeEnds ends
    cdef Status status
    cdef int result
    if file == NULL:
        return None
    ends.before = ends.after = 0
    buffer_init(&ends.low)
    buffer_init(&ends.high)
    status_clear(&status)
    live_table_retain(file)
    try:
        with nogil:
            result = survey(file, &ends, &status)
        if result < 0:
            raise status_error_in(&status, store.path)
        low = slice_bytes(internal_user_key(file.smallest))
        high = slice_bytes(internal_user_key(file.largest))
        if trailer_kind(internal_trailer(file.largest)) != KIND_RANGE_DELETE:
            high += b"\0"
        if result and ends.before:
            low = buffer_bytes(&ends.low)
        if result and ends.after:
            high = buffer_bytes(&ends.high) + b"\0"
        return low, high, *bytes_of_range(store, low, high)
    finally:
        with nogil:
            buffer_free(&ends.low)
            buffer_free(&ends.high)
            live_table_release(file)


cdef tuple bytes_of_range(Store store, bytes low_key, bytes high_key):
    """About how many bytes the tables have of [low, high), and how many of all."""
    cdef Version* version = store.version
    cdef uint64_t trailer = trailer_pack(max_sequence(), KIND_MAX)
    cdef bytes first = low_key + <bytes> (<const char*> &trailer)[:TRAILER_BYTES]
    cdef bytes last = high_key + <bytes> (<const char*> &trailer)[:TRAILER_BYTES]
    cdef Slice low = slice_of(<const char*> first, len(first))
    cdef Slice high = slice_of(<const char*> last, len(last))
    cdef uint64_t inside = 0
    cdef uint64_t total = 0
    cdef int level, i
    version_retain(version)
    with nogil:
        for level in range(LEVELS):
            total += version.levels[level].bytes
            for i in range(version.levels[level].count):
                inside += bytes_between(version.levels[level].files[i], low, high)
        version_release(version)
    return inside, total


cdef uint64_t bytes_between(LiveTable* file, Slice low, Slice high) noexcept nogil:
    """Of what lies between two internal keys; a table that can't be opened counts as a whole."""
    cdef Status status
    cdef Table* table
    cdef uint64_t result = file.summary.file_bytes
    if internal_compare(file.largest, low) < 0 or internal_compare(file.smallest, high) >= 0:
        return 0
    if internal_compare(file.smallest, low) >= 0 and internal_compare(file.largest, high) < 0:
        return result
    table = live_table_pin(file, &status)
    if table != NULL:
        result = table_offset_of(table, high) - table_offset_of(table, low)
        live_table_unpin(file)
    return result
