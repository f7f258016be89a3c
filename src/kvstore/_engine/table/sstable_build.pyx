"""The table builder: gathers entries into blocks, blocks into partitions, partitions into a table.

A partition is a run of data blocks with their index and their filter in one frame: a lookup reads
both in one step, the memory of both goes through the cache, and opening a table reads neither.
The layout of the file stands in sstable_frame.pyx.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strcmp, strlen

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
    buffer_init,
    buffer_reserve,
    internal_compare,
    internal_trailer,
    internal_user_key,
    kv_calloc,
    kv_free,
    kv_strdup,
    put_fixed32,
    put_fixed64,
    slice_compare,
    slice_of,
    status_no_memory,
    status_os_error,
    status_set,
    trailer_kind,
    trailer_sequence,
)
from kvstore._engine.files.native cimport FileSystemOps, OPEN_EXCLUSIVE, PIECE_BYTES


cdef extern from "<errno.h>" nogil:
    int errno


cdef extern from "<unistd.h>" nogil:
    int getentropy(void* into, size_t size)


cdef enum:
    WRITE_BYTES = PIECE_BYTES       # gathered before each pwrite
    WRITE_SPARE_BYTES = WRITE_BYTES // 4    # for the frame that makes it so many
    PARTITION_INDEX_BYTES = 4 << 10     # a partition ends when its index has grown to this
    PARTITION_SPAN_SHIFT = 31       # or its data frames to so many bits: one more still fits into 32
    META_FRAMES_MAX = 8
    BLOCK_BYTES_MIN = 64
    BLOCK_BYTES_MAX = 1 << 26
    BLOOM_BITS_MAX = 32
    ENTRY_BYTES_MAX = 1 << 30       # key or value


cdef struct MetaFrame:
    # Noted by table_builder_add_meta until all data is written.
    char name[META_NAME_BYTES_MAX + 1]
    int flags
    Buffer payload


cdef struct TableBuilder:
    const FileSystemOps* ops
    void* disk
    void* file
    char* path
    TableIdentity identity
    TableOptions options
    uint64_t written            # bytes in the file
    Buffer pending              # bytes that follow them
    BlockBuilder data
    IndexBuilder index          # of the present partition
    uint64_t partition_at       # where its first data frame begins
    bint awaiting               # a data frame was written whose separator the next key decides
    uint32_t awaiting_end       # of that frame, from partition_at on
    IndexBuilder root
    MetaFrame metas[META_FRAMES_MAX]    # ascending by name
    int meta_count
    Buffer scratch
    Buffer hashes               # u64 filter hash of each user key of the present partition
    Buffer smallest             # internal key of the whole table; the largest: data.last_key
    Buffer low                  # of the table's range, where it reaches further: internal keys
    Buffer high
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
    cdef int i
    block_builder_free(&builder.data)
    index_builder_free(&builder.index)
    index_builder_free(&builder.root)
    buffer_free(&builder.pending)
    buffer_free(&builder.scratch)
    buffer_free(&builder.hashes)
    buffer_free(&builder.smallest)
    buffer_free(&builder.low)
    buffer_free(&builder.high)
    for i in range(builder.meta_count):
        buffer_free(&builder.metas[i].payload)
    kv_free(builder.path)
    kv_free(builder)


cdef TableBuilder* table_builder_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const uint8_t* file_id, const TableOptions* options, Status* status
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
    builder.identity.file_number = file_number
    builder.options = options[0]
    builder.properties.min_sequence = <uint64_t> -1
    block_builder_init(&builder.data, <uint32_t> options.restart_interval)
    builder.partition_at = TABLE_HEADER_BYTES
    index_builder_init(&builder.index, DATA_VALUE_BYTES)
    index_builder_init(&builder.root, ROOT_VALUE_BYTES)
    if builder.path == NULL or buffer_reserve(&builder.pending, WRITE_BYTES + WRITE_SPARE_BYTES) < 0:
        no_memory(status)
        builder_free(builder)
        return NULL
    if file_id != NULL:
        memcpy(builder.identity.id, file_id, TABLE_ID_BYTES)
    elif getentropy(builder.identity.id, TABLE_ID_BYTES) < 0:
        status_os_error(status, errno, b"random bytes for a table's id", -1)
        builder_free(builder)
        return NULL
    identity_seed(&builder.identity)
    result = ops.open(disk, path, OPEN_EXCLUSIVE, &builder.file)
    if result < 0:
        status_os_error(status, -result, b"create table", -1)
        builder_free(builder)
        return NULL
    header_put(builder.pending.data, &builder.identity)
    builder.pending.size = TABLE_HEADER_BYTES
    return builder


cdef inline Slice last_added(TableBuilder* builder) noexcept nogil:
    return slice_of(builder.data.last_key.data, builder.data.last_key.size)


cdef Slice table_builder_last(TableBuilder* builder) noexcept nogil:
    return last_added(builder)


cdef inline uint64_t position(TableBuilder* builder) noexcept nogil:
    return builder.written + builder.pending.size


cdef uint64_t table_builder_bytes(TableBuilder* builder) noexcept nogil:
    return (
        position(builder) + block_builder_bytes(&builder.data)
        + builder.index.most_bytes + builder.root.most_bytes
    )


cdef int write_pending(TableBuilder* builder, Status* status) noexcept nogil:
    cdef int result
    if builder.pending.size == 0:
        return 0
    result = builder.ops.pwrite(
        builder.disk, builder.file, builder.pending.data, builder.pending.size, builder.written
    )
    if result >= 0 and builder.pending.size >= WRITE_BYTES:
        result = builder.ops.write_back(
            builder.disk, builder.file, builder.written, builder.pending.size
        )
    if result < 0:
        return status_os_error(status, -result, b"write table", <int64_t> builder.written)
    builder.written += builder.pending.size
    builder.pending.size = 0
    return 0


cdef int frame_added(TableBuilder* builder, Handle* handle, Status* status) noexcept nogil:
    """Notes how long the frame is that ends here, and writes once enough has gathered."""
    handle.bytes = <uint32_t> (position(builder) - handle.offset)
    return write_pending(builder, status) if builder.pending.size >= WRITE_BYTES else 0


cdef int add_frame(
    TableBuilder* builder, int kind, int compression, Handle* handle, Status* status
) noexcept nogil:
    """Frame the payload that stands in `scratch`."""
    handle.offset = position(builder)
    if frame_append(
        &builder.pending, kind, compression, builder.identity.seed, handle.offset,
        builder.scratch.data, builder.scratch.size,
    ) < 0:
        return no_memory(status)
    builder.scratch.size = 0
    return frame_added(builder, handle, status)


cdef int add_block(TableBuilder* builder, size_t size, Handle* handle, Status* status) noexcept nogil:
    """Frame the block being built, uncompressed, where it is written from: without a copy between."""
    cdef size_t start = builder.pending.size
    handle.offset = position(builder)
    if frame_begin(&builder.pending, size) < 0:
        return no_memory(status)
    block_builder_finish(&builder.data, &builder.pending)
    frame_end(
        &builder.pending, start, FRAME_DATA, COMPRESSION_NONE, builder.identity.seed,
        handle.offset, size,
    )
    return frame_added(builder, handle, status)


cdef int add_separator(TableBuilder* builder, Slice user_key, bint exact, uint64_t trailer, Status* status) noexcept nogil:
    """The last data frame's entry in its index; ends the partition when it has grown to its size."""
    cdef uint8_t[DATA_VALUE_BYTES] value
    put_fixed32(value, builder.awaiting_end)
    builder.awaiting = False
    if index_builder_add(&builder.index, user_key, exact, trailer, value) < 0:
        return no_memory(status)
    if (
        builder.awaiting_end >> PARTITION_SPAN_SHIFT
        or index_builder_exactly(&builder.index) >= PARTITION_INDEX_BYTES
    ):
        return finish_partition(builder, user_key, exact, trailer, status)
    return 0


cdef int add_last_separator(TableBuilder* builder, Status* status) noexcept nogil:
    """Nothing follows: the last key is its own separator."""
    cdef Slice last = last_added(builder)
    if add_separator(builder, internal_user_key(last), True, internal_trailer(last), status) < 0:
        return -1
    if builder.index.entries:
        return finish_partition(builder, internal_user_key(last), True, internal_trailer(last), status)
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
    put_fixed64(at + 8, builder.partition_at)
    at += PARTITION_HEADER_BYTES
    if size:
        for i in range(keys):
            filter_add(at, size, probes, hashes[i])
    builder.scratch.size += PARTITION_HEADER_BYTES + size
    return 0


cdef int finish_partition(
    TableBuilder* builder, Slice user_key, bint exact, uint64_t trailer, Status* status
) noexcept nogil:
    """The last separator of the partition's index is that of the partition, too."""
    cdef Handle handle
    cdef uint8_t[ROOT_VALUE_BYTES] value
    if append_filter(builder) < 0:
        return no_memory(status)
    if index_builder_finish(&builder.index, &builder.scratch) < 0:
        return no_memory(status)
    if add_frame(builder, FRAME_PARTITION, COMPRESSION_NONE, &handle, status) < 0:
        return -1
    put_fixed64(value, handle.offset)
    put_fixed32(value + 8, handle.bytes)
    if index_builder_add(&builder.root, user_key, exact, trailer, value) < 0:
        return no_memory(status)
    builder.properties.partitions += 1
    index_builder_reset(&builder.index)
    builder.hashes.size = 0
    builder.partition_at = position(builder)
    return 0


cdef int finish_block(TableBuilder* builder, Status* status) noexcept nogil:
    cdef Handle handle
    cdef size_t size = block_builder_bytes(&builder.data)
    if size > builder.properties.largest_block_bytes:
        builder.properties.largest_block_bytes = size
    if builder.options.compression == COMPRESSION_NONE:
        if add_block(builder, size, &handle, status) < 0:
            return -1
    elif block_builder_finish(&builder.data, &builder.scratch) < 0:
        return no_memory(status)
    elif add_frame(builder, FRAME_DATA, builder.options.compression, &handle, status) < 0:
        return -1
    builder.awaiting = True
    builder.awaiting_end = <uint32_t> (handle.offset + handle.bytes - builder.partition_at)
    builder.properties.data_blocks += 1
    block_builder_reset(&builder.data)
    return 0


cdef int separate(TableBuilder* builder, Slice user_key, bint is_new, Status* status) noexcept nogil:
    """The separator that the first key after a data frame decides."""
    cdef Slice last = last_added(builder)
    if is_new:
        return add_separator(
            builder, index_separator(internal_user_key(last), user_key), False, 0, status
        )
    return add_separator(builder, internal_user_key(last), True, internal_trailer(last), status)


cdef inline bint follows(Slice last, Slice internal_key, size_t shared) noexcept nogil:
    """Whether the key comes after the last one, knowing how many bytes their user keys share."""
    cdef size_t size = internal_key.size - TRAILER_BYTES
    if shared < last.size - TRAILER_BYTES:
        return shared < size and internal_key.data[shared] > last.data[shared]
    return shared < size or internal_trailer(internal_key) < internal_trailer(last)


cdef int table_builder_add(
    TableBuilder* builder, Slice internal_key, Slice value, Status* status
) noexcept nogil:
    cdef size_t shared = 0
    if internal_key.size >= TRAILER_BYTES:
        shared = block_builder_shared(&builder.data, internal_user_key(internal_key))
    return 0 if table_builder_add_after(builder, internal_key, shared, value, status) >= 0 else -1


cdef int table_builder_add_after(
    TableBuilder* builder, Slice internal_key, size_t shared, Slice value, Status* status
) noexcept nogil:
    cdef Properties* properties = &builder.properties
    cdef Slice last = last_added(builder)
    cdef uint64_t trailer, sequence, hashed
    cdef bint is_put, is_new = True
    if (
        internal_key.size < TRAILER_BYTES
        or internal_key.size > ENTRY_BYTES_MAX
        or value.size > ENTRY_BYTES_MAX
    ):
        return status_set(status, INVALID_OPERATION, b"table entry size", -1)
    trailer = internal_trailer(internal_key)
    sequence = trailer_sequence(trailer)
    is_put = trailer_kind(trailer) != KIND_DELETE
    if trailer_kind(trailer) > KIND_MAX:
        return status_set(status, INVALID_OPERATION, b"table entry kind", -1)
    if properties.entries == 0:
        shared = 0
        if buffer_append(&builder.smallest, internal_key.data, internal_key.size) < 0:
            return no_memory(status)
    elif not follows(last, internal_key, shared):
        return status_set(status, INVALID_OPERATION, b"table keys out of order", -1)
    else:
        is_new = shared < internal_key.size - TRAILER_BYTES or internal_key.size != last.size
        properties.superseded += not is_new and is_put
    if builder.awaiting and separate(builder, internal_user_key(internal_key), is_new, status) < 0:
        return -1
    if builder.options.bloom_bits and (is_new or builder.hashes.size == 0):
        if buffer_reserve(&builder.hashes, sizeof(hashed)) < 0:
            return no_memory(status)
        hashed = filter_hash(internal_key.data, internal_key.size - TRAILER_BYTES)
        memcpy(builder.hashes.data + builder.hashes.size, &hashed, sizeof(hashed))
        builder.hashes.size += sizeof(hashed)
    if block_builder_add(&builder.data, internal_key, shared, value) < 0:
        return no_memory(status)
    properties.entries += 1
    properties.tombstones += not is_put
    properties.raw_key_bytes += internal_key.size
    properties.raw_value_bytes += value.size
    if sequence < properties.min_sequence:
        properties.min_sequence = sequence
    if sequence > properties.max_sequence:
        properties.max_sequence = sequence
    if block_builder_bytes(&builder.data) < builder.options.block_bytes:
        return 0
    return -1 if finish_block(builder, status) < 0 else 1


# --- meta frames ----------------------------------------------------------------------------

cdef int table_builder_add_meta(
    TableBuilder* builder, const char* name, bint may_be_skipped, Slice payload, Status* status
) noexcept nogil:
    cdef size_t size = strlen(name)
    cdef int at = 0
    cdef MetaFrame meta
    cdef MetaFrame moved
    memset(&meta, 0, sizeof(meta))
    if size == 0 or size > META_NAME_BYTES_MAX or builder.meta_count == META_FRAMES_MAX:
        return status_set(status, INVALID_OPERATION, b"table meta frame", -1)
    memcpy(meta.name, name, size)
    meta.flags = META_MAY_BE_SKIPPED if may_be_skipped else 0
    if buffer_append(&meta.payload, payload.data, payload.size) < 0:
        return no_memory(status)
    while at < builder.meta_count and strcmp(builder.metas[at].name, name) < 0:
        at += 1
    if at < builder.meta_count and strcmp(builder.metas[at].name, name) == 0:
        buffer_free(&meta.payload)
        return status_set(status, INVALID_OPERATION, b"table meta frame twice", -1)
    builder.meta_count += 1
    while at < builder.meta_count:
        moved = builder.metas[at]
        builder.metas[at] = meta
        meta = moved
        at += 1
    return 0


cdef int table_builder_cover(
    TableBuilder* builder, Slice smallest, Slice largest, uint64_t lowest, uint64_t highest,
    uint64_t count, Status* status
) noexcept nogil:
    builder.properties.range_deletes = count
    if lowest < builder.properties.min_sequence:
        builder.properties.min_sequence = lowest
    if highest > builder.properties.max_sequence:
        builder.properties.max_sequence = highest
    builder.low.size = builder.high.size = 0
    if buffer_append(&builder.low, smallest.data, smallest.size) < 0:
        return no_memory(status)
    if buffer_append(&builder.high, largest.data, largest.size) < 0:
        return no_memory(status)
    return 0


cdef Slice bound(Buffer* own, Buffer* noted, int direction) noexcept nogil:
    """The outer one of the two, either of which may be empty."""
    cdef Slice a = slice_of(own.data, own.size)
    cdef Slice b = slice_of(noted.data, noted.size)
    if b.size == 0 or (a.size and direction * internal_compare(a, b) >= 0):
        return a
    return b


cdef int add_properties(TableBuilder* builder, Status* status) noexcept nogil:
    cdef Properties* properties = &builder.properties
    cdef Slice payload
    properties.bloom_bits = <uint64_t> builder.options.bloom_bits
    properties.filter_kind = FILTER_BLOCKED_BLOOM if builder.options.bloom_bits else FILTER_NONE
    properties.filter_hash = FILTER_HASH if builder.options.bloom_bits else 0
    properties.restart_interval = <uint64_t> builder.options.restart_interval
    properties.block_bytes = builder.options.block_bytes
    properties.compression = <uint64_t> builder.options.compression
    properties.smallest = bound(&builder.smallest, &builder.low, -1)
    properties.largest = bound(&builder.data.last_key, &builder.high, 1)
    if properties_put(&builder.scratch, properties) < 0:
        return no_memory(status)
    payload = slice_of(builder.scratch.data, builder.scratch.size)
    builder.scratch.size = 0
    return table_builder_add_meta(builder, META_PROPERTIES, False, payload, status)


cdef int add_meta_frames(TableBuilder* builder, Footer* footer, Status* status) noexcept nogil:
    cdef Buffer index
    cdef Handle handle
    cdef int i
    cdef int result = 0
    buffer_init(&index)
    for i in range(builder.meta_count):
        builder.scratch.size = 0
        if buffer_append(
            &builder.scratch, builder.metas[i].payload.data, builder.metas[i].payload.size
        ) < 0:
            result = no_memory(status)
            break
        result = add_frame(builder, FRAME_META, COMPRESSION_NONE, &handle, status)
        if result < 0:
            break
        if meta_index_put(
            &index, slice_of(builder.metas[i].name, strlen(builder.metas[i].name)),
            builder.metas[i].flags, handle,
        ) < 0:
            result = no_memory(status)
            break
    builder.scratch.size = 0
    if result == 0 and buffer_append(&builder.scratch, index.data, index.size) < 0:
        result = no_memory(status)
    buffer_free(&index)
    if result < 0:
        return -1
    return add_frame(builder, FRAME_META_INDEX, COMPRESSION_NONE, &footer.meta_index, status)


# --- the end --------------------------------------------------------------------------------

cdef int write_rest(TableBuilder* builder, Status* status) noexcept nogil:
    """All that follows the last entry, made durable."""
    cdef Footer footer
    cdef uint8_t[TABLE_FOOTER_BYTES] last
    cdef int result
    if builder.properties.entries == 0 and builder.properties.range_deletes == 0:
        return status_set(status, INVALID_OPERATION, b"table without entries", -1)
    if builder.data.entries and finish_block(builder, status) < 0:
        return -1
    if builder.awaiting and add_last_separator(builder, status) < 0:
        return -1
    footer.root.offset = position(builder)
    footer.root.bytes = 0
    if builder.root.entries:
        if index_builder_finish(&builder.root, &builder.scratch) < 0:
            return no_memory(status)
        if add_frame(builder, FRAME_ROOT, COMPRESSION_NONE, &footer.root, status) < 0:
            return -1
    if add_properties(builder, status) < 0:
        return -1
    if add_meta_frames(builder, &footer, status) < 0:
        return -1
    footer_put(last, &builder.identity, &footer, position(builder) + TABLE_FOOTER_BYTES)
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
        summary.superseded = builder.properties.superseded
        summary.range_deletes = builder.properties.range_deletes
        summary.min_sequence = builder.properties.min_sequence
        summary.max_sequence = builder.properties.max_sequence
        memcpy(summary.file_id, builder.identity.id, TABLE_ID_BYTES)
    builder_free(builder)
    return 0 if result >= 0 else -1


cdef void table_builder_discard(TableBuilder* builder) noexcept nogil:
    # Whatever close and unlink answer: the file is of no use, and its name is never used again.
    builder.ops.close(builder.disk, builder.file)
    builder.ops.unlink(builder.disk, builder.path)
    builder_free(builder)
