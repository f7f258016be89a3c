"""The entries of all inputs of a job in one order, forward only. One thread, no GIL.

It tells of each entry how much of its user key is that of the one before it, which settles whether it
is another version of the same key and how it is stored, without a comparison.
"""

from libc.stdint cimport uint64_t

from kvstore._engine.primitives.native cimport Buffer, Cursor, Slice, Status
from kvstore._engine.table.native cimport ScanEntry, TableScan


cdef struct JobSource:
    # Its key against the last one that the input showed: see job_input.pyx. Only where there are several.
    uint64_t code
    const ScanEntry* entry      # stood on; NULL: at its end, or not begun
    # Either a cursor, owned,
    Cursor* cursor
    ScanEntry shown             # what it stands on
    bint lasting                # its keys stay where they are
    Buffer before               # else: a copy of the key stood on
    # or tables in key order, which the caller keeps.
    LiveTable** files
    int count
    int at                      # the one that `scan` reads
    TableScan* scan             # owned


cdef struct JobInput:
    # Stands on an entry, valid until the next move; NULL: on none, and `status` is OK, or says why.
    const ScanEntry* at
    size_t shared               # bytes of its user key with the one before; shared_unknown()
    Status status
    JobSource* sources          # newest first
    int count
    size_t capacity
    int winner                  # the source stood on
    int* losers                 # of each match of the tournament, but the first


cdef enum:
    SHARED_MOST = 0xFFFE        # it counts no further

cdef inline size_t shared_unknown() noexcept nogil:
    return <size_t> -1


# Sources are added newest first: of two entries with the same user key and sequence, whatever their
# kind, the newer source's comes first. -1: no memory.
# Owns the cursor, also where this fails; NULL is no memory. `lasting`: the keys that it shows stay where they
# are while it lives.
cdef int job_input_add(JobInput* input, Cursor* cursor, bint lasting) noexcept nogil
# Tables apart from each other, in key order, which the caller keeps.
cdef int job_input_add_tables(JobInput* input, LiveTable** files, int count) noexcept nogil
cdef void job_input_free(JobInput* input) noexcept nogil
cdef void job_input_first(JobInput* input) noexcept nogil
cdef void job_input_next(JobInput* input) noexcept nogil
# Brings the sources after `newest` forward to the internal key `target` where they stand before it. False:
# none was moved. What is shown then has `shared` unknown.
cdef bint job_input_skip(JobInput* input, int newest, Slice target) noexcept nogil
