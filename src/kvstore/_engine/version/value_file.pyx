"""Value files by number: who needs them, which are open, reading and writing them. See value_file.pxd."""

from libc.errno cimport EMFILE, ENFILE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    CHECKSUM_MISMATCH,
    Cursor,
    INVALID_MAGIC,
    INVALID_RECORD,
    KIND_POINTER,
    OK,
    PyThreadState,
    Slice,
    Status,
    TRUNCATED_RECORD,
    UNSUPPORTED_VERSION,
    buffer_append,
    buffer_free,
    buffer_init,
    buffer_reserve,
    counter_next,
    crc32c_extend,
    get_fixed32,
    internal_trailer,
    internal_user_key,
    kv_calloc,
    kv_free,
    let_go_of_gil,
    lock_leave,
    lock_take,
    status_clear,
    status_no_memory,
    status_os_error,
    status_set,
    take_gil,
    trailer_kind,
)
from kvstore._engine.files.native cimport OPEN_EXCLUSIVE, OPEN_READ, PIECE_BYTES
from kvstore._engine.log.native cimport (
    INCOMPATIBLE,
    LOG_VERSION,
    SEGMENT_CRC_OFFSET,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    SegmentHeader,
    encode_segment_header,
)
from kvstore._engine.table.native cimport (
    Pointer,
    Table,
    ValueRef,
    pointer_get,
    table_cursor,
    table_release,
    value_refs_count,
    value_refs_note,
)


cdef extern from "<errno.h>" nogil:
    int errno


cdef extern from "<unistd.h>" nogil:
    int getentropy(void* into, size_t size)


cdef void value_path(const char* directory, uint64_t number, char* path) noexcept nogil:
    snprintf(path, MAX_PATH_BYTES, "%s/%06llu.val", directory, <unsigned long long> number)


# --- who needs which ------------------------------------------------------------------------

cdef ValueFile* find_values(OpenTables* tables, uint64_t number) noexcept nogil:
    """Under the lock. NULL: nobody knows it."""
    cdef ValueFile* file = tables.values[number % VALUE_CHAINS]
    while file != NULL and file.number != number:
        file = file.next
    return file


cdef ValueFile* value_file_get(OpenTables* tables, uint64_t number) noexcept nogil:
    cdef ValueFile* file
    lock_take(&tables.values_lock)
    file = find_values(tables, number)
    if file == NULL:
        file = <ValueFile*> kv_calloc(1, sizeof(ValueFile))
        if file != NULL:
            file.number = number
            file.next = tables.values[number % VALUE_CHAINS]
            tables.values[number % VALUE_CHAINS] = file
    if file != NULL:
        file.references += 1
    lock_leave(&tables.values_lock)
    return file


cdef void value_file_want(OpenTables* tables, ValueFile* file) noexcept nogil:
    lock_take(&tables.values_lock)
    file.wanted += 1
    lock_leave(&tables.values_lock)


cdef void value_file_unwant(OpenTables* tables, ValueFile* file) noexcept nogil:
    lock_take(&tables.values_lock)
    file.wanted -= 1
    lock_leave(&tables.values_lock)


cdef void value_file_release(OpenTables* tables, ValueFile* file) noexcept nogil:
    cdef char path[MAX_PATH_BYTES]
    cdef ValueFile** link
    cdef bint last
    lock_take(&tables.values_lock)
    file.references -= 1
    last = file.references == 0
    if last:
        link = &tables.values[file.number % VALUE_CHAINS]
        while link[0] != file:
            link = &link[0].next
        link[0] = file.next
        tables.open_values -= file.file != NULL
    lock_leave(&tables.values_lock)
    if not last:
        return
    if file.file != NULL:
        tables.ops.close(tables.disk, file.file)
    if file.wanted == 0:
        # One that stays behind because this fails is removed at the next open.
        value_path(tables.directory, file.number, path)
        tables.ops.unlink(tables.disk, path)
    kv_free(file)


cdef void value_file_is_damaged(OpenTables* tables, uint64_t number) noexcept nogil:
    cdef ValueFile* file
    lock_take(&tables.values_lock)
    file = find_values(tables, number)
    if file != NULL:
        file.damaged = True
    lock_leave(&tables.values_lock)


# --- which are open -------------------------------------------------------------------------

cdef void* idle_values(OpenTables* tables, uint64_t before) noexcept nogil:
    """Under the lock: takes the handle of the one that was used longest ago, before that use. NULL: none."""
    cdef ValueFile* oldest = NULL
    cdef ValueFile* file
    cdef void* handle
    cdef int i
    for i in range(VALUE_CHAINS):
        file = tables.values[i]
        while file != NULL:
            if file.file != NULL and file.readers == 0 and file.used < before:
                oldest = file
                before = file.used
            file = file.next
    if oldest == NULL:
        return NULL
    handle = oldest.file
    oldest.file = NULL
    tables.open_values -= 1
    return handle


cdef int value_files_close_idle(OpenTables* tables) noexcept nogil:
    cdef void* handle
    cdef int count = 0
    while True:
        lock_take(&tables.values_lock)
        handle = idle_values(tables, <uint64_t> -1)
        lock_leave(&tables.values_lock)
        if handle == NULL:
            return count
        tables.ops.close(tables.disk, handle)
        count += 1


cdef int about_values(Status* status, uint64_t number) noexcept nogil:
    status.table = number
    status.of_values = True
    return -1


cdef int check_header(const uint8_t* header, Status* status) noexcept nogil:
    if get_fixed32(header) != SEGMENT_MAGIC:
        return status_set(status, INVALID_MAGIC, b"value file magic", 0)
    if get_fixed32(header + 4) != LOG_VERSION:
        return status_set(status, UNSUPPORTED_VERSION, b"value file version", 4)
    if crc32c_extend(0, header, SEGMENT_CRC_OFFSET) != get_fixed32(header + SEGMENT_CRC_OFFSET):
        return status_set(status, CHECKSUM_MISMATCH, b"value file header checksum", 0)
    if get_fixed32(header + 36) & ~<uint32_t> INCOMPATIBLE:
        return status_set(status, UNSUPPORTED_VERSION, b"value file features", 36)
    return 0


cdef int read_bytes(
    OpenTables* tables, void* file, uint8_t* into, size_t size, uint64_t offset, Status* status
) noexcept nogil:
    cdef int64_t got = tables.ops.pread(tables.disk, file, into, size, offset)
    if got < 0:
        return status_os_error(status, <int> -got, b"read value file", <int64_t> offset)
    if <size_t> got < size:
        return status_set(
            status, TRUNCATED_RECORD, b"value file ends before its values", <int64_t> (offset + got)
        )
    return 0


cdef void* open_values(OpenTables* tables, uint64_t number, uint32_t* seed, Status* status) noexcept nogil:
    cdef uint8_t[SEGMENT_HEADER_BYTES] header
    cdef char path[MAX_PATH_BYTES]
    cdef void* file = NULL
    cdef int result
    value_path(tables.directory, number, path)
    result = tables.ops.open(tables.disk, path, OPEN_READ, &file)
    if result < 0:
        status_os_error(status, -result, b"open value file", -1)
        return NULL
    if read_bytes(tables, file, header, SEGMENT_HEADER_BYTES, 0, status) < 0 or (
        check_header(header, status) < 0
    ):
        tables.ops.close(tables.disk, file)
        return NULL
    seed[0] = get_fixed32(header + SEGMENT_CRC_OFFSET)
    return file


cdef void unpin_values(OpenTables* tables, ValueFile* file) noexcept nogil:
    lock_take(&tables.values_lock)
    file.readers -= 1
    lock_leave(&tables.values_lock)


cdef ValueFile* pin_values(OpenTables* tables, uint64_t number, Status* status) noexcept nogil:
    """Open until unpin_values. NULL: see status."""
    cdef ValueFile* file
    cdef void* handle = NULL
    cdef void* surplus = NULL
    cdef uint32_t seed = 0
    cdef int tries = 1
    cdef bint is_open
    lock_take(&tables.values_lock)
    file = find_values(tables, number)
    if file == NULL:
        lock_leave(&tables.values_lock)
        status_set(status, INVALID_RECORD, b"pointer into a value file that no table names", -1)
        return NULL
    file.readers += 1
    tables.value_uses += 1
    file.used = tables.value_uses
    is_open = file.file != NULL
    lock_leave(&tables.values_lock)
    if is_open:
        return file
    # Opened outside the lock; of two threads that do so one result is dropped.
    handle = open_values(tables, number, &seed, status)
    while (
        handle == NULL and status.os_error in (EMFILE, ENFILE) and tries < MOST_TRIES
        and open_tables_close_some(tables)
    ):
        tries += 1
        handle = open_values(tables, number, &seed, status)
    if handle == NULL:
        unpin_values(tables, file)
        return NULL
    if tries > 1:
        status_clear(status)
    lock_take(&tables.values_lock)
    if file.file == NULL:
        file.file = handle
        file.seed = seed
        handle = NULL
        tables.open_values += 1
        if tables.open_values > tables.max_open_values:
            surplus = idle_values(tables, <uint64_t> -1)
    lock_leave(&tables.values_lock)
    if handle != NULL:
        tables.ops.close(tables.disk, handle)
    if surplus != NULL:
        tables.ops.close(tables.disk, surplus)
    return file


cdef int value_file_size(
    OpenTables* tables, uint64_t number, uint64_t* size, Status* status
) noexcept nogil:
    cdef ValueFile* file = pin_values(tables, number, status)
    cdef int64_t bytes
    if file == NULL:
        return about_values(status, number)
    bytes = tables.ops.size(tables.disk, file.file)
    unpin_values(tables, file)
    if bytes < 0:
        status_os_error(status, <int> -bytes, b"size of value file", -1)
        return about_values(status, number)
    size[0] = <uint64_t> bytes
    return 0


# --- reading --------------------------------------------------------------------------------

cdef int read_pointed(
    OpenTables* tables, Slice user_key, const Pointer* pointer, uint8_t* into, Status* status
) noexcept nogil:
    cdef ValueFile* file = pin_values(tables, pointer.file, status)
    cdef uint32_t crc
    cdef int result
    if file == NULL:
        return about_values(status, pointer.file)
    result = read_bytes(tables, file.file, into, pointer.size, pointer.offset, status)
    if result == 0:
        crc = crc32c_extend(crc32c_extend(file.seed, user_key.data, user_key.size), into, pointer.size)
        if crc != pointer.crc:
            result = status_set(status, CHECKSUM_MISMATCH, b"value checksum", <int64_t> pointer.offset)
    unpin_values(tables, file)
    return 0 if result == 0 else about_values(status, pointer.file)


cdef int value_read(
    OpenTables* tables, Slice user_key, Slice pointed, Buffer* into, Status* status
) noexcept nogil:
    cdef Pointer pointer
    cdef PyThreadState* own
    cdef int result
    if pointer_get(&pointer, pointed) < 0:
        return status_set(status, INVALID_RECORD, b"pointer to a value", -1)
    into.size = 0
    if buffer_reserve(into, pointer.size) < 0:
        return status_no_memory(status, b"memory for a value")
    own = let_go_of_gil()
    result = read_pointed(tables, user_key, &pointer, into.data, status)
    take_gil(own)
    if result == 0:
        into.size = pointer.size
    return result


cdef int check_refs(LiveTable* file, const Buffer* refs, Status* status) noexcept nogil:
    cdef const ValueRef* counted = <const ValueRef*> refs.data
    cdef size_t i
    if value_refs_count(refs) != file.values_count:
        return status_set(status, INVALID_RECORD, b"value files of a table", -1)
    for i in range(file.values_count):
        if (
            counted[i].file != file.values[i].file.number
            or counted[i].bytes != file.values[i].bytes or counted[i].end != file.values[i].end
        ):
            return status_set(status, INVALID_RECORD, b"value files of a table", -1)
    return 0


cdef int values_verify(LiveTable* file, Status* status) noexcept nogil:
    cdef Buffer value, refs
    cdef Cursor* cursor
    cdef Pointer pointer
    cdef int result = 0
    cdef Table* table = live_table_open(file, status)
    if table == NULL:
        return -1
    cursor = table_cursor(table, False, PIECE_BYTES)
    table_release(table)
    if cursor == NULL:
        return status_no_memory(status, b"memory for a cursor")
    buffer_init(&value)
    buffer_init(&refs)
    cursor.seek_to_first(cursor)
    while cursor.valid and result == 0:
        if trailer_kind(internal_trailer(cursor.key)) == KIND_POINTER:
            result = value_read(
                file.tables, internal_user_key(cursor.key), cursor.value, &value, status
            )
            if result == 0 and (
                pointer_get(&pointer, cursor.value) < 0 or value_refs_note(&refs, &pointer) < 0
            ):
                result = status_no_memory(status, b"memory for value files")
        if result == 0:
            cursor.next(cursor)
    if result == 0 and cursor.status.code != OK:
        status[0] = cursor.status
        result = -1
    if result == 0:
        result = check_refs(file, &refs, status)
    cursor.free(cursor)
    buffer_free(&value)
    buffer_free(&refs)
    return result


# --- writing --------------------------------------------------------------------------------

cdef int write_values(ValueWriter* writer, Status* status) noexcept nogil:
    cdef int result
    if writer.pending.size == 0:
        return 0
    result = writer.ops.pwrite(
        writer.disk, writer.file, writer.pending.data, writer.pending.size, writer.written
    )
    if result >= 0:
        result = writer.ops.write_back(
            writer.disk, writer.file, writer.written, writer.pending.size
        )
    if result < 0:
        status_os_error(status, -result, b"write value file", <int64_t> writer.written)
        return about_values(status, writer.number)
    writer.written += writer.pending.size
    writer.bytes_written += writer.pending.size
    writer.pending.size = 0
    return 0


cdef int begin_values(ValueWriter* writer, Status* status) noexcept nogil:
    cdef SegmentHeader header
    cdef char path[MAX_PATH_BYTES]
    cdef int result
    memset(&header, 0, sizeof(header))
    if getentropy(header.log_id, sizeof(header.log_id)) < 0:
        return status_os_error(status, errno, b"random bytes for a value file", -1)
    if buffer_reserve(&writer.numbers, sizeof(uint64_t)) < 0 or buffer_reserve(
        &writer.pending, SEGMENT_HEADER_BYTES
    ) < 0:
        return status_no_memory(status, b"memory for a value file")
    writer.number = counter_next(writer.next_number)
    value_path(writer.directory, writer.number, path)
    result = writer.ops.open(writer.disk, path, OPEN_EXCLUSIVE, &writer.file)
    if result < 0:
        writer.file = NULL
        status_os_error(status, -result, b"create value file", -1)
        return about_values(status, writer.number)
    buffer_append(&writer.numbers, &writer.number, sizeof(uint64_t))
    header.number = writer.number
    writer.seed = encode_segment_header(writer.pending.data, &header)
    writer.pending.size = SEGMENT_HEADER_BYTES
    writer.written = 0
    return 0


cdef int value_writer_add(
    ValueWriter* writer, Slice user_key, Slice value, Pointer* pointer, Status* status
) noexcept nogil:
    if writer.file != NULL and writer.written + writer.pending.size >= VALUE_FILE_BYTES:
        if value_writer_finish(writer, status) < 0:
            return -1
    if writer.file == NULL and begin_values(writer, status) < 0:
        return -1
    pointer.file = writer.number
    pointer.offset = <uint32_t> (writer.written + writer.pending.size)
    pointer.size = <uint32_t> value.size
    pointer.crc = crc32c_extend(
        crc32c_extend(writer.seed, user_key.data, user_key.size), value.data, value.size
    )
    if buffer_append(&writer.pending, value.data, value.size) < 0:
        return status_no_memory(status, b"memory for a value file")
    if writer.pending.size >= PIECE_BYTES:
        return write_values(writer, status)
    return 0


cdef int value_writer_finish(ValueWriter* writer, Status* status) noexcept nogil:
    cdef int result
    if writer.file == NULL:
        return 0
    if write_values(writer, status) < 0:
        return -1
    result = writer.ops.datasync(writer.disk, writer.file)
    if result < 0:
        status_os_error(status, -result, b"sync value file", -1)
        return about_values(status, writer.number)
    result = writer.ops.close(writer.disk, writer.file)
    writer.file = NULL
    if result < 0:
        status_os_error(status, -result, b"close value file", -1)
        return about_values(status, writer.number)
    return 0


cdef void value_writer_unlink(ValueWriter* writer) noexcept nogil:
    cdef char path[MAX_PATH_BYTES]
    cdef const uint64_t* numbers = <const uint64_t*> writer.numbers.data
    cdef size_t i
    if writer.file != NULL:
        writer.ops.close(writer.disk, writer.file)
        writer.file = NULL
    for i in range(writer.numbers.size // sizeof(uint64_t)):
        value_path(writer.directory, numbers[i], path)
        writer.ops.unlink(writer.disk, path)
    writer.numbers.size = 0


cdef void value_writer_free(ValueWriter* writer) noexcept nogil:
    if writer.file != NULL:
        writer.ops.close(writer.disk, writer.file)
        writer.file = NULL
    buffer_free(&writer.pending)
    buffer_free(&writer.numbers)
