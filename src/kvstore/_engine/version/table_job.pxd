"""One unit of background work: an ordered input written out as tables, without what nobody needs.

No GIL. Used by flushes (one memtable in, one table out) and compactions.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Buffer, Status
from kvstore._engine.files.native cimport FileSystemOps
from kvstore._engine.table.native cimport TableOptions, TableSummary


cdef struct Output:
    uint64_t number
    TableSummary summary
    Buffer smallest             # internal keys
    Buffer largest


cdef struct TableJob:
    # Made by table_job_new, all zero. The input's tables and all below are the caller's, who keeps them
    # until the job is over.
    JobInput input
    const FileSystemOps* ops
    void* disk
    const char* directory
    TableOptions options
    uint64_t max_file_bytes     # a table is closed at the first new user key beyond; 0: never
    uint64_t* next_number       # atomic: the last number given to a file
    # Sequences that somebody may read at, ascending, never empty: table_job_guard.
    uint64_t* guarded
    size_t guarded_count
    size_t guarded_capacity
    uint64_t retain_from        # every sequence from here on may be read at
    const HistoryKeys* history  # of these keys; of the others from `present` on
    uint64_t present            # not below retain_from
    RangeInput ranges           # the input's range tombstones
    # Below `output_level` of `version` may lie older versions of a key; NULL: always suppose so.
    Version* version
    int output_level
    # Of a job without a version: in none but the tables of this one, of level 0 too, may they lie.
    Version* older
    uint64_t* cancelled         # atomic; the job stops soon after it is not 0
    uint64_t rate_limit         # bytes a second, 0 for none
    # Result
    Output* outputs
    size_t outputs_count
    size_t outputs_capacity
    uint64_t entries_read
    uint64_t entries_dropped
    uint64_t bytes_written


cdef TableJob* table_job_new() noexcept nogil               # NULL: no memory
# Frees the job, its input and what the outputs hold (not the files).
cdef void table_job_free(TableJob* job) noexcept nogil
# One more sequence that somebody may read at, above those before it. -1: no memory.
cdef int table_job_guard(TableJob* job, uint64_t sequence) noexcept nogil
# -1: see status; nothing of the outputs is left on disk. Cancelled: -1 with status OK.
cdef int table_job_run(TableJob* job, Status* status) noexcept nogil
# Frees what the outputs hold (not the files).
cdef void table_job_clear(TableJob* job) noexcept nogil
# Unlinks the finished files of a job whose result nobody wants.
cdef void table_job_unlink(TableJob* job) noexcept nogil
