"""Point lookups in a table: root index, filter and index of a partition, data block. See sstable.pxd.

What is in memory is looked at with the GIL, if the caller has it. A block that isn't kept is read onto
the stack, and only the value copied.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    KIND_DELETE,
    KIND_MAX,
    PyThreadState,
    Slice,
    Status,
    get_fixed32,
    let_go_of_gil,
    load_acquire,
    prefetch_run,
    status_no_memory,
    status_set,
    take_gil,
    trailer_kind,
    trailer_pack,
    trailer_sequence,
)
from kvstore._engine.memtable.native cimport (
    ABSENT,
    COLD,
    DELETED,
    FAILED,
    FOUND,
    RangeTombstone,
    range_run_find,
)


cdef enum:
    SCRATCH_WORDS = 1 << 10         # of 8 bytes: a frame up to this that isn't kept is read onto the stack


cdef int failed_in_memory(Status* status, Handle handle) noexcept nogil:
    """A block that was sound when it was read no longer is."""
    status_set(status, INVALID_RECORD, b"block in memory", <int64_t> handle.offset)
    return FAILED


cdef struct BlockPlace:
    # Which data block a version of a key would be in. The partition is held.
    uint64_t partition_slot
    Partition partition
    uint64_t slot
    Handle handle


cdef int find_place(
    Table* table, Slice user_key, uint64_t trailer, int reading, BlockPlace* place, Status* status
) noexcept nogil:
    """ABSENT, FOUND, FAILED, COLD; nothing is held but with FOUND."""
    cdef Partition* partition = &place.partition
    cdef int cached
    cdef int64_t slot = index_lower(&table.root, user_key, trailer)
    if slot == table.root.entries:
        return ABSENT
    if slot < 0:
        return failed_in_memory(status, table.root_handle)
    place.partition_slot = <uint64_t> slot
    if reading == READ_NOTHING:
        cached = table_partition_cached(table, place.partition_slot, partition, status)
        if cached <= 0:
            return FAILED if cached < 0 else COLD
    elif table_partition(table, place.partition_slot, True, partition, status) < 0:
        return FAILED
    if partition.filter != NULL and not filter_may_contain(
        partition.filter, partition.filter_bytes, partition.filter_probes,
        filter_hash(user_key.data, user_key.size),
    ):
        cache_unpin(partition.held)
        return ABSENT
    slot = index_lower(&partition.index, user_key, trailer)
    if slot < 0 or data_handle(partition, <uint64_t> slot, &place.handle) < 0:
        cache_unpin(partition.held)
        return failed_in_memory(status, table.root_handle)
    place.slot = <uint64_t> slot
    return FOUND


cdef int get_in_block(
    CachedBlock* held, Slice user_key, uint64_t trailer, BlockEntry* entry
) noexcept nogil:
    """1: found, 0: it isn't there, -1: damaged."""
    cdef Block block
    if block_view(&block, held.data + FRAME_HEADER_BYTES, held.size - FRAME_HEADER_BYTES) < 0:
        return -1
    return block_get(&block, user_key, trailer, entry)


cdef int get_in_passing(
    Table* table, BlockPlace* place, Slice user_key, uint64_t trailer, BlockEntry* entry,
    CachedBlock** held, Status* status
) noexcept nogil:
    """From a block that isn't kept, but for a copy of the value: the same, -1: see status."""
    cdef uint64_t[SCRATCH_WORDS] scratch
    cdef uint8_t* frame = <uint8_t*> scratch
    cdef uint8_t* raw = NULL
    cdef CachedBlock block
    cdef int64_t offset = <int64_t> place.handle.offset
    cdef int found = -1
    if read_exactly(
        table.ops, table.disk, table.file, frame, place.handle.bytes, place.handle.offset,
        b"read table", status,
    ) < 0 or check_frame(
        frame, place.handle, FRAME_DATA, table.identity.seed,
        <uint32_t> table.properties.largest_block_bytes, status,
    ) < 0:
        return -1
    block.data = frame
    block.size = FRAME_HEADER_BYTES + get_fixed32(frame + 8)
    if frame[1] != COMPRESSION_NONE:
        raw = uncompressed(
            frame, place.handle.bytes - FRAME_HEADER_BYTES, get_fixed32(frame + 8), offset, status
        )
        if raw == NULL:
            return -1
        block.data = raw
    if check_data_once(
        table, place.partition_slot, block.data, block.size - FRAME_HEADER_BYTES,
        &place.partition.index, place.slot, offset, status,
    ) == 0:
        found = get_in_block(&block, user_key, trailer, entry)
        if found < 0:
            failed_in_memory(status, place.handle)
        elif found and trailer_kind(entry.trailer) != KIND_DELETE:
            held[0] = block_alone(entry.value.size)
            if held[0] == NULL:
                found = status_no_memory(status, b"memory for a value")
            else:
                memcpy(<uint8_t*> held[0].data, entry.value.data, entry.value.size)
                entry.value.data = held[0].data
    block_free(raw)
    return found


cdef int get_from_disk(
    Table* table, BlockPlace* place, Slice user_key, uint64_t trailer, bint keep, BlockEntry* entry,
    CachedBlock** held, Status* status
) noexcept nogil:
    """As get_in_passing, and where the block is kept it is held. Without the GIL meanwhile."""
    cdef int found = -1
    cdef PyThreadState* own = let_go_of_gil()
    if not keep and place.handle.bytes <= 8 * SCRATCH_WORDS:
        found = get_in_passing(table, place, user_key, trailer, entry, held, status)
    else:
        held[0] = load_data(
            table, place.partition_slot, place.handle, &place.partition.index, place.slot, keep,
            status,
        )
        if held[0] != NULL:
            found = get_in_block(held[0], user_key, trailer, entry)
            if found < 0:
                failed_in_memory(status, place.handle)
    take_gil(own)
    return found


cdef int table_get(
    Table* table, Slice user_key, uint64_t sequence, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil:
    cdef const RangeTombstone* over = NULL
    cdef int found = get_entry(
        table, user_key, sequence, reading, value, found_sequence, pin, status
    )
    if table.ranges == NULL or found == FAILED or found == COLD:
        return found
    over = range_run_find(table.ranges, user_key, sequence)
    if over == NULL or (found != ABSENT and over.sequence <= found_sequence[0]):
        return found
    pinned_release(pin)
    found_sequence[0] = over.sequence
    return DELETED


cdef inline int get_entry(
    Table* table, Slice user_key, uint64_t sequence, int reading, Slice* value,
    uint64_t* found_sequence, Pinned* pin, Status* status
) noexcept nogil:
    cdef BlockPlace place
    cdef CachedBlock* held = NULL
    cdef BlockEntry entry
    cdef uint64_t trailer = trailer_pack(sequence, KIND_MAX)
    cdef bint keep
    cdef int result
    pin.handle = NULL
    if reading & READ_CHECKED:
        reading &= ~READ_CHECKED
    elif table.map != NULL and not load_acquire(&table.packed):
        result = get_mapped(table, user_key, trailer, reading, value, found_sequence, pin)
        if result != UNMAPPED:
            return result
    result = find_place(table, user_key, trailer, reading, &place, status)
    if result != FOUND:
        return result
    if reading == READ_AND_KEEP:
        held = cache_ask(
            table.cache, table.cache_id, place.handle.offset, place.handle.bytes, &keep
        )
    else:
        held = cache_get(table.cache, table.cache_id, place.handle.offset)
        keep = False
    if held != NULL:
        result = get_in_block(held, user_key, trailer, &entry)
        if result < 0:
            failed_in_memory(status, place.handle)
    elif reading != READ_NOTHING:
        result = get_from_disk(table, &place, user_key, trailer, keep, &entry, &held, status)
    cache_unpin(place.partition.held)
    if held == NULL and reading == READ_NOTHING:
        return COLD
    if result > 0 and trailer_kind(entry.trailer) != KIND_DELETE:
        found_sequence[0] = trailer_sequence(entry.trailer)
        value[0] = entry.value
        # On its way while the caller makes room for it.
        prefetch_run(entry.value.data, entry.value.size)
        pin.handle = held
        return FOUND
    if held != NULL:
        cache_unpin(held)
    if result < 0:
        return FAILED
    if result == 0:
        return ABSENT
    found_sequence[0] = trailer_sequence(entry.trailer)
    return DELETED


cdef void pinned_release(Pinned* pin) noexcept nogil:
    if pin.handle != NULL:
        cache_unpin(<CachedBlock*> pin.handle)
        pin.handle = NULL
