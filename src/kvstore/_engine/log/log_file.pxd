"""The file of the log's current segment: beginning it, writing to it, leaving it.

One thread at a time uses it: the log's flusher, or whoever stores through the map meanwhile.
"""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Status
from kvstore._engine.files.native cimport FileSystemOps


cdef enum:
    PATH_BYTES = 4096
    RETRY = -2                  # log_file_begin: no space, nothing was written
    # From here on a write is a call: it costs less than the page that a store would fault in.
    CALL_BYTES = 2048


cdef struct LogFile:
    const FileSystemOps* ops    # borrowed, with `disk` and `folder`
    void* disk
    const char* folder
    uint64_t segment_bytes
    bint maps                   # stores through a map are worth trying
    void* file                  # NULL: no segment
    uint64_t segment            # its number
    uint64_t capacity           # bytes that are reserved for it
    uint64_t end                # of its last record
    uint64_t written            # bytes at its front that aren't just reserved
    uint8_t* memory             # the map, or NULL
    uint64_t forgotten          # bytes at the front of the map whose memory was given back


cdef void segment_path(char* into, const char* folder, uint64_t number, const char* suffix) noexcept nogil
# Leaves the current segment, all of it durable, and begins another with room for `wanted` bytes, in
# the file of the old segment `recycled` if there is one (0: none). RETRY: no space for it.
cdef int log_file_begin(
    LogFile* self, const SegmentHeader* header, uint64_t recycled, uint64_t wanted, Status* status
) noexcept nogil
# `durably`: a sync of it follows.
cdef int log_file_write(
    LogFile* self, const uint8_t* data, size_t size, uint64_t offset, bint durably, Status* status
) noexcept nogil
# Where whole pages of the map that were stored to begin, and how many bytes of them there are: at
# least `least`, else 0. They count as given back; the caller sees to it (`ops.forget`).
cdef size_t log_file_forgettable(LogFile* self, size_t least, uint8_t** pages) noexcept nogil
# Gives back what was reserved and not used.
cdef void log_file_trim(LogFile* self) noexcept nogil
cdef void log_file_close(LogFile* self) noexcept nogil
