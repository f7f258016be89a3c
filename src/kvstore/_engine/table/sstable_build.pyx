"""The table builder: gathers entries into blocks, blocks into partitions, partitions into a table.

A partition is a run of data blocks with their index and their filter in one frame: a lookup reads
both in one step, the memory of both goes through the cache, and opening a table reads neither.
The layout of the file stands in sstable_frame.pyx.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    INVALID_OPERATION,
    KIND_DELETE,
    KIND_MAX,
    Slice,
    Status,
    TRAILER_BYTES,
    buffer_append,
    buffer_free,
    buffer_reserve,
    internal_trailer,
    internal_user_key,
    kv_calloc,
    kv_free,
    kv_strdup,
    put_fixed32,
    slice_compare,
    slice_of,
    status_no_memory,
    status_os_error,
    status_set,
    trailer_kind,
    trailer_sequence,
)
from kvstore._engine.files.native cimport FileSystemOps, OPEN_EXCLUSIVE


cdef enum:
    WRITE_BYTES = 1 << 18           # gathered before each pwrite
    PARTITION_INDEX_BYTES = 8 << 10     # a partition ends when its index has grown to this
    BLOCK_BYTES_MIN = 64
    BLOCK_BYTES_MAX = 1 << 26
    BLOOM_BITS_MAX = 32
    ENTRY_BYTES_MAX = 1 << 30       # key or value


cdef struct TableBuilder:
    const FileSystemOps* ops
    void* disk
    void* file
    char* path
    uint64_t file_number
    TableOptions options
    uint64_t written            # bytes in the file
    Buffer pending              # bytes that follow them
    BlockBuilder data
    BlockBuilder index          # of the present partition
    BlockBuilder root
    Buffer scratch
    Buffer hashes               # u64 filter hash of each user key of the present partition
    Buffer smallest             # internal keys of the whole table
    Buffer largest              # of what was added so far
    Properties properties


cdef int no_memory(Status* status) noexcept nogil:
    return status_no_memory(status, b"memory for building a table")


cdef int check_options(const TableOptions* options, Status* status) noexcept nogil:
    if (
        options.block_bytes < BLOCK_BYTES_MIN
        or options.block_bytes > BLOCK_BYTES_MAX
        or options.restart_interval < 1
        or options.bloom_bits < 0
        or options.bloom_bits > BLOOM_BITS_MAX
        or options.compression < COMPRESSION_NONE
        or options.compression > COMPRESSION_MAX
    ):
        return status_set(status, INVALID_OPERATION, b"table options", -1)
    return 0


cdef void builder_free(TableBuilder* builder) noexcept nogil:
    block_builder_free(&builder.data)
    block_builder_free(&builder.index)
    block_builder_free(&builder.root)
    buffer_free(&builder.pending)
    buffer_free(&builder.scratch)
    buffer_free(&builder.hashes)
    buffer_free(&builder.smallest)
    buffer_free(&builder.largest)
    kv_free(builder.path)
    kv_free(builder)


cdef TableBuilder* table_builder_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const TableOptions* options, Status* status
) noexcept nogil:
    cdef int result
    if check_options(options, status) < 0:
        return NULL
    cdef TableBuilder* builder = <TableBuilder*> kv_calloc(1, sizeof(TableBuilder))
    if builder == NULL:
        no_memory(status)
        return NULL
    builder.ops = ops
    builder.disk = disk
    builder.path = kv_strdup(path)
    builder.file_number = file_number
    builder.options = options[0]
    builder.properties.min_sequence = <uint64_t> -1
    block_builder_init(&builder.data, <uint32_t> options.restart_interval)
    block_builder_init(&builder.index, 1)
    block_builder_init(&builder.root, 1)
    if builder.path == NULL or buffer_reserve(&builder.pending, 2 * WRITE_BYTES) < 0:
        no_memory(status)
        builder_free(builder)
        return NULL
    result = ops.open(disk, path, OPEN_EXCLUSIVE, &builder.file)
    if result < 0:
        status_os_error(status, -result, b"create table", -1)
        builder_free(builder)
        return NULL
    header_put(builder.pending.data, file_number)
    builder.pending.size = TABLE_HEADER_BYTES
    return builder


cdef inline uint64_t position(TableBuilder* builder) noexcept nogil:
    return builder.written + builder.pending.size


cdef uint64_t table_builder_bytes(TableBuilder* builder) noexcept nogil:
    return (
        position(builder) + block_builder_bytes(&builder.data)
        + block_builder_bytes(&builder.index) + block_builder_bytes(&builder.root)
    )


cdef int write_pending(TableBuilder* builder, Status* status) noexcept nogil:
    cdef int result
    if builder.pending.size == 0:
        return 0
    result = builder.ops.pwrite(
        builder.disk, builder.file, builder.pending.data, builder.pending.size, builder.written
    )
    if result < 0:
        return status_os_error(status, -result, b"write table", <int64_t> builder.written)
    builder.written += builder.pending.size
    builder.pending.size = 0
    return 0


cdef int add_frame(
    TableBuilder* builder, int kind, int compression, Handle* handle, Status* status
) noexcept nogil:
    """Frame the payload that stands in `scratch`."""
    handle.offset = position(builder)
    if frame_append(
        &builder.pending, kind, compression, builder.file_number, handle.offset,
        builder.scratch.data, builder.scratch.size,
    ) < 0:
        return no_memory(status)
    handle.bytes = <uint32_t> (position(builder) - handle.offset)
    builder.scratch.size = 0
    if builder.pending.size >= WRITE_BYTES:
        return write_pending(builder, status)
    return 0


cdef int add_handle(
    BlockBuilder* index, Slice last_key, Handle handle, Status* status
) noexcept nogil:
    cdef uint8_t[HANDLE_BYTES] value
    handle_put(value, handle)
    if block_builder_add(
        index, internal_user_key(last_key), internal_trailer(last_key),
        slice_of(value, HANDLE_BYTES),
    ) < 0:
        return no_memory(status)
    return 0


cdef int append_filter(TableBuilder* builder) noexcept nogil:
    """The partition's header and filter, to `scratch`. -1: no memory."""
    cdef size_t keys = builder.hashes.size // sizeof(uint64_t)
    cdef const uint64_t* hashes = <const uint64_t*> builder.hashes.data
    cdef size_t size = 0
    cdef int probes = 0
    cdef size_t i
    if builder.options.bloom_bits:
        size = filter_bytes(keys, builder.options.bloom_bits)
        probes = filter_probes(builder.options.bloom_bits)
    if buffer_reserve(&builder.scratch, PARTITION_HEADER_BYTES + size) < 0:
        return -1
    cdef uint8_t* at = builder.scratch.data + builder.scratch.size
    memset(at, 0, PARTITION_HEADER_BYTES + size)
    put_fixed32(at, <uint32_t> size)
    put_fixed32(at + 4, <uint32_t> probes)
    at += PARTITION_HEADER_BYTES
    if size:
        for i in range(keys):
            filter_add(at, size, probes, hashes[i])
    builder.scratch.size += PARTITION_HEADER_BYTES + size
    return 0


cdef int finish_partition(TableBuilder* builder, Status* status) noexcept nogil:
    cdef Handle handle
    if append_filter(builder) < 0:
        return no_memory(status)
    if block_builder_finish(&builder.index, &builder.scratch) < 0:
        return no_memory(status)
    if add_frame(builder, FRAME_PARTITION, COMPRESSION_NONE, &handle, status) < 0:
        return -1
    if add_handle(
        &builder.root, slice_of(builder.largest.data, builder.largest.size), handle, status
    ) < 0:
        return -1
    builder.properties.partitions += 1
    block_builder_reset(&builder.index)
    builder.hashes.size = 0
    return 0


cdef int finish_block(TableBuilder* builder, Status* status) noexcept nogil:
    cdef Handle handle
    if block_builder_finish(&builder.data, &builder.scratch) < 0:
        return no_memory(status)
    if builder.scratch.size > builder.properties.largest_block_bytes:
        builder.properties.largest_block_bytes = <uint32_t> builder.scratch.size
    if add_frame(builder, FRAME_DATA, builder.options.compression, &handle, status) < 0:
        return -1
    if add_handle(
        &builder.index, slice_of(builder.largest.data, builder.largest.size), handle, status
    ) < 0:
        return -1
    builder.properties.data_blocks += 1
    block_builder_reset(&builder.data)
    if block_builder_bytes(&builder.index) >= PARTITION_INDEX_BYTES:
        return finish_partition(builder, status)
    return 0


cdef int note_key(TableBuilder* builder, Slice user_key, uint64_t trailer, Status* status) noexcept nogil:
    """Check the order of a new key, hash it if it is a new user key, and remember it."""
    cdef Slice last
    cdef Slice internal = slice_of(user_key.data, user_key.size + TRAILER_BYTES)
    cdef int order = 1
    cdef uint64_t hashed
    if builder.properties.entries:
        last = slice_of(builder.largest.data, builder.largest.size)
        order = slice_compare(user_key, internal_user_key(last))
        if order < 0 or (order == 0 and trailer >= internal_trailer(last)):
            return status_set(status, INVALID_OPERATION, b"table keys out of order", -1)
    elif buffer_append(&builder.smallest, internal.data, internal.size) < 0:
        return no_memory(status)
    if builder.options.bloom_bits and (order or builder.hashes.size == 0):
        hashed = filter_hash(user_key.data, user_key.size)
        if buffer_append(&builder.hashes, &hashed, sizeof(hashed)) < 0:
            return no_memory(status)
    builder.largest.size = 0
    if buffer_append(&builder.largest, internal.data, internal.size) < 0:
        return no_memory(status)
    return 0


cdef int table_builder_add(
    TableBuilder* builder, Slice internal_key, Slice value, Status* status
) noexcept nogil:
    if (
        internal_key.size < TRAILER_BYTES
        or internal_key.size > ENTRY_BYTES_MAX
        or value.size > ENTRY_BYTES_MAX
    ):
        return status_set(status, INVALID_OPERATION, b"table entry size", -1)
    cdef Slice user_key = internal_user_key(internal_key)
    cdef uint64_t trailer = internal_trailer(internal_key)
    cdef uint64_t sequence = trailer_sequence(trailer)
    if trailer_kind(trailer) > KIND_MAX:
        return status_set(status, INVALID_OPERATION, b"table entry kind", -1)
    if note_key(builder, user_key, trailer, status) < 0:
        return -1
    if block_builder_add(&builder.data, user_key, trailer, value) < 0:
        return no_memory(status)
    builder.properties.entries += 1
    builder.properties.tombstones += trailer_kind(trailer) == KIND_DELETE
    builder.properties.raw_key_bytes += internal_key.size
    builder.properties.raw_value_bytes += value.size
    if sequence < builder.properties.min_sequence:
        builder.properties.min_sequence = sequence
    if sequence > builder.properties.max_sequence:
        builder.properties.max_sequence = sequence
    if block_builder_bytes(&builder.data) >= builder.options.block_bytes:
        return finish_block(builder, status)
    return 0


cdef int add_properties(TableBuilder* builder, Handle* handle, Status* status) noexcept nogil:
    cdef Properties* properties = &builder.properties
    properties.bloom_bits = <uint32_t> builder.options.bloom_bits
    properties.restart_interval = <uint32_t> builder.options.restart_interval
    properties.block_bytes = <uint32_t> builder.options.block_bytes
    properties.smallest = slice_of(builder.smallest.data, builder.smallest.size)
    properties.largest = slice_of(builder.largest.data, builder.largest.size)
    if properties_put(&builder.scratch, properties) < 0:
        return no_memory(status)
    return add_frame(builder, FRAME_PROPERTIES, COMPRESSION_NONE, handle, status)


cdef int write_rest(TableBuilder* builder, Status* status) noexcept nogil:
    """All that follows the last entry, made durable."""
    cdef Footer footer
    cdef uint8_t[TABLE_FOOTER_BYTES] last
    cdef int result
    if builder.properties.entries == 0:
        return status_set(status, INVALID_OPERATION, b"table without entries", -1)
    if builder.data.entries and finish_block(builder, status) < 0:
        return -1
    if builder.index.entries and finish_partition(builder, status) < 0:
        return -1
    if block_builder_finish(&builder.root, &builder.scratch) < 0:
        return no_memory(status)
    if add_frame(builder, FRAME_ROOT, COMPRESSION_NONE, &footer.root, status) < 0:
        return -1
    if add_properties(builder, &footer.properties, status) < 0:
        return -1
    footer_put(last, builder.file_number, &footer, position(builder) + TABLE_FOOTER_BYTES)
    if buffer_append(&builder.pending, last, TABLE_FOOTER_BYTES) < 0:
        return no_memory(status)
    if write_pending(builder, status) < 0:
        return -1
    result = builder.ops.datasync(builder.disk, builder.file)
    if result < 0:
        return status_os_error(status, -result, b"sync table", -1)
    return 0


cdef int table_builder_finish(TableBuilder* builder, TableSummary* summary, Status* status) noexcept nogil:
    cdef int result
    if write_rest(builder, status) < 0:
        table_builder_discard(builder)
        return -1
    result = builder.ops.close(builder.disk, builder.file)
    if result < 0:
        status_os_error(status, -result, b"close table", -1)
        builder.ops.unlink(builder.disk, builder.path)
    else:
        summary.file_bytes = builder.written
        summary.entries = builder.properties.entries
        summary.tombstones = builder.properties.tombstones
        summary.min_sequence = builder.properties.min_sequence
        summary.max_sequence = builder.properties.max_sequence
    builder_free(builder)
    return 0 if result >= 0 else -1


cdef void table_builder_discard(TableBuilder* builder) noexcept nogil:
    # Whatever close and unlink answer: the file is of no use, and its name is never used again.
    builder.ops.close(builder.disk, builder.file)
    builder.ops.unlink(builder.disk, builder.path)
    builder_free(builder)
