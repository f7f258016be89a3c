"""Puts what another database holds of a range of keys in the place of what this one holds of it.

For a table that is damaged: what it held is part of what comes. The parts (range_export.pyx) become
tables as they come, which nobody knows of before the end. Then every other table that reaches into the
range is written anew without it, or goes where it lies within, and one edit of the manifest says it all. So
nothing is left of which one would have to know whether it is newer or older than what came.

Nothing may be written meanwhile, and the whole of the range is to be as of the last sequence that was.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    Buffer,
    BytesView,
    Cursor,
    KIND_MAX,
    KIND_RANGE_DELETE,
    PodVector,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    get_fixed32,
    get_fixed64,
    internal_trailer,
    internal_user_key,
    kv_free,
    kv_realloc,
    kv_zeroed,
    max_sequence,
    slice_compare,
    slice_of,
    status_clear,
    status_error_in,
    trailer_kind,
    trailer_pack,
    trailer_sequence,
    view_close,
    view_open,
)
from kvstore._engine.files.native cimport sync_directory
from kvstore._engine.memtable.native cimport (
    MemTable,
    RangeTombstone,
    memtable_add,
    memtable_delete_ranges,
    memtable_entries,
    memtable_is_empty,
    memtable_new,
    memtable_release,
)
from kvstore._engine.table.native cimport TableSummary
from kvstore._engine.version.native cimport (
    Change,
    LEVELS,
    Level,
    LiveTable,
    TableJob,
    entry_of,
    entry_summary,
    job_input_add,
    level_cursor,
    live_table_new,
    live_table_release,
    range_input_add_table,
    remove_quietly,
    table_job_free,
    table_job_guard,
    table_job_new,
    table_job_run,
)
from kvstore._engine.version.native import Edit

from kvstore.errors import (
    ClosedError,
    CorruptionError,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
)

cdef enum:
    PART_HEAD_BYTES = 8
    ITEM_HEAD_BYTES = 16        # of an entry, and of a range tombstone
    REPLACE_READ_AHEAD_BYTES = 1 << 18


# --- a table without the range ----------------------------------------------------------------

cdef struct BoundedCursor:
    # The entries of another cursor whose user keys lie in [low, high); forward only.
    Cursor base
    Cursor* inner
    Slice low                   # NULL data: no bound
    Slice high
    Buffer target


cdef void bounded_show(BoundedCursor* cursor) noexcept nogil:
    cdef Cursor* inner = cursor.inner
    cursor.base.status = inner.status
    cursor.base.valid = inner.valid and (
        cursor.high.data == NULL or slice_compare(internal_user_key(inner.key), cursor.high) < 0
    )
    if cursor.base.valid:
        cursor.base.key = inner.key
        cursor.base.value = inner.value


cdef void bounded_seek_to_first(Cursor* self) noexcept nogil:
    cdef BoundedCursor* cursor = <BoundedCursor*> self.state
    if cursor.low.data == NULL:
        cursor.inner.seek_to_first(cursor.inner)
    else:
        cursor.inner.seek(cursor.inner, slice_of(cursor.target.data, cursor.target.size))
    bounded_show(cursor)


cdef void bounded_next(Cursor* self) noexcept nogil:
    cdef BoundedCursor* cursor = <BoundedCursor*> self.state
    if self.valid:
        cursor.inner.next(cursor.inner)
        bounded_show(cursor)


cdef void bounded_free(Cursor* self) noexcept nogil:
    cdef BoundedCursor* cursor = <BoundedCursor*> self.state
    if cursor.inner != NULL:
        cursor.inner.free(cursor.inner)
    buffer_free(&cursor.target)
    kv_free(cursor)


cdef Cursor* bounded_cursor(LiveTable** file, Slice low, Slice high) noexcept nogil:
    """Of one table, whose place in a version the caller keeps, as the bounds. NULL: no memory."""
    cdef BoundedCursor* cursor = <BoundedCursor*> kv_zeroed(sizeof(BoundedCursor))
    cdef uint64_t trailer = trailer_pack(max_sequence(), KIND_MAX)
    if cursor == NULL:
        return NULL
    cursor.low = low
    cursor.high = high
    buffer_init(&cursor.target)
    status_clear(&cursor.base.status)
    cursor.base.state = cursor
    cursor.base.seek_to_first = bounded_seek_to_first
    cursor.base.next = bounded_next
    cursor.base.free = bounded_free
    cursor.inner = level_cursor(file, 1, False, REPLACE_READ_AHEAD_BYTES)
    if cursor.inner == NULL or (low.data != NULL and (
        buffer_append(&cursor.target, low.data, low.size) < 0
        or buffer_append(&cursor.target, &trailer, TRAILER_BYTES) < 0
    )):
        bounded_free(&cursor.base)
        return NULL
    return &cursor.base


cdef void cut_ranges(TableJob* job, Slice low, Slice high) noexcept nogil:
    """Of the job's range tombstones what lies in [low, high)."""
    cdef RangeTombstone* each
    cdef size_t kept = 0
    cdef size_t i
    for i in range(job.ranges.count):
        each = &job.ranges.tombstones[i]
        if low.data != NULL and slice_compare(each.start, low) < 0:
            each.start = low
        if high.data != NULL and slice_compare(each.stop, high) > 0:
            each.stop = high
        if slice_compare(each.start, each.stop) < 0:
            job.ranges.tombstones[kept] = each[0]
            kept += 1
    job.ranges.count = kept


# --- writing tables -----------------------------------------------------------------------------

cdef TableJob* keeping_job(Store store, int level) except NULL:
    """One that lets go of nothing."""
    cdef TableJob* job = table_job_new()
    if job == NULL:
        raise MemoryError("no memory for tables")
    job.ops = store.disk.ops
    job.disk = store.disk.disk
    job.directory = store.tables.directory
    job.options = store.table_options
    # One key's versions must not be split among tables of level 0, which may overlap.
    job.max_file_bytes = store.max_file_bytes if level else 0
    job.next_number = &store.next_number
    job.output_level = level
    job.cancelled = &store.stop_jobs
    if table_job_guard(job, 0) < 0:
        table_job_free(job)
        raise MemoryError("no memory for tables")
    return job


cdef list run_keeping_job(Store store, TableJob* job):
    """The TableEntry of each table that it wrote."""
    cdef size_t i
    if not run_job(store, job, None, None):
        raise ClosedError(f"the database {store.name} is being closed")
    return [
        entry_of(
            job.output_level, job.outputs[i].number, &job.outputs[i].summary,
            slice_of(job.outputs[i].smallest.data, job.outputs[i].smallest.size),
            slice_of(job.outputs[i].largest.data, job.outputs[i].largest.size),
        )
        for i in range(job.outputs_count)
    ]


cdef list write_piece(Store store, int level, LiveTable** file, Slice low, Slice high):
    """What a table holds in [low, high) in tables of their own."""
    cdef TableJob* job = keeping_job(store, level)
    cdef Status status
    cdef int result = 0
    status_clear(&status)
    try:
        if file[0].summary.range_deletes:
            with nogil:
                result = range_input_add_table(&job.ranges, file[0], 0, &status)
                cut_ranges(job, low, high)
            if result < 0:
                raise status_error_in(&status, store.path)
        if job_input_add(&job.input, bounded_cursor(file, low, high), False) < 0:
            raise MemoryError("no memory for tables")
        written = run_keeping_job(store, job)
        store.compaction_read_bytes += file[0].summary.file_bytes
        store.compacted_bytes += job.bytes_written
        return written
    finally:
        with nogil:
            table_job_free(job)


# --- parts --------------------------------------------------------------------------------------

cdef object bad_part(what):
    return CorruptionError(
        f"a part of a range {what}", code=IntegrityCode.INVALID_RECORD, path="a peer's packet"
    )


cdef int read_part(MemTable* table, Slice part, Slice low, Slice high, uint64_t sequence) except -1:
    """The part's contents into the memtable; CorruptionError unless all of it lies in [low, high)."""
    cdef const uint8_t* at = part.data + PART_HEAD_BYTES
    cdef const uint8_t* end = part.data + part.size
    cdef PodVector[RangeTombstone] tombstones
    cdef RangeTombstone tombstone
    cdef Slice key, value
    cdef uint64_t number
    cdef uint64_t left, i
    cdef uint32_t entries, ranges
    if part.size < PART_HEAD_BYTES:
        raise bad_part("is cut short")
    entries = get_fixed32(part.data)
    ranges = get_fixed32(part.data + 4)
    for i in range(<uint64_t> entries + ranges):
        left = end - at
        if left < ITEM_HEAD_BYTES:
            raise bad_part("is cut short")
        number = get_fixed64(at)
        key = slice_of(at + ITEM_HEAD_BYTES, get_fixed32(at + 8))
        value = slice_of(key.data + key.size, get_fixed32(at + 12))
        if left - ITEM_HEAD_BYTES < <uint64_t> key.size + <uint64_t> value.size:
            raise bad_part("is cut short")
        at = value.data + value.size
        if slice_compare(key, low) < 0 or slice_compare(key, high) >= 0:
            raise bad_part("holds a key outside of it")
        if i < ranges:
            if number > sequence or slice_compare(key, value) >= 0 or slice_compare(value, high) > 0:
                raise bad_part("holds no range tombstone of it")
            tombstone.start = key
            tombstone.stop = value
            tombstone.sequence = number
            tombstone.source = 0
            if tombstones.push(tombstone, kv_realloc) < 0:
                raise MemoryError("no memory for a part of a range")
        elif trailer_sequence(number) > sequence or trailer_kind(number) > KIND_MAX:
            raise bad_part("holds an entry that isn't of it")
        elif memtable_add(
            table, key, trailer_sequence(number), trailer_kind(number), value, False
        ) < 0:
            raise MemoryError("no memory for a part of a range")
    if at != end or memtable_entries(table) != entries:
        raise bad_part("doesn't hold what it says")
    if ranges and memtable_delete_ranges(table, tombstones.data(), tombstones.size()) < 0:
        raise MemoryError("no memory for a part of a range")
    return 0


# --- replacing ----------------------------------------------------------------------------------

@cython.no_gc_clear
@cython.final
cdef class RangeReplacement:
    cdef Store store
    cdef bytes low
    cdef bytes high
    cdef readonly bytes reached     # what lies before it has come
    cdef uint64_t keep_from
    cdef uint64_t sequence
    cdef list entries               # of the tables that are to come in
    cdef bint over

    def __init__(self):
        raise TypeError("make a RangeReplacement with a database's replace_range()")

    def __reduce__(self):
        raise TypeError("a RangeReplacement can't be copied or pickled: make another one")

    cdef int check(self) except -1:
        if self.store is None or self.over:
            raise InvalidArgumentError("the replacement is over")
        self.store.check_writable()
        if self.store.visible != self.sequence:
            raise InvalidArgumentError("something was written since the replacement began")
        return 0

    def add(self, start, stop, part):
        cdef MemTable* table
        cdef TableJob* job
        cdef BytesView view
        cdef bytes first = bytes(start)
        cdef bytes last = self.high if stop is None else bytes(stop)
        self.check()
        if first != self.reached:
            raise InvalidArgumentError("the part doesn't begin where the one before ends")
        if not first < last <= self.high:
            raise bad_part("ends outside of it")
        job = keeping_job(self.store, 1)
        table = memtable_new(self.store.write_buffer_bytes)
        view.held = False
        try:
            if table == NULL:
                raise MemoryError("no memory for a part of a range")
            view_open(part, &view, "part")
            read_part(
                table, view.slice, slice_of(<const char*> first, len(first)),
                slice_of(<const char*> last, len(last)), self.sequence,
            )
            add_memory(job, table, 0)
            self.entries += run_keeping_job(self.store, job)
            self.store.compacted_bytes += job.bytes_written
        finally:
            view_close(&view)
            with nogil:
                table_job_free(job)
                if table != NULL:
                    memtable_release(table)
        self.reached = last

    def install(self):
        cdef Store store = self.store
        cdef Task everything
        cdef int level, i
        self.check()
        if self.reached != self.high:
            raise InvalidArgumentError("some of the range hasn't come yet")
        everything = new_task(store, 0, 0)
        # From here to the mark nothing may let other threads in: no job is to begin beside this one.
        if store.frozen_count or not memtable_is_empty(store.memory) or any_compacting(store):
            return False
        for held in store.snapshots:
            if held < self.keep_from:
                return False        # what it would read isn't among what came
        version_release(everything.version)
        everything.version = store.version
        version_retain(everything.version)
        for level in range(LEVELS):
            for i in range(store.version.levels[level].count):
                push(&everything.upper, store.version.levels[level].files[i])
        mark(everything, True)
        store.running_tasks += 1
        store.replacing = True
        try:
            dead_exchange_begins(&store.dead)
            exchange(store, self.low, self.high, self.keep_from, self.entries)
            self.over = True
        finally:
            dead_exchange_ends(&store.dead)
            mark(everything, False)
            store.replacing = False
            store.running_tasks -= 1
            store.work.advance()
            store.changed.advance()
        return True

    def close(self):
        if self.store is None or self.over:
            return
        self.over = True
        # After a failure the manifest may name them.
        if self.store.failure is None and self.store.open:
            remove_tables(self.store, self.entries)


cdef RangeReplacement open_range_replacement(Store store, object low, object high, object keep_from):
    cdef RangeReplacement replacement = RangeReplacement.__new__(RangeReplacement)
    store.check_writable()
    replacement.low = replacement.reached = bytes(low)
    replacement.high = bytes(high)
    replacement.keep_from = as_sequence(keep_from)
    replacement.sequence = store.visible
    replacement.entries = []
    if not replacement.low < replacement.high or replacement.keep_from > store.visible:
        raise InvalidArgumentError("an empty range, or a sequence that is yet to come")
    replacement.store = store
    return replacement


cdef int remove_tables(Store store, list entries) except -1:
    """But for those that became current before something went wrong."""
    for entry in entries:
        if not is_current(store.version, entry.number):
            remove_quietly(store.disk, f"{store.path}/{entry.number:06d}.sst")
    return 0


cdef int exchange(
    Store store, bytes low_key, bytes high_key, uint64_t keep_from, list fetched
) except -1:
    """All tables are marked: nobody else changes the version."""
    cdef Slice low = slice_of(<const char*> low_key, len(low_key))
    cdef Slice high = slice_of(<const char*> high_key, len(high_key))
    cdef Slice none = slice_of(NULL, 0)
    cdef PodVector[Change] removed
    cdef Change change
    cdef Level* level
    cdef LiveTable** place
    cdef int number, i
    cdef int bottom = 1
    cdef bint renumbers
    edit = Edit()
    pieces = []
    try:
        for number in range(LEVELS):
            level = &store.version.levels[number]
            renumbers = False
            # In level 0 the oldest first: of two tables the newer one has the higher number.
            for i in range(level.count - 1, -1, -1):
                place = &level.files[i]
                if reaches_into(place[0], low, high):
                    bottom = max(bottom, number)
                    if not lies_within(place[0], low, high):
                        renumbers = number == 0
                        # Its first block may be the damaged one, where it begins in the range.
                        if slice_compare(internal_user_key(place[0].smallest), low) < 0:
                            pieces += write_piece(store, number, place, none, low)
                        pieces += write_piece(store, number, place, high, none)
                elif renumbers:
                    pieces += write_piece(store, number, place, none, none)
                else:
                    continue
                change.level = number
                change.file = place[0]
                if removed.push(change, kv_realloc) < 0:
                    raise MemoryError("no memory for tables")
                edit.removed.append((number, place[0].number))
        edit.added = pieces + [entry._replace(level=bottom) for entry in fetched]
        enter_entries(store, edit, &removed, keep_from)
    except BaseException:
        if store.failure is None:
            remove_tables(store, pieces)
        raise
    for _, gone in edit.removed:
        store.damaged_tables.pop(gone, None)
    store.compactions += 1
    return 0


cdef int enter_entries(
    Store store, object edit, PodVector[Change]* removed, uint64_t keep_from
) except -1:
    """The tables that `edit` adds become current, and those that it removes go."""
    cdef PodVector[Change] added
    cdef Change change
    cdef TableSummary summary
    cdef size_t i
    cdef uint64_t history_from = store.history_from
    if added.reserve(len(edit.added), kv_realloc) < 0:
        raise MemoryError("no memory for tables")
    try:
        # The manifest must not name a file whose own name a power loss can take.
        sync_directory(store.disk, store.path)
        for entry in edit.added:
            entry_summary(entry, &summary)
            change.level = entry.level
            change.file = live_table_new(
                store.tables, entry.number, &summary,
                slice_of(<const char*> <bytes> entry.smallest, len(entry.smallest)),
                slice_of(<const char*> <bytes> entry.largest, len(entry.largest)),
            )
            if change.file == NULL:
                raise MemoryError("no memory for a table")
            added.push_reserved(change)
        # Before anybody can read it: of what is older than that not all has come.
        store.history_from = max(history_from, keep_from)
        store.install(
            edit, removed.data(), <int> removed.size(), added.data(), <int> added.size()
        )
    finally:
        for i in range(added.size()):
            live_table_release(added[i].file)
    return 0
