"""The bytes of a table file.

    header      32      8 magic, u32 version, u32 zero, u64 file number, u32 zero,
                        u32 CRC-32C of the 28 bytes before it
    frames              data blocks in key order; after each run of them their partition
    root frame          index of the partitions
    properties frame    counts, bounds, options
    footer      64      u64 file number, u64 root offset, u64 properties offset, u64 file bytes,
                        u32 root frame bytes, u32 properties frame bytes, u32 version, u32 zero,
                        u32 zero, u32 CRC-32C of the 52 bytes before it, 8 magic

A frame:

    0       1       kind: 1 data, 2 partition, 3 root, 4 properties
    1       1       compression of the payload: 0 none, 1 LZ4 block, 2 Zstandard frame, 3 Snappy
    2       2       zero
    4       4       bytes of the payload as stored
    8       4       bytes of the payload uncompressed
    12      4       CRC-32C of file number, frame offset (u64 each), bytes 0 to 11, stored payload
    16              payload

File number and offset are in the checksum, so that a frame that was written to the wrong place or
belongs to another file is never taken for the right one.

A data payload is a block (block_build.pyx). So is a root payload: the last internal key of each
partition -> handle. A partition payload is u32 filter bytes, u32 filter probes, 40 bytes zero, the
filter (filter.pxd), and a block: the last internal key of each data block -> handle. A handle is
u64 offset and u32 frame bytes. Frames follow one another without gaps.

Numbers are little-endian.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    CHECKSUM_MISMATCH,
    INVALID_MAGIC,
    INVALID_RECORD,
    Slice,
    Status,
    TRAILER_BYTES,
    TRUNCATED_RECORD,
    UNSUPPORTED_VERSION,
    buffer_append,
    buffer_reserve,
    crc32c_extend,
    get_fixed32,
    get_fixed64,
    put_fixed32,
    put_fixed64,
    slice_of,
    status_no_memory,
    status_os_error,
    status_set,
)
from kvstore._engine.files.native cimport FileSystemOps


cdef enum:
    MAGIC_BYTES = 8


# "kvsst" and bytes that no text and no end-of-line translation survives.
cdef const uint8_t* MAGIC = <const uint8_t*> b"\x89kvsst\r\n"


cdef int read_exactly(
    const FileSystemOps* ops, void* disk, void* file, uint8_t* into, size_t size, uint64_t offset,
    const char* what, Status* status
) noexcept nogil:
    cdef int64_t got = ops.pread(disk, file, into, size, offset)
    if got < 0:
        return status_os_error(status, <int> -got, what, <int64_t> offset)
    if <uint64_t> got < size:
        return status_set(status, TRUNCATED_RECORD, what, <int64_t> offset)
    return 0


cdef void handle_put(uint8_t* into, Handle handle) noexcept nogil:
    put_fixed64(into, handle.offset)
    put_fixed32(into + 8, handle.bytes)


cdef int handle_get(Slice value, Handle* handle) noexcept nogil:
    if value.size != HANDLE_BYTES:
        return -1
    handle.offset = get_fixed64(value.data)
    handle.bytes = get_fixed32(value.data + 8)
    return 0


# --- header and footer ----------------------------------------------------------------------

cdef void header_put(uint8_t* into, uint64_t file_number) noexcept nogil:
    memset(into, 0, TABLE_HEADER_BYTES)
    memcpy(into, MAGIC, MAGIC_BYTES)
    put_fixed32(into + 8, TABLE_VERSION)
    put_fixed64(into + 16, file_number)
    put_fixed32(into + 28, crc32c_extend(0, into, 28))


cdef int header_check(const uint8_t* data, uint64_t file_number, Status* status) noexcept nogil:
    if memcmp(data, MAGIC, MAGIC_BYTES) != 0:
        return status_set(status, INVALID_MAGIC, b"table header", 0)
    if get_fixed32(data + 28) != crc32c_extend(0, data, 28):
        return status_set(status, CHECKSUM_MISMATCH, b"table header", 0)
    if get_fixed32(data + 8) != TABLE_VERSION:
        return status_set(status, UNSUPPORTED_VERSION, b"table header", 8)
    if get_fixed64(data + 16) != file_number:
        return status_set(status, INVALID_RECORD, b"table of another file number", 16)
    return 0


cdef void footer_put(
    uint8_t* into, uint64_t file_number, const Footer* footer, uint64_t file_bytes
) noexcept nogil:
    memset(into, 0, TABLE_FOOTER_BYTES)
    put_fixed64(into, file_number)
    put_fixed64(into + 8, footer.root.offset)
    put_fixed64(into + 16, footer.properties.offset)
    put_fixed64(into + 24, file_bytes)
    put_fixed32(into + 32, footer.root.bytes)
    put_fixed32(into + 36, footer.properties.bytes)
    put_fixed32(into + 40, TABLE_VERSION)
    put_fixed32(into + 52, crc32c_extend(0, into, 52))
    memcpy(into + 56, MAGIC, MAGIC_BYTES)


cdef int footer_get(
    const uint8_t* data, uint64_t file_number, uint64_t file_bytes, Footer* footer, Status* status
) noexcept nogil:
    cdef int64_t at = <int64_t> (file_bytes - TABLE_FOOTER_BYTES)
    if memcmp(data + 56, MAGIC, MAGIC_BYTES) != 0:
        return status_set(status, INVALID_MAGIC, b"table footer", at + 56)
    if get_fixed32(data + 52) != crc32c_extend(0, data, 52):
        return status_set(status, CHECKSUM_MISMATCH, b"table footer", at)
    if get_fixed32(data + 40) != TABLE_VERSION:
        return status_set(status, UNSUPPORTED_VERSION, b"table footer", at + 40)
    if get_fixed64(data) != file_number:
        return status_set(status, INVALID_RECORD, b"table of another file number", at)
    if get_fixed64(data + 24) != file_bytes:
        return status_set(status, INVALID_RECORD, b"table of another size", at + 24)
    footer.root.offset = get_fixed64(data + 8)
    footer.root.bytes = get_fixed32(data + 32)
    footer.properties.offset = get_fixed64(data + 16)
    footer.properties.bytes = get_fixed32(data + 36)
    # Root, properties and footer close the file without a gap.
    if (
        footer.root.offset < TABLE_HEADER_BYTES
        or footer.root.offset > file_bytes
        or footer.properties.offset != footer.root.offset + footer.root.bytes
        or footer.properties.offset + footer.properties.bytes != <uint64_t> at
    ):
        return status_set(status, INVALID_RECORD, b"table footer", at)
    return 0


# --- properties -----------------------------------------------------------------------------

cdef int properties_put(Buffer* into, const Properties* properties) noexcept nogil:
    cdef uint8_t[PROPERTIES_FIXED_BYTES] fixed
    put_fixed64(fixed, properties.entries)
    put_fixed64(fixed + 8, properties.tombstones)
    put_fixed64(fixed + 16, properties.min_sequence)
    put_fixed64(fixed + 24, properties.max_sequence)
    put_fixed64(fixed + 32, properties.data_blocks)
    put_fixed64(fixed + 40, properties.partitions)
    put_fixed64(fixed + 48, properties.raw_key_bytes)
    put_fixed64(fixed + 56, properties.raw_value_bytes)
    put_fixed32(fixed + 64, properties.largest_block_bytes)
    put_fixed32(fixed + 68, properties.bloom_bits)
    put_fixed32(fixed + 72, properties.restart_interval)
    put_fixed32(fixed + 76, properties.block_bytes)
    put_fixed32(fixed + 80, <uint32_t> properties.smallest.size)
    put_fixed32(fixed + 84, <uint32_t> properties.largest.size)
    if buffer_append(into, fixed, PROPERTIES_FIXED_BYTES) < 0:
        return -1
    if buffer_append(into, properties.smallest.data, properties.smallest.size) < 0:
        return -1
    return buffer_append(into, properties.largest.data, properties.largest.size)


cdef int properties_get(const uint8_t* data, size_t size, Properties* properties) noexcept nogil:
    if size < PROPERTIES_FIXED_BYTES:
        return -1
    properties.entries = get_fixed64(data)
    properties.tombstones = get_fixed64(data + 8)
    properties.min_sequence = get_fixed64(data + 16)
    properties.max_sequence = get_fixed64(data + 24)
    properties.data_blocks = get_fixed64(data + 32)
    properties.partitions = get_fixed64(data + 40)
    properties.raw_key_bytes = get_fixed64(data + 48)
    properties.raw_value_bytes = get_fixed64(data + 56)
    properties.largest_block_bytes = get_fixed32(data + 64)
    properties.bloom_bits = get_fixed32(data + 68)
    properties.restart_interval = get_fixed32(data + 72)
    properties.block_bytes = get_fixed32(data + 76)
    cdef uint64_t smallest = get_fixed32(data + 80)
    cdef uint64_t largest = get_fixed32(data + 84)
    if smallest < TRAILER_BYTES or largest < TRAILER_BYTES:
        return -1
    if PROPERTIES_FIXED_BYTES + smallest + largest != size:
        return -1
    properties.smallest = slice_of(data + PROPERTIES_FIXED_BYTES, smallest)
    properties.largest = slice_of(data + PROPERTIES_FIXED_BYTES + smallest, largest)
    return 0


# --- frames ---------------------------------------------------------------------------------

cdef uint32_t frame_checksum(
    const uint8_t* frame, size_t stored, uint64_t file_number, uint64_t offset
) noexcept nogil:
    cdef uint8_t[16] place
    put_fixed64(place, file_number)
    put_fixed64(place + 8, offset)
    cdef uint32_t crc = crc32c_extend(crc32c_extend(0, place, 16), frame, 12)
    return crc32c_extend(crc, frame + FRAME_HEADER_BYTES, stored)


cdef int frame_append(
    Buffer* into, int kind, int compression, uint64_t file_number, uint64_t offset,
    const uint8_t* payload, size_t size
) noexcept nogil:
    cdef size_t start = into.size
    cdef size_t stored
    cdef uint8_t* frame
    if buffer_reserve(into, FRAME_HEADER_BYTES + size) < 0:
        return -1
    into.size += FRAME_HEADER_BYTES
    if not compress(compression, payload, size, into):
        compression = COMPRESSION_NONE
        buffer_append(into, payload, size)
    stored = into.size - start - FRAME_HEADER_BYTES
    frame = into.data + start
    memset(frame, 0, FRAME_HEADER_BYTES)
    frame[0] = <uint8_t> kind
    frame[1] = <uint8_t> compression
    put_fixed32(frame + 4, <uint32_t> stored)
    put_fixed32(frame + 8, <uint32_t> size)
    put_fixed32(frame + 12, frame_checksum(frame, stored, file_number, offset))
    return 0


cdef uint8_t* uncompressed(
    uint8_t* frame, size_t stored, size_t raw, int64_t offset, Status* status
) noexcept nogil:
    cdef uint8_t* replacement = block_allocate(FRAME_HEADER_BYTES + raw)
    cdef int result
    if replacement == NULL:
        status_no_memory(status, b"memory for a block")
        return NULL
    memcpy(replacement, frame, FRAME_HEADER_BYTES)
    result = decompress(
        frame[1], frame + FRAME_HEADER_BYTES, stored, replacement + FRAME_HEADER_BYTES, raw
    )
    if result == DECOMPRESSED:
        return replacement
    block_free(replacement)
    if result == DECOMPRESS_MISSING:
        status_set(
            status, UNSUPPORTED_VERSION, b"block compressed by a codec that is not installed", offset
        )
    elif result == DECOMPRESS_NO_MEMORY:
        status_no_memory(status, b"memory for a codec")
    else:
        status_set(status, INVALID_RECORD, b"compressed block", offset)
    return NULL


cdef int check_frame(
    const uint8_t* frame, Handle handle, int kind, uint64_t file_number, uint32_t raw_limit,
    Status* status
) noexcept nogil:
    cdef int64_t at = <int64_t> handle.offset
    cdef size_t stored = handle.bytes - FRAME_HEADER_BYTES
    cdef uint32_t raw = get_fixed32(frame + 8)
    if get_fixed32(frame + 12) != frame_checksum(frame, stored, file_number, handle.offset):
        return status_set(status, CHECKSUM_MISMATCH, b"table frame", at)
    if frame[0] != kind:
        return status_set(status, INVALID_RECORD, b"frame kind", at)
    if frame[1] > COMPRESSION_MAX:
        return status_set(status, UNSUPPORTED_VERSION, b"frame compression", at)
    if frame[2] or frame[3] or get_fixed32(frame + 4) != stored:
        return status_set(status, INVALID_RECORD, b"frame header", at)
    if (raw != stored) if frame[1] == COMPRESSION_NONE else (raw > raw_limit or raw == 0):
        return status_set(status, INVALID_RECORD, b"frame size", at)
    return 0


cdef uint8_t* frame_open(
    uint8_t* frame, Handle handle, int kind, uint64_t file_number, uint32_t raw_limit,
    size_t* payload_size, Status* status
) noexcept nogil:
    cdef uint8_t* replacement
    if handle.bytes < FRAME_HEADER_BYTES:
        status_set(status, INVALID_RECORD, b"frame size", <int64_t> handle.offset)
        block_free(frame)
        return NULL
    if check_frame(frame, handle, kind, file_number, raw_limit, status) < 0:
        block_free(frame)
        return NULL
    payload_size[0] = get_fixed32(frame + 8)
    if frame[1] == COMPRESSION_NONE:
        return frame
    replacement = uncompressed(
        frame, handle.bytes - FRAME_HEADER_BYTES, payload_size[0], <int64_t> handle.offset, status
    )
    block_free(frame)
    return replacement
