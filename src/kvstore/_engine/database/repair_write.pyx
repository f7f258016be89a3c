"""The tables that a repair writes: all versions of all keys, none dropped."""

import os

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport (
    BytesView,
    PodVector,
    Status,
    kv_realloc,
    slice_of,
    status_clear,
    status_error_in,
    view_close,
    view_open,
)
from kvstore._engine.files.native cimport FileSystem, sync_directory
from kvstore._engine.memtable.native cimport memtable_entries
from kvstore._engine.table.native cimport TableSummary
from kvstore._engine.version.native cimport (
    LiveTable,
    OpenTables,
    TableJob,
    entry_of,
    entry_summary,
    job_input_add_tables,
    live_table_new,
    live_table_release,
    open_tables_new,
    open_tables_release,
    range_input_add_table,
    table_job_free,
    table_job_guard,
    table_job_new,
    table_job_run,
)

cdef enum:
    MERGED_LEVEL = 1
    REPAIR_FILE_BYTES = 1 << 25
    REPAIR_OPEN_TABLES = 1000
    BLOCK_BYTES = 4096
    RESTART_INTERVAL = 16
    BLOOM_BITS = 10


cdef list run_repair_job(
    FileSystem disk, str path, bytes raw, TableJob* job, int level, uint64_t* next_number
):
    """Write all of the job's input; the TableEntry of each table."""
    cdef Status status
    cdef uint64_t stop = 0
    cdef int result
    cdef size_t i
    job.ops = disk.ops
    job.disk = disk.disk
    job.directory = raw
    job.options.block_bytes = BLOCK_BYTES
    job.options.restart_interval = RESTART_INTERVAL
    job.options.bloom_bits = BLOOM_BITS
    job.options.compression = 0
    # Tables of level 0 overlap as they like, but one key's versions must not be split among them.
    job.max_file_bytes = REPAIR_FILE_BYTES if level else 0
    job.next_number = next_number
    if table_job_guard(job, 0) < 0:
        raise MemoryError("no memory for the tables")
    job.retain_from = 0
    job.version = NULL
    job.output_level = level
    job.cancelled = &stop
    with nogil:
        result = table_job_run(job, &status)
    if result < 0:
        raise status_error_in(&status, path)
    sync_directory(disk, path)
    return [
        entry_of(
            level, job.outputs[i].number, &job.outputs[i].summary,
            slice_of(job.outputs[i].smallest.data, job.outputs[i].smallest.size),
            slice_of(job.outputs[i].largest.data, job.outputs[i].largest.size),
        )
        for i in range(job.outputs_count)
    ]


def write_memtable(FileSystem disk, str path, LogRows rows, uint64_t next_number):
    """The rows in a table of level 0, and none left in memory: ([TableEntry], next number)."""
    cdef TableJob* job
    cdef bytes raw = os.fsencode(path)
    if memtable_entries(rows.table) == 0 and rows.table.ranges.count == 0:
        return [], next_number
    job = table_job_new()
    if job == NULL:
        raise MemoryError("no memory for the tables")
    try:
        add_memory(job, rows.table, 0)
        written = run_repair_job(disk, path, raw, job, 0, &next_number)
    finally:
        table_job_free(job)
    rows.clear()
    return written, next_number + 1


def merge_tables(FileSystem disk, str path, list entries, uint64_t next_number):
    """All entries of all tables, in fresh tables of one level: (their TableEntry, next number)."""
    cdef PodVector[LiveTable*] files
    cdef TableJob* job
    cdef OpenTables* tables
    cdef LiveTable* file
    cdef TableSummary summary
    cdef Status status
    cdef BytesView low, high
    cdef int result
    cdef size_t i
    cdef bytes raw = os.fsencode(path)
    if not entries:
        return [], next_number
    tables = open_tables_new(disk.ops, disk.disk, NULL, raw, REPAIR_OPEN_TABLES)
    if tables == NULL:
        raise MemoryError("no memory for the tables")
    job = table_job_new()
    try:
        if job == NULL or files.reserve(len(entries), kv_realloc) < 0:
            raise MemoryError("no memory for the tables")
        for entry in entries:
            entry_summary(entry, &summary)
            view_open(entry.smallest, &low, "smallest")
            view_open(entry.largest, &high, "largest")
            file = live_table_new(tables, entry.number, &summary, low.slice, high.slice)
            view_close(&low)
            view_close(&high)
            if file == NULL:
                raise MemoryError("no memory for the tables")
            files.push_reserved(file)
        for i in range(files.size()):
            if job_input_add_tables(&job.input, &files[i], 1) < 0:
                raise MemoryError("no memory for the tables")
        status_clear(&status)
        for i in range(files.size()):
            if files[i].summary.range_deletes:
                # Which of the tables is the newer one isn't known: none is skipped.
                with nogil:
                    result = range_input_add_table(
                        &job.ranges, files[i], <int> files.size(), &status
                    )
                if result < 0:
                    raise status_error_in(&status, path)
        merged = run_repair_job(disk, path, raw, job, MERGED_LEVEL, &next_number)
    finally:
        if job != NULL:
            table_job_free(job)
        for i in range(files.size()):
            live_table_release(files[i])
        open_tables_release(tables)
    return merged, next_number + 1
