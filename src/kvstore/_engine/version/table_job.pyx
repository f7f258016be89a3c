"""Writing tables from an ordered input, and deciding which versions live on.

A version with sequence s, the next newer one of its key being n, is what a reader at q sees where
s <= q < n. It is needed if somebody may read at such a q: an open snapshot, the present, or any
sequence from `retain_from` on. The newest version is always needed, except a tombstone with
nothing older below it and no reader at a sequence before its own.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

from kvstore._engine.primitives.native cimport (
    Buffer,
    Cursor,
    KIND_DELETE,
    OK,
    Slice,
    Status,
    buffer_append,
    buffer_free,
    buffer_init,
    counter_next,
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
    trailer_sequence,
)
from kvstore._engine.table.native cimport (
    TableBuilder,
    table_builder_add,
    table_builder_bytes,
    table_builder_discard,
    table_builder_finish,
    table_builder_open,
)


cdef enum:
    CHECK_INTERVAL = 256            # entries between looks at `cancelled` and the rate
    MAX_GRANDPARENT_TABLES = 10     # a table may overlap so many times its size two levels down


cdef struct Progress:
    TableBuilder* builder           # NULL between tables
    uint64_t finished_bytes         # of the tables before the present one
    uint64_t started_ns
    int below[LEVELS]               # for each level: the first table that ends at or after the key
    int grandparent
    uint64_t grandparent_bytes      # overlapped by the present table


# --- the job itself -------------------------------------------------------------------------

cdef TableJob* table_job_new() noexcept nogil:
    return <TableJob*> kv_calloc(1, sizeof(TableJob))


cdef void table_job_free(TableJob* job) noexcept nogil:
    if job.input != NULL:
        job.input.free(job.input)
    table_job_clear(job)
    kv_free(job.outputs)
    kv_free(job.guarded)
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


cdef bint needed(TableJob* job, uint64_t sequence, uint64_t newer) noexcept nogil:
    """Whether somebody may read at a sequence in [sequence, newer)."""
    cdef size_t low = 0
    cdef size_t high = job.guarded_count
    cdef size_t middle
    if newer > job.retain_from:
        return True
    while low < high:
        middle = (low + high) >> 1
        if job.guarded[middle] < sequence:
            low = middle + 1
        else:
            high = middle
    return low < job.guarded_count and job.guarded[low] < newer


cdef bint nothing_below(TableJob* job, Progress* progress, Slice user_key) noexcept nogil:
    """Whether no table below the output level can hold the key. Keys are asked for ascending."""
    cdef Level* level
    cdef int number
    if job.version == NULL:
        return False
    for number in range(job.output_level + 1, LEVELS):
        level = &job.version.levels[number]
        while progress.below[number] < level.count and slice_compare(
            internal_user_key(level.files[progress.below[number]].largest), user_key
        ) < 0:
            progress.below[number] += 1
        if progress.below[number] < level.count and slice_compare(
            internal_user_key(level.files[progress.below[number]].smallest), user_key
        ) <= 0:
            return False
    return True


cdef bint overlaps_too_much(TableJob* job, Progress* progress, Slice user_key) noexcept nogil:
    """Whether going on with this table would make compacting it one day too much work."""
    cdef Level* level
    if job.version == NULL or job.output_level + 1 >= LEVELS:
        return False
    level = &job.version.levels[job.output_level + 1]
    while progress.grandparent < level.count and slice_compare(
        internal_user_key(level.files[progress.grandparent].largest), user_key
    ) < 0:
        progress.grandparent_bytes += level.files[progress.grandparent].summary.file_bytes
        progress.grandparent += 1
    return progress.grandparent_bytes > MAX_GRANDPARENT_TABLES * job.max_file_bytes


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


cdef int finish_table(TableJob* job, Progress* progress, Buffer* last, Status* status) noexcept nogil:
    cdef Output* output = &job.outputs[job.outputs_count - 1]
    cdef TableBuilder* builder = progress.builder
    progress.builder = NULL
    if table_builder_finish(builder, &output.summary, status) < 0:
        # Its file is not among those that table_job_unlink finds whole, so it goes here.
        return -1
    if buffer_append(&output.largest, last.data, last.size) < 0:
        return status_no_memory(status, b"memory for a table")
    progress.finished_bytes += output.summary.file_bytes
    job.bytes_written += output.summary.file_bytes
    return 0


cdef int write_entry(TableJob* job, Progress* progress, Slice key, Slice value, Status* status) noexcept nogil:
    if progress.builder == NULL:
        if begin_table(job, progress, status) < 0:
            return -1
        if buffer_append(&job.outputs[job.outputs_count - 1].smallest, key.data, key.size) < 0:
            return status_no_memory(status, b"memory for a table")
    return table_builder_add(progress.builder, key, value, status)


cdef inline int remember(Buffer* buffer, Slice what, Status* status) noexcept nogil:
    buffer.size = 0
    if buffer_append(buffer, what.data, what.size) < 0:
        return status_no_memory(status, b"memory for a table")
    return 0


cdef int write_all(
    TableJob* job, Progress* progress, Buffer* key, Buffer* written, Status* status
) noexcept nogil:
    cdef Cursor* input = job.input
    cdef Slice user_key
    cdef uint64_t trailer, sequence
    cdef uint64_t newer = 0         # the sequence of the version of `key` before this one
    cdef bint first = True          # no version of any key was seen yet
    cdef bint keep
    input.seek_to_first(input)
    while input.valid:
        job.entries_read += 1
        if job.entries_read % CHECK_INTERVAL == 0:
            if load_acquire(job.cancelled):
                return -1
            if job.rate_limit:
                keep_to_rate(job, progress)
        user_key = internal_user_key(input.key)
        trailer = internal_trailer(input.key)
        sequence = trailer_sequence(trailer)
        if first or slice_compare(user_key, slice_of(key.data, key.size)) != 0:
            first = False
            if remember(key, user_key, status) < 0:
                return -1
            if progress.builder != NULL and job.max_file_bytes and (
                table_builder_bytes(progress.builder) >= job.max_file_bytes
                or overlaps_too_much(job, progress, user_key)
            ):
                if finish_table(job, progress, written, status) < 0:
                    return -1
            keep = not (
                trailer_kind(trailer) == KIND_DELETE
                and sequence <= job.guarded[0]
                and sequence <= job.retain_from
                and nothing_below(job, progress, user_key)
            )
        elif sequence == newer:
            keep = False            # the same version from an older source
        else:
            keep = needed(job, sequence, newer)
            if keep and trailer_kind(trailer) == KIND_DELETE and (
                sequence <= job.guarded[0] and sequence <= job.retain_from
                and nothing_below(job, progress, user_key)
            ):
                keep = False
        newer = sequence
        if not keep:
            job.entries_dropped += 1
        elif write_entry(job, progress, input.key, input.value, status) < 0 or remember(
            written, input.key, status
        ) < 0:
            return -1
        input.next(input)
    if input.status.code != OK:
        status[0] = input.status
        return -1
    if progress.builder != NULL:
        return finish_table(job, progress, written, status)
    return 0


cdef int table_job_run(TableJob* job, Status* status) noexcept nogil:
    cdef Progress progress
    cdef Buffer key
    cdef Buffer written
    cdef int result
    memset(&progress, 0, sizeof(Progress))
    buffer_init(&key)
    buffer_init(&written)
    status_clear(status)
    if job.rate_limit:
        progress.started_ns = now_ns()
    result = write_all(job, &progress, &key, &written, status)
    buffer_free(&key)
    buffer_free(&written)
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
