"""The check of a whole table: see sstable_verify.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from kvstore._engine.memtable.native cimport RangeRun, range_run_release
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
    slice_equal,
    slice_of,
    status_clear,
    status_no_memory,
    status_set,
    trailer_kind,
    trailer_sequence,
)


cdef int tally_entry(
    TableCheck* tally, Slice key, Slice value, Partition* partition, int64_t offset, Status* status
) noexcept nogil:
    cdef Slice user_key = internal_user_key(key)
    cdef uint64_t trailer = internal_trailer(key)
    cdef uint64_t sequence = trailer_sequence(trailer)
    cdef Slice last
    if tally.seen.entries == 0:
        if buffer_append(&tally.smallest, key.data, key.size) < 0:
            return status_no_memory(status, b"memory for a key")
    else:
        last = slice_of(tally.last.data, tally.last.size)
        if internal_compare(last, key) >= 0:
            return status_set(status, INVALID_RECORD, b"table order", offset)
        tally.seen.superseded += trailer_kind(trailer) != KIND_DELETE and slice_equal(
            internal_user_key(last), user_key
        )
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
    TableCheck* tally, const uint8_t* frame, size_t size, Partition* partition, int64_t offset,
    Status* status
) noexcept nogil:
    cdef Block block
    if block_view(&block, frame + FRAME_HEADER_BYTES, size) < 0:
        return status_set(status, INVALID_RECORD, b"block size", offset)
    tally.seen.data_blocks += 1
    if size > tally.seen.largest_block_bytes:
        tally.seen.largest_block_bytes = size
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


cdef int check_beginning(
    Table* table, TableCheck* tally, uint64_t partition_slot, const uint8_t* frame, size_t size,
    int64_t offset, Status* status
) noexcept nogil:
    """The first key of a partition must be above the separator of the one before."""
    cdef Block block
    if partition_slot == 0:
        return 0
    if block_view(&block, frame + FRAME_HEADER_BYTES, size) < 0:
        return status_set(status, INVALID_RECORD, b"block size", offset)
    block_cursor_reset(&tally.walk, &block)
    block_cursor_first(&tally.walk)
    if not tally.walk.valid:
        return block_cursor_failure(&tally.walk, b"block entry", offset, status)
    if index_order(
        &table.root, partition_slot - 1, internal_user_key(tally.walk.key),
        internal_trailer(tally.walk.key),
    ) >= 0:
        return status_set(status, INVALID_RECORD, b"block is not the one its index names", offset)
    return 0


cdef int walk_partition(
    Table* table, TableCheck* tally, uint64_t partition_slot, Partition* partition, Status* status
) noexcept nogil:
    cdef Handle handle
    cdef int64_t offset
    cdef uint8_t* frame
    cdef size_t size
    cdef uint32_t slot
    cdef int result
    for slot in range(partition.index.entries):
        if data_handle(partition, slot, &handle) < 0:
            return status_set(status, INVALID_RECORD, b"index entry", -1)
        offset = <int64_t> handle.offset
        frame = table_read_frame(table, handle, FRAME_DATA, &size, status)
        if frame == NULL:
            return -1
        result = check_data(frame, size, &partition.index, slot, offset, status)
        if result == 0 and slot == 0:
            result = check_beginning(table, tally, partition_slot, frame, size, offset, status)
        if result == 0:
            result = walk_block(tally, frame, size, partition, offset, status)
        block_free(frame)
        if result < 0:
            return -1
    return 0


cdef int check_next_partition(
    TableCheck* check, Handle handle, Status* status
) noexcept nogil:
    cdef Partition partition
    cdef CachedBlock held
    cdef size_t size
    cdef uint32_t slot = check.partition
    cdef int result
    cdef uint8_t* frame = table_read_frame(check.table, handle, FRAME_PARTITION, &size, status)
    if frame == NULL:
        return -1
    result = check_partition(check.table, frame, size, slot, status)
    if result == 0:
        memset(&held, 0, sizeof(held))
        held.data = frame
        held.size = <uint32_t> (FRAME_HEADER_BYTES + size)
        partition.held = &held
        result = partition_view(&partition)
        if result == 0:
            result = walk_partition(check.table, check, slot, &partition, status)
    block_free(frame)
    return result


# --- what is not data -----------------------------------------------------------------------

cdef int check_metas(
    Table* table, const uint8_t* metas, size_t metas_bytes, Properties* properties,
    uint8_t** kept, Status* status
) noexcept nogil:
    """Every meta frame; the properties stay in `kept`."""
    cdef const uint8_t* at = metas
    cdef MetaEntry entry
    cdef RangeRun* ranges
    cdef uint8_t* frame
    cdef size_t size
    cdef bint is_ranges
    while at < metas + metas_bytes:
        at = meta_index_entry(at, metas + metas_bytes, &entry)
        if at == NULL:
            return status_set(status, INVALID_RECORD, b"table meta-index", -1)
        frame = table_read_frame(table, entry.handle, FRAME_META, &size, status)
        if frame == NULL:
            return -1
        is_ranges = slice_compare(
            entry.name, slice_of(META_RANGE_DELETES, strlen(META_RANGE_DELETES))
        ) == 0
        if slice_compare(entry.name, slice_of(META_PROPERTIES, strlen(META_PROPERTIES))) != 0:
            # Names ascend: the properties have been seen.
            ranges = range_frame_open(
                frame + FRAME_HEADER_BYTES, size, properties, entry.handle.offset, status
            ) if is_ranges and kept[0] != NULL else NULL
            block_free(frame)
            if ranges != NULL:
                range_run_release(ranges)
            elif is_ranges:
                return -1
            continue
        kept[0] = frame
        if properties_get(
            frame + FRAME_HEADER_BYTES, size, properties, entry.handle.offset, status
        ) < 0:
            return -1
    if kept[0] == NULL:
        return status_set(status, INVALID_RECORD, b"table without properties", -1)
    return 0


cdef int check_ends(Table* table, Properties* properties, uint8_t** kept, Status* status) noexcept nogil:
    """Header, footer, root and meta frames as they are on disk now; the properties stay in `kept`."""
    cdef Table now                  # other threads read the fields that this fills
    cdef uint8_t[TABLE_FOOTER_BYTES] last
    cdef size_t last_bytes = TABLE_FOOTER_BYTES
    cdef Footer footer
    cdef Index root
    cdef size_t size
    cdef uint8_t* frame
    cdef int result
    # All but the number of references, which other threads change.
    now.references = 0
    memcpy(&now.ops, &table.ops, sizeof(Table) - sizeof(table.references))
    if table_read_ends(&now, &footer, last, &last_bytes, status) < 0:
        return -1
    if footer.root.offset != table.root_handle.offset or memcmp(
        now.identity.id, table.identity.id, TABLE_ID_BYTES
    ) != 0:
        return status_set(status, INVALID_RECORD, b"table was replaced while open", -1)
    frame = table_read_frame(table, footer.meta_index, FRAME_META_INDEX, &size, status)
    if frame == NULL:
        return -1
    result = meta_index_check(
        frame + FRAME_HEADER_BYTES, size, footer.root.offset + footer.root.bytes,
        footer.meta_index.offset, status,
    )
    if result == 0:
        result = check_metas(table, frame + FRAME_HEADER_BYTES, size, properties, kept, status)
    block_free(frame)
    if result < 0 or footer.root.bytes == 0:
        return result
    frame = table_read_frame(table, footer.root, FRAME_ROOT, &size, status)
    if frame == NULL:
        return -1
    result = check_root(&root, properties, &footer, frame + FRAME_HEADER_BYTES, size, status)
    block_free(frame)
    return result


cdef bint bounds_are_true(TableCheck* tally, Properties* told) noexcept nogil:
    """Exactly the entries' bounds, or around them where range tombstones reach further."""
    cdef Slice smallest = slice_of(tally.smallest.data, tally.smallest.size)
    cdef Slice largest = slice_of(tally.last.data, tally.last.size)
    if tally.seen.entries == 0:
        return True
    if told.range_deletes == 0:
        return (
            slice_compare(told.smallest, smallest) == 0 and slice_compare(told.largest, largest) == 0
            and tally.seen.min_sequence == told.min_sequence
            and tally.seen.max_sequence == told.max_sequence
        )
    return (
        internal_compare(told.smallest, smallest) <= 0
        and internal_compare(told.largest, largest) >= 0
        and told.min_sequence <= tally.seen.min_sequence
        and told.max_sequence >= tally.seen.max_sequence
    )


cdef int compare_properties(TableCheck* tally, Properties* told, int64_t offset, Status* status) noexcept nogil:
    cdef Properties* seen = &tally.seen
    if (
        seen.entries != told.entries
        or seen.tombstones != told.tombstones
        or seen.data_blocks != told.data_blocks
        or seen.partitions != told.partitions
        or seen.raw_key_bytes != told.raw_key_bytes
        or seen.raw_value_bytes != told.raw_value_bytes
        or seen.largest_block_bytes != told.largest_block_bytes
        or (told.superseded and seen.superseded != told.superseded)
        or not bounds_are_true(tally, told)
    ):
        return status_set(status, INVALID_RECORD, b"table properties do not match its entries", offset)
    return 0


# --- step by step ---------------------------------------------------------------------------

cdef int table_check_begin(TableCheck* check, Table* table, Status* status) noexcept nogil:
    memset(check, 0, sizeof(TableCheck))
    status_clear(status)
    status.table = table.identity.file_number
    table_retain(table)
    check.table = table
    check.seen.min_sequence = <uint64_t> -1
    block_cursor_init(&check.walk)
    buffer_init(&check.last)
    buffer_init(&check.smallest)
    return check_ends(table, &check.told, &check.kept, status)


cdef int table_check_step(TableCheck* check, bint forget, Status* status) noexcept nogil:
    cdef Table* table = check.table
    cdef Handle handle
    cdef uint64_t first = check.checked_bytes
    cdef uint64_t size
    cdef int result
    status_clear(status)
    status.table = table.identity.file_number
    if check.partition >= table.root.entries:
        check.checked_bytes = table.file_bytes
        return compare_properties(check, &check.told, <int64_t> table.root_handle.offset, status)
    if root_handle(table, check.partition, &handle) < 0:
        return status_set(status, INVALID_RECORD, b"root index entry", -1)
    # A partition's frame follows its blocks.
    size = handle.offset + handle.bytes - first
    if forget:
        table.ops.forget(table.disk, table.file, first, size)
    result = check_next_partition(check, handle, status)
    if forget:
        table.ops.forget(table.disk, table.file, first, size)
    if result < 0:
        return -1
    check.seen.partitions += 1
    check.partition += 1
    check.checked_bytes = first + size
    return 1


cdef void table_check_end(TableCheck* check) noexcept nogil:
    if check.table == NULL:
        return
    block_cursor_free(&check.walk)
    buffer_free(&check.last)
    buffer_free(&check.smallest)
    block_free(check.kept)
    table_release(check.table)
    check.table = NULL


cdef int table_verify(Table* table, Status* status) noexcept nogil:
    cdef TableCheck check
    cdef int result = table_check_begin(&check, table, status)
    if result == 0:
        result = 1
    while result > 0:
        result = table_check_step(&check, False, status)
    table_check_end(&check)
    return result
