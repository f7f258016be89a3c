"""The framing of a table file: header, frames, meta-index, footer. The layout stands in sstable_frame.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport Buffer, Slice, Status
from kvstore._engine.files.native cimport FileSystemOps


cdef enum:
    TABLE_VERSION = 2
    TABLE_HEADER_BYTES = 96
    TABLE_FOOTER_BYTES = 96
    TABLE_ID_BYTES = 16
    FRAME_HEADER_BYTES = 16
    PARTITION_HEADER_BYTES = 48     # puts the filter of a loaded frame on a cache line
    META_NAME_BYTES_MAX = 64
    ROOT_VALUE_BYTES = 12           # u64 offset, u32 bytes of a partition's frame
    DATA_VALUE_BYTES = 4            # u32 end of a data frame, from the partition's first one on


cdef enum FrameKind:
    FRAME_DATA = 1
    FRAME_PARTITION = 2
    FRAME_ROOT = 3
    FRAME_META = 4
    FRAME_META_INDEX = 5


cdef enum ChecksumKind:
    CHECKSUM_CRC32C = 1


cdef enum KeyOrder:
    KEY_ORDER_BYTES = 1             # user key ascending as bytes, then sequence descending


cdef enum MetaFlag:
    META_MAY_BE_SKIPPED = 1         # by a reader that doesn't know the name


# Names of meta frames.
cdef const char* META_PROPERTIES
cdef const char* META_RANGE_DELETES


cdef struct Handle:
    # Where a frame lies.
    uint64_t offset
    uint32_t bytes


cdef struct TableIdentity:
    # What the header says of the file; `seed` begins every checksum in it.
    uint64_t file_number
    uint8_t id[TABLE_ID_BYTES]
    uint32_t seed
    uint32_t compatible             # feature bits
    uint32_t read_only_compatible
    uint32_t incompatible


cdef struct Footer:
    Handle root                     # bytes 0: the table has no entries
    Handle meta_index


cdef void identity_seed(TableIdentity* identity) noexcept nogil
cdef void header_put(uint8_t* into, const TableIdentity* identity) noexcept nogil
# Fills `identity`, whose file_number says which is expected. -1: see status.
cdef int header_get(const uint8_t* data, TableIdentity* identity, Status* status) noexcept nogil
cdef void footer_put(
    uint8_t* into, const TableIdentity* identity, const Footer* footer, uint64_t file_bytes
) noexcept nogil
cdef int footer_get(
    const uint8_t* data, const TableIdentity* identity, uint64_t file_bytes, Footer* footer,
    Status* status
) noexcept nogil

cdef struct MetaEntry:
    Slice name
    int flags                       # MetaFlag
    Handle handle

# --- the meta-index: name -> flags and handle, in the order of names and of places
# -1: no memory.
cdef int meta_index_put(Buffer* into, Slice name, int flags, Handle handle) noexcept nogil
# Names ascend, frames fill [start, end) without a gap, and names that are not known may be skipped.
cdef int meta_index_check(
    const uint8_t* data, size_t size, uint64_t start, uint64_t end, Status* status
) noexcept nogil
# The byte after the entry at `at`, or NULL: it is none.
cdef const uint8_t* meta_index_entry(
    const uint8_t* at, const uint8_t* end, MetaEntry* entry
) noexcept nogil
# 1: found; 0: there is none of this name. `data` was checked.
cdef int meta_index_find(const uint8_t* data, size_t size, Slice name, Handle* handle) noexcept nogil

# --- frames
# Appends the frame of `payload` that will stand at `offset`, compressed where that pays. -1: no memory.
cdef int frame_append(
    Buffer* into, int kind, int compression, uint32_t seed, uint64_t offset,
    const uint8_t* payload, size_t size
) noexcept nogil
# The same for who makes the payload in its place: room for a header, which is skipped, and so many bytes of
# it (-1: no memory); then the header of the frame that begins at `start` and ends with the buffer.
cdef int frame_begin(Buffer* into, size_t payload_bytes) noexcept nogil
cdef void frame_end(
    Buffer* into, size_t start, int kind, int compression, uint32_t seed, uint64_t offset, size_t size
) noexcept nogil
# Checks a whole frame in memory, its size being handle.bytes, and uncompresses it where needed.
# Takes ownership of `frame` (of block_allocate) and returns it or its replacement: FRAME_HEADER_BYTES to
# skip, then *payload_size bytes. NULL: see status.
cdef uint8_t* frame_open(
    uint8_t* frame, Handle handle, int kind, uint32_t seed, uint32_t raw_limit,
    size_t* payload_size, Status* status
) noexcept nogil
# The same of bytes that stay the caller's, and uncompresses nothing. -1: see status.
cdef int check_frame(
    const uint8_t* frame, Handle handle, int kind, uint32_t seed, uint32_t raw_limit,
    Status* status
) noexcept nogil
# Of a frame that was checked and is compressed: a new one (of block_allocate) of FRAME_HEADER_BYTES to
# skip and `raw` bytes. NULL: see status.
cdef uint8_t* uncompressed(
    const uint8_t* frame, size_t stored, size_t raw, int64_t offset, Status* status
) noexcept nogil
# Bytes of the whole frame whose header this may be, 0 if it can't be one. `left` bytes follow its
# beginning in the file.
cdef uint64_t frame_bytes_told(const uint8_t* header, uint64_t left) noexcept nogil
# Whether the checksum of a whole frame of `bytes` at `offset` is right.
cdef bint frame_is_whole(
    const uint8_t* frame, uint64_t bytes, uint32_t seed, uint64_t offset
) noexcept nogil
# Reads exactly `size` bytes. -1: see status (IO_ERROR, or TRUNCATED_RECORD where the file ends).
cdef int read_exactly(
    const FileSystemOps* ops, void* disk, void* file, uint8_t* into, size_t size, uint64_t offset,
    const char* what, Status* status
) noexcept nogil
