"""The bytes of a table file.

    header      96
    frames              data blocks in key order; after each run of them their partition
    root frame          index of the partitions; absent where there are no entries
    meta frames         one for each name in the meta-index, in its order
    meta-index frame
    footer      96

The header:

    0       8       magic 89 "kvsst" 0D 0A
    8       4       u32 format version, 2
    12      4       u32 feature bits, compatible: a reader that doesn't know one goes on
    16      4       u32 feature bits, read-only-compatible: it may read, and not compact
    20      4       u32 feature bits, incompatible: it must refuse the file
    24      1       checksum kind: 1 CRC-32C
    25      1       order of keys: 1 user key as bytes, then sequence descending
    26      2       zero
    28      4       u32 key id, 0: the file is not encrypted
    32      16      nonce of the encryption, zero
    48      16      table id, random
    64      8       u64 file number
    72      20      zero
    92      4       u32 checksum of bytes 0 to 91

The footer:

    0       16      table id
    16      8       u64 file number
    24      8       u64 bytes of the file
    32      8       u64 offset of the root frame
    40      8       u64 offset of the meta-index frame
    48      4       u32 bytes of the root frame, 0: there are no entries
    52      4       u32 bytes of the meta-index frame
    56      4       u32 format version, 2
    60      24      zero
    84      4       u32 checksum of bytes 0 to 83
    88      8       magic

A frame:

    0       1       kind: 1 data, 2 partition, 3 root, 4 meta, 5 meta-index
    1       1       compression of the payload: 0 none, 1 LZ4 block, 2 Zstandard frame, 3 Snappy
    2       2       zero
    4       4       u32 bytes of the payload as stored
    8       4       u32 bytes of the payload uncompressed
    12      4       u32 checksum of the table id, the frame's offset (u64), bytes 0 to 11 and the
                    payload as stored
    16              payload

Id and offset are in the checksum, so that a frame that was written to the wrong place or belongs to
another file is never taken for the right one.

A data payload is a block (block_build.pyx), a root payload an index (table_index.pyx) of the
partitions, with values u64 offset and u32 bytes of the partition's frame. A partition payload:

    0       4       u32 bytes of the filter, a multiple of 64, 0: none
    4       4       u32 probes of the filter
    8       8       u64 offset of the partition's first data frame
    16      32      zero
    48              the filter (filter.pxd), then an index of the data blocks, with values u32: where
                    the frame ends, counted from the partition's first data frame

A meta-index payload has for each meta frame, ascending by name: varint bytes of the name, the name,
u8 flags (1: may be skipped by a reader that doesn't know the name), u64 offset, u32 bytes of the
frame. Names: `properties` (sstable_properties.pyx), always there; `range-deletes`; `dictionary` and
`blobs` are reserved. Frames follow one another without gaps.

Numbers are little-endian.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from kvstore._engine.primitives.native cimport (
    Buffer,
    CHECKSUM_MISMATCH,
    INVALID_MAGIC,
    INVALID_RECORD,
    MAX_VARINT32_BYTES,
    Slice,
    Status,
    TRUNCATED_RECORD,
    UNSUPPORTED_VERSION,
    buffer_append,
    buffer_reserve,
    crc32c_extend,
    get_fixed32,
    get_fixed64,
    get_varint32,
    put_fixed32,
    put_fixed64,
    put_varint64,
    slice_compare,
    slice_of,
    status_no_memory,
    status_os_error,
    status_set,
)
from kvstore._engine.files.native cimport FileSystemOps


cdef extern from *:
    """
    #define KV_BIT(n) "table with incompatible feature bit " #n ", which this program doesn't know"
    static const char* const kv_table_bits[32] = {
        KV_BIT(0), KV_BIT(1), KV_BIT(2), KV_BIT(3), KV_BIT(4), KV_BIT(5), KV_BIT(6), KV_BIT(7),
        KV_BIT(8), KV_BIT(9), KV_BIT(10), KV_BIT(11), KV_BIT(12), KV_BIT(13), KV_BIT(14), KV_BIT(15),
        KV_BIT(16), KV_BIT(17), KV_BIT(18), KV_BIT(19), KV_BIT(20), KV_BIT(21), KV_BIT(22), KV_BIT(23),
        KV_BIT(24), KV_BIT(25), KV_BIT(26), KV_BIT(27), KV_BIT(28), KV_BIT(29), KV_BIT(30), KV_BIT(31),
    };
    static inline const char* kv_table_bit(uint32_t bits) { return kv_table_bits[__builtin_ctz(bits)]; }
    """
    const char* feature_bit_text "kv_table_bit"(uint32_t bits) noexcept nogil


cdef enum:
    MAGIC_BYTES = 8
    FIRST_HEADER_BYTES = 32         # of format 1, which is recognised to be refused
    FEATURES_KNOWN = 0              # incompatible ones


# "kvsst" and bytes that no text and no end-of-line translation survives.
cdef const uint8_t* MAGIC = <const uint8_t*> b"\x89kvsst\r\n"
# Meta frames that this program reads.
cdef const char* META_PROPERTIES = b"properties"
cdef const char* META_RANGE_DELETES = b"range-deletes"


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


cdef inline bint all_zero(const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if data[i]:
            return False
    return True


# --- header and footer ----------------------------------------------------------------------

cdef void identity_seed(TableIdentity* identity) noexcept nogil:
    identity.seed = crc32c_extend(0, identity.id, TABLE_ID_BYTES)


cdef void header_put(uint8_t* into, const TableIdentity* identity) noexcept nogil:
    memset(into, 0, TABLE_HEADER_BYTES)
    memcpy(into, MAGIC, MAGIC_BYTES)
    put_fixed32(into + 8, TABLE_VERSION)
    put_fixed32(into + 12, identity.compatible)
    put_fixed32(into + 16, identity.read_only_compatible)
    put_fixed32(into + 20, identity.incompatible)
    into[24] = CHECKSUM_CRC32C
    into[25] = KEY_ORDER_BYTES
    memcpy(into + 48, identity.id, TABLE_ID_BYTES)
    put_fixed64(into + 64, identity.file_number)
    put_fixed32(into + 92, crc32c_extend(0, into, 92))


cdef int header_get(const uint8_t* data, TableIdentity* identity, Status* status) noexcept nogil:
    cdef uint32_t unknown
    if memcmp(data, MAGIC, MAGIC_BYTES) != 0:
        return status_set(status, INVALID_MAGIC, b"table header", 0)
    if get_fixed32(data + 92) != crc32c_extend(0, data, 92):
        if get_fixed32(data + 8) == 1 and get_fixed32(data + FIRST_HEADER_BYTES - 4) == crc32c_extend(
            0, data, FIRST_HEADER_BYTES - 4
        ):
            return status_set(
                status, UNSUPPORTED_VERSION, b"table of format 1, this program reads format 2", 8
            )
        return status_set(status, CHECKSUM_MISMATCH, b"table header", 0)
    if get_fixed32(data + 8) != TABLE_VERSION:
        return status_set(
            status, UNSUPPORTED_VERSION, b"table of another format, this program reads format 2", 8
        )
    identity.compatible = get_fixed32(data + 12)
    identity.read_only_compatible = get_fixed32(data + 16)
    identity.incompatible = get_fixed32(data + 20)
    unknown = identity.incompatible & ~<uint32_t> FEATURES_KNOWN
    if unknown:
        return status_set(status, UNSUPPORTED_VERSION, feature_bit_text(unknown), 20)
    if data[24] != CHECKSUM_CRC32C:
        return status_set(status, UNSUPPORTED_VERSION, b"table with an unknown kind of checksum", 24)
    if data[25] != KEY_ORDER_BYTES:
        return status_set(status, UNSUPPORTED_VERSION, b"table with an unknown order of keys", 25)
    if get_fixed32(data + 28) or not all_zero(data + 32, 16):
        return status_set(
            status, UNSUPPORTED_VERSION, b"encrypted table, which this program can't read", 28
        )
    if not all_zero(data + 26, 2) or not all_zero(data + 72, 20):
        return status_set(status, INVALID_RECORD, b"reserved bytes of a table header", 26)
    if get_fixed64(data + 64) != identity.file_number:
        return status_set(status, INVALID_RECORD, b"table of another file number", 64)
    memcpy(identity.id, data + 48, TABLE_ID_BYTES)
    identity_seed(identity)
    return 0


cdef void footer_put(
    uint8_t* into, const TableIdentity* identity, const Footer* footer, uint64_t file_bytes
) noexcept nogil:
    memset(into, 0, TABLE_FOOTER_BYTES)
    memcpy(into, identity.id, TABLE_ID_BYTES)
    put_fixed64(into + 16, identity.file_number)
    put_fixed64(into + 24, file_bytes)
    put_fixed64(into + 32, footer.root.offset)
    put_fixed64(into + 40, footer.meta_index.offset)
    put_fixed32(into + 48, footer.root.bytes)
    put_fixed32(into + 52, footer.meta_index.bytes)
    put_fixed32(into + 56, TABLE_VERSION)
    put_fixed32(into + 84, crc32c_extend(0, into, 84))
    memcpy(into + 88, MAGIC, MAGIC_BYTES)


cdef int footer_get(
    const uint8_t* data, const TableIdentity* identity, uint64_t file_bytes, Footer* footer,
    Status* status
) noexcept nogil:
    cdef uint64_t end = file_bytes - TABLE_FOOTER_BYTES
    cdef int64_t at = <int64_t> end
    if memcmp(data + 88, MAGIC, MAGIC_BYTES) != 0:
        return status_set(status, INVALID_MAGIC, b"table footer", at + 88)
    if get_fixed32(data + 84) != crc32c_extend(0, data, 84):
        return status_set(status, CHECKSUM_MISMATCH, b"table footer", at)
    if get_fixed32(data + 56) != TABLE_VERSION:
        return status_set(status, UNSUPPORTED_VERSION, b"table footer", at + 56)
    if memcmp(data, identity.id, TABLE_ID_BYTES) != 0:
        return status_set(status, INVALID_RECORD, b"footer of another table", at)
    if get_fixed64(data + 16) != identity.file_number:
        return status_set(status, INVALID_RECORD, b"table of another file number", at + 16)
    if get_fixed64(data + 24) != file_bytes:
        return status_set(status, INVALID_RECORD, b"table of another size", at + 24)
    if not all_zero(data + 60, 24):
        return status_set(status, INVALID_RECORD, b"reserved bytes of a table footer", at + 60)
    footer.root.offset = get_fixed64(data + 32)
    footer.root.bytes = get_fixed32(data + 48)
    footer.meta_index.offset = get_fixed64(data + 40)
    footer.meta_index.bytes = get_fixed32(data + 52)
    # Root, meta frames, meta-index and footer close the file without a gap.
    if (
        footer.root.offset < TABLE_HEADER_BYTES
        or footer.root.offset > end
        or footer.meta_index.offset > end
        or footer.meta_index.offset < footer.root.offset + footer.root.bytes
        or footer.meta_index.offset + footer.meta_index.bytes != end
        or 0 < footer.root.bytes <= FRAME_HEADER_BYTES
        or footer.meta_index.bytes <= FRAME_HEADER_BYTES
    ):
        return status_set(status, INVALID_RECORD, b"table footer", at)
    return 0


# --- the meta-index -------------------------------------------------------------------------

cdef int meta_index_put(Buffer* into, Slice name, int flags, Handle handle) noexcept nogil:
    cdef uint8_t* at
    if buffer_reserve(into, MAX_VARINT32_BYTES + name.size + 13) < 0:
        return -1
    at = put_varint64(into.data + into.size, name.size)
    memcpy(at, name.data, name.size)
    at += name.size
    at[0] = <uint8_t> flags
    put_fixed64(at + 1, handle.offset)
    put_fixed32(at + 9, handle.bytes)
    into.size = <size_t> (at + 13 - into.data)
    return 0


cdef const uint8_t* meta_index_entry(const uint8_t* at, const uint8_t* end, MetaEntry* entry) noexcept nogil:
    """The byte after the entry, or NULL."""
    cdef uint32_t size
    at = get_varint32(at, end, &size)
    if at == NULL or size == 0 or size > META_NAME_BYTES_MAX or end - at < <int64_t> size + 13:
        return NULL
    entry.name = slice_of(at, size)
    at += size
    entry.flags = at[0]
    entry.handle.offset = get_fixed64(at + 1)
    entry.handle.bytes = get_fixed32(at + 9)
    return at + 13


cdef bint is_known(Slice name) noexcept nogil:
    return (
        slice_compare(name, slice_of(META_PROPERTIES, strlen(META_PROPERTIES))) == 0
        or slice_compare(name, slice_of(META_RANGE_DELETES, strlen(META_RANGE_DELETES))) == 0
    )


cdef int meta_index_check(
    const uint8_t* data, size_t size, uint64_t start, uint64_t end, Status* status
) noexcept nogil:
    cdef const uint8_t* at = data
    cdef const uint8_t* stop = data + size
    cdef MetaEntry entry
    cdef Slice before = slice_of(NULL, 0)
    while at < stop:
        at = meta_index_entry(at, stop, &entry)
        if at == NULL or slice_compare(before, entry.name) >= 0 or entry.flags > META_MAY_BE_SKIPPED:
            return status_set(status, INVALID_RECORD, b"table meta-index", <int64_t> end)
        if (
            entry.handle.offset != start
            or entry.handle.bytes < FRAME_HEADER_BYTES
            or entry.handle.bytes > end - start
        ):
            return status_set(status, INVALID_RECORD, b"table meta-index handle", <int64_t> end)
        if not (entry.flags & META_MAY_BE_SKIPPED) and not is_known(entry.name):
            return status_set(
                status, UNSUPPORTED_VERSION, b"table with a meta frame that this program doesn't know",
                <int64_t> start,
            )
        before = entry.name
        start += entry.handle.bytes
    if start != end:
        return status_set(status, INVALID_RECORD, b"table meta-index handle", <int64_t> end)
    return 0


cdef int meta_index_find(const uint8_t* data, size_t size, Slice name, Handle* handle) noexcept nogil:
    cdef const uint8_t* at = data
    cdef MetaEntry entry
    while at != NULL and at < data + size:
        at = meta_index_entry(at, data + size, &entry)
        if at != NULL and slice_compare(entry.name, name) == 0:
            handle[0] = entry.handle
            return 1
    return 0


# --- frames ---------------------------------------------------------------------------------

cdef uint32_t frame_checksum(
    const uint8_t* frame, size_t stored, uint32_t seed, uint64_t offset
) noexcept nogil:
    cdef uint8_t[8] place
    put_fixed64(place, offset)
    cdef uint32_t crc = crc32c_extend(crc32c_extend(seed, place, 8), frame, 12)
    return crc32c_extend(crc, frame + FRAME_HEADER_BYTES, stored)


cdef uint64_t frame_bytes_told(const uint8_t* header, uint64_t left) noexcept nogil:
    cdef uint64_t stored = get_fixed32(header + 4)
    if (
        header[0] < FRAME_DATA or header[0] > FRAME_META_INDEX or header[1] > COMPRESSION_MAX
        or header[2] or header[3] or FRAME_HEADER_BYTES + stored > left
    ):
        return 0
    return FRAME_HEADER_BYTES + stored


cdef bint frame_is_whole(
    const uint8_t* frame, uint64_t bytes, uint32_t seed, uint64_t offset
) noexcept nogil:
    return get_fixed32(frame + 12) == frame_checksum(
        frame, <size_t> bytes - FRAME_HEADER_BYTES, seed, offset
    )


cdef int frame_begin(Buffer* into, size_t payload_bytes) noexcept nogil:
    if (payload_bytes >> 32) or buffer_reserve(into, FRAME_HEADER_BYTES + payload_bytes) < 0:
        return -1
    into.size += FRAME_HEADER_BYTES
    return 0


cdef void frame_end(
    Buffer* into, size_t start, int kind, int compression, uint32_t seed, uint64_t offset, size_t size
) noexcept nogil:
    cdef uint8_t* frame = into.data + start
    cdef size_t stored = into.size - start - FRAME_HEADER_BYTES
    memset(frame, 0, FRAME_HEADER_BYTES)
    frame[0] = <uint8_t> kind
    frame[1] = <uint8_t> compression
    put_fixed32(frame + 4, <uint32_t> stored)
    put_fixed32(frame + 8, <uint32_t> size)
    put_fixed32(frame + 12, frame_checksum(frame, stored, seed, offset))


cdef int frame_append(
    Buffer* into, int kind, int compression, uint32_t seed, uint64_t offset,
    const uint8_t* payload, size_t size
) noexcept nogil:
    cdef size_t start = into.size
    if frame_begin(into, size) < 0:
        return -1
    if not compress(compression, payload, size, into):
        compression = COMPRESSION_NONE
        buffer_append(into, payload, size)
    frame_end(into, start, kind, compression, seed, offset, size)
    return 0


cdef uint8_t* uncompressed(
    const uint8_t* frame, size_t stored, size_t raw, int64_t offset, Status* status
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
    const uint8_t* frame, Handle handle, int kind, uint32_t seed, uint32_t raw_limit,
    Status* status
) noexcept nogil:
    cdef int64_t at = <int64_t> handle.offset
    cdef size_t stored
    cdef uint32_t raw
    if handle.bytes < FRAME_HEADER_BYTES:
        return status_set(status, INVALID_RECORD, b"frame size", at)
    stored = handle.bytes - FRAME_HEADER_BYTES
    raw = get_fixed32(frame + 8)
    if get_fixed32(frame + 12) != frame_checksum(frame, stored, seed, handle.offset):
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
    uint8_t* frame, Handle handle, int kind, uint32_t seed, uint32_t raw_limit,
    size_t* payload_size, Status* status
) noexcept nogil:
    cdef uint8_t* replacement
    if check_frame(frame, handle, kind, seed, raw_limit, status) < 0:
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
