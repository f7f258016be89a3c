"""The table reader: open, point lookup, and the loading of blocks. See sstable.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    KIND_DELETE,
    KIND_MAX,
    Slice,
    Status,
    TRUNCATED_RECORD,
    get_fixed32,
    internal_compare,
    internal_trailer,
    internal_user_key,
    kv_calloc,
    kv_free,
    prefetch_run,
    reference_add,
    reference_drop,
    slice_of,
    status_clear,
    status_no_memory,
    status_os_error,
    status_set,
    trailer_kind,
    trailer_pack,
    trailer_sequence,
)
from kvstore._engine.files.native cimport FileSystemOps, OPEN_READ
from kvstore._engine.memtable.native cimport ABSENT, DELETED, FAILED, FOUND


# --- frames ---------------------------------------------------------------------------------

cdef uint8_t* table_read_frame(
    Table* table, Handle handle, int kind, size_t* payload_size, Status* status
) noexcept nogil:
    """A frame from disk, checksum verified and uncompressed; NULL: see status."""
    cdef uint8_t* frame = block_allocate(handle.bytes)
    if frame == NULL:
        status_no_memory(status, b"memory for a block")
        return NULL
    if read_exactly(
        table.ops, table.disk, table.file, frame, handle.bytes, handle.offset, b"read table", status
    ) < 0:
        block_free(frame)
        return NULL
    return frame_open(
        frame, handle, kind, table.file_number, table.properties.largest_block_bytes,
        payload_size, status,
    )


cdef int index_entry(Block* index, uint64_t slot, Handle* handle, Slice* key) noexcept nogil:
    cdef BlockEntry entry
    if slot >= index.restarts:
        return -1
    if block_entry(index, index.key_at[slot], index.value_at[slot], &entry) < 0 or entry.shared:
        return -1
    key[0] = slice_of(entry.suffix, <size_t> (index.keys + entry.next_key_at - entry.suffix))
    return handle_get(entry.value, handle)


cdef inline int slot_handle(Block* index, uint64_t slot, Handle* handle) noexcept nogil:
    """The handle of an index entry, without its key. -1: there is none."""
    if (slot + 1) * HANDLE_BYTES > index.value_bytes:
        return -1
    return handle_get(slice_of(index.values + slot * HANDLE_BYTES, HANDLE_BYTES), handle)


cdef int check_data(
    const uint8_t* frame, size_t size, Slice last, int64_t offset, Status* status
) noexcept nogil:
    cdef Block block
    if block_view(&block, frame + FRAME_HEADER_BYTES, size) < 0:
        return status_set(status, INVALID_RECORD, b"block size", offset)
    return block_check(&block, last, offset, status)


cdef int check_index(
    Block* index, uint64_t start, uint64_t end, int64_t offset, Status* status
) noexcept nogil:
    """Each entry must name a frame, and the frames must fill [start, end) without a gap."""
    cdef Handle handle
    cdef Slice key
    cdef uint32_t slot
    if index.restarts != index.entries:
        return status_set(status, INVALID_RECORD, b"index restarts", offset)
    for slot in range(index.entries):
        if index_entry(index, slot, &handle, &key) < 0:
            return status_set(status, INVALID_RECORD, b"index entry", offset)
        if handle.offset != start or handle.bytes <= FRAME_HEADER_BYTES or handle.bytes > end - start:
            return status_set(status, INVALID_RECORD, b"index handle", offset)
        # Handles are all of one size: slot_handle finds one by its number alone.
        if index.value_at[slot] != slot * HANDLE_BYTES:
            return status_set(status, INVALID_RECORD, b"index handle", offset)
        start += handle.bytes
    if start != end:
        return status_set(status, INVALID_RECORD, b"index handle", offset)
    return 0


cdef int check_root(Table* table, Status* status) noexcept nogil:
    """Partitions must ascend; between two of them lies at least a data block."""
    cdef Handle handle
    cdef Slice key
    cdef uint32_t slot
    cdef uint64_t end = TABLE_HEADER_BYTES
    cdef int64_t offset = <int64_t> table.root_handle.offset
    if table.root.restarts != table.root.entries:
        return status_set(status, INVALID_RECORD, b"root index restarts", offset)
    for slot in range(table.root.entries):
        if index_entry(&table.root, slot, &handle, &key) < 0:
            return status_set(status, INVALID_RECORD, b"root index entry", offset)
        if (
            table.root.value_at[slot] != slot * HANDLE_BYTES
            or handle.offset <= end
            or handle.bytes <= FRAME_HEADER_BYTES + PARTITION_HEADER_BYTES
            or handle.offset > table.root_handle.offset
            or handle.bytes > table.root_handle.offset - handle.offset
        ):
            return status_set(status, INVALID_RECORD, b"root index handle", offset)
        end = handle.offset + handle.bytes
    if end != table.root_handle.offset:
        return status_set(status, INVALID_RECORD, b"root index handle", offset)
    return 0


cdef int partition_view(Partition* partition) noexcept nogil:
    cdef const uint8_t* payload = partition.held.data + FRAME_HEADER_BYTES
    cdef size_t size = partition.held.size - FRAME_HEADER_BYTES
    if size < PARTITION_HEADER_BYTES:
        return -1
    partition.filter_bytes = get_fixed32(payload)
    partition.filter_probes = <int> get_fixed32(payload + 4)
    if partition.filter_bytes > size - PARTITION_HEADER_BYTES:
        return -1
    if partition.filter_bytes % FILTER_LINE_BYTES or not 0 <= partition.filter_probes <= FILTER_PROBES_MAX:
        return -1
    partition.filter = NULL
    if partition.filter_bytes:
        partition.filter = payload + PARTITION_HEADER_BYTES
    return block_view(
        &partition.index, payload + PARTITION_HEADER_BYTES + partition.filter_bytes,
        size - PARTITION_HEADER_BYTES - partition.filter_bytes,
    )


cdef int check_partition(
    Table* table, const uint8_t* frame, size_t size, Slice last, uint64_t slot, Status* status
) noexcept nogil:
    cdef Partition partition
    cdef CachedBlock held
    cdef Handle before
    cdef Handle own
    cdef Slice key
    cdef uint64_t start = TABLE_HEADER_BYTES
    if index_entry(&table.root, slot, &own, &key) < 0:
        return status_set(status, INVALID_RECORD, b"root index entry", -1)
    if slot:
        if index_entry(&table.root, slot - 1, &before, &key) < 0:
            return status_set(status, INVALID_RECORD, b"root index entry", -1)
        start = before.offset + before.bytes
    held.data = frame
    held.size = FRAME_HEADER_BYTES + size
    partition.held = &held
    if partition_view(&partition) < 0:
        return status_set(status, INVALID_RECORD, b"partition size", <int64_t> own.offset)
    if (partition.filter != NULL) != (table.properties.bloom_bits != 0):
        return status_set(status, INVALID_RECORD, b"partition filter", <int64_t> own.offset)
    if block_check(&partition.index, last, <int64_t> own.offset, status) < 0:
        return -1
    return check_index(&partition.index, start, own.offset, <int64_t> own.offset, status)


cdef int table_partition(
    Table* table, uint64_t slot, bint fill_cache, Partition* partition, Status* status
) noexcept nogil:
    cdef Handle handle
    cdef Slice last
    cdef uint8_t* frame
    cdef size_t size
    if slot_handle(&table.root, slot, &handle) < 0:
        return status_set(status, INVALID_RECORD, b"root index entry", -1)
    partition.held = cache_get(table.cache, table.id, handle.offset)
    if partition.held == NULL:
        if index_entry(&table.root, slot, &handle, &last) < 0:
            return status_set(status, INVALID_RECORD, b"root index entry", -1)
        frame = table_read_frame(table, handle, FRAME_PARTITION, &size, status)
        if frame == NULL:
            return -1
        if check_partition(table, frame, size, last, slot, status) < 0:
            block_free(frame)
            return -1
        partition.held = cache_insert(
            table.cache if fill_cache else NULL, table.id, handle.offset, frame,
            FRAME_HEADER_BYTES + size,
        )
    if partition_view(partition) < 0:
        cache_unpin(partition.held)
        return status_set(status, INVALID_RECORD, b"partition in memory", <int64_t> handle.offset)
    return 0


cdef CachedBlock* load_data(
    Table* table, Handle handle, Slice last, bint fill_cache, Status* status
) noexcept nogil:
    cdef size_t size
    cdef uint8_t* frame = table_read_frame(table, handle, FRAME_DATA, &size, status)
    if frame == NULL:
        return NULL
    if check_data(frame, size, last, <int64_t> handle.offset, status) < 0:
        block_free(frame)
        return NULL
    return cache_insert(
        table.cache if fill_cache else NULL, table.id, handle.offset, frame, FRAME_HEADER_BYTES + size
    )


# --- open and close -------------------------------------------------------------------------

cdef int table_read_ends(Table* table, Footer* footer, Status* status) noexcept nogil:
    """Header and footer."""
    cdef uint8_t[TABLE_FOOTER_BYTES] bytes
    cdef int64_t size = table.ops.size(table.disk, table.file)
    if size < 0:
        return status_os_error(status, <int> -size, b"size of table", -1)
    table.file_bytes = <uint64_t> size
    if table.file_bytes < TABLE_HEADER_BYTES + TABLE_FOOTER_BYTES:
        return status_set(status, TRUNCATED_RECORD, b"table too short", size)
    if read_exactly(
        table.ops, table.disk, table.file, bytes, TABLE_HEADER_BYTES, 0, b"read table", status
    ) < 0:
        return -1
    if header_check(bytes, table.file_number, status) < 0:
        return -1
    if read_exactly(
        table.ops, table.disk, table.file, bytes, TABLE_FOOTER_BYTES,
        table.file_bytes - TABLE_FOOTER_BYTES, b"read table", status,
    ) < 0:
        return -1
    return footer_get(bytes, table.file_number, table.file_bytes, footer, status)


cdef int load(Table* table, const char* path, Status* status) noexcept nogil:
    """Read and verify all that an open table keeps in memory."""
    cdef Footer footer
    cdef size_t size
    cdef int64_t offset
    cdef int result = table.ops.open(table.disk, path, OPEN_READ, &table.file)
    if result < 0:
        table.file = NULL
        return status_os_error(status, -result, b"open table", -1)
    if table_read_ends(table, &footer, status) < 0:
        return -1
    table.root_handle = footer.root
    offset = <int64_t> footer.properties.offset
    table.properties_frame = table_read_frame(table, footer.properties, FRAME_PROPERTIES, &size, status)
    if table.properties_frame == NULL:
        return -1
    if properties_get(table.properties_frame + FRAME_HEADER_BYTES, size, &table.properties) < 0:
        return status_set(status, INVALID_RECORD, b"table properties", offset)
    if (
        table.properties.entries == 0
        or table.properties.tombstones > table.properties.entries
        or table.properties.min_sequence > table.properties.max_sequence
        or internal_compare(table.properties.smallest, table.properties.largest) > 0
    ):
        return status_set(status, INVALID_RECORD, b"table properties", offset)
    offset = <int64_t> footer.root.offset
    table.root_frame = table_read_frame(table, footer.root, FRAME_ROOT, &size, status)
    if table.root_frame == NULL:
        return -1
    if block_view(&table.root, table.root_frame + FRAME_HEADER_BYTES, size) < 0:
        return status_set(status, INVALID_RECORD, b"root index", offset)
    if block_check(&table.root, table.properties.largest, offset, status) < 0:
        return -1
    if table.root.entries != table.properties.partitions:
        return status_set(status, INVALID_RECORD, b"root index entries", offset)
    return check_root(table, status)


cdef Table* table_open(
    const FileSystemOps* ops, void* disk, const char* path, uint64_t file_number,
    BlockCache* cache, Status* status
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
    table.file_number = file_number
    table.id = cache_next_table_id()
    table.cache = cache
    if cache != NULL:
        cache_retain(cache)
    if load(table, path, status) < 0:
        table_release(table)
        return NULL
    return table


cdef void table_retain(Table* table) noexcept nogil:
    reference_add(&table.references)


cdef void table_release(Table* table) noexcept nogil:
    if not reference_drop(&table.references):
        return
    if table.cache != NULL:
        cache_forget_table(table.cache, table.id)
        cache_release(table.cache)
    if table.file != NULL:
        table.ops.close(table.disk, table.file)
    block_free(table.root_frame)
    block_free(table.properties_frame)
    kv_free(table)


# --- lookup ---------------------------------------------------------------------------------

cdef int failed_in_memory(Status* status, Handle handle) noexcept nogil:
    """A block that was sound when it was read no longer is."""
    status_set(status, INVALID_RECORD, b"block in memory", <int64_t> handle.offset)
    return FAILED


cdef int get_in_block(
    Table* table, CachedBlock* held, Slice user_key, uint64_t trailer, BlockEntry* entry
) noexcept nogil:
    cdef Block block
    if block_view(&block, held.data + FRAME_HEADER_BYTES, held.size - FRAME_HEADER_BYTES) < 0:
        return -1
    return block_get(&block, user_key, trailer, entry)


cdef int find_block(
    Table* table, Slice user_key, uint64_t trailer, bint fill_cache, Handle* handle,
    CachedBlock** held, Status* status
) noexcept nogil:
    """The data block that a version of the key would be in, held; ABSENT, FOUND or FAILED."""
    cdef Partition partition
    cdef Slice last
    cdef int64_t slot = block_restart_lower(&table.root, user_key, trailer)
    if slot == table.root.restarts:
        return ABSENT
    if slot < 0:
        return failed_in_memory(status, table.root_handle)
    if table_partition(table, <uint64_t> slot, True, &partition, status) < 0:
        return FAILED
    if partition.filter != NULL and not filter_may_contain(
        partition.filter, partition.filter_bytes, partition.filter_probes,
        filter_hash(user_key.data, user_key.size),
    ):
        cache_unpin(partition.held)
        return ABSENT
    slot = block_restart_lower(&partition.index, user_key, trailer)
    if slot < 0 or slot_handle(&partition.index, <uint64_t> slot, handle) < 0:
        cache_unpin(partition.held)
        return failed_in_memory(status, table.root_handle)
    held[0] = cache_get(table.cache, table.id, handle.offset)
    if held[0] == NULL:
        if index_entry(&partition.index, <uint64_t> slot, handle, &last) < 0:
            failed_in_memory(status, table.root_handle)
        else:
            held[0] = load_data(table, handle[0], last, fill_cache, status)
    cache_unpin(partition.held)
    return FOUND if held[0] != NULL else FAILED


cdef int table_get(
    Table* table, Slice user_key, uint64_t sequence, bint fill_cache, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil:
    cdef Handle handle
    cdef CachedBlock* held = NULL
    cdef BlockEntry entry
    cdef uint64_t trailer = trailer_pack(sequence, KIND_MAX)
    pin.handle = NULL
    cdef int result = find_block(table, user_key, trailer, fill_cache, &handle, &held, status)
    if result != FOUND:
        return result
    result = get_in_block(table, held, user_key, trailer, &entry)
    if result > 0 and trailer_kind(entry.trailer) != KIND_DELETE:
        found_sequence[0] = trailer_sequence(entry.trailer)
        value[0] = entry.value
        # On its way while the caller makes room for it.
        prefetch_run(entry.value.data, entry.value.size)
        pin.handle = held
        return FOUND
    cache_unpin(held)
    if result < 0:
        return failed_in_memory(status, handle)
    if result == 0:
        return ABSENT
    found_sequence[0] = trailer_sequence(entry.trailer)
    return DELETED


cdef void pinned_release(Pinned* pin) noexcept nogil:
    if pin.handle != NULL:
        cache_unpin(<CachedBlock*> pin.handle)
        pin.handle = NULL


cdef uint64_t table_offset_of(Table* table, Slice internal_key) noexcept nogil:
    cdef Partition partition
    cdef Handle handle
    cdef Slice last
    cdef Status status
    cdef Slice user_key = internal_user_key(internal_key)
    cdef uint64_t trailer = internal_trailer(internal_key)
    cdef int64_t slot = block_restart_lower(&table.root, user_key, trailer)
    if slot < 0 or slot == table.root.restarts:
        return table.root_handle.offset
    if index_entry(&table.root, <uint64_t> slot, &handle, &last) < 0:
        return table.root_handle.offset
    status_clear(&status)
    if table_partition(table, <uint64_t> slot, True, &partition, &status) < 0:
        return handle.offset
    slot = block_restart_lower(&partition.index, user_key, trailer)
    if slot >= 0:
        # Where the index is damaged the partition's own offset stays.
        index_entry(&partition.index, <uint64_t> slot, &handle, &last)
    cache_unpin(partition.held)
    return handle.offset
