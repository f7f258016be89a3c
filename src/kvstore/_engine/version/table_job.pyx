"""Writing tables from an ordered input, and deciding which versions live on.

A version with sequence s, the next newer one of its key being n, is what a reader at q sees where
s <= q < n. It is needed if somebody may read at such a q: an open snapshot, the present, or any
sequence from `retain_from` on, if the key has a history, else from the present on. The newest version
is always needed, except a tombstone with nothing older below it and no reader at a sequence before its
own. What range tombstones let go of besides: range_job.pxd. A table has the pieces of them from its
own beginning to the next one's.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

from kvstore._engine.primitives.native cimport (
    Buffer,
    KIND_DELETE,
    KIND_MAX,
    OK,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_init,
    common_prefix,
    counter_next,
    internal_compare,
    internal_trailer,
    internal_user_key,
    kv_calloc,
    kv_free,
    kv_realloc,
    load_acquire,
    slice_compare,
    slice_of,
    status_clear,
    status_no_memory,
    trailer_kind,
    trailer_pack,
    trailer_sequence,
)
from kvstore._engine.table.native cimport (
    TableBuilder,
    table_builder_add_after,
    table_builder_bytes,
    table_builder_discard,
    table_builder_finish,
    table_builder_last,
    table_builder_open,
)


cdef enum:
    CHECK_INTERVAL = 256            # entries between looks at `cancelled` and the rate
    MAX_GRANDPARENT_TABLES = 10     # a table may overlap so many times its size two levels down
    SKIP_AFTER = 8                  # entries under a range tombstone that are stepped over


cdef struct Progress:
    TableBuilder* builder           # NULL between tables
    uint64_t finished_bytes         # of the tables before the present one
    uint64_t started_ns
    int below[LEVELS]               # for each level: the first table that ends at or after the key
    int grandparent
    uint64_t grandparent_bytes      # overlapped by the present table
    RangeJob ranges
    bint history                    # whether the present user key has one
    int covered                     # entries in a row that a range tombstone let go of
    Buffer seen                     # the user key before, where the input may not know what is shared with it
    size_t shared                   # with the key written last, by what comes next
    bint due                        # the next user key may be where the present table ends
    bint begun                      # the present table begins at `beginning`, not before all keys
    Buffer beginning                # user key
    Buffer low                      # internal keys around the range tombstones of a table
    Buffer high
    Buffer target


# --- the job itself -------------------------------------------------------------------------

cdef TableJob* table_job_new() noexcept nogil:
    return <TableJob*> kv_calloc(1, sizeof(TableJob))


cdef void table_job_free(TableJob* job) noexcept nogil:
    job_input_free(&job.input)
    table_job_clear(job)
    kv_free(job.outputs)
    kv_free(job.guarded)
    range_input_free(&job.ranges)
    kv_free(job)


cdef bint grow(void** array, size_t* capacity, size_t count, size_t item_bytes) noexcept nogil:
    """Room for one more item; False: no memory, nothing changed."""
    cdef size_t larger
    cdef void* moved
    if count < capacity[0]:
        return True
    larger = 2 * capacity[0] if capacity[0] else 16
    moved = kv_realloc(array[0], larger * item_bytes)
    if moved == NULL:
        return False
    array[0] = moved
    capacity[0] = larger
    return True


cdef int table_job_guard(TableJob* job, uint64_t sequence) noexcept nogil:
    if not grow(
        <void**> &job.guarded, &job.guarded_capacity, job.guarded_count, sizeof(uint64_t)
    ):
        return -1
    job.guarded[job.guarded_count] = sequence
    job.guarded_count += 1
    return 0


# --- running it -----------------------------------------------------------------------------

cdef inline uint64_t now_ns() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return <uint64_t> at.tv_sec * 1_000_000_000 + <uint64_t> at.tv_nsec


cdef void keep_to_rate(TableJob* job, Progress* progress) noexcept nogil:
    """Sleeps until the bytes written so far are due, a second at most: there will be a next time."""
    cdef uint64_t written = progress.finished_bytes
    cdef uint64_t due_ns, passed_ns, wait_ns
    cdef timespec wait
    if progress.builder != NULL:
        written += table_builder_bytes(progress.builder)
    due_ns = <uint64_t> (<double> written * 1e9 / <double> job.rate_limit)
    passed_ns = now_ns() - progress.started_ns
    if due_ns <= passed_ns:
        return
    wait_ns = due_ns - passed_ns
    if wait_ns > 1_000_000_000:
        wait_ns = 1_000_000_000
    wait.tv_sec = <long> (wait_ns // 1_000_000_000)
    wait.tv_nsec = <long> (wait_ns % 1_000_000_000)
    nanosleep(&wait, NULL)


cdef inline uint64_t retained(TableJob* job, bint history) noexcept nogil:
    """Somebody may read at every sequence from here on, of a key with a history or without."""
    return job.retain_from if history else job.present


cdef bint needed(TableJob* job, uint64_t sequence, uint64_t newer, uint64_t retain_from) noexcept nogil:
    """Whether somebody may read at a sequence in [sequence, newer)."""
    cdef size_t low = 0
    cdef size_t high = job.guarded_count
    cdef size_t middle
    if newer > retain_from:
        return True
    while low < high:
        middle = (low + high) >> 1
        if job.guarded[middle] < sequence:
            low = middle + 1
        else:
            high = middle
    return low < job.guarded_count and job.guarded[low] < newer


cdef bint nothing_older(TableJob* job, Slice user_key) noexcept nogil:
    """Whether no table of level 0 of what lay there before can hold the key."""
    cdef int i
    for i in range(job.older.levels[0].count):
        if file_overlaps(job.older.levels[0].files[i], &user_key, &user_key):
            return False
    return True


cdef bint nothing_below(TableJob* job, Progress* progress, Slice user_key) noexcept nogil:
    """Whether no table below the output level can hold the key. Keys are asked for ascending."""
    cdef Version* version = job.version
    cdef Level* level
    cdef int number
    if version == NULL:
        version = job.older
        if version == NULL or not nothing_older(job, user_key):
            return False
    for number in range(job.output_level + 1, LEVELS):
        level = &version.levels[number]
        while progress.below[number] < level.count and ends_before(
            level.files[progress.below[number]], user_key
        ):
            progress.below[number] += 1
        if progress.below[number] < level.count and slice_compare(
            internal_user_key(level.files[progress.below[number]].smallest), user_key
        ) <= 0:
            return False
    return True


cdef int begin_table(TableJob* job, Progress* progress, Status* status) noexcept nogil:
    cdef char path[MAX_PATH_BYTES]
    cdef Output* output
    # Room first: once there is a file, it is noted.
    if not grow(<void**> &job.outputs, &job.outputs_capacity, job.outputs_count, sizeof(Output)):
        return status_no_memory(status, b"memory for a table")
    output = &job.outputs[job.outputs_count]
    memset(output, 0, sizeof(Output))
    output.number = counter_next(job.next_number)
    buffer_init(&output.smallest)
    buffer_init(&output.largest)
    table_path(job.directory, output.number, path)
    status.table = output.number
    progress.builder = table_builder_open(
        job.ops, job.disk, path, output.number, NULL, &job.options, status
    )
    if progress.builder == NULL:
        return -1
    job.outputs_count += 1
    progress.grandparent_bytes = 0
    return 0


cdef inline int remember(Buffer* buffer, Slice what, Status* status) noexcept nogil:
    buffer.size = 0
    if buffer_append(buffer, what.data, what.size) < 0:
        return status_no_memory(status, b"memory for a table")
    return 0


cdef inline Slice bytes_in(Buffer* buffer) noexcept nogil:
    return slice_of(buffer.data, buffer.size)


cdef int add_ranges(TableJob* job, Progress* progress, Slice upto, Status* status) noexcept nogil:
    """The present table gets the range tombstones from its beginning to the user key (NULL data: all)."""
    cdef Output* output
    cdef Slice low = slice_of(NULL, 0)
    if progress.begun:
        low = bytes_in(&progress.beginning)
    if not range_job_reaches(&progress.ranges, low, upto):
        return 0
    if progress.builder == NULL and begin_table(job, progress, status) < 0:
        return -1
    if range_job_write(
        &progress.ranges, progress.builder, low, upto, &progress.low, &progress.high, status
    ) < 0:
        return -1
    output = &job.outputs[job.outputs_count - 1]
    if output.smallest.size == 0 or internal_compare(
        bytes_in(&progress.low), bytes_in(&output.smallest)
    ) < 0:
        if remember(&output.smallest, bytes_in(&progress.low), status) < 0:
            return -1
    return remember(&output.largest, bytes_in(&progress.high), status)


cdef int finish_table(TableJob* job, Progress* progress, Slice upto, Status* status) noexcept nogil:
    """The table ends before the user key (NULL data: it is the last one), and the next begins there."""
    cdef Output* output
    cdef TableBuilder* builder
    cdef Slice last = slice_of(NULL, 0)
    if progress.builder != NULL:
        last = table_builder_last(progress.builder)
    if progress.ranges.spans_count and add_ranges(job, progress, upto, status) < 0:
        return -1
    if upto.data != NULL:
        progress.begun = True
        if remember(&progress.beginning, upto, status) < 0:
            return -1
    progress.grandparent_bytes = 0
    if progress.builder == NULL:
        return 0
    output = &job.outputs[job.outputs_count - 1]
    if last.size and (output.largest.size == 0 or internal_compare(
        last, bytes_in(&output.largest)
    ) > 0) and remember(&output.largest, last, status) < 0:
        return -1
    builder = progress.builder
    progress.builder = NULL
    if table_builder_finish(builder, &output.summary, status) < 0:
        # Its file is not among those that table_job_unlink finds whole, so it goes here.
        return -1
    progress.finished_bytes += output.summary.file_bytes
    job.bytes_written += output.summary.file_bytes
    return 0


cdef inline uint64_t most_grandparent_bytes(TableJob* job) noexcept nogil:
    """A table that overlaps more two levels down would make compacting it one day too much work."""
    return MAX_GRANDPARENT_TABLES * job.max_file_bytes


cdef int pass_grandparents(
    TableJob* job, Progress* progress, Slice upto, Status* status
) noexcept nogil:
    """Count the tables two levels down that end before the user key (NULL data: all of them).

    Where a range tombstone goes on over too many of them, the table is cut.
    """
    cdef Level* level
    cdef LiveTable* file
    cdef Slice start
    if job.version == NULL or job.output_level + 1 >= LEVELS:
        return 0
    level = &job.version.levels[job.output_level + 1]
    while progress.grandparent < level.count:
        file = level.files[progress.grandparent]
        if upto.data != NULL and not ends_before(file, upto):
            break
        start = internal_user_key(file.smallest)
        if (
            progress.ranges.spans_count
            and progress.grandparent_bytes > most_grandparent_bytes(job)
            and range_job_crosses(&progress.ranges, start)
            and not (progress.begun and slice_compare(start, bytes_in(&progress.beginning)) <= 0)
            and not (progress.builder != NULL and slice_compare(
                start, internal_user_key(table_builder_last(progress.builder))
            ) <= 0)
            and finish_table(job, progress, start, status) < 0
        ):
            return -1
        progress.grandparent_bytes += file.summary.file_bytes
        progress.grandparent += 1
    return 0


cdef int write_entry(TableJob* job, Progress* progress, Status* status) noexcept nogil:
    """What the input stands on."""
    cdef Slice key = job.input.at.key
    cdef int result
    if progress.builder == NULL:
        if begin_table(job, progress, status) < 0:
            return -1
        if buffer_append(&job.outputs[job.outputs_count - 1].smallest, key.data, key.size) < 0:
            return status_no_memory(status, b"memory for a table")
    result = table_builder_add_after(
        progress.builder, key, progress.shared, job.input.at.value, status
    )
    if result < 0:
        return -1
    progress.due = progress.due or result
    progress.shared = key.size - TRAILER_BYTES
    return 0


cdef int begin_key(TableJob* job, Progress* progress, Slice user_key, Status* status) noexcept nogil:
    """Another user key comes, after a block was written: is the present table to end before it?"""
    progress.due = False
    if pass_grandparents(job, progress, user_key, status) < 0:
        return -1
    if progress.builder != NULL and job.max_file_bytes and (
        table_builder_bytes(progress.builder) >= job.max_file_bytes
        or progress.grandparent_bytes > most_grandparent_bytes(job)
    ):
        return finish_table(job, progress, user_key, status)
    return 0


cdef bint lives_on(
    TableJob* job, Progress* progress, Slice user_key, uint64_t trailer, bint newest, uint64_t newer
) noexcept nogil:
    """Whether a version stays, range tombstones aside. `newer`: of the one before it, if it isn't `newest`."""
    cdef uint64_t sequence = trailer_sequence(trailer)
    cdef uint64_t retain_from = retained(job, progress.history)
    if not newest and (sequence == newer or not needed(job, sequence, newer, retain_from)):
        return False            # the same version from an older source, or nobody reads it
    return not (
        trailer_kind(trailer) == KIND_DELETE
        and sequence <= job.guarded[0]
        and sequence <= retain_from
        and nothing_below(job, progress, user_key)
    )


cdef bint skip_covered(
    TableJob* job, Progress* progress, const RangeTombstone* over, Status* status
) noexcept nogil:
    """Takes what is older than the tombstone's source past its end: the input was moved. See status."""
    cdef uint64_t trailer = trailer_pack(max_sequence(), KIND_MAX)
    progress.covered += 1
    # Only where nobody reads before the tombstone is all of it let go of.
    if progress.covered % SKIP_AFTER or over.sequence > first_reader(job, progress.history):
        return False
    if remember(&progress.seen, internal_user_key(job.input.at.key), status) < 0:
        return False
    if remember(&progress.target, over.stop, status) < 0:
        return False
    if buffer_append(&progress.target, &trailer, TRAILER_BYTES) < 0:
        status_no_memory(status, b"memory for range tombstones")
        return False
    return job_input_skip(&job.input, over.source, bytes_in(&progress.target))


cdef int write_all(TableJob* job, Progress* progress, Status* status) noexcept nogil:
    cdef JobInput* input = &job.input
    cdef const RangeTombstone* over
    cdef Slice user_key, seen
    cdef uint64_t trailer
    cdef uint64_t newer = 0         # the sequence of the version of the key before this one
    cdef size_t size_before = 0     # of that user key
    cdef size_t shared
    cdef bint first = True          # no version of any key was seen yet
    cdef bint newest, keep
    progress.due = True
    job_input_first(input)
    while input.at != NULL:
        job.entries_read += 1
        if job.entries_read % CHECK_INTERVAL == 0:
            if load_acquire(job.cancelled):
                return -1
            if job.rate_limit:
                keep_to_rate(job, progress)
        user_key = internal_user_key(input.at.key)
        trailer = internal_trailer(input.at.key)
        shared = input.shared
        if shared == shared_unknown():
            seen = bytes_in(&progress.seen)
            shared = common_prefix(seen.data, seen.size, user_key.data, user_key.size)
        newest = first or shared < user_key.size or user_key.size != size_before
        size_before = user_key.size
        if shared < progress.shared:
            progress.shared = shared
        if newest:
            first = False
            progress.history = job.history == NULL or has_history(job.history, user_key)
            if (
                progress.due or progress.builder == NULL or progress.ranges.spans_count
            ) and begin_key(job, progress, user_key, status) < 0:
                return -1
        keep = lives_on(job, progress, user_key, trailer, newest, newer)
        newer = trailer_sequence(trailer)
        if user_key.size >= SHARED_MOST and remember(&progress.seen, user_key, status) < 0:
            return -1
        if progress.ranges.groups_count:
            over = range_job_over(&progress.ranges, job, user_key, progress.history, newer)
            if over != NULL:
                job.entries_dropped += 1
                if not skip_covered(job, progress, over, status):
                    job_input_next(input)
                if status.code != OK:
                    return -1
                continue
            progress.covered = 0
        if not keep:
            job.entries_dropped += 1
        elif write_entry(job, progress, status) < 0:
            return -1
        job_input_next(input)
    if input.status.code != OK:
        status[0] = input.status
        return -1
    if progress.ranges.spans_count and pass_grandparents(
        job, progress, slice_of(NULL, 0), status
    ) < 0:
        return -1
    return finish_table(job, progress, slice_of(NULL, 0), status)


cdef int table_job_run(TableJob* job, Status* status) noexcept nogil:
    cdef Progress progress
    cdef int result
    memset(&progress, 0, sizeof(Progress))
    status_clear(status)
    if job.rate_limit:
        progress.started_ns = now_ns()
    if range_job_begin(&progress.ranges, job) < 0:
        result = status_no_memory(status, b"memory for range tombstones")
    else:
        result = write_all(job, &progress, status)
    range_job_free(&progress.ranges)
    buffer_free(&progress.beginning)
    buffer_free(&progress.low)
    buffer_free(&progress.high)
    buffer_free(&progress.target)
    buffer_free(&progress.seen)
    if result < 0:
        if progress.builder != NULL:
            table_builder_discard(progress.builder)
        table_job_unlink(job)
        table_job_clear(job)
    return result


cdef void table_job_clear(TableJob* job) noexcept nogil:
    cdef size_t i
    for i in range(job.outputs_count):
        buffer_free(&job.outputs[i].smallest)
        buffer_free(&job.outputs[i].largest)
    job.outputs_count = 0


cdef void table_job_unlink(TableJob* job) noexcept nogil:
    cdef char path[MAX_PATH_BYTES]
    cdef size_t i
    for i in range(job.outputs_count):
        table_path(job.directory, job.outputs[i].number, path)
        # What stays behind because this fails is removed at the next open.
        job.ops.unlink(job.disk, path)
