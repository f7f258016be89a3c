"""What is provably whole of a damaged table: its frames, one by one.

A frame's checksum holds the table's random id and the frame's place. So whatever checks at some
place of the file was written there as a part of this table, whether the index that leads to it is
still there or not.
"""

from libc.stdint cimport uint8_t, uint64_t

from kvstore._engine.primitives.native cimport Status
from kvstore._engine.files.native cimport FileSystemOps


cdef struct Salvage:
    # One thread. The frame stands after salvage_next said 1, until the next call.
    const FileSystemOps* ops
    void* disk
    void* file
    TableIdentity identity
    uint64_t file_bytes
    uint64_t end                    # where frames end
    uint64_t at                     # where the next frame is looked for
    uint8_t* frame                  # opened: FRAME_HEADER_BYTES to skip, then `payload_bytes`
    size_t payload_bytes
    Handle handle
    uint64_t gap_bytes              # that check nowhere, between the frame before and this one
    uint8_t* window                 # of the file, [window_at, window_at + window_bytes)
    uint64_t window_at
    size_t window_bytes


# Takes the id from the header, else from the footer, else `file_id` (NULL: none), which the first two
# must agree with. -1: see status; nothing is to be closed then.
cdef int salvage_open(
    Salvage* salvage, const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const uint8_t* file_id, Status* status
) noexcept nogil
# The next frame that checks: 1; 0: there is none, gap_bytes are at the end; -1: see status. Parts
# of the file that the device can't read count as damaged.
cdef int salvage_next(Salvage* salvage, Status* status) noexcept nogil
cdef void salvage_close(Salvage* salvage) noexcept nogil
