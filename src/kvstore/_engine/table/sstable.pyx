"""The table reader: open, and the loading of blocks. See sstable.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, strlen

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    PyThreadState,
    Slice,
    Status,
    TRUNCATED_RECORD,
    get_fixed32,
    get_fixed64,
    internal_compare,
    internal_trailer,
    internal_user_key,
    kv_calloc,
    kv_free,
    let_go_of_gil,
    reference_add,
    reference_drop,
    slice_of,
    status_clear,
    status_no_memory,
    status_os_error,
    status_set,
    take_gil,
)
from kvstore._engine.files.native cimport FileSystemOps, OPEN_READ
from kvstore._engine.memtable.native cimport range_run_release


cdef enum:
    TAIL_BYTES = 8 << 10            # of the file's end that opening reads at once


# --- frames ---------------------------------------------------------------------------------

cdef uint8_t* table_read_frame(
    Table* table, Handle handle, int kind, size_t* payload_size, Status* status
) noexcept nogil:
    cdef uint8_t* frame = block_allocate(handle.bytes)
    if frame == NULL:
        status_no_memory(status, b"memory for a block")
        return NULL
    if table.tail != NULL and handle.offset >= table.tail_at and (
        handle.offset + handle.bytes <= table.file_bytes
    ):
        memcpy(frame, table.tail + (handle.offset - table.tail_at), handle.bytes)
    elif read_exactly(
        table.ops, table.disk, table.file, frame, handle.bytes, handle.offset, b"read table", status
    ) < 0:
        block_free(frame)
        return NULL
    return frame_open(
        frame, handle, kind, table.identity.seed, <uint32_t> table.properties.largest_block_bytes,
        payload_size, status,
    )


cdef int root_handle(Table* table, uint64_t slot, Handle* handle) noexcept nogil:
    cdef const uint8_t* value
    if slot >= table.root.entries:
        return -1
    value = index_value(&table.root, slot)
    handle.offset = get_fixed64(value)
    handle.bytes = get_fixed32(value + 8)
    return 0


cdef int data_handle(Partition* partition, uint64_t slot, Handle* handle) noexcept nogil:
    cdef uint32_t start = 0
    cdef uint32_t end
    if slot >= partition.index.entries:
        return -1
    end = get_fixed32(index_value(&partition.index, slot))
    if slot:
        start = get_fixed32(index_value(&partition.index, slot - 1))
    if end <= start:
        return -1
    handle.offset = partition.start + start
    handle.bytes = end - start
    return 0


cdef int check_data(
    const uint8_t* frame, size_t size, Index* index, uint64_t slot, int64_t offset, Status* status
) noexcept nogil:
    cdef Block block
    if block_view(&block, frame + FRAME_HEADER_BYTES, size) < 0:
        return status_set(status, INVALID_RECORD, b"block size", offset)
    return block_check(&block, index, slot, offset, status)


cdef int check_data_once(
    Table* table, uint64_t partition, const uint8_t* frame, size_t size, Index* index,
    uint64_t slot, int64_t offset, Status* status
) noexcept nogil:
    cdef uint64_t* bits = checked_of(table.checked, partition)
    if checked_test(bits, slot):
        return 0
    if check_data(frame, size, index, slot, offset, status) < 0:
        return -1
    checked_set(bits, slot)
    return 0


cdef void partition_was_checked(Table* table, uint64_t slot, uint64_t blocks) noexcept nogil:
    """Without memory for its bits it is checked again with the next reading."""
    cdef uint64_t* bits
    if table.checked == NULL:
        return
    bits = <uint64_t*> kv_calloc(2 + blocks // 64, sizeof(uint64_t))
    if bits == NULL:
        return
    bits[0] = blocks
    if not checked_begin(table.checked, slot, bits):
        kv_free(bits)


cdef int check_root(
    Index* root, Properties* properties, Footer* footer, const uint8_t* payload, size_t size,
    Status* status
) noexcept nogil:
    """Partitions must ascend, end where the root begins, and between two lies at least a data block."""
    cdef Handle handle
    cdef uint32_t slot
    cdef uint64_t end = TABLE_HEADER_BYTES
    cdef int order
    cdef int64_t offset = <int64_t> footer.root.offset
    if index_view(root, payload, size, ROOT_VALUE_BYTES) < 0:
        return status_set(status, INVALID_RECORD, b"root index", offset)
    if index_check(root, offset, status) < 0:
        return -1
    if root.entries != properties.partitions:
        return status_set(status, INVALID_RECORD, b"root index entries", offset)
    for slot in range(root.entries):
        handle.offset = get_fixed64(index_value(root, slot))
        handle.bytes = get_fixed32(index_value(root, slot) + 8)
        if (
            handle.offset <= end
            or handle.bytes <= FRAME_HEADER_BYTES + PARTITION_HEADER_BYTES
            or handle.offset > footer.root.offset
            or handle.bytes > footer.root.offset - handle.offset
        ):
            return status_set(status, INVALID_RECORD, b"root index handle", offset)
        end = handle.offset + handle.bytes
    if end != footer.root.offset:
        return status_set(status, INVALID_RECORD, b"root index handle", offset)
    # The last separator is the last entry itself; range tombstones may reach further.
    order = index_order(
        root, root.entries - 1, internal_user_key(properties.largest),
        internal_trailer(properties.largest),
    )
    if order > 0 or (order < 0 and properties.range_deletes == 0):
        return status_set(status, INVALID_RECORD, b"root index end", offset)
    return 0


cdef int partition_view(Partition* partition) noexcept nogil:
    cdef const uint8_t* payload = partition.held.data + FRAME_HEADER_BYTES
    cdef size_t size = partition.held.size - FRAME_HEADER_BYTES
    if size < PARTITION_HEADER_BYTES:
        return -1
    partition.filter_bytes = get_fixed32(payload)
    partition.filter_probes = <int> get_fixed32(payload + 4)
    partition.start = get_fixed64(payload + 8)
    if partition.filter_bytes > size - PARTITION_HEADER_BYTES:
        return -1
    if partition.filter_bytes % FILTER_LINE_BYTES or not 0 <= partition.filter_probes <= FILTER_PROBES_MAX:
        return -1
    partition.filter = NULL
    if partition.filter_bytes:
        partition.filter = payload + PARTITION_HEADER_BYTES
    return index_view(
        &partition.index, payload + PARTITION_HEADER_BYTES + partition.filter_bytes,
        size - PARTITION_HEADER_BYTES - partition.filter_bytes, DATA_VALUE_BYTES,
    )


cdef int check_partition(
    Table* table, const uint8_t* frame, size_t size, uint64_t slot, Status* status
) noexcept nogil:
    cdef Partition partition
    cdef CachedBlock held
    cdef Handle before
    cdef Handle own
    cdef Handle data
    cdef uint64_t start = TABLE_HEADER_BYTES
    cdef uint32_t i
    if root_handle(table, slot, &own) < 0 or (slot and root_handle(table, slot - 1, &before) < 0):
        return status_set(status, INVALID_RECORD, b"root index entry", -1)
    cdef int64_t offset = <int64_t> own.offset
    if slot:
        start = before.offset + before.bytes
    held.data = frame
    held.size = <uint32_t> (FRAME_HEADER_BYTES + size)
    partition.held = &held
    if partition_view(&partition) < 0:
        return status_set(status, INVALID_RECORD, b"partition size", offset)
    for i in range(16, PARTITION_HEADER_BYTES):
        if frame[FRAME_HEADER_BYTES + i]:
            return status_set(status, INVALID_RECORD, b"reserved bytes of a partition", offset)
    if (partition.filter != NULL) != (table.properties.filter_kind != FILTER_NONE):
        return status_set(status, INVALID_RECORD, b"partition filter", offset)
    if index_check(&partition.index, offset, status) < 0:
        return -1
    if index_order_of(&partition.index, partition.index.entries - 1, &table.root, slot) != 0:
        return status_set(status, INVALID_RECORD, b"partition is not the one its index names", offset)
    # The data frames must fill the space from the partition before to this one without a gap.
    if partition.start != start:
        return status_set(status, INVALID_RECORD, b"partition start", offset)
    for i in range(partition.index.entries):
        if data_handle(&partition, i, &data) < 0 or data.bytes <= FRAME_HEADER_BYTES:
            return status_set(status, INVALID_RECORD, b"index handle", offset)
    if data.offset + data.bytes != own.offset:
        return status_set(status, INVALID_RECORD, b"index handle", offset)
    return 0


cdef uint64_t blocks_of(const uint8_t* frame, size_t size) noexcept nogil:
    """How many data blocks a partition has that was checked."""
    cdef Partition partition
    cdef CachedBlock held
    held.data = frame
    held.size = <uint32_t> (FRAME_HEADER_BYTES + size)
    partition.held = &held
    return partition.index.entries if partition_view(&partition) == 0 else 0


cdef CachedBlock* load_partition(
    Table* table, Handle handle, uint64_t slot, bint fill_cache, Status* status
) noexcept nogil:
    cdef size_t size
    cdef uint8_t* frame = table_read_frame(table, handle, FRAME_PARTITION, &size, status)
    if frame == NULL:
        return NULL
    if checked_of(table.checked, slot) == NULL:
        if check_partition(table, frame, size, slot, status) < 0:
            block_free(frame)
            return NULL
        partition_was_checked(table, slot, blocks_of(frame, size))
    return cache_insert_index(
        table.cache if fill_cache else NULL, table.cache_id, handle.offset, frame,
        FRAME_HEADER_BYTES + size,
    )


cdef int view_held(Partition* partition, Handle handle, Status* status) noexcept nogil:
    if partition_view(partition) < 0:
        cache_unpin(partition.held)
        return status_set(status, INVALID_RECORD, b"partition in memory", <int64_t> handle.offset)
    return 0


cdef int table_partition_cached(
    Table* table, uint64_t slot, Partition* partition, Status* status
) noexcept nogil:
    cdef Handle handle
    if root_handle(table, slot, &handle) < 0:
        return status_set(status, INVALID_RECORD, b"root index entry", -1)
    partition.held = cache_get_index(table.cache, table.cache_id, handle.offset)
    if partition.held == NULL:
        return 0
    return -1 if view_held(partition, handle, status) < 0 else 1


cdef int table_partition(
    Table* table, uint64_t slot, bint fill_cache, Partition* partition, Status* status
) noexcept nogil:
    cdef Handle handle
    cdef PyThreadState* own
    if root_handle(table, slot, &handle) < 0:
        return status_set(status, INVALID_RECORD, b"root index entry", -1)
    partition.held = cache_get_index(table.cache, table.cache_id, handle.offset)
    if partition.held == NULL:
        own = let_go_of_gil()
        partition.held = load_partition(table, handle, slot, fill_cache, status)
        take_gil(own)
        if partition.held == NULL:
            return -1
    return view_held(partition, handle, status)


cdef CachedBlock* load_data(
    Table* table, uint64_t partition, Handle handle, Index* index, uint64_t slot, bint fill_cache,
    Status* status
) noexcept nogil:
    cdef size_t size
    cdef uint8_t* frame = table_read_frame(table, handle, FRAME_DATA, &size, status)
    if frame == NULL:
        return NULL
    if check_data_once(
        table, partition, frame, size, index, slot, <int64_t> handle.offset, status
    ) < 0:
        block_free(frame)
        return NULL
    return cache_insert(
        table.cache if fill_cache else NULL, table.cache_id, handle.offset, frame,
        FRAME_HEADER_BYTES + size,
    )


# --- open and close -------------------------------------------------------------------------

cdef int table_read_ends(
    Table* table, Footer* footer, uint8_t* last, size_t* last_bytes, Status* status
) noexcept nogil:
    cdef uint8_t[TABLE_HEADER_BYTES] header
    cdef int64_t size = table.ops.size(table.disk, table.file)
    if size < 0:
        return status_os_error(status, <int> -size, b"size of table", -1)
    table.file_bytes = <uint64_t> size
    if table.file_bytes < TABLE_HEADER_BYTES + TABLE_FOOTER_BYTES:
        return status_set(status, TRUNCATED_RECORD, b"table too short", size)
    if read_exactly(
        table.ops, table.disk, table.file, header, TABLE_HEADER_BYTES, 0, b"read table", status
    ) < 0:
        return -1
    if header_get(header, &table.identity, status) < 0:
        return -1
    if last_bytes[0] > table.file_bytes:
        last_bytes[0] = table.file_bytes
    if read_exactly(
        table.ops, table.disk, table.file, last, last_bytes[0], table.file_bytes - last_bytes[0],
        b"read table", status,
    ) < 0:
        return -1
    return footer_get(
        last + last_bytes[0] - TABLE_FOOTER_BYTES, &table.identity, table.file_bytes, footer, status
    )


cdef int check_properties(Properties* properties, Footer* footer, uint64_t at, Status* status) noexcept nogil:
    if (
        (properties.entries == 0 and properties.range_deletes == 0)
        or properties.tombstones > properties.entries
        or properties.min_sequence > properties.max_sequence
        or properties.largest_block_bytes >> 32
        or (properties.entries != 0) != (footer.root.bytes != 0)
        or (properties.entries != 0) != (properties.partitions != 0)
        or (properties.entries == 0 and footer.root.offset != TABLE_HEADER_BYTES)
        or internal_compare(properties.smallest, properties.largest) > 0
    ):
        return status_set(status, INVALID_RECORD, b"table properties", <int64_t> at)
    return 0


cdef int load_meta(Table* table, Footer* footer, Status* status) noexcept nogil:
    """Meta-index and properties."""
    cdef Handle handle
    cdef size_t size
    table.meta_index_frame = table_read_frame(
        table, footer.meta_index, FRAME_META_INDEX, &table.meta_index_bytes, status
    )
    if table.meta_index_frame == NULL:
        return -1
    if meta_index_check(
        table.meta_index_frame + FRAME_HEADER_BYTES, table.meta_index_bytes,
        footer.root.offset + footer.root.bytes, footer.meta_index.offset, status,
    ) < 0:
        return -1
    if not meta_index_find(
        table.meta_index_frame + FRAME_HEADER_BYTES, table.meta_index_bytes,
        slice_of(META_PROPERTIES, strlen(META_PROPERTIES)), &handle,
    ):
        return status_set(
            status, INVALID_RECORD, b"table without properties", <int64_t> footer.meta_index.offset
        )
    table.properties_frame = table_read_frame(table, handle, FRAME_META, &size, status)
    if table.properties_frame == NULL:
        return -1
    if properties_get(
        table.properties_frame + FRAME_HEADER_BYTES, size, &table.properties, handle.offset, status
    ) < 0:
        return -1
    return check_properties(&table.properties, footer, handle.offset, status)


cdef int load_ranges(Table* table, Footer* footer, Status* status) noexcept nogil:
    cdef Handle handle
    cdef size_t size
    if not meta_index_find(
        table.meta_index_frame + FRAME_HEADER_BYTES, table.meta_index_bytes,
        slice_of(META_RANGE_DELETES, strlen(META_RANGE_DELETES)), &handle,
    ):
        return status_set(
            status, INVALID_RECORD, b"table without its range tombstones",
            <int64_t> footer.meta_index.offset,
        )
    table.ranges_frame = table_read_frame(table, handle, FRAME_META, &size, status)
    if table.ranges_frame == NULL:
        return -1
    table.ranges = range_frame_open(
        table.ranges_frame + FRAME_HEADER_BYTES, size, &table.properties, handle.offset, status
    )
    return 0 if table.ranges != NULL else -1


cdef int load(Table* table, const char* path, const uint8_t* file_id, Status* status) noexcept nogil:
    cdef uint8_t[TAIL_BYTES] tail
    cdef size_t tail_bytes = TAIL_BYTES
    cdef Footer footer
    cdef size_t size
    cdef int result = table.ops.open(table.disk, path, OPEN_READ, &table.file)
    if result < 0:
        table.file = NULL
        return status_os_error(status, -result, b"open table", -1)
    if table_read_ends(table, &footer, tail, &tail_bytes, status) < 0:
        return -1
    if file_id != NULL and memcmp(file_id, table.identity.id, TABLE_ID_BYTES) != 0:
        return status_set(status, INVALID_RECORD, b"another table under this name", 48)
    table.root_handle = footer.root
    table.tail = tail
    table.tail_at = table.file_bytes - tail_bytes
    result = load_meta(table, &footer, status)
    if result == 0 and table.properties.range_deletes:
        result = load_ranges(table, &footer, status)
    if result == 0 and footer.root.bytes:
        table.root_frame = table_read_frame(table, footer.root, FRAME_ROOT, &size, status)
        result = -1
        if table.root_frame != NULL:
            result = check_root(
                &table.root, &table.properties, &footer, table.root_frame + FRAME_HEADER_BYTES,
                size, status,
            )
    table.tail = NULL
    if result == 0 and table.root.entries:
        table.checked = <uint64_t**> kv_calloc(table.root.entries, sizeof(uint64_t*))
    return result


cdef Table* table_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    const uint8_t* file_id, BlockCache* cache, uint64_t cache_id, Status* status
) noexcept nogil:
    cdef Table* table = <Table*> kv_calloc(1, sizeof(Table))
    status_clear(status)
    status.table = file_number
    if table == NULL:
        status_no_memory(status, b"memory for a table")
        return NULL
    table.references = 1
    table.ops = ops
    table.disk = disk
    table.identity.file_number = file_number
    table.cache = cache
    table.forgets = cache_id == 0
    table.cache_id = cache_id if cache_id else cache_next_table_id()
    index_empty(&table.root)
    if cache != NULL:
        cache_retain(cache)
    if load(table, path, file_id, status) < 0:
        table_release(table)
        return NULL
    return table


cdef void table_retain(Table* table) noexcept nogil:
    reference_add(&table.references)


cdef void table_release(Table* table) noexcept nogil:
    cdef uint32_t slot
    if not reference_drop(&table.references):
        return
    if table.cache != NULL:
        if table.forgets:
            cache_forget_table(table.cache, table.cache_id)
        cache_release(table.cache)
    if table.map != NULL:
        table.ops.unmap(table.disk, table.map, table.file_bytes)
    if table.file != NULL:
        table.ops.close(table.disk, table.file)
    if table.ranges != NULL:
        range_run_release(table.ranges)
    block_free(table.ranges_frame)
    block_free(table.root_frame)
    block_free(table.properties_frame)
    block_free(table.meta_index_frame)
    if table.checked != NULL:
        for slot in range(table.root.entries):
            kv_free(table.checked[slot])
        kv_free(table.checked)
    kv_free(table)


cdef bint table_has_meta(Table* table, const char* name) noexcept nogil:
    cdef Handle handle
    return meta_index_find(
        table.meta_index_frame + FRAME_HEADER_BYTES, table.meta_index_bytes,
        slice_of(name, strlen(name)), &handle,
    ) != 0


cdef uint8_t* table_meta_read(Table* table, const char* name, size_t* size, Status* status) noexcept nogil:
    cdef Handle handle
    cdef PyThreadState* own
    cdef uint8_t* frame
    if not meta_index_find(
        table.meta_index_frame + FRAME_HEADER_BYTES, table.meta_index_bytes,
        slice_of(name, strlen(name)), &handle,
    ):
        return NULL
    own = let_go_of_gil()
    frame = table_read_frame(table, handle, FRAME_META, size, status)
    take_gil(own)
    return frame


# --- for approximate sizes ------------------------------------------------------------------

cdef uint64_t table_offset_of(Table* table, Slice internal_key) noexcept nogil:
    cdef Partition partition
    cdef Handle handle
    cdef Handle data
    cdef Status status
    cdef Slice user_key = internal_user_key(internal_key)
    cdef uint64_t trailer = internal_trailer(internal_key)
    cdef int64_t slot = index_lower(&table.root, user_key, trailer)
    if slot < 0 or slot == table.root.entries:
        return table.root_handle.offset
    if root_handle(table, <uint64_t> slot, &handle) < 0:
        return table.root_handle.offset
    status_clear(&status)
    if table_partition(table, <uint64_t> slot, True, &partition, &status) < 0:
        return handle.offset
    slot = index_lower(&partition.index, user_key, trailer)
    # Where the index is damaged the partition's own offset stays.
    if slot >= 0 and data_handle(&partition, <uint64_t> slot, &data) == 0:
        handle = data
    cache_unpin(partition.held)
    return handle.offset
