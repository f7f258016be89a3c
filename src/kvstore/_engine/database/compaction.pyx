"""Doing flushes and compactions. What to compact: compaction_pick.pyx."""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    BytesView,
    OK,
    PodVector,
    Slice,
    Status,
    gil_ask,
    gil_have,
    internal_user_key,
    kv_realloc,
    load_acquire,
    slice_compare,
    slice_of,
    status_clear,
    status_error,
    status_error_in,
    view_close,
    view_open,
)
from kvstore._engine.files.native cimport os_failure
from kvstore._engine.log.native cimport Log
from kvstore._engine.memtable.native cimport (
    MemTable,
    memtable_cursor,
    memtable_entries,
    memtable_release,
    memtable_retain,
    memtable_used,
)
from kvstore._engine.version.native cimport (
    Change,
    LEVELS,
    Level,
    LiveTable,
    Output,
    TableJob,
    Version,
    file_overlaps,
    history_reaches,
    job_input_add,
    job_input_add_tables,
    level_range,
    live_table_new,
    live_table_release,
    open_tables_expect_unwanted,
    open_tables_remove_expected,
    range_input_add,
    range_input_add_table,
    table_job_free,
    table_job_guard,
    table_job_new,
    table_job_run,
    table_job_unlink,
    version_release,
    version_release_removing,
    version_retain,
)
from kvstore._engine.version.native import Edit

from kvstore.errors import StorageError


cdef enum:
    MAX_RANGE_TABLES = 8            # of one level that a step of compact_range takes along


# --- running a job --------------------------------------------------------------------------

cdef TableJob* new_job(Store store, int output_level, Version* version, uint64_t max_file_bytes) except NULL:
    cdef TableJob* job = table_job_new()
    if job == NULL:
        raise MemoryError("no memory for a compaction")
    job.ops = store.disk.ops
    job.disk = store.disk.disk
    job.directory = store.tables.directory
    job.options = store.table_options
    job.max_file_bytes = max_file_bytes
    job.next_number = &store.next_number
    # Writes that still await their sync become visible one by one while the job runs, some perhaps
    # while the snapshots are listed: this first.
    job.present = store.visible
    job.retain_from = min(store.retain_from, job.present)
    job.history = store.history
    try:
        for sequence in store.protected_sequences():
            if table_job_guard(job, sequence) < 0:
                raise MemoryError("no memory for a compaction")
    except MemoryError:
        table_job_free(job)
        raise
    store.history_from = max(store.history_from, job.retain_from)
    job.version = version
    job.output_level = output_level
    job.cancelled = &store.stop_jobs
    return job


cdef int run_job(Store store, TableJob* job, Task task, Log log) except -1:
    """1 when done, 0 when the store is closing. Of `task`, if any, a table that is bad is noted.

    All that has to be durable before the tables are named is, with the GIL given up once: `log`, if
    any, up to what was written until now.
    """
    cdef Status status
    cdef Status log_status
    cdef bint logs = log is not None
    cdef bint merges = task is not None
    cdef int log_result = 0
    cdef int synced = 0
    cdef int result
    status_clear(&status)
    with nogil:
        result = add_task_ranges(job, task, &status) if merges else 0
        if result == 0:
            result = table_job_run(job, &status)
        if result == 0 and logs:
            log_result = log.sync_to(log.position(), &log_status)
        if result == 0 and job.outputs_count:
            # The manifest must not name a file whose own name a power loss can take.
            synced = job.ops.sync_directory(job.disk, job.directory)
        gil_ask()
    gil_have()
    if result == 0:
        if log_result < 0:
            check_log(store, status_error(&log_status, log.path))
        if synced < 0:
            raise unwanted(store, job, os_failure(synced, b"syncing a directory", store.path))
        return 1
    if status.code == OK:
        return 0
    error = status_error_in(&status, store.path)
    if task is not None and not is_retryable(error):
        note_damage(store, task, status.table, error)
    raise error


cdef int check_log(Store store, object error) except -1:
    """Raises why the log could not be synced, unless it only lacked something."""
    if store.log_has_failed() or not is_retryable(error):
        store.fail(error)
        raise error
    return 0


cdef object unwanted(Store store, TableJob* job, object error):
    """Its outputs go, unless the manifest may hold an edit that names them."""
    if store.failure is None and is_retryable(error):
        with nogil:
            table_job_unlink(job)
    return error


cdef int note_damage(Store store, Task task, uint64_t number, object error) except -1:
    """Nobody's data is worse off for it than before: other compactions go on, and all writes."""
    cdef size_t i
    for i in range(task.upper.size()):
        if task.upper[i].number == number:
            task.upper[i].damaged = True
            store.damaged_tables[number] = error
    for i in range(task.lower.size()):
        if task.lower[i].number == number:
            task.lower[i].damaged = True
            store.damaged_tables[number] = error
    return 0


cdef int install_outputs(
    Store store, TableJob* job, int level, object edit, PodVector[Change]* removed, int frozen_done,
    Version** old
) except -1:
    """The tables of a finished job become current; `old` as of Store.replace."""
    cdef PodVector[Change] added
    cdef Change change
    cdef Output* output
    cdef size_t i
    if added.reserve(job.outputs_count, kv_realloc) < 0:
        raise MemoryError("no memory for tables")
    try:
        for i in range(job.outputs_count):
            output = &job.outputs[i]
            change.level = level
            change.file = live_table_new(
                store.tables, output.number, &output.summary,
                slice_of(output.smallest.data, output.smallest.size),
                slice_of(output.largest.data, output.largest.size),
            )
            if change.file == NULL:
                raise MemoryError("no memory for a table")
            added.push_reserved(change)
            edit.added.append(table_entry(level, change.file))
        store.replace(
            edit, removed.data(), <int> removed.size(), added.data(), <int> added.size(), frozen_done,
            old,
        )
    except Exception as error:
        # What lacked memory once the version had them takes nothing back.
        if added.size() == 0 or not is_current(store.version, added[0].file.number):
            unwanted(store, job, error)
        raise
    finally:
        for i in range(added.size()):
            live_table_release(added[i].file)
    return 0


# --- flush ----------------------------------------------------------------------------------

cdef struct LogRemoval:
    int result                  # of Log.drop_segments_before
    uint64_t failed


cdef int add_memory_ranges(TableJob* job, MemTable* table, int source) except -1:
    cdef int i
    for i in range(table.ranges.runs_count):
        if range_input_add(&job.ranges, table.ranges.runs[i], source) < 0:
            raise MemoryError("no memory for a flush")
    return 0


cdef bint flush_oldest(Store store) except -1:
    cdef LogRemoval removal
    cdef bint done
    with store.flushing:
        if store.frozen_count == 0:
            return False
        store.check_writable()
        try:
            try:
                done = write_frozen(store, 1, &removal)
            except Exception as error:
                if not is_lack_of_space(error):
                    if not store.make_space(error):
                        raise
                    done = write_frozen(store, 1, &removal)
                else:
                    done = write_without_space(store, error, &removal)
        except Exception as error:
            store.job_failed(store.flush_retry, error)
            raise
        if done:
            log_removed(store, removal.result, removal.failed)
            store.job_done(store.flush_retry)
    return done


cdef bint write_without_space(Store store, object error, LogRemoval* removal) except -1:
    """The disk is full: what newer memtables delete of the oldest need not be written at all."""
    cdef int i
    if remove_kept_log(store) or store.make_space(error):
        try:
            return write_frozen(store, 1, removal)
        except StorageError as again:
            if not is_lack_of_space(again):
                raise
    # One memtable more than writers may fill, at most.
    if store.memory.ranges.count and store.frozen_count <= store.max_frozen < MAX_FROZEN:
        store.freeze()
    for i in range(store.frozen_count - 1):
        if store.frozen[i].table.ranges.count:
            return write_frozen(store, store.frozen_count, removal)
    raise error


cdef int add_memory(TableJob* job, MemTable* table, int source) except -1:
    """The next older source: the caller keeps the memtable, to which nothing is added any more."""
    if job_input_add(&job.input, memtable_cursor(table), True) < 0:
        raise MemoryError("no memory for a flush")
    return add_memory_ranges(job, table, source)


cdef bint write_frozen(Store store, int count, LogRemoval* removal) except -1:
    """The `count` oldest frozen memtables into tables, as one run. Under `flushing`.

    Takes the GIL three times: after the job, after the manifest, and after all that is left to go.
    """
    cdef TableJob* job
    cdef PodVector[Change] nothing
    cdef MemTable* tables[MAX_FROZEN]
    cdef Log log
    cdef Version* older = NULL
    cdef Version* old = NULL
    cdef uint64_t log_end = 0
    cdef size_t memory_bytes = 0
    cdef int newest = store.frozen_count - count
    cdef uint64_t last = store.frozen[newest].last_sequence
    cdef int i
    edit = Edit(
        flushed_sequence=last, last_sequence=last, applied_index=store.frozen[newest].applied_index
    )
    job = new_job(store, 0, NULL, 0)
    if not store.replacing:
        # A tombstone whose key no table has is needed by nobody: an entry of a queue, put and deleted.
        older = job.older = store.version
        version_retain(older)
    # Others may freeze more memtables meanwhile.
    for i in range(count):
        tables[i] = store.frozen[newest + i].table
        memtable_retain(tables[i])
        memory_bytes += memtable_used(tables[i])
    store.pace.flush_began_s = now_s()
    try:
        for i in range(count):
            add_memory(job, tables[i], i)
        # A segment goes only when a later one is known to be durable.
        if not run_job(store, job, None, store.log):
            return False
        rest_log(store, edit.flushed_sequence)
        try:
            store.describe_log(edit, edit.flushed_sequence)
            install_outputs(store, job, 0, edit, &nothing, count, &old)
        except BaseException:
            # A feed that was opened meanwhile awaits the next segment.
            if store.log is not None and not store.feeds:
                store.log.cancel_rest()
            raise
        log_end = flushed_log_end(store)
        log = store.log
        note_flush(&store.pace, now_s() - store.pace.flush_began_s, memory_bytes)
        store.flushes += 1
        store.flushed_bytes += job.bytes_written
        store.dropped_entries += job.entries_dropped
    finally:
        store.pace.flush_began_s = 0
        removal.result = 0
        with nogil:
            table_job_free(job)
            # Before files are removed, which takes long.
            for i in range(count):
                memtable_release(tables[i])
            if log_end:
                removal.result = log.drop_segments_before(log_end, &removal.failed)
            if older != NULL:
                version_release(older)
            if old != NULL:
                # A flush has better things to do than to remove tables, where there are threads that
                # do compactions.
                if store.threads_begun:
                    version_release(old)
                else:
                    version_release_removing(old, store.tables)
            gil_ask()
        gil_have()
    return True


# --- doing ----------------------------------------------------------------------------------

cdef int add_task_input(TableJob* job, Task task) except -1:
    """All tables, newest first; those of a sorted level are one source."""
    cdef int upper_count = <int> task.upper.size()
    cdef int result = 0
    cdef int i
    if task.level == 0:
        for i in range(upper_count):
            result = min(result, job_input_add_tables(&job.input, &task.upper[i], 1))
    else:
        result = job_input_add_tables(&job.input, task.upper.data(), upper_count)
    if task.lower.size():
        result = min(result, job_input_add_tables(
            &job.input, task.lower.data(), <int> task.lower.size()
        ))
    if result < 0:
        raise MemoryError("no memory for a compaction")
    return 0


cdef int add_task_ranges(TableJob* job, Task task, Status* status) noexcept nogil:
    """The range tombstones of all inputs, each with the source of add_task_input that it belongs to."""
    cdef size_t i
    cdef int child = 0
    cdef int result = 0
    for i in range(task.upper.size()):
        if result == 0 and task.upper[i].summary.range_deletes:
            result = range_input_add_table(&job.ranges, task.upper[i], child, status)
        child += task.level == 0
    child += task.level != 0
    for i in range(task.lower.size()):
        if result == 0 and task.lower[i].summary.range_deletes:
            result = range_input_add_table(&job.ranges, task.lower[i], child, status)
    return result


cdef int note_removals(Task task, object edit, PodVector[Change]* removed) except -1:
    cdef Change change
    cdef size_t i
    if removed.reserve(task.upper.size() + task.lower.size(), kv_realloc) < 0:
        raise MemoryError("no memory for a compaction")
    for i in range(task.upper.size()):
        change.level = task.level
        change.file = task.upper[i]
        removed.push_reserved(change)
        edit.removed.append((task.level, change.file.number))
    for i in range(task.lower.size()):
        change.level = task.output_level
        change.file = task.lower[i]
        removed.push_reserved(change)
        edit.removed.append((task.output_level, change.file.number))
    return 0


cdef int move(Store store, Task task) except -1:
    """Nothing to merge: the tables change their level and stay what they are."""
    cdef PodVector[Change] added
    cdef PodVector[Change] removed
    cdef Change change
    cdef size_t i
    edit = Edit()
    note_removals(task, edit, &removed)
    if added.reserve(task.upper.size(), kv_realloc) < 0:
        raise MemoryError("no memory for a compaction")
    for i in range(task.upper.size()):
        change.level = task.output_level
        change.file = task.upper[i]
        added.push_reserved(change)
        edit.added.append(table_entry(task.output_level, change.file))
    store.install(
        edit, removed.data(), <int> removed.size(), added.data(), <int> added.size()
    )
    store.trivial_moves += 1
    return 0


cdef int merge(Store store, Task task) except -1:
    """Takes the GIL three times, as a flush does. Afterwards the task holds no version."""
    cdef TableJob* job = new_job(store, task.output_level, task.version, store.max_file_bytes)
    cdef PodVector[Change] removed
    cdef Version* old = NULL
    cdef Version* merged = NULL
    cdef double began = now_s()
    cdef size_t i
    job.rate_limit = store.options.compaction_rate_limit
    try:
        add_task_input(job, task)
        if not run_job(store, job, task, None):
            return 0
        edit = Edit()
        note_removals(task, edit, &removed)
        install_outputs(store, job, task.output_level, edit, &removed, 0, &old)
        if task.level == 0:
            note_level0(&store.pace, now_s() - began, task.upper.size())
        store.compactions += 1
        store.compacted_bytes += job.bytes_written
        store.dropped_entries += job.entries_dropped
        for i in range(removed.size()):
            store.compaction_read_bytes += removed[i].file.summary.file_bytes
        mark(task, False)
        merged = task.version
        task.version = NULL
    finally:
        with nogil:
            table_job_free(job)
            open_tables_expect_unwanted(store.tables)
            if merged != NULL:
                version_release(merged)
            if old != NULL:
                version_release(old)
            # The files that nobody reads any more take long to remove: others go on.
            open_tables_remove_expected(store.tables)
            gil_ask()
        gil_have()
    return 0


cdef bint may_be_moved(Store store, Task task) except -1:
    cdef OldestReads oldest = oldest_reads(store)
    cdef size_t i
    if task.output_level == task.level:
        return False
    for i in range(task.upper.size()):
        # Moved, it would bring all its garbage along, and in the lowest level keep it.
        if mostly_garbage(store, task.upper[i], &oldest) or (
            task.upper[i].summary.range_deletes and is_past(store, task.upper[i], &oldest)
        ):
            return False
    return task.lower.empty() and (task.level > 0 or task.upper.size() == 1)


cdef int run_task(Store store, Task task, bint may_move) except -1:
    store.check_writable()
    may_move = may_move and may_be_moved(store, task)
    store.running_tasks += 1
    try:
        do_task(store, task, may_move)
    finally:
        store.running_tasks -= 1
        store.changed.advance()
        # Background threads may have found nothing that they could pick beside it.
        store.call_for_compaction()
    return 0


cdef int do_task(Store store, Task task, bint may_move) except -1:
    try:
        try:
            move(store, task) if may_move else merge(store, task)
        except Exception as error:
            if not store.make_space(error):
                raise
            move(store, task) if may_move else merge(store, task)
    except Exception as error:
        # Before it is announced.
        mark(task, False)
        store.job_failed(store.compaction_retry, error)
        raise
    mark(task, False)
    store.job_done(store.compaction_retry)
    return 0


cdef bint compact_once(Store store) except -1:
    cdef Task task = pick(store)
    if task is None:
        return False
    try:
        run_task(store, task, True)
    except StorageError as error:
        # It is left alone from here on; the next task may do without it.
        if not any(error is known for known in store.damaged_tables.values()):
            raise
    return True


cdef Task pick_range(Store store, int number, const Slice* low, const Slice* high):
    """All of a level's tables that overlap the range, with what must go along. None: none, or busy."""
    cdef Task task
    cdef Level* level = &store.version.levels[number]
    cdef int first = 0
    cdef int end = level.count
    cdef int i
    if number == 0:
        for i in range(level.count):
            if file_overlaps(level.files[i], low, high):
                return pick_level_zero(store)
        return None
    level_range(level, low, high, &first, &end)
    # A bounded piece at a time: the next call takes the next one.
    end = min(end, first + MAX_RANGE_TABLES)
    if first >= end or any_taken(level.files, first, end):
        return None
    task = new_task(store, number, number + 1)
    for i in range(first, end):
        push(&task.upper, level.files[i])
    return task if add_lower(task) else None


cdef bint holds_garbage(Store store, LiveTable* file, const OldestReads* oldest) noexcept:
    """Whether some of the table may be something that nobody needs any more."""
    cdef bint any = file.summary.tombstones or file.summary.superseded or file.summary.range_deletes
    if file.summary.min_sequence <= oldest.of_history:
        return any
    return any and file.summary.min_sequence <= oldest.of_others and not history_reaches(
        store.history, internal_user_key(file.smallest), internal_user_key(file.largest)
    )


cdef Task pick_garbage(
    Store store, int number, const Slice* low, const Slice* high, uint64_t newest, bint* busy
):
    """Tables of the range's lowest level, neighbours, that hold garbage; none newer than `newest`."""
    cdef OldestReads oldest = oldest_reads(store)
    cdef Level* level = &store.version.levels[number]
    cdef LiveTable* file
    cdef int first, end, i
    cdef int begin = -1
    level_range(level, low, high, &first, &end)
    busy[0] = False
    for i in range(first, end):
        file = level.files[i]
        if file.number > newest or file.damaged or not holds_garbage(store, file, &oldest):
            continue
        if file.compacting:
            busy[0] = True
            continue
        begin = i
        break
    if begin < 0:
        return None
    i = begin + 1
    while i < min(end, begin + MAX_RANGE_TABLES) and level.files[i].number <= newest and (
        not any_taken(level.files, i, i + 1) and holds_garbage(store, level.files[i], &oldest)
    ):
        i += 1
    return rewriting(store, number, begin, i)


cdef int rewrite_garbage(
    Store store, int number, const Slice* low, const Slice* high, uint64_t newest
) except -1:
    """In the lowest level nothing is merged with: what went there is written anew by itself."""
    cdef Task task
    cdef bint busy
    while True:
        store.check_writable()
        seen = store.changed.count
        task = pick_garbage(store, number, low, high, newest, &busy)
        if task is not None:
            run_task(store, task, False)
            continue
        if not busy:
            return 0
        store.changed.wait(seen)


cdef bint range_has_tables(Store store, int number, const Slice* low, const Slice* high) noexcept:
    cdef Level* level = &store.version.levels[number]
    cdef int first = 0
    cdef int end = level.count
    cdef int i
    if number == 0:
        for i in range(level.count):
            if file_overlaps(level.files[i], low, high):
                return True
        return False
    level_range(level, low, high, &first, &end)
    return first < end


cdef bint any_compacting(Store store) noexcept:
    cdef int level, i
    for level in range(LEVELS):
        for i in range(store.version.levels[level].count):
            if store.version.levels[level].files[i].compacting:
                return True
    return False


cdef int last_level_of_range(Store store, const Slice* low, const Slice* high) noexcept:
    cdef int number
    for number in range(LEVELS - 1, 0, -1):
        if range_has_tables(store, number, low, high):
            return number
    return 1


cdef int compact_range(Store store, object start, object stop) except -1:
    """Level by level down to the lowest one that the range is in now (level 1 at least); then that one."""
    cdef BytesView low_view
    cdef BytesView high_view
    cdef Slice* low = NULL
    cdef Slice* high = NULL
    cdef Task task
    cdef int number, bottom
    cdef uint64_t newest = load_acquire(&store.next_number)
    low_view.held = high_view.held = False
    try:
        if start is not None:
            view_open(start, &low_view, "start")
            low = &low_view.slice
        if stop is not None:
            view_open(stop, &high_view, "stop")
            high = &high_view.slice
        bottom = last_level_of_range(store, low, high)
        number = 0
        while number < bottom:
            store.check_writable()
            if not range_has_tables(store, number, low, high):
                number += 1
                continue
            seen = store.changed.count
            task = pick_range(store, number, low, high)
            if task is not None:
                run_task(store, task, False)
                continue
            # Another job holds some of it, and its end is announced; or a damaged table does.
            if any_compacting(store):
                store.changed.wait(seen)
            elif store.damaged_tables:
                raise next(iter(store.damaged_tables.values()))
        rewrite_garbage(store, bottom, low, high, newest)
    finally:
        view_close(&low_view)
        view_close(&high_view)
    return 0
