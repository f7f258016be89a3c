"""The table cursor: root index -> partition -> data block, one of each held at a time."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from kvstore._engine.primitives.native cimport (
    Cursor,
    INVALID_RECORD,
    OK,
    PyThreadState,
    Slice,
    Status,
    TRAILER_BYTES,
    get_fixed32,
    internal_trailer,
    internal_user_key,
    kv_free,
    kv_malloc,
    kv_zeroed,
    let_go_of_gil,
    prefetch_run,
    status_clear,
    status_no_memory,
    status_set,
    take_gil,
)


cdef enum:
    FIRST_WINDOW_BYTES = 8 << 10    # of what a walk reads ahead; doubles each time
    WINDOW_FRAMES = 4               # with room for fewer, a window is one frame: no other is cut off
    HOLDS_GIL_BYTES = 64 << 10      # of a frame in memory that is checked without letting others in


cdef struct TableCursor:
    Cursor base
    Table* table
    bint fill_cache
    uint64_t partition_slot         # of the held partition, if any
    Partition partition             # .held NULL: none
    uint64_t block_slot             # of the held block in that partition, if any
    CachedBlock* held
    bint was_cached                 # the held block was in the cache already
    CachedBlock* neighbour          # what the walk holds next, if it was in the cache
    uint64_t neighbour_slot
    bint walks                      # through a second block by now: this is no short scan
    BlockCursor walk                # over the held block
    # Bytes [window_at, window_at + window_size) of the file: what was read ahead, or the one block that
    # is held and not kept in the cache. A block that isn't kept is walked where it lies there.
    CachedBlock borrowed
    size_t read_ahead
    uint8_t* window
    size_t window_capacity
    uint64_t window_at
    size_t window_size
    size_t window_next              # bytes of the next window
    uint64_t forward_at             # where the block begins that a walk forwards comes to next
    uint64_t backward_at            # and where the one ends that a walk backwards comes to
    bint backwards                  # what was read last was for such a walk


# --- what is held ---------------------------------------------------------------------------

cdef void drop_block(TableCursor* cursor) noexcept nogil:
    cursor.base.valid = False
    cursor.walk.valid = False
    if cursor.held != NULL:
        if cursor.held != &cursor.borrowed:
            cache_unpin(cursor.held)
        cursor.held = NULL
    if cursor.neighbour != NULL:
        cache_unpin(cursor.neighbour)
        cursor.neighbour = NULL


cdef void drop_partition(TableCursor* cursor) noexcept nogil:
    drop_block(cursor)
    if cursor.partition.held != NULL:
        cache_unpin(cursor.partition.held)
        cursor.partition.held = NULL


cdef int fail(TableCursor* cursor, const char* what) noexcept nogil:
    cursor.base.valid = False
    return status_set(&cursor.base.status, INVALID_RECORD, what, -1)


cdef void fail_walk(TableCursor* cursor) noexcept nogil:
    cursor.base.valid = False
    block_cursor_failure(&cursor.walk, b"block in memory", -1, &cursor.base.status)


cdef int take_partition(TableCursor* cursor, uint64_t slot) noexcept nogil:
    if cursor.partition.held != NULL and cursor.partition_slot == slot:
        return 0
    drop_partition(cursor)
    cursor.partition.held = NULL
    if table_partition(
        cursor.table, slot, cursor.fill_cache, &cursor.partition, &cursor.base.status
    ) < 0:
        cursor.partition.held = NULL
        return -1
    cursor.partition_slot = slot
    return 0


cdef inline void stands_at(TableCursor* cursor, Handle handle) noexcept nogil:
    cursor.forward_at = handle.offset + handle.bytes
    cursor.backward_at = handle.offset


cdef inline bint is_inside(TableCursor* cursor, Handle handle) noexcept nogil:
    return (
        handle.offset >= cursor.window_at
        and handle.offset + handle.bytes <= cursor.window_at + cursor.window_size
    )


cdef size_t worth_reading(
    TableCursor* cursor, Handle handle, uint64_t slot, uint64_t* start
) noexcept nogil:
    """Bytes to read from *start on, at least the frame."""
    cdef uint64_t end = handle.offset + handle.bytes
    cdef uint64_t left = cursor.table.root_handle.offset - handle.offset
    cdef bint back = end == cursor.backward_at
    cdef bint goes_on = back == cursor.backwards and (back or handle.offset == cursor.forward_at)
    cdef size_t size = cursor.window_next
    cdef Handle before
    start[0] = handle.offset
    cursor.backwards = back
    if not goes_on:
        # Elsewhere, or the walk has turned: begin again with a small window.
        cursor.window_next = FIRST_WINDOW_BYTES
        return handle.bytes
    if size > cursor.read_ahead:
        size = cursor.read_ahead
    cursor.window_next = 2 * size
    if back:
        left = end - cursor.partition.start
    if size > left:
        size = left
    if size < WINDOW_FRAMES * <size_t> handle.bytes:
        return handle.bytes
    if not back:
        return size
    # A window that begins within a frame would have it read a second time.
    while slot and data_handle(&cursor.partition, slot - 1, &before) == 0 and (
        end - before.offset <= size
    ):
        start[0] = before.offset
        slot -= 1
    return end - start[0]


cdef int fill_window(
    TableCursor* cursor, Handle handle, uint64_t slot, bint keep, Status* status
) noexcept nogil:
    """The frame, and perhaps more, into the window. 1: done, 0: better by itself, -1: see status."""
    cdef uint64_t start
    cdef size_t size = worth_reading(cursor, handle, slot, &start)
    if handle.bytes > cursor.read_ahead or (keep and size == handle.bytes):
        return 0
    cursor.window_size = 0
    if size > cursor.window_capacity:
        kv_free(cursor.window)
        cursor.window_capacity = 0
        cursor.window = <uint8_t*> kv_malloc(size)
        if cursor.window == NULL:
            return 0
        cursor.window_capacity = size
    cursor.window_at = start
    if size == handle.bytes and copy_mapped(cursor.table, handle, cursor.window):
        cursor.window_size = size
        return 1
    if read_exactly(
        cursor.table.ops, cursor.table.disk, cursor.table.file, cursor.window, size, start,
        b"read table", status,
    ) < 0:
        return -1
    cursor.window_size = size
    return 1


cdef CachedBlock* load_from_window(
    TableCursor* cursor, Handle handle, uint64_t slot, bint keep, Status* status
) noexcept nogil:
    """The block where it lies, or a copy that is kept or was compressed."""
    cdef const uint8_t* stored = cursor.window + (handle.offset - cursor.window_at)
    cdef uint8_t* frame = NULL
    cdef size_t size
    if check_frame(
        stored, handle, FRAME_DATA, cursor.table.identity.seed,
        <uint32_t> cursor.table.properties.largest_block_bytes, status,
    ) < 0:
        return NULL
    size = get_fixed32(stored + 8)
    if stored[1] != COMPRESSION_NONE:
        frame = uncompressed(
            stored, handle.bytes - FRAME_HEADER_BYTES, size, <int64_t> handle.offset, status
        )
        if frame == NULL:
            return NULL
    elif keep:
        frame = block_allocate(handle.bytes)
        if frame == NULL:
            status_no_memory(status, b"memory for a block")
            return NULL
        memcpy(frame, stored, handle.bytes)
    cursor.borrowed.data = stored
    if frame != NULL:
        cursor.borrowed.data = frame
    if check_data_once(
        cursor.table, cursor.partition_slot, cursor.borrowed.data, size, &cursor.partition.index,
        slot, <int64_t> handle.offset, status,
    ) < 0:
        block_free(frame)
        return NULL
    if frame == NULL:
        cursor.borrowed.size = handle.bytes
        return &cursor.borrowed
    return insert_block(cursor, handle, frame, size, keep)


cdef inline CachedBlock* insert_block(
    TableCursor* cursor, Handle handle, uint8_t* frame, size_t size, bint keep
) noexcept nogil:
    return cache_insert(
        cursor.table.cache if keep else NULL, cursor.table.cache_id, handle.offset, frame,
        FRAME_HEADER_BYTES + size,
    )


cdef CachedBlock* load_without_gil(
    TableCursor* cursor, Handle handle, uint64_t slot, bint keep
) noexcept nogil:
    """Reads a block, without the GIL even if the caller holds it: unless it was read ahead."""
    cdef PyThreadState* own
    cdef CachedBlock* block
    if is_inside(cursor, handle) and handle.bytes <= HOLDS_GIL_BYTES:
        return load_block(cursor, handle, slot, keep)
    own = let_go_of_gil()
    block = load_block(cursor, handle, slot, keep)
    take_gil(own)
    return block


cdef CachedBlock* load_block(
    TableCursor* cursor, Handle handle, uint64_t slot, bint keep
) noexcept nogil:
    cdef Status* status = &cursor.base.status
    cdef size_t size
    cdef uint8_t* frame
    cdef int filled = is_inside(cursor, handle)
    if not filled and cursor.read_ahead:
        filled = fill_window(cursor, handle, slot, keep, status)
        if filled < 0:
            return NULL
    stands_at(cursor, handle)
    if filled:
        return load_from_window(cursor, handle, slot, keep, status)
    frame = table_read_frame(cursor.table, handle, FRAME_DATA, &size, status)
    if frame == NULL:
        return NULL
    if check_data_once(
        cursor.table, cursor.partition_slot, frame, size, &cursor.partition.index, slot,
        <int64_t> handle.offset, status,
    ) < 0:
        block_free(frame)
        return NULL
    return insert_block(cursor, handle, frame, size, keep)


cdef int take_block(TableCursor* cursor, uint64_t slot) noexcept nogil:
    """Hold a data block of the held partition, with the walk standing nowhere in it."""
    cdef Handle handle
    cdef Block block
    cdef CachedBlock* found = NULL
    cdef bint keep = False
    if cursor.held == NULL or cursor.block_slot != slot:
        if cursor.neighbour != NULL and cursor.neighbour_slot == slot:
            found = cursor.neighbour
            cursor.neighbour = NULL
        drop_block(cursor)
        cursor.held = found
        if data_handle(&cursor.partition, slot, &handle) < 0:
            return fail(cursor, b"index entry in memory")
        if cursor.held == NULL and cursor.fill_cache:
            cursor.held = cache_ask(
                cursor.table.cache, cursor.table.cache_id, handle.offset, handle.bytes, &keep
            )
        elif cursor.held == NULL:
            cursor.held = cache_get(cursor.table.cache, cursor.table.cache_id, handle.offset)
        cursor.was_cached = cursor.held != NULL
        if cursor.held == NULL:
            cursor.held = load_without_gil(cursor, handle, slot, keep)
        else:
            stands_at(cursor, handle)
        if cursor.held == NULL:
            return -1
        cursor.block_slot = slot
    if block_view(
        &block, cursor.held.data + FRAME_HEADER_BYTES, cursor.held.size - FRAME_HEADER_BYTES
    ) < 0:
        return fail(cursor, b"block in memory")
    block_cursor_reset(&cursor.walk, &block)
    return 0


cdef inline void show(TableCursor* cursor) noexcept nogil:
    if cursor.walk.valid:
        cursor.base.key = cursor.walk.key
        cursor.base.value = cursor.walk.value
        cursor.base.valid = True
    elif cursor.walk.damaged:
        fail_walk(cursor)
    else:
        cursor.base.valid = False


# --- moves ----------------------------------------------------------------------------------

cdef void take_neighbour(TableCursor* cursor, uint64_t slot) noexcept nogil:
    """Walking through cached blocks: find the next one now, so that its memory is on its way."""
    cdef Handle handle
    if not cursor.walks:
        cursor.walks = True         # this is its second block, and may be its last
        return
    if not cursor.was_cached or cursor.neighbour != NULL or data_handle(
        &cursor.partition, slot, &handle
    ) < 0:
        return
    cursor.neighbour = cache_get(cursor.table.cache, cursor.table.cache_id, handle.offset)
    cursor.neighbour_slot = slot
    if cursor.neighbour != NULL:
        prefetch_run(cursor.neighbour.data, cursor.neighbour.size)


cdef void next_block(TableCursor* cursor) noexcept nogil:
    """On to the first entry of the block after the held one."""
    if cursor.block_slot + 1 < cursor.partition.index.entries:
        if take_block(cursor, cursor.block_slot + 1) < 0:
            cursor.base.valid = False
            return
    elif cursor.partition_slot + 1 < cursor.table.root.entries:
        if take_partition(cursor, cursor.partition_slot + 1) < 0:
            return
        # The frame of the one before lies between: the walk steps over it.
        cursor.forward_at = cursor.partition.start
        if take_block(cursor, 0) < 0:
            cursor.base.valid = False
            return
    else:
        cursor.base.valid = False
        return
    take_neighbour(cursor, cursor.block_slot + 1)
    block_cursor_first(&cursor.walk)
    show(cursor)


cdef void prev_block(TableCursor* cursor) noexcept nogil:
    """Back to the last entry of the block before the held one."""
    cdef Handle handle
    cdef uint64_t slot
    if cursor.block_slot > 0:
        if take_block(cursor, cursor.block_slot - 1) < 0:
            cursor.base.valid = False
            return
    elif cursor.partition_slot > 0:
        if take_partition(cursor, cursor.partition_slot - 1) < 0:
            return
        # Its own frame lies between: the walk steps over it.
        slot = cursor.partition.index.entries - 1
        if data_handle(&cursor.partition, slot, &handle) == 0:
            cursor.backward_at = handle.offset + handle.bytes
        if take_block(cursor, slot) < 0:
            cursor.base.valid = False
            return
    else:
        cursor.base.valid = False
        return
    if cursor.block_slot > 0:
        take_neighbour(cursor, cursor.block_slot - 1)
    block_cursor_last(&cursor.walk)
    show(cursor)


cdef void cursor_next(Cursor* self) noexcept nogil:
    cdef TableCursor* cursor = <TableCursor*> self.state
    if not self.valid:
        return
    block_cursor_next(&cursor.walk)
    if cursor.walk.valid:
        self.key = cursor.walk.key
        self.value = cursor.walk.value
    elif cursor.walk.damaged:
        fail_walk(cursor)
    else:
        next_block(cursor)


cdef void cursor_prev(Cursor* self) noexcept nogil:
    cdef TableCursor* cursor = <TableCursor*> self.state
    if not self.valid:
        return
    block_cursor_prev(&cursor.walk)
    if cursor.walk.valid:
        self.key = cursor.walk.key
        self.value = cursor.walk.value
    elif cursor.walk.damaged:
        fail_walk(cursor)
    else:
        prev_block(cursor)


cdef void cursor_seek_to_first(Cursor* self) noexcept nogil:
    cdef TableCursor* cursor = <TableCursor*> self.state
    status_clear(&self.status)
    self.status.table = cursor.table.identity.file_number
    self.valid = False
    if cursor.table.root.entries == 0 or take_partition(cursor, 0) < 0 or take_block(cursor, 0) < 0:
        return
    block_cursor_first(&cursor.walk)
    show(cursor)


cdef void cursor_seek_to_last(Cursor* self) noexcept nogil:
    cdef TableCursor* cursor = <TableCursor*> self.state
    status_clear(&self.status)
    self.status.table = cursor.table.identity.file_number
    self.valid = False
    if cursor.table.root.entries == 0 or (
        take_partition(cursor, cursor.table.root.entries - 1) < 0
    ):
        return
    if take_block(cursor, cursor.partition.index.entries - 1) < 0:
        return
    block_cursor_last(&cursor.walk)
    show(cursor)


cdef void cursor_seek(Cursor* self, Slice target) noexcept nogil:
    cdef TableCursor* cursor = <TableCursor*> self.state
    status_clear(&self.status)
    self.status.table = cursor.table.identity.file_number
    self.valid = False
    if target.size < TRAILER_BYTES:
        fail(cursor, b"seek to a key without a trailer")
        return
    cursor.walks = False
    cdef Slice user_key = internal_user_key(target)
    cdef uint64_t trailer = internal_trailer(target)
    cdef int64_t slot = index_lower(&cursor.table.root, user_key, trailer)
    if slot < 0:
        fail(cursor, b"root index in memory")
        return
    if slot == cursor.table.root.entries or take_partition(cursor, <uint64_t> slot) < 0:
        return
    slot = index_lower(&cursor.partition.index, user_key, trailer)
    if slot < 0 or slot == cursor.partition.index.entries:
        fail(cursor, b"partition in memory")
        return
    if take_block(cursor, <uint64_t> slot) < 0:
        return
    block_cursor_seek(&cursor.walk, user_key, trailer)
    if cursor.walk.valid or cursor.walk.damaged:
        show(cursor)
    else:
        # Beyond the block's last key and still below its separator: the next one begins above.
        next_block(cursor)


cdef void cursor_free(Cursor* self) noexcept nogil:
    cdef TableCursor* cursor = <TableCursor*> self.state
    drop_partition(cursor)
    block_cursor_free(&cursor.walk)
    kv_free(cursor.window)
    table_release(cursor.table)
    kv_free(cursor)


cdef Cursor* table_cursor(Table* table, bint fill_cache, size_t read_ahead) noexcept nogil:
    cdef TableCursor* cursor = <TableCursor*> kv_zeroed(sizeof(TableCursor))
    if cursor == NULL:
        return NULL
    table_retain(table)
    cursor.table = table
    cursor.fill_cache = fill_cache
    cursor.read_ahead = read_ahead
    cursor.window_next = FIRST_WINDOW_BYTES
    block_cursor_init(&cursor.walk)
    cursor.base.state = cursor
    cursor.base.seek_to_first = cursor_seek_to_first
    cursor.base.seek_to_last = cursor_seek_to_last
    cursor.base.seek = cursor_seek
    cursor.base.next = cursor_next
    cursor.base.prev = cursor_prev
    cursor.base.free = cursor_free
    status_clear(&cursor.base.status)
    cursor.base.status.table = table.identity.file_number
    return &cursor.base
