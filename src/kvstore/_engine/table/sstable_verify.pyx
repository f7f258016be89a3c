"""The check of a whole table: see sstable_verify.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from kvstore._engine.primitives.native cimport (
    Buffer,
    INVALID_RECORD,
    KIND_DELETE,
    Slice,
    Status,
    buffer_append,
    buffer_free,
    buffer_init,
    internal_compare,
    internal_trailer,
    internal_user_key,
    slice_compare,
    slice_of,
    status_clear,
    status_no_memory,
    status_set,
    trailer_kind,
    trailer_sequence,
)


cdef struct Tally:
    # What the walk has seen, to be held against the properties.
    Properties seen
    Buffer last                 # internal key of the last entry
    Buffer smallest
    BlockCursor walk


cdef int tally_entry(
    Tally* tally, Slice key, Slice value, Partition* partition, int64_t offset, Status* status
) noexcept nogil:
    cdef Slice user_key = internal_user_key(key)
    cdef uint64_t trailer = internal_trailer(key)
    cdef uint64_t sequence = trailer_sequence(trailer)
    if tally.seen.entries == 0:
        if buffer_append(&tally.smallest, key.data, key.size) < 0:
            return status_no_memory(status, b"memory for a key")
    elif internal_compare(slice_of(tally.last.data, tally.last.size), key) >= 0:
        return status_set(status, INVALID_RECORD, b"table order", offset)
    tally.last.size = 0
    if buffer_append(&tally.last, key.data, key.size) < 0:
        return status_no_memory(status, b"memory for a key")
    if partition.filter != NULL and not filter_may_contain(
        partition.filter, partition.filter_bytes, partition.filter_probes,
        filter_hash(user_key.data, user_key.size),
    ):
        return status_set(status, INVALID_RECORD, b"key missing from its filter", offset)
    tally.seen.entries += 1
    tally.seen.tombstones += trailer_kind(trailer) == KIND_DELETE
    tally.seen.raw_key_bytes += key.size
    tally.seen.raw_value_bytes += value.size
    if sequence < tally.seen.min_sequence:
        tally.seen.min_sequence = sequence
    if sequence > tally.seen.max_sequence:
        tally.seen.max_sequence = sequence
    return 0


cdef int walk_block(
    Tally* tally, const uint8_t* frame, size_t size, Partition* partition, int64_t offset,
    Status* status
) noexcept nogil:
    cdef Block block
    if block_view(&block, frame + FRAME_HEADER_BYTES, size) < 0:
        return status_set(status, INVALID_RECORD, b"block size", offset)
    tally.seen.data_blocks += 1
    if size > tally.seen.largest_block_bytes:
        tally.seen.largest_block_bytes = <uint32_t> size
    block_cursor_reset(&tally.walk, &block)
    block_cursor_first(&tally.walk)
    while tally.walk.valid:
        if tally_entry(
            tally, tally.walk.key, tally.walk.value, partition, offset, status
        ) < 0:
            return -1
        block_cursor_next(&tally.walk)
    if tally.walk.damaged:
        return block_cursor_failure(&tally.walk, b"block entry", offset, status)
    return 0


cdef int walk_partition(Table* table, Tally* tally, Partition* partition, Status* status) noexcept nogil:
    cdef Handle handle
    cdef Slice last
    cdef uint8_t* frame
    cdef size_t size
    cdef uint32_t slot
    cdef int result
    for slot in range(partition.index.entries):
        if index_entry(&partition.index, slot, &handle, &last) < 0:
            return status_set(status, INVALID_RECORD, b"index entry", -1)
        frame = table_read_frame(table, handle, FRAME_DATA, &size, status)
        if frame == NULL:
            return -1
        result = check_data(frame, size, last, <int64_t> handle.offset, status)
        if result == 0:
            result = walk_block(tally, frame, size, partition, <int64_t> handle.offset, status)
        block_free(frame)
        if result < 0:
            return -1
    return 0


cdef int walk_table(Table* table, Tally* tally, Status* status) noexcept nogil:
    cdef Partition partition
    cdef CachedBlock held
    cdef Handle handle
    cdef Slice last
    cdef uint8_t* frame
    cdef size_t size
    cdef uint32_t slot
    cdef int result
    for slot in range(table.root.entries):
        if index_entry(&table.root, slot, &handle, &last) < 0:
            return status_set(status, INVALID_RECORD, b"root index entry", -1)
        frame = table_read_frame(table, handle, FRAME_PARTITION, &size, status)
        if frame == NULL:
            return -1
        result = check_partition(table, frame, size, last, slot, status)
        if result == 0:
            memset(&held, 0, sizeof(held))
            held.data = frame
            held.size = FRAME_HEADER_BYTES + size
            partition.held = &held
            result = partition_view(&partition)
            if result == 0:
                result = walk_partition(table, tally, &partition, status)
        block_free(frame)
        if result < 0:
            return -1
        tally.seen.partitions += 1
    return 0


cdef int check_ends(Table* table, Properties* properties, uint8_t** kept, Status* status) noexcept nogil:
    """Header, footer, root and properties as they are on disk now; the latter stay in `kept`."""
    cdef Footer footer
    cdef Block root
    cdef size_t size
    cdef int result
    if table_read_ends(table, &footer, status) < 0:
        return -1
    if footer.root.offset != table.root_handle.offset:
        return status_set(status, INVALID_RECORD, b"table was replaced while open", -1)
    kept[0] = table_read_frame(table, footer.properties, FRAME_PROPERTIES, &size, status)
    if kept[0] == NULL:
        return -1
    if properties_get(kept[0] + FRAME_HEADER_BYTES, size, properties) < 0:
        return status_set(
            status, INVALID_RECORD, b"table properties", <int64_t> footer.properties.offset
        )
    cdef uint8_t* frame = table_read_frame(table, footer.root, FRAME_ROOT, &size, status)
    if frame == NULL:
        return -1
    result = block_view(&root, frame + FRAME_HEADER_BYTES, size)
    if result < 0:
        status_set(status, INVALID_RECORD, b"root index", <int64_t> footer.root.offset)
    else:
        result = block_check(&root, properties.largest, <int64_t> footer.root.offset, status)
    block_free(frame)
    return result


cdef int compare_properties(Tally* tally, Properties* told, int64_t offset, Status* status) noexcept nogil:
    cdef Properties* seen = &tally.seen
    if (
        seen.entries != told.entries
        or seen.tombstones != told.tombstones
        or seen.min_sequence != told.min_sequence
        or seen.max_sequence != told.max_sequence
        or seen.data_blocks != told.data_blocks
        or seen.partitions != told.partitions
        or seen.raw_key_bytes != told.raw_key_bytes
        or seen.raw_value_bytes != told.raw_value_bytes
        or seen.largest_block_bytes != told.largest_block_bytes
        or slice_compare(told.smallest, slice_of(tally.smallest.data, tally.smallest.size)) != 0
        or slice_compare(told.largest, slice_of(tally.last.data, tally.last.size)) != 0
    ):
        return status_set(status, INVALID_RECORD, b"table properties do not match its entries", offset)
    return 0


cdef int table_verify(Table* table, Status* status) noexcept nogil:
    cdef Tally tally
    cdef Properties told
    cdef uint8_t* kept = NULL
    cdef int result
    status_clear(status)
    status.table = table.file_number
    memset(&tally, 0, sizeof(tally))
    tally.seen.min_sequence = <uint64_t> -1
    block_cursor_init(&tally.walk)
    buffer_init(&tally.last)
    buffer_init(&tally.smallest)
    result = check_ends(table, &told, &kept, status)
    if result == 0:
        result = walk_table(table, &tally, status)
    if result == 0:
        result = compare_properties(&tally, &told, <int64_t> table.root_handle.offset, status)
    block_cursor_free(&tally.walk)
    buffer_free(&tally.last)
    buffer_free(&tally.smallest)
    block_free(kept)
    return result
