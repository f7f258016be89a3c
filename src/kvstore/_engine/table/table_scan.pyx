"""The table scan: see table_scan.pxd. The layout of a block stands in block_build.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from kvstore._engine.primitives.native cimport (
    INVALID_RECORD,
    KIND_MAX,
    Slice,
    Status,
    TRAILER_BYTES,
    common_prefix,
    get_fixed32,
    get_fixed64,
    get_varint32,
    internal_compare,
    internal_trailer,
    internal_user_key,
    key_head,
    kv_free,
    kv_malloc,
    kv_realloc,
    kv_zeroed,
    slice_of,
    status_clear,
    status_no_memory,
    status_set,
    trailer_kind,
)


cdef enum:
    SCAN_BATCH = 64                 # entries
    SCAN_KEYS_BYTES = 16 << 10      # of a batch's keys; more only where a single one needs it


# --- entries --------------------------------------------------------------------------------

cdef inline int scan_damage(TableScan* scan, const char* what) noexcept nogil:
    return status_set(&scan.status, INVALID_RECORD, what, scan.block.offset)


cdef inline void copy_shared(uint8_t* into, const uint8_t* data, size_t size) noexcept nogil:
    """In whole steps: `data` lies before `into`, which has COPY_BYTES to spare."""
    cdef size_t at = 0
    while True:
        memmove(into + at, data + at, COPY_BYTES)
        at += COPY_BYTES
        if at >= size:
            return


cdef int keys_room(TableScan* scan, size_t held, size_t size) noexcept nogil:
    """Room for a key of `size` bytes behind the first `held`, and to spare. -1: no memory."""
    cdef size_t wanted = held + size + COPY_BYTES
    cdef uint8_t* grown
    if wanted <= scan.keys_bytes:
        return 0
    if wanted < SCAN_KEYS_BYTES:
        wanted = SCAN_KEYS_BYTES
    grown = <uint8_t*> kv_realloc(scan.keys, wanted)
    if grown == NULL:
        return status_no_memory(&scan.status, b"memory for a key")
    scan.keys = grown
    scan.keys_bytes = wanted
    return 0


cdef inline const uint8_t* restart_after(ScanBlock* block) noexcept nogil:
    """Where the entry of the next restart begins; NULL: there is none."""
    if block.restarts_seen == block.restarts:
        return NULL
    return block.keys + get_fixed32(block.key_at + 4 * <size_t> block.restarts_seen)


cdef int unpack_batch(TableScan* scan) noexcept nogil:
    """The next entries of the block in hand, each checked against the one before it. -1: see status.

    What block_check (block.pyx) checks entry by entry.
    """
    cdef ScanBlock* block = &scan.block
    cdef ScanEntry* entry = scan.entries
    cdef ScanEntry* end = entry + SCAN_BATCH
    cdef const uint8_t* at = block.next_key
    cdef const uint8_t* start
    cdef const uint8_t* restart = restart_after(block)
    cdef const uint8_t* value = block.next_value
    cdef const uint8_t* before          # the key before the one at hand
    cdef uint8_t* into
    cdef size_t before_size = 0         # bytes of its user key
    cdef size_t size, common, held = 0
    cdef uint64_t trailer, trailer_before = 0
    cdef uint32_t shared, unshared, value_size
    cdef bint follows = scan.follows
    if follows:
        # The last key is what the next one builds upon.
        held = scan.last.key.size
        memmove(scan.keys, scan.last.key.data, held)
        before_size = held - TRAILER_BYTES
        memcpy(&trailer_before, scan.keys + before_size, TRAILER_BYTES)
    before = scan.keys
    into = scan.keys + held
    while at != block.keys_end and entry != end:
        start = at
        if block.keys_end - at >= 3 and (at[0] | at[1] | at[2]) < 0x80:
            shared = at[0]
            unshared = at[1]
            value_size = at[2]
            at += 3
        else:
            at = get_varint32(at, block.keys_end, &shared)
            if at != NULL:
                at = get_varint32(at, block.keys_end, &unshared)
            if at != NULL:
                at = get_varint32(at, block.keys_end, &value_size)
            if at == NULL:
                return scan_damage(scan, b"block entry")
        if (
            <uint64_t> (block.keys_end - at) < <uint64_t> unshared + TRAILER_BYTES
            or value_size > <uint64_t> (block.values_end - value)
            or shared > before_size
        ):
            return scan_damage(scan, b"block entry")
        memcpy(&trailer, at + unshared, TRAILER_BYTES)
        if trailer_kind(trailer) > KIND_MAX:
            return scan_damage(scan, b"block entry")
        size = <size_t> shared + unshared + TRAILER_BYTES
        held = <size_t> (into - scan.keys)
        if held + size + COPY_BYTES > scan.keys_bytes:
            if entry != scan.entries:
                at = start              # with the next batch
                break
            if keys_room(scan, held, size) < 0:
                return -1
            before = scan.keys
            into = scan.keys + held
        common = shared
        if start == restart:
            if (
                shared or unshared < block.prefix
                or get_fixed32(block.value_at + 4 * <size_t> block.restarts_seen)
                != <uint64_t> (value - block.values)
                or get_fixed64(block.heads + 8 * <size_t> block.restarts_seen)
                != key_head(at, unshared, block.prefix)
            ):
                return scan_damage(scan, b"block restart")
            if block.restarts_seen == 0:
                block.first = slice_of(at, unshared + TRAILER_BYTES)
            block.restarts_seen += 1
            restart = restart_after(block)
            common = common_prefix(before, before_size, at, unshared)
        if common < before_size:
            # Greater in the first byte that isn't shared.
            if common == size - TRAILER_BYTES or at[common - shared] <= before[common]:
                return scan_damage(scan, b"block order")
        elif common == size - TRAILER_BYTES and follows and trailer >= trailer_before:
            return scan_damage(scan, b"block order")
        if shared:
            copy_shared(into, before, shared)
        if unshared + TRAILER_BYTES <= COPY_BYTES and block.values_end - at >= COPY_BYTES:
            memcpy(into + shared, at, COPY_BYTES)
        else:
            memcpy(into + shared, at, unshared + TRAILER_BYTES)
        entry.key = slice_of(into, size)
        entry.value = slice_of(value, value_size)
        entry.shared = common
        entry += 1
        at += unshared + TRAILER_BYTES
        value += value_size
        before = into
        before_size = size - TRAILER_BYTES
        trailer_before = trailer
        into += size
        follows = True
    block.next_key = at
    block.next_value = value
    block.entries_seen += <uint32_t> (entry - scan.entries)
    scan.at = scan.entries
    scan.last = entry - 1
    scan.follows = True
    return end_block(scan) if at == block.keys_end else 0


cdef int end_block(TableScan* scan) noexcept nogil:
    """All entries were seen: do they make up what the block and its index say? -1: see status."""
    cdef ScanBlock* block = &scan.block
    cdef Slice last = internal_user_key(scan.last.key)
    cdef Slice first = internal_user_key(block.first)
    if block.entries_seen != block.entries or block.restarts_seen != block.restarts:
        return scan_damage(scan, b"block entry count")
    if block.next_value != block.values_end:
        return scan_damage(scan, b"block value area")
    if common_prefix(first.data, first.size, last.data, last.size) < block.prefix:
        return scan_damage(scan, b"block prefix")
    if (
        scan.block_slot and index_order(
            &scan.partition.index, scan.block_slot - 1, first, internal_trailer(block.first)
        ) >= 0
    ) or index_order(
        &scan.partition.index, scan.block_slot, last, internal_trailer(scan.last.key)
    ) < 0:
        return scan_damage(scan, b"block is not the one its index names")
    return 0


# --- blocks ---------------------------------------------------------------------------------

cdef int view_block(TableScan* scan, const uint8_t* data, size_t size) noexcept nogil:
    cdef ScanBlock* block = &scan.block
    cdef Block view
    if block_view(&view, data, size) < 0:
        return scan_damage(scan, b"block size")
    block.heads = <const uint8_t*> view.heads
    block.key_at = <const uint8_t*> view.key_at
    block.value_at = <const uint8_t*> view.value_at
    block.keys = block.next_key = view.keys
    block.keys_end = view.keys + view.key_bytes
    block.values = block.next_value = view.values
    block.values_end = view.values + view.value_bytes
    block.entries = view.entries
    block.restarts = view.restarts
    block.prefix = view.prefix
    block.entries_seen = 0
    block.restarts_seen = 0
    if view.key_bytes == 0 or get_fixed32(block.key_at):
        return scan_damage(scan, b"block restart")
    return 0


cdef int read_window(TableScan* scan, Handle handle) noexcept nogil:
    """The window begins with the frame. -1: see status."""
    cdef size_t size = scan.window_bytes
    cdef uint64_t left = scan.table.root_handle.offset - handle.offset
    cdef uint8_t* grown
    if size < handle.bytes:
        size = handle.bytes
    if size > left:
        size = left
    if scan.window == NULL or size > scan.window_bytes:
        grown = <uint8_t*> kv_malloc(max(size, scan.window_bytes))
        if grown == NULL:
            return status_no_memory(&scan.status, b"memory for a block")
        kv_free(scan.window)
        scan.window = grown
        scan.window_bytes = max(size, scan.window_bytes)
    scan.window_size = 0
    if read_exactly(
        scan.table.ops, scan.table.disk, scan.table.file, scan.window, size, handle.offset,
        b"read table", &scan.status,
    ) < 0:
        return -1
    scan.window_at = handle.offset
    scan.window_size = size
    return 0


cdef int load_scanned(TableScan* scan, uint64_t slot) noexcept nogil:
    """The block of the held partition, none of its entries unpacked yet. -1: see status."""
    cdef Handle handle
    cdef const uint8_t* frame
    cdef size_t stored, size
    cdef uint32_t largest = <uint32_t> scan.table.properties.largest_block_bytes
    if data_handle(&scan.partition, slot, &handle) < 0:
        return status_set(&scan.status, INVALID_RECORD, b"index entry in memory", -1)
    scan.block.offset = <int64_t> handle.offset
    if (
        handle.offset < scan.window_at
        or handle.offset + handle.bytes > scan.window_at + scan.window_size
    ) and read_window(scan, handle) < 0:
        return -1
    frame = scan.window + (handle.offset - scan.window_at)
    if handle.bytes < FRAME_HEADER_BYTES:
        return scan_damage(scan, b"frame size")
    if check_frame(
        frame, handle, FRAME_DATA, scan.table.identity.seed, largest, &scan.status
    ) < 0:
        return -1
    block_free(scan.raw)
    scan.raw = NULL
    size = get_fixed32(frame + 8)
    if frame[1] != COMPRESSION_NONE:
        stored = handle.bytes - FRAME_HEADER_BYTES
        scan.raw = uncompressed(frame, stored, size, scan.block.offset, &scan.status)
        if scan.raw == NULL:
            return -1
        frame = scan.raw
    scan.block_slot = slot
    return view_block(scan, frame + FRAME_HEADER_BYTES, size)


cdef void let_partition_go(TableScan* scan) noexcept nogil:
    if scan.partition.held != NULL:
        cache_unpin(scan.partition.held)
        scan.partition.held = NULL


cdef int load_scanned_partition(TableScan* scan, uint64_t slot) noexcept nogil:
    let_partition_go(scan)
    if table_partition(scan.table, slot, False, &scan.partition, &scan.status) < 0:
        scan.partition.held = NULL
        return -1
    scan.partition_slot = slot
    return 0


# --- moves ----------------------------------------------------------------------------------

cdef inline void show_batch(TableScan* scan) noexcept nogil:
    scan.valid = unpack_batch(scan) == 0


cdef void table_scan_on(TableScan* scan) noexcept nogil:
    cdef ScanBlock* block = &scan.block
    if block.next_key != block.keys_end:
        show_batch(scan)
        return
    scan.valid = False
    if scan.block_slot + 1 < scan.partition.index.entries:
        if load_scanned(scan, scan.block_slot + 1) < 0:
            return
    elif scan.partition_slot + 1 < scan.table.root.entries:
        if load_scanned_partition(scan, scan.partition_slot + 1) < 0 or load_scanned(scan, 0) < 0:
            return
    else:
        return
    show_batch(scan)


cdef void begin_scan(TableScan* scan) noexcept nogil:
    status_clear(&scan.status)
    scan.status.table = scan.table.identity.file_number
    scan.valid = False
    scan.follows = False


cdef void table_scan_first(TableScan* scan) noexcept nogil:
    begin_scan(scan)
    if scan.table.root.entries == 0 or load_scanned_partition(scan, 0) < 0 or (
        load_scanned(scan, 0) < 0
    ):
        return
    show_batch(scan)


cdef void table_scan_seek(TableScan* scan, Slice target) noexcept nogil:
    cdef Slice user_key = internal_user_key(target)
    cdef uint64_t trailer = internal_trailer(target)
    cdef int64_t slot
    begin_scan(scan)
    slot = index_lower(&scan.table.root, user_key, trailer)
    if slot < 0:
        status_set(&scan.status, INVALID_RECORD, b"root index in memory", -1)
        return
    if slot == scan.table.root.entries or load_scanned_partition(scan, <uint64_t> slot) < 0:
        return
    slot = index_lower(&scan.partition.index, user_key, trailer)
    if slot < 0 or slot == scan.partition.index.entries:
        status_set(&scan.status, INVALID_RECORD, b"partition in memory", -1)
        return
    if load_scanned(scan, <uint64_t> slot) < 0:
        return
    show_batch(scan)
    while scan.valid and internal_compare(scan.at.key, target) < 0:
        table_scan_next(scan)


# --- life -----------------------------------------------------------------------------------

cdef TableScan* table_scan(Table* table, size_t window_bytes) noexcept nogil:
    cdef TableScan* scan = <TableScan*> kv_zeroed(sizeof(TableScan))
    if scan == NULL:
        return NULL
    scan.entries = <ScanEntry*> kv_malloc(SCAN_BATCH * sizeof(ScanEntry))
    if scan.entries == NULL:
        kv_free(scan)
        return NULL
    table_retain(table)
    scan.table = table
    # No more than the table has before its root.
    scan.window_bytes = min(window_bytes, <size_t> table.root_handle.offset)
    begin_scan(scan)
    return scan


cdef void table_scan_free(TableScan* scan) noexcept nogil:
    if scan == NULL:
        return
    let_partition_go(scan)
    block_free(scan.raw)
    kv_free(scan.window)
    kv_free(scan.keys)
    kv_free(scan.entries)
    table_release(scan.table)
    kv_free(scan)
