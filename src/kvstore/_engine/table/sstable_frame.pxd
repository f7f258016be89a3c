"""The framing of a table file: header, frames, footer. The layout stands in sstable_frame.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice, Status
from kvstore._engine.files.native cimport FileSystemOps


cdef enum:
    TABLE_VERSION = 1
    TABLE_HEADER_BYTES = 32
    TABLE_FOOTER_BYTES = 64
    FRAME_HEADER_BYTES = 16
    HANDLE_BYTES = 12               # u64 offset, u32 frame bytes
    PARTITION_HEADER_BYTES = 48     # puts the filter of a loaded frame on a cache line
    PROPERTIES_FIXED_BYTES = 88


cdef enum FrameKind:
    FRAME_DATA = 1
    FRAME_PARTITION = 2
    FRAME_ROOT = 3
    FRAME_PROPERTIES = 4


cdef struct Handle:
    # Where a frame lies.
    uint64_t offset
    uint32_t bytes


cdef struct Footer:
    Handle root
    Handle properties


cdef struct Properties:
    uint64_t entries
    uint64_t tombstones
    uint64_t min_sequence
    uint64_t max_sequence
    uint64_t data_blocks
    uint64_t partitions
    uint64_t raw_key_bytes
    uint64_t raw_value_bytes
    uint32_t largest_block_bytes    # uncompressed; bounds what a reader allocates
    uint32_t bloom_bits
    uint32_t restart_interval
    uint32_t block_bytes
    Slice smallest                  # internal keys
    Slice largest


cdef void handle_put(uint8_t* into, Handle handle) noexcept nogil
cdef int handle_get(Slice value, Handle* handle) noexcept nogil     # -1: not a handle

cdef void header_put(uint8_t* into, uint64_t file_number) noexcept nogil
cdef int header_check(const uint8_t* data, uint64_t file_number, Status* status) noexcept nogil
cdef void footer_put(uint8_t* into, uint64_t file_number, const Footer* footer, uint64_t file_bytes) noexcept nogil
cdef int footer_get(
    const uint8_t* data, uint64_t file_number, uint64_t file_bytes, Footer* footer, Status* status
) noexcept nogil
cdef int properties_put(Buffer* into, const Properties* properties) noexcept nogil
# The keys are borrowed from `data`. -1: malformed.
cdef int properties_get(const uint8_t* data, size_t size, Properties* properties) noexcept nogil

# Appends the frame of `payload` that will stand at `offset`, compressed where that pays. -1: no memory.
cdef int frame_append(
    Buffer* into, int kind, int compression, uint64_t file_number, uint64_t offset,
    const uint8_t* payload, size_t size
) noexcept nogil
# Checks a whole frame in memory, its size being handle.bytes, and uncompresses it where needed.
# Takes ownership of `frame` (of block_allocate) and returns it or its replacement: FRAME_HEADER_BYTES to
# skip, then *payload_size bytes. NULL: see status.
cdef uint8_t* frame_open(
    uint8_t* frame, Handle handle, int kind, uint64_t file_number, uint32_t raw_limit,
    size_t* payload_size, Status* status
) noexcept nogil
# Reads exactly `size` bytes. -1: see status (IO_ERROR, or TRUNCATED_RECORD where the file ends).
cdef int read_exactly(
    const FileSystemOps* ops, void* disk, void* file, uint8_t* into, size_t size, uint64_t offset,
    const char* what, Status* status
) noexcept nogil
