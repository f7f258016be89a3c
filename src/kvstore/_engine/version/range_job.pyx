"""What a job does about range tombstones: see range_job.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from kvstore._engine.memtable.native cimport (
    RangeRun,
    RangeTombstone,
    range_run_find,
    range_run_new,
    range_run_release,
)
from kvstore._engine.primitives.native cimport (
    Buffer,
    INVALID_RECORD,
    KIND_RANGE_DELETE,
    PodVector,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    internal_user_key,
    kv_calloc,
    kv_free,
    kv_realloc,
    max_sequence,
    slice_compare,
    slice_equal,
    slice_of,
    status_no_memory,
    status_set,
    trailer_pack,
)
from kvstore._engine.table.native cimport (
    TableBuilder,
    range_frame_add,
    range_frame_begin,
    range_frame_finish,
    table_builder_add_meta,
    table_builder_cover,
    table_release,
)


# --- input ----------------------------------------------------------------------------------

cdef int range_input_add(RangeInput* input, const RangeRun* run, int source) noexcept nogil:
    cdef uint32_t i
    for i in range(run.count):
        if not grow(
            <void**> &input.tombstones, &input.capacity, input.count, sizeof(RangeTombstone)
        ):
            return -1
        input.tombstones[input.count] = run.tombstones[i]
        input.tombstones[input.count].source = source
        input.count += 1
    return 0


cdef int range_input_add_table(
    RangeInput* input, LiveTable* file, int source, Status* status
) noexcept nogil:
    cdef Table* table = live_table_open(file, status)
    if table == NULL:
        return -1
    if not grow(
        <void**> &input.tables, &input.tables_capacity, input.tables_count, sizeof(Table*)
    ):
        table_release(table)
        return status_no_memory(status, b"memory for range tombstones")
    input.tables[input.tables_count] = table
    input.tables_count += 1
    if table.ranges == NULL:
        status.table = file.number
        return status_set(status, INVALID_RECORD, b"table without its range tombstones", -1)
    if range_input_add(input, table.ranges, source) < 0:
        return status_no_memory(status, b"memory for range tombstones")
    return 0


cdef void range_input_free(RangeInput* input) noexcept nogil:
    cdef size_t i
    for i in range(input.tables_count):
        table_release(input.tables[i])
    kv_free(input.tables)
    kv_free(input.tombstones)
    memset(input, 0, sizeof(RangeInput))


# --- groups ---------------------------------------------------------------------------------

cdef uint64_t first_reader(TableJob* job, bint history) noexcept nogil:
    return min(job.guarded[0], retained(job, history))


cdef uint64_t reader_of(TableJob* job, bint history, uint64_t sequence) noexcept nogil:
    """The first sequence from this one on that somebody may read at."""
    cdef size_t low = 0
    cdef size_t high = job.guarded_count
    cdef size_t middle
    cdef uint64_t retain_from = retained(job, history)
    if sequence >= retain_from:
        return sequence
    while low < high:
        middle = (low + high) >> 1
        if job.guarded[middle] < sequence:
            low = middle + 1
        else:
            high = middle
    if low < job.guarded_count and job.guarded[low] < retain_from:
        return job.guarded[low]
    return retain_from


cdef int tombstones_by_sequence(const void* a, const void* b) noexcept nogil:
    cdef uint64_t left = (<const RangeTombstone*> a).sequence
    cdef uint64_t right = (<const RangeTombstone*> b).sequence
    return -1 if left < right else (1 if left > right else 0)


cdef int spans_by_start(const void* a, const void* b) noexcept nogil:
    return slice_compare((<const RangeTombstone*> a).start, (<const RangeTombstone*> b).start)


cdef bint range_has_below(TableJob* job, Slice start, Slice stop) noexcept nogil:
    """Whether a table below the output level may hold a key of [start, stop)."""
    cdef Level* level
    cdef int number, at
    if job.version == NULL:
        return True
    for number in range(job.output_level + 1, LEVELS):
        level = &job.version.levels[number]
        at = level_find(level, start)
        if at < level.count and slice_compare(
            internal_user_key(level.files[at].smallest), stop
        ) < 0:
            return True
    return False


cdef int add_span(
    RangeJob* ranges, size_t first, const RangeTombstone* over, Slice start, Slice stop
) noexcept nogil:
    """A piece over which this tombstone is the newest; the pieces of the group began with `first`."""
    cdef RangeTombstone* last
    if ranges.spans_count > first:
        last = &ranges.spans[ranges.spans_count - 1]
        if last.sequence == over.sequence and slice_equal(last.stop, start):
            last.stop = stop
            return 0
    if not grow(
        <void**> &ranges.spans, &ranges.spans_capacity, ranges.spans_count, sizeof(RangeTombstone)
    ):
        return -1
    last = &ranges.spans[ranges.spans_count]
    last[0] = over[0]
    last.start = start
    last.stop = stop
    ranges.spans_count += 1
    return 0


cdef int add_spans(RangeJob* ranges, TableJob* job, RangeGroup* group) noexcept nogil:
    """What lives on of a group."""
    cdef RangeRun* run = group.run
    cdef const RangeTombstone* over
    cdef size_t first = ranges.spans_count
    cdef size_t kept, i
    for i in range(2 * <size_t> run.count - 1):
        if slice_equal(run.edges[i], run.edges[i + 1]):
            continue
        over = range_run_find(run, run.edges[i], max_sequence())
        if over != NULL and add_span(ranges, first, over, run.edges[i], run.edges[i + 1]) < 0:
            return -1
    if group.reader != first_reader(job, group.history):
        return 0
    kept = first
    for i in range(first, ranges.spans_count):
        if range_has_below(job, ranges.spans[i].start, ranges.spans[i].stop):
            ranges.spans[kept] = ranges.spans[i]
            kept += 1
    ranges.spans_count = kept
    return 0


cdef int push_piece(
    PodVector[RangeTombstone]* pieces, const RangeTombstone* whole, Slice start, Slice stop
) noexcept nogil:
    cdef RangeTombstone piece = whole[0]
    piece.start = start
    piece.stop = stop
    return pieces.push(piece, kv_realloc)


cdef int cut_by_history(
    const RangeTombstone* whole, const HistoryKeys* keys, PodVector[RangeTombstone]* inside,
    PodVector[RangeTombstone]* outside
) noexcept nogil:
    """The pieces of a tombstone that lie over keys with a history, and those over others."""
    cdef Slice at = whole.start
    cdef Slice stop
    cdef const KeyRange* keys_range
    cdef size_t i
    if keys == NULL:
        return inside.push(whole[0], kv_realloc)
    for i in range(range_from(keys, at), keys.count):
        keys_range = &keys.ranges[i]
        if slice_compare(keys_range.low, whole.stop) >= 0:
            break
        if slice_compare(at, keys_range.low) < 0:
            if push_piece(outside, whole, at, keys_range.low) < 0:
                return -1
            at = keys_range.low
        stop = whole.stop
        if keys_range.high.data != NULL and slice_compare(keys_range.high, stop) < 0:
            stop = keys_range.high
        if push_piece(inside, whole, at, stop) < 0:
            return -1
        at = stop
    if slice_compare(at, whole.stop) < 0:
        return push_piece(outside, whole, at, whole.stop)
    return 0


cdef int add_groups(
    RangeJob* ranges, TableJob* job, bint history, PodVector[RangeTombstone]* pieces
) noexcept nogil:
    cdef RangeGroup* group
    cdef RangeTombstone* tombstones = pieces.data()
    cdef size_t first = 0
    cdef size_t end
    cdef uint64_t reader
    if pieces.size() == 0:
        return 0
    qsort(tombstones, pieces.size(), sizeof(RangeTombstone), tombstones_by_sequence)
    while first < pieces.size():
        reader = reader_of(job, history, tombstones[first].sequence)
        end = first + 1
        while end < pieces.size() and (
            reader_of(job, history, tombstones[end].sequence) == reader
        ):
            end += 1
        group = &ranges.groups[ranges.groups_count]
        group.history = history
        group.reader = reader
        group.run = range_run_new(&tombstones[first], end - first)
        if group.run == NULL:
            return -1
        ranges.groups_count += 1
        first = end
    return 0


cdef int range_job_begin(RangeJob* ranges, TableJob* job) noexcept nogil:
    cdef RangeInput* input = &job.ranges
    cdef PodVector[RangeTombstone] inside
    cdef PodVector[RangeTombstone] outside
    cdef size_t i
    memset(ranges, 0, sizeof(RangeJob))
    if input.count == 0:
        return 0
    for i in range(input.count):
        if cut_by_history(&input.tombstones[i], job.history, &inside, &outside) < 0:
            return -1
    ranges.groups = <RangeGroup*> kv_calloc(inside.size() + outside.size(), sizeof(RangeGroup))
    if ranges.groups == NULL or add_groups(ranges, job, True, &inside) < 0:
        return -1
    ranges.history_groups = ranges.groups_count
    if add_groups(ranges, job, False, &outside) < 0:
        return -1
    for i in range(ranges.groups_count):
        if add_spans(ranges, job, &ranges.groups[i]) < 0:
            return -1
    if ranges.groups_count > 1 and ranges.spans_count:
        qsort(ranges.spans, ranges.spans_count, sizeof(RangeTombstone), spans_by_start)
    return 0


cdef void range_job_free(RangeJob* ranges) noexcept nogil:
    cdef size_t i
    for i in range(ranges.groups_count):
        range_run_release(ranges.groups[i].run)
    kv_free(ranges.groups)
    kv_free(ranges.spans)
    buffer_free(&ranges.frame)
    memset(ranges, 0, sizeof(RangeJob))


cdef const RangeTombstone* range_job_over(
    RangeJob* ranges, TableJob* job, Slice user_key, bint history, uint64_t sequence
) noexcept nogil:
    cdef uint64_t reader = reader_of(job, history, sequence)
    cdef size_t low = 0 if history else ranges.history_groups
    cdef size_t end = ranges.history_groups if history else ranges.groups_count
    cdef size_t high = end
    cdef size_t middle
    cdef const RangeTombstone* over
    while low < high:
        middle = (low + high) >> 1
        if ranges.groups[middle].reader < reader:
            low = middle + 1
        else:
            high = middle
    if low == end or ranges.groups[low].reader != reader or (
        ranges.groups[low].run.highest <= sequence
    ):
        return NULL
    over = range_run_find(ranges.groups[low].run, user_key, max_sequence())
    return over if over != NULL and over.sequence > sequence else NULL


# --- output ---------------------------------------------------------------------------------

cdef inline bint span_reaches(const RangeTombstone* span, Slice low, Slice high) noexcept nogil:
    return (low.data == NULL or slice_compare(span.stop, low) > 0) and (
        high.data == NULL or slice_compare(span.start, high) < 0
    )


cdef bint range_job_reaches(RangeJob* ranges, Slice low, Slice high) noexcept nogil:
    cdef size_t i
    for i in range(ranges.spans_count):
        if span_reaches(&ranges.spans[i], low, high):
            return True
    return False


cdef bint range_job_crosses(RangeJob* ranges, Slice user_key) noexcept nogil:
    cdef size_t i
    for i in range(ranges.spans_count):
        if slice_compare(ranges.spans[i].start, user_key) < 0 and (
            slice_compare(user_key, ranges.spans[i].stop) < 0
        ):
            return True
    return False


cdef int put_bound(Buffer* into, Slice user_key) noexcept nogil:
    """The key before all versions of this user key."""
    cdef uint64_t trailer = trailer_pack(max_sequence(), KIND_RANGE_DELETE)
    into.size = 0
    if buffer_append(into, user_key.data, user_key.size) < 0:
        return -1
    return buffer_append(into, &trailer, TRAILER_BYTES)


cdef int range_job_write(
    RangeJob* ranges, TableBuilder* builder, Slice low, Slice high, Buffer* smallest,
    Buffer* largest, Status* status
) noexcept nogil:
    cdef const RangeTombstone* span
    cdef Slice start, stop
    cdef Slice first = slice_of(NULL, 0)
    cdef Slice last = slice_of(NULL, 0)
    cdef uint64_t lowest = max_sequence()
    cdef uint64_t highest = 0
    cdef uint64_t count = 0
    cdef size_t i
    if range_frame_begin(&ranges.frame) < 0:
        return status_no_memory(status, b"memory for range tombstones")
    for i in range(ranges.spans_count):
        span = &ranges.spans[i]
        if not span_reaches(span, low, high):
            continue
        start = span.start
        stop = span.stop
        if low.data != NULL and slice_compare(start, low) < 0:
            start = low
        if high.data != NULL and slice_compare(stop, high) > 0:
            stop = high
        if range_frame_add(&ranges.frame, start, stop, span.sequence) < 0:
            return status_no_memory(status, b"memory for range tombstones")
        if count == 0:
            first = start
        if count == 0 or slice_compare(stop, last) > 0:
            last = stop
        lowest = min(lowest, span.sequence)
        highest = max(highest, span.sequence)
        count += 1
    range_frame_finish(&ranges.frame, count)
    if put_bound(smallest, first) < 0 or put_bound(largest, last) < 0:
        return status_no_memory(status, b"memory for range tombstones")
    if table_builder_cover(
        builder, slice_of(smallest.data, smallest.size), slice_of(largest.data, largest.size),
        lowest, highest, count, status
    ) < 0:
        return -1
    return table_builder_add_meta(
        builder, b"range-deletes", False, slice_of(ranges.frame.data, ranges.frame.size), status
    )
