"""Reading of one log segment, record by record, and the proof of what its end means."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Status
from kvstore._engine.files.native cimport FileSystemOps


cdef struct SegmentReader:
    const FileSystemOps* ops        # borrowed, with `disk`
    void* disk
    void* file                      # owned
    uint64_t file_bytes
    SegmentHeader header
    uint32_t seed                   # of the record headers' checksums
    uint32_t chain                  # what the next record must carry
    uint64_t position               # of the next record
    # Why there is no further record, once segment_next returned 0: OK is an end in zeros or the end
    # of the file; else the code of what stands at `position`.
    Status stop
    bint clean                      # the last record was KIND_CLEAN_CLOSE
    # What stands at `position` is a record whose header checks and whose payload doesn't.
    bint hollow
    uint8_t* buffer                 # owned; holds the file from `buffer_start`
    uint64_t buffer_start
    size_t buffer_size
    size_t buffer_capacity


# 0, or -1 with `status`; close in both cases.
cdef int segment_open(
    SegmentReader* reader, const FileSystemOps* ops, void* disk, const char* path, Status* status
) noexcept nogil
# 1: a record, its payload borrowed until the next call; 0: no further one, see `stop`; -1: the
# file could not be read, see `status`.
cdef int segment_next(
    SegmentReader* reader, RecordHeader* record, const uint8_t** payload, Status* status
) noexcept nogil
# After segment_next returned 0: whether a later record of this segment proves that bytes at or
# beyond `position` had been durable. 1 proven, 0 not, -1 unreadable. `tail_end` is where the last
# record of this segment ends whose header is intact, or the header at `position`.
cdef int segment_end_was_durable(
    SegmentReader* reader, uint64_t* tail_end, Status* status
) noexcept nogil
# After segment_next found a `hollow` record: on behind it, as if it had been read.
cdef void segment_pass(SegmentReader* reader, const RecordHeader* record) noexcept nogil
# Up to where intact records from `position` on prove the segment durable; 0: unreadable, see `status`.
cdef uint64_t segment_durable_end(SegmentReader* reader, Status* status) noexcept nogil
cdef void segment_close(SegmentReader* reader) noexcept nogil
