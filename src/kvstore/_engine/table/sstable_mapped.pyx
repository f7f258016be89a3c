"""Lookups in a map of the table's file: no call, no copy of blocks, no cache.

The first reading of a partition or block since the table was opened checks all of it, as any reading
from disk does, and without the GIL, since it may wait for the disk. Later ones take what the map says:
if the system gave the page away meanwhile it comes from the disk again, unchecked (docs/engine.md). So
all bounds are checked each time, here and in blocks and indexes.

What looks at the map runs under FileSystemOps.read_mapped, which may end it at any byte. Where it does,
or where a block is compressed, the lookup is done by calls: they say what is the matter.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    KIND_DELETE,
    PyThreadState,
    Slice,
    Status,
    let_go_of_gil,
    slice_of,
    status_no_memory,
    store_release,
    take_gil,
    trailer_kind,
    trailer_sequence,
)
from kvstore._engine.memtable.native cimport ABSENT, COLD, DELETED, FAILED, FOUND


cdef enum:
    UNMAPPED = 100                  # beside the lookup codes: it is to be done by calls


cdef struct MappedLookup:
    Table* table
    Slice user_key
    uint64_t trailer
    bint checks                     # reads what nobody has read yet; else the answer to that is COLD
    BlockEntry entry                # with FOUND and DELETED; the value is in `copy`
    CachedBlock* copy               # NULL but with FOUND
    Status* status


cdef void table_map(Table* table) noexcept nogil:
    cdef const uint8_t* data
    # Without its bits each lookup would have to check all anew.
    if table.checked != NULL and table.ops.map(
        table.disk, table.file, table.file_bytes, &data
    ) >= 0:
        table.map = data


cdef struct MappedCopy:
    const uint8_t* source
    uint8_t* into
    size_t size


cdef int copy_from_map(void* state) noexcept nogil:
    cdef MappedCopy* copy = <MappedCopy*> state
    memcpy(copy.into, copy.source, copy.size)
    return 0


cdef bint copy_mapped(Table* table, Handle handle, uint8_t* into) noexcept nogil:
    """The bytes of a frame as they are in the map; False: there is none, or it is to be done by a call."""
    cdef MappedCopy copy
    if table.map == NULL:
        return False
    copy.source = table.map + handle.offset
    copy.into = into
    copy.size = handle.bytes
    return table.ops.read_mapped(
        table.disk, table.map, table.file_bytes, False, copy_from_map, &copy
    ) == 0


cdef int mapped_partition(
    MappedLookup* lookup, uint64_t slot, Partition* partition, CachedBlock* held
) noexcept nogil:
    """FOUND, COLD or FAILED; `held` is what the partition's views lie in."""
    cdef Table* table = lookup.table
    cdef Handle handle
    if root_handle(table, slot, &handle) < 0:
        return FAILED
    held.data = table.map + handle.offset
    held.size = handle.bytes
    partition.held = held
    if checked_of(table.checked, slot) == NULL:
        if not lookup.checks:
            return COLD
        if check_frame(
            held.data, handle, FRAME_PARTITION, table.identity.seed,
            <uint32_t> table.properties.largest_block_bytes, lookup.status,
        ) < 0:
            return FAILED
        if held.data[1] != COMPRESSION_NONE:
            return UNMAPPED
        if check_partition(
            table, held.data, handle.bytes - FRAME_HEADER_BYTES, slot, lookup.status
        ) < 0:
            return FAILED
        partition_was_checked(table, slot, blocks_of(held.data, handle.bytes - FRAME_HEADER_BYTES))
    return FOUND if partition_view(partition) == 0 else FAILED


cdef int mapped_block(
    MappedLookup* lookup, uint64_t partition_slot, Partition* partition, uint64_t slot, Handle handle,
    Block* block
) noexcept nogil:
    """FOUND, COLD, FAILED or UNMAPPED."""
    cdef Table* table = lookup.table
    cdef uint64_t* bits = checked_of(table.checked, partition_slot)
    cdef const uint8_t* frame = table.map + handle.offset
    if not checked_test(bits, slot):
        if not lookup.checks:
            return COLD
        if check_frame(
            frame, handle, FRAME_DATA, table.identity.seed,
            <uint32_t> table.properties.largest_block_bytes, lookup.status,
        ) < 0:
            return FAILED
        if frame[1] == COMPRESSION_NONE:
            if check_data(
                frame, handle.bytes - FRAME_HEADER_BYTES, &partition.index, slot,
                <int64_t> handle.offset, lookup.status,
            ) < 0:
                return FAILED
            checked_set(bits, slot)
    if frame[1] != COMPRESSION_NONE:
        store_release(&table.packed, 1)
        return UNMAPPED
    return FOUND if block_view(
        block, frame + FRAME_HEADER_BYTES, handle.bytes - FRAME_HEADER_BYTES
    ) == 0 else FAILED


cdef int look_in_map(void* state) noexcept nogil:
    cdef MappedLookup* lookup = <MappedLookup*> state
    cdef Table* table = lookup.table
    cdef Partition partition
    cdef CachedBlock held
    cdef Handle handle
    cdef Block block
    cdef uint64_t own
    cdef int result
    cdef int64_t slot = index_lower(&table.root, lookup.user_key, lookup.trailer)
    if slot == table.root.entries:
        return ABSENT
    if slot < 0:
        return FAILED
    own = <uint64_t> slot
    result = mapped_partition(lookup, own, &partition, &held)
    if result != FOUND:
        return result
    if partition.filter != NULL and not filter_may_contain(
        partition.filter, partition.filter_bytes, partition.filter_probes,
        filter_hash(lookup.user_key.data, lookup.user_key.size),
    ):
        return ABSENT
    slot = index_lower(&partition.index, lookup.user_key, lookup.trailer)
    if slot < 0 or data_handle(&partition, <uint64_t> slot, &handle) < 0 or (
        handle.bytes <= FRAME_HEADER_BYTES
        or handle.offset > table.root_handle.offset
        or handle.bytes > table.root_handle.offset - handle.offset
    ):
        return FAILED
    result = mapped_block(lookup, own, &partition, <uint64_t> slot, handle, &block)
    if result != FOUND:
        return result
    result = block_get(&block, lookup.user_key, lookup.trailer, &lookup.entry)
    if result <= 0:
        return FAILED if result < 0 else ABSENT
    if trailer_kind(lookup.entry.trailer) == KIND_DELETE:
        return DELETED
    lookup.copy = block_alone(lookup.entry.value.size)
    if lookup.copy == NULL:
        status_no_memory(lookup.status, b"memory for a value")
        return FAILED
    memcpy(<uint8_t*> lookup.copy.data, lookup.entry.value.data, lookup.entry.value.size)
    return FOUND


cdef int get_mapped(
    Table* table, Slice user_key, uint64_t trailer, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin
) noexcept nogil:
    """As table_get without range tombstones, or UNMAPPED."""
    cdef MappedLookup lookup
    cdef Status why                 # of a failure, which is looked into by calls
    cdef PyThreadState* own
    cdef int result
    lookup.table = table
    lookup.user_key = user_key
    lookup.trailer = trailer
    lookup.checks = False
    lookup.copy = NULL
    lookup.status = &why
    result = table.ops.read_mapped(
        table.disk, table.map, table.file_bytes, False, look_in_map, &lookup
    )
    if result == COLD and reading != READ_NOTHING:
        lookup.checks = True
        own = let_go_of_gil()
        result = table.ops.read_mapped(
            table.disk, table.map, table.file_bytes, True, look_in_map, &lookup
        )
        take_gil(own)
    if result == FOUND:
        value[0] = slice_of(lookup.copy.data, lookup.copy.size)
        found_sequence[0] = trailer_sequence(lookup.entry.trailer)
        pin.handle = lookup.copy
        return FOUND
    if lookup.copy != NULL:
        cache_unpin(lookup.copy)
    if result == DELETED:
        found_sequence[0] = trailer_sequence(lookup.entry.trailer)
    if result < 0 or result == UNMAPPED or result == FAILED:
        return COLD if reading == READ_NOTHING else UNMAPPED
    return result
