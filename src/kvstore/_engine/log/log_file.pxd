"""The file of the log's current segment: beginning it, writing to it, leaving it.

Only calls write to it, never stores through a map: where the disk fails, a call returns an error and
a store kills the process. One thread at a time uses it, but for a sync, beside which another may write.
"""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Status
from kvstore._engine.files.native cimport FileSystemOps


cdef enum:
    PATH_BYTES = 4096
    RETRY = -2                  # log_file_begin: the current segment is as it was, try again later


cdef struct LogFile:
    const FileSystemOps* ops    # borrowed, with `disk` and `folder`
    void* disk
    const char* folder
    uint64_t segment_bytes
    void* file                  # NULL: no segment
    uint64_t segment            # its number
    uint64_t capacity           # bytes that are reserved for it
    uint64_t end                # of its last record
    uint64_t written            # bytes at its front that aren't just reserved


cdef void segment_path(char* into, const char* folder, uint64_t number, const char* suffix) noexcept nogil
# Whether what refused may allow it later: no space, descriptor or memory just now.
cdef bint is_transient(int result) noexcept nogil
# Likewise of descriptors and memory: a sync of a directory that it refused never began.
cdef bint lacks_descriptor(int result) noexcept nogil
# Leaves the current segment, all of it durable, and begins another with room for `segment_bytes`, or as
# much as there is space for, but for `wanted` bytes at least; in the file of the old segment `recycled`
# if there is one (0: none).
cdef int log_file_begin(
    LogFile* self, const SegmentHeader* header, uint64_t recycled, uint64_t wanted, Status* status
) noexcept nogil
# `durably`: a sync of it follows, and nothing else is written before.
cdef int log_file_write(
    LogFile* self, const uint8_t* data, size_t size, uint64_t offset, bint durably, Status* status
) noexcept nogil
# Gives back what was reserved and not used.
cdef void log_file_trim(LogFile* self) noexcept nogil
cdef void log_file_close(LogFile* self) noexcept nogil
