"""Many values at once into arrays: no Python object for each.

Rows are taken a chunk at a time. What needs the GIL (the mutable memtable, see memtable.pxd) is done
under it, the rest without.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_ND,
    PyBUF_WRITABLE,
    Py_buffer,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    Cursor,
    OK,
    Slice,
    Status,
    buffer_append,
    buffer_free,
    buffer_init,
    kv_free,
    kv_zeroed,
    slice_compare,
    slice_of,
    status_clear,
    status_error_in,
)
from kvstore._engine.memtable.native cimport (
    ABSENT,
    DELETED,
    FAILED,
    FOUND,
    memtable_is_empty,
    memtable_prefetch,
)
from kvstore._engine.table.native cimport Pinned, pinned_release
from kvstore._engine.version.native cimport (
    RangeCover,
    UserCursor,
    Version,
    cover_open,
    merge_cursor,
    user_cursor_close,
    user_cursor_open,
    user_next,
    user_seek,
    version_cursor_count,
    version_cursors,
    version_get,
    version_release,
    version_retain,
)

from kvstore.errors import InvalidArgumentError


cdef enum:
    READ_ROWS = 1 << 12         # what one hold of the GIL goes through at most
    # A walk along the sorted keys beats a lookup for each where it passes few entries between
    # them. It starts with some credit, earns with each key and pays for each step.
    WALK_ROWS = 256             # with fewer keys it isn't worth opening
    WALK_CREDIT = 4096
    WALK_EARNS = 10
    WALK_AHEAD_BYTES = 1 << 17
    SEEK_STEPS = 16             # what a seek costs, in steps


cdef class Chunk:
    """The keys that are asked for together, and what was found."""
    cdef Rows rows
    cdef Buffer prefixed        # keys with their prefix
    cdef Buffer found           # values of any size, in the order in which they were found

    def __cinit__(self, Py_ssize_t most):
        buffer_init(&self.prefixed)
        buffer_init(&self.found)
        if rows_open(&self.rows, most) < 0:
            raise MemoryError("no memory for a chunk of rows")

    def __dealloc__(self):
        rows_free(&self.rows)
        buffer_free(&self.prefixed)
        buffer_free(&self.found)


def get_many(
    Database db not None, bytes prefix not None, keys, Sink values not None, found, sequence
):
    """`found`: a writable buffer of a byte for each key."""
    cdef Column column = Column(keys, "keys")
    cdef Slice before = slice_of(<const char*> prefix, len(prefix))
    cdef Py_buffer marks
    cdef Chunk chunk
    cdef Snapshot moment
    cdef Py_ssize_t first = 0
    db.check_open()
    column.check(0, <size_t> 1 << 40)
    PyObject_GetBuffer(found, &marks, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS | PyBUF_ND)
    try:
        if marks.len != column.rows:
            raise InvalidArgumentError(f"{marks.len} marks for {column.rows} keys")
        chunk = Chunk(column.rows)
        # All chunks read one moment.
        moment = open_snapshot(db, sequence, b"")
        with moment:
            while first < column.rows:
                get_chunk(
                    db, chunk, column, before, first, moment.sequence, values,
                    <uint8_t*> marks.buf + first
                )
                first += chunk.rows.count
    finally:
        PyBuffer_Release(&marks)


cdef int get_chunk(
    Store store, Chunk chunk, Column keys, Slice prefix, Py_ssize_t first, uint64_t sequence,
    Sink values, uint8_t* marks
) except -1:
    cdef Version* version
    cdef Status status
    cdef Iterator entries = None
    cdef TableWalk tables = TableWalk()
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t end
    cdef int64_t credit = WALK_CREDIT
    cdef bint unfinished
    cdef int code
    status_clear(&status)
    with nogil:
        code = take_keys(chunk, keys, prefix, first)
    if code < 0:
        raise MemoryError("no memory for keys") if code == NO_MEMORY else InvalidArgumentError(
            "the keys' offsets changed while they were read"
        )
    memset(marks, ABSENT, <size_t> chunk.rows.count)
    if chunk.rows.count < WALK_ROWS:
        credit = -1
    elif not has_tables(store.version):
        entries = all_entries(store, sequence)
    while done < chunk.rows.count:
        store.check_open()
        end = min(done + READ_ROWS, chunk.rows.count)
        if entries is not None and credit >= 0:
            entries.enter()
            code = walk(&entries.cursor, chunk, values, marks, &done, end, &credit)
            entries.leave()
            entries.check_status()
            if code == 0 and done < end:
                continue
        else:
            code = from_memory(store, chunk, values, marks, done, end, sequence, &unfinished)
            if code == 0 and unfinished and has_tables(store.version):
                if credit >= 0:
                    tables.open(store, sequence)
                # A newer version than the memory was looked at with does, an older one would not.
                version = store.version
                version_retain(version)
                with nogil:
                    if credit >= 0:
                        code = walk(&tables.cursor, chunk, values, marks, &done, end, &credit)
                        status = tables.cursor.status
                    if code == 0 and done < end:
                        code = from_tables(
                            version, chunk, values, marks, done, end, sequence, &status
                        )
                    version_release(version)
                if status.code != OK:
                    raise status_error_in(&status, store.path)
            done = end
        if code < 0:
            raise values.refusal(code, "value")
    with nogil:
        code = place_rows(chunk, values, marks)
    if code < 0:
        raise values.refusal(code, "value")
    return 0


cdef Iterator all_entries(Store store, uint64_t sequence):
    cdef Range how
    how.reverse = False
    how.include_key = how.include_value = how.fill_cache = True
    how.include_sequence = False
    how.limit = -1
    return open_iterator(store, sequence, how, None, None, True, False, None, b"", None)


cdef class TableWalk:
    """A cursor over the tables of one version."""
    cdef UserCursor cursor
    cdef Version* version

    def __dealloc__(self):
        self.close()

    cdef void close(self) noexcept:
        if self.version != NULL:
            with nogil:
                user_cursor_close(&self.cursor)
                version_release(self.version)
            self.version = NULL

    cdef int open(self, Store store, uint64_t sequence) except -1:
        """At the store's version; stays as it is if that hasn't changed."""
        cdef Version* version
        cdef Cursor** cursors
        cdef Cursor* merged
        cdef RangeCover* cover = NULL
        cdef Status status
        cdef int count, result
        if self.version == store.version:
            return 0
        # Gives up the GIL, so that the store's version may be another one afterwards.
        self.close()
        version = store.version
        count = version_cursor_count(version)
        status_clear(&status)
        cursors = <Cursor**> kv_zeroed(max(1, count) * sizeof(Cursor*))
        if cursors == NULL:
            raise MemoryError("no memory for a walk")
        version_retain(version)
        result = version_cursors(version, True, WALK_AHEAD_BYTES, cursors, &status)
        if result < 0:
            kv_free(cursors)
            version_release(version)
            raise status_error_in(&status, store.path)
        merged = merge_cursor(cursors, count)
        kv_free(cursors)
        if merged == NULL:
            version_release(version)
            raise MemoryError("no memory for a walk")
        self.version = version
        result = cover_open(&cover, NULL, NULL, 0, version, 0, sequence)
        if user_cursor_open(&self.cursor, merged, cover, sequence, NULL, NULL) < 0 or result < 0:
            self.close()
            raise MemoryError("no memory for a walk")
        return 0


cdef int walk(
    UserCursor* cursor, Chunk chunk, Sink values, uint8_t* marks, Py_ssize_t* done, Py_ssize_t end,
    int64_t* credit
) noexcept nogil:
    """Rows from `done` on that nothing is known of, along with the entries, as long as that pays."""
    cdef Slice key
    cdef uint32_t row
    cdef int steps, order
    cdef int code = 0
    while done[0] < end and credit[0] >= 0:
        row = chunk.rows.order[done[0]].row
        rows_expect(&chunk.rows, done[0])
        done[0] += 1
        if marks[row] != ABSENT:
            continue
        key = chunk.rows.keys[row]
        if not cursor.valid:
            # Before the first entry; or behind the last, and no seek finds one there either.
            user_seek(cursor, key)
            credit[0] -= SEEK_STEPS
        steps = 0
        order = 1
        while cursor.valid:
            order = slice_compare(cursor.key, key)
            if order >= 0:
                break
            steps += 1
            if steps == SEEK_STEPS:
                user_seek(cursor, key)
            else:
                user_next(cursor)
        if cursor.status.code != OK:
            return MISFIT
        if cursor.valid and order == 0:
            marks[row] = FOUND
            code = keep_value(chunk, values, row, cursor.value)
            if code < 0:
                return code
        else:
            marks[row] = DELETED
        credit[0] = min(credit[0] + WALK_EARNS - steps, <int64_t> WALK_CREDIT)
    return 0


cdef int take_keys(Chunk chunk, Column keys, Slice prefix, Py_ssize_t first) noexcept nogil:
    """The keys from `first` on, prefix included, and their order."""
    cdef Rows* rows = &chunk.rows
    cdef Py_ssize_t i
    cdef size_t at = 0
    rows.count = min(keys.rows - first, <Py_ssize_t> CHUNK_ROWS)
    chunk.prefixed.size = chunk.found.size = 0
    for i in range(rows.count):
        if keys.row(first + i, &rows.keys[i]) < 0:
            return MISFIT
        if prefix.size and (
            buffer_append(&chunk.prefixed, prefix.data, prefix.size) < 0
            or buffer_append(&chunk.prefixed, rows.keys[i].data, rows.keys[i].size) < 0
        ):
            return NO_MEMORY
    if prefix.size:
        for i in range(rows.count):
            rows.keys[i] = slice_of(chunk.prefixed.data + at, prefix.size + rows.keys[i].size)
            at += rows.keys[i].size
    rows_sort(rows)
    return 0


cdef int from_memory(
    Store store, Chunk chunk, Sink values, uint8_t* marks, Py_ssize_t start, Py_ssize_t end,
    uint64_t sequence, bint* unfinished
) noexcept:
    """What the memtables know of these rows; with the GIL."""
    cdef const Rows* rows = &chunk.rows
    cdef Slice value
    cdef uint64_t found_sequence
    cdef uint32_t row
    cdef Py_ssize_t i
    cdef int found
    cdef int code = 0
    cdef bint empty = store.frozen_count == 0 and memtable_is_empty(store.memory)
    unfinished[0] = empty
    if empty:
        return 0
    for i in range(start, end):
        row = rows.order[i].row
        rows_expect(rows, i)
        if i + AHEAD < end:
            memtable_prefetch(store.memory, rows.keys[rows.order[i + AHEAD].row], False)
        found = look_in_memory(store, rows.keys[row], sequence, &value, &found_sequence)
        marks[row] = <uint8_t> found
        if found == FOUND:
            code = keep_value(chunk, values, row, value)
            if code < 0:
                return code
        elif found == ABSENT:
            unfinished[0] = True
    return 0


cdef int from_tables(
    Version* version, Chunk chunk, Sink values, uint8_t* marks, Py_ssize_t start, Py_ssize_t end,
    uint64_t sequence, Status* status
) noexcept nogil:
    cdef Slice value
    cdef Pinned pin
    cdef uint64_t found_sequence
    cdef uint32_t row
    cdef Py_ssize_t i
    cdef int found
    cdef int code = 0
    for i in range(start, end):
        row = chunk.rows.order[i].row
        if marks[row] != ABSENT:
            continue
        pin.handle = NULL
        found = version_get(
            version, chunk.rows.keys[row], sequence, True, &value, &found_sequence, &pin, status
        )
        marks[row] = <uint8_t> found
        if found == FAILED:
            return MISFIT
        if found == FOUND:
            code = keep_value(chunk, values, row, value)
        pinned_release(&pin)
        if code < 0:
            return code
    return 0


cdef inline int keep_value(Chunk chunk, Sink values, uint32_t row, Slice value) noexcept nogil:
    """Into its place at once where places are known, else aside until all sizes are."""
    cdef size_t at = chunk.found.size
    if values.held:
        return values.put(values.rows + row, value)
    if buffer_append(&chunk.found, value.data, value.size) < 0:
        return NO_MEMORY
    # The buffer may move: a place in it, not a pointer.
    chunk.rows.values[row] = slice_of(<const uint8_t*> at, value.size)
    return 0


cdef int place_rows(Chunk chunk, Sink values, uint8_t* marks) noexcept nogil:
    """What was found in the order of the rows, zeros or nothing where nothing was."""
    cdef Slice place
    cdef Py_ssize_t i
    cdef int code
    for i in range(chunk.rows.count):
        marks[i] = marks[i] == FOUND
        if values.held:
            if not marks[i]:
                values.blank(values.rows + i)
            continue
        if marks[i]:
            place = chunk.rows.values[i]
            code = values.take(slice_of(chunk.found.data + <size_t> place.data, place.size))
        else:
            code = values.take(slice_of(NULL, 0))
        if code < 0:
            return code
    if values.held:
        values.rows += chunk.rows.count
    return 0


def read_rows(Iterator rows not None, Py_ssize_t most, Sink keys, Sink values):
    """Up to `most` of the iterator's next entries into the sinks; how many there were."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t wanted, taken
    cdef int code = 0
    cdef bint paused
    if 0 <= rows.left < most:
        most = rows.left
    while count < most:
        rows.check()
        wanted = min(most - count, <Py_ssize_t> READ_ROWS)
        rows.enter()
        if rows.walks_mutable():
            taken = fill(rows, wanted, keys, values, &code)
        else:
            with nogil:
                taken = fill(rows, wanted, keys, values, &code)
        paused = rows.cursor.paused
        if paused:
            rows.rest()
        rows.leave()
        if code < 0:
            if keys is not None and (values is None or keys.rows <= values.rows):
                raise keys.refusal(code, "key")
            raise values.refusal(code, "value")
        count += taken
        if rows.left > 0:
            rows.left -= taken
        if taken < wanted and not paused:
            rows.check_status()
            break
    return count


cdef Py_ssize_t fill(
    Iterator rows, Py_ssize_t most, Sink keys, Sink values, int* code
) noexcept nogil:
    cdef Py_ssize_t count = 0
    while count < most and rows.step():
        if keys is not None:
            code[0] = keys.take(rows.shown_key())
            if code[0] < 0:
                break
        if values is not None:
            code[0] = values.take(rows.cursor.value)
            if code[0] < 0:
                break
        count += 1
    return count


def count_rows(keys):
    return Column(keys, "keys").rows
